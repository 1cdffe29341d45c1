"""Attention U-Net and Efficient U-Net: U-Net with one module exchanged.

Paper: Laird 2019, "U-Net based architectures for medical image segmentation" (Figure 4), which gives each net about
8.5 million parameters at four channels in, but neither widths nor depth nor code. The widths here were *chosen* to come
near that, so the counts are no evidence for the reading: 8,500,644 (attention) and 8,507,322 (Efficient), trainable.
"Add a batch normalization layer" is read as convolution, normalisation, ReLU; 144 pixels allow five levels.

* Attention: the additive gate of Oktay et al. 2018 (arXiv:1804.03999) with half the channels inside, on every level but
  the finest, steered by the coarser decoder tensor; the extra layers of their 3D code around it are left out.
* Efficient: one MBConv a level (Tan & Le 2019, arXiv:1905.11946): expansion 6, squeeze-and-excitation of a quarter of
  the block's input channels, residual where the channels stay. Not EfficientNet's topology: the paper has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import BLOCKS, NETS, SKIPS, Parts, SkipConn
from napari_unetseg.nets.blocks import DoubleConv, Layers, resize
from napari_unetseg.nets.making import Request

__all__ = ["AttentionSkip", "MBConv", "attention_unet", "efficient_unet"]


class _Gate(nn.Module):
    """Additive attention: how much of each voxel of the skip passes, as the coarser tensor says."""

    def __init__(self, layers: Layers, skip: int, below: int) -> None:
        super().__init__()
        inner = max(1, skip // 2)
        self.theta = layers.conv(skip, inner, 2, stride=2, padding=0, bias=False)
        self.phi = layers.conv(below, inner, 1)
        self.psi = layers.conv(inner, 1, 1)
        self.out = nn.Sequential(layers.conv(skip, skip, 1), layers.norm(skip))

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        theta = self.theta(skip)
        weight = torch.sigmoid(self.psi(functional.relu(theta + resize(self.phi(below), theta.shape[2:]))))
        return self.out(skip * resize(weight, skip.shape[2:]))


@SKIPS.register("attention", sentence="Attention gates, then concatenated")
class AttentionSkip(SkipConn):
    """Gated skips, concatenated; the finest level is not gated."""

    def __init__(self, layers: Layers, channels: Sequence[int], parts: Parts) -> None:
        super().__init__(layers, channels, parts)
        self.gates = nn.ModuleDict()

    def connect(self, layers: Layers, level: int, up: int, below: int) -> int:
        """Make the gate of `level`."""
        if level:
            self.gates[str(level)] = _Gate(layers, self.channels[level], below)
        return super().connect(layers, level, up, below)

    def merge(self, level: int, skip: Tensor, up: Tensor, below: Tensor) -> Tensor:
        """Gate, then concatenate."""
        return super().merge(level, self.gates[str(level)](skip, below) if level else skip, up, below)


@BLOCKS.register("mbconv", sentence="Inverted bottleneck of EfficientNet")
class MBConv(nn.Module):
    """Mobile inverted bottleneck with squeeze-and-excitation, residual where the channels allow."""

    def __init__(self, layers: Layers, cin: int, width: int, *, expansion: int = 6) -> None:
        super().__init__()
        self.out = width
        self.residual = cin == width
        inner, squeezed = cin * expansion, max(1, cin // 4)
        self.expand = nn.Sequential(layers.conv_norm(cin, inner, 1), nn.SiLU(inplace=True))
        depthwise = layers.conv(inner, inner, groups=inner, bias=False)
        self.depthwise = nn.Sequential(depthwise, layers.norm(inner), nn.SiLU(inplace=True))
        self.excite = nn.Sequential(
            layers.conv(inner, squeezed, 1), nn.SiLU(inplace=True), layers.conv(squeezed, inner, 1), nn.Sigmoid()
        )
        self.project = layers.conv_norm(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `width` channels at the size of `x`."""
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.excite(y.mean(dim=tuple(range(2, y.ndim)), keepdim=True)))
        return x + y if self.residual else y


_PAPER = "Laird 2019, U-Net based architectures for medical image segmentation"


@NETS.register(
    "attention-unet",
    title="Attention U-Net",
    family="Modular U-Nets",
    paper="Oktay et al. 2018, arXiv:1804.03999",
    sentence="U-Net that learns where to look: good for small organs in large images, a little slower.",
)
def attention_unet(request: Request) -> Parts:
    """U-Net with attention gates."""
    block = partial(DoubleConv, norm="batch", bias=True)
    return Parts(request.widths(33, 66, 131, 262, 524), block=block, skip=AttentionSkip)


@NETS.register(
    "efficient-unet",
    title="Efficient U-Net",
    family="Modular U-Nets",
    paper=_PAPER,
    sentence="Blocks of EfficientNet: few operations, but hungry for memory and the weakest in its paper.",
)
def efficient_unet(request: Request) -> Parts:
    """U-Net of MBConv blocks."""
    return Parts(request.widths(36, 72, 143, 286, 572), block=MBConv)
