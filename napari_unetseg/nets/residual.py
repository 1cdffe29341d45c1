"""ResidualU-Net and ResDUNet: the residual baselines of the MILDNet paper.

Paper: Gudhe et al. 2021, "Multi-level dilated residual network for biomedical image segmentation", Scientific Reports
11, 14105 (Figure 5); ResDUNet after Amer et al. 2020 *as that paper describes it*: Amer's abstract has
squeeze-and-excitation in every block and dilation in the skips instead. No counts are published; those below are what
the readings give.

* ``residual-unet``: U-Net whose block is ReLU(conv(ReLU(conv x)) + x), a biased 1x1 projection of x where the widths
  differ, no batch normalisation: 8,109,825 parameters at three channels in.
* ``resdunet``: the encoder's block concatenates two things of half the width, a residual unit of two BN-ReLU-conv and a
  plain 3x3 convolution of dilation 2; the decoder's block is the residual unit at full width. The figure's "skip
  connection: none" is also said of U-Net, so it means plain concatenation: 5,582,071 trainable at three channels in.

The authors worked in torch: kernels Xavier-normal as in the U-Net repository that they cite, batch normalisation with
torch's momentum and epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import BLOCKS, NETS, Parts
from napari_unetseg.nets.blocks import Layers
from napari_unetseg.nets.making import Request

__all__ = ["DilatedPair", "PreActivated", "ResidualBlock", "resdunet", "residual_unet"]

_LAYERS = {"init": "glorot-normal", "eps": 1e-5, "momentum": 0.1}
_PAPER = "Gudhe et al. 2021, Scientific Reports 11, 14105"


@BLOCKS.register("residual", sentence="Two convolutions and a shortcut")
class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with ReLU, the input added before the last ReLU."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        self.out = width
        bias = layers.norm_in("none") == "none"
        norms = [layers.norm(width, paper="none") for _ in range(2)]
        self.first = nn.Sequential(layers.conv(cin, width, bias=bias), norms[0])
        self.second = nn.Sequential(layers.conv(width, width, bias=bias), norms[1])
        self.shortcut = layers.conv(cin, width, 1) if cin != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return `out` channels at the size of `x`."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


@BLOCKS.register("residual-preactivated", sentence="Two normalised convolutions and a shortcut")
class PreActivated(nn.Module):
    """Two rounds of normalisation, ReLU, 3x3 convolution; the input is added."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        self.out = width
        self.body = nn.Sequential(
            layers.norm(cin),
            nn.ReLU(),
            layers.conv(cin, width),
            layers.norm(width),
            nn.ReLU(),
            layers.conv(width, width),
        )
        self.shortcut = layers.conv(cin, width, 1) if cin != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return `out` channels at the size of `x`."""
        return self.body(x) + self.shortcut(x)


@BLOCKS.register("residual-dilated", sentence="Residual unit beside a dilated convolution")
class DilatedPair(nn.Module):
    """A residual unit and a convolution of dilation 2, half the width each, concatenated."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        self.out = width
        half = max(1, width // 2)
        self.residual = PreActivated(layers, cin, max(1, width - half))
        self.dilated = layers.conv(cin, half, dilation=2)
        self.out = self.residual.out + half

    def forward(self, x: Tensor) -> Tensor:
        """Return `out` channels at the size of `x`."""
        return torch.cat([self.residual(x), self.dilated(x)], dim=1)


@NETS.register(
    "residual-unet",
    title="ResidualU-Net",
    family="Residual U-Nets",
    paper=_PAPER,
    sentence="U-Net with shortcuts in its blocks: trains a little more readily, hardly larger.",
    layers=_LAYERS,
)
def residual_unet(request: Request) -> Parts:
    """U-Net of residual blocks."""
    return Parts(request.widths(32, 64, 128, 256, 512), block=ResidualBlock)


@NETS.register(
    "resdunet",
    title="ResDUNet",
    family="Residual U-Nets",
    paper=_PAPER,
    sentence="Residual and dilated convolutions side by side: wide context with fewer parameters.",
    layers=_LAYERS,
)
def resdunet(request: Request) -> Parts:
    """Residual units with dilated convolutions down, residual units up."""
    return Parts(request.widths(32, 64, 128, 256, 512), block=DilatedPair, decoder=PreActivated)
