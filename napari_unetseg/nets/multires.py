"""MultiResUNet, in 2D and 3D.

Paper: Ibtehaz & Rahman 2019, "MultiResUNet: rethinking the U-Net architecture for multimodal biomedical image
segmentation", Neural Networks 121 (2020) 74-87, arXiv:1902.04049.

Reading: the one that meets both published totals, 7,262,750 (2D, three channels in) and 18,657,689 (3D, four channels
in), running statistics counted. Paper and code differ in places:

* a level of U features has W = 1.67 U; its three convolutions have int(0.167 W), int(0.333 W) and int(0.5 W) features
  as in the paper's Table 1 (the text's W/6, W/3, W/2 gives 285 in place of 284 at U = 512, and misses the total);
* no convolution has a bias, only the two normalisations that close a block or a Res path unit have a scale, and the
  output convolution is normalised too (the text says that it is not; the totals need it);
* blocks have a normalisation after the three convolutions and another after the sum, Res path units one after the sum;
* pooling reads the block, not the Res path; Res paths are 4, 3, 2, 1 units long from the finest level down.

Keras' defaults: Glorot-uniform kernels, batch normalisation with momentum 0.99 and epsilon 0.001. With another
normalisation than batch the output is a plain convolution with bias: normalising logits image by image would force
every image to hold as much of a class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import BLOCKS, NETS, SKIPS, Parts, SkipConn, head
from napari_unetseg.nets.blocks import Layers
from napari_unetseg.nets.making import Request

__all__ = ["MultiResBlock", "ResPaths", "multiresunet"]

ALPHA = 1.67


@BLOCKS.register("multires", sentence="Three convolutions, each seen by the output, and a shortcut")
class MultiResBlock(nn.Module):
    """Three 3x3 convolutions in a row whose outputs are concatenated, beside a 1x1 shortcut (Fig. 3 of the paper)."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        features = [max(1, int(share * ALPHA * width)) for share in (0.167, 0.333, 0.5)]
        self.out = sum(features)
        self.shortcut = layers.conv_norm(cin, self.out, 1, scale=False)
        self.convs = nn.ModuleList(
            layers.conv_norm(a, b, scale=False) for a, b in zip([cin, *features], features, strict=False)
        )
        self.joined = layers.norm(self.out)
        self.closing = layers.norm(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Return `out` channels at the size of `x`."""
        steps, step = [], x
        for conv in self.convs:
            step = functional.relu(conv(step))
            steps.append(step)
        return self.closing(functional.relu(self.shortcut(x) + self.joined(torch.cat(steps, dim=1))))


class _ResUnit(nn.Module):
    """One unit of a Res path: 3x3 convolution beside a 1x1 shortcut."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        self.shortcut = layers.conv_norm(cin, width, 1, scale=False)
        self.conv = layers.conv_norm(cin, width, scale=False)
        self.closing = layers.norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.closing(functional.relu(self.shortcut(x) + functional.relu(self.conv(x))))


@SKIPS.register("respath", sentence="Res paths, longer at the finer levels, then concatenated")
class ResPaths(SkipConn):
    """Skips that pass residual units before they are concatenated (Fig. 4 of the paper).

    Parameters
    ----------
    lengths : sequence of int or None
        Units per level, finest first; by default as many as there are levels below.
    """

    def __init__(
        self, layers: Layers, channels: Sequence[int], parts: Parts, *, lengths: Sequence[int] | None = None
    ) -> None:
        super().__init__(layers, channels, parts)
        lengths = lengths or range(len(channels) - 1, 0, -1)
        self.paths = nn.ModuleList()
        for level, length in enumerate(lengths):
            width = parts.widths[level]
            units = [_ResUnit(layers, width if unit else channels[level], width) for unit in range(length)]
            self.paths.append(nn.Sequential(*units))
            self.channels[level] = width

    def prepare(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Send every level but the bottom down its path."""
        return [*(path(x) for path, x in zip(self.paths, pyramid, strict=False)), pyramid[-1]]


def _normalised_head(layers: Layers, cin: int, outputs: int) -> nn.Module:
    batch = layers.norm_in("batch") == "batch"
    return layers.conv_norm(cin, outputs, 1, scale=False) if batch else head(layers, cin, outputs)


@NETS.register(
    "multiresunet",
    title="MultiResUNet",
    family="MultiResUNet",
    paper="Ibtehaz & Rahman 2019, arXiv:1902.04049",
    sentence="Sees several scales at once: good where objects differ in size or have vague boundaries.",
)
def multiresunet(request: Request) -> Parts:
    """MultiRes blocks and Res paths."""
    return Parts(request.widths(32, 64, 128, 256, 512), block=MultiResBlock, skip=ResPaths, head=_normalised_head)
