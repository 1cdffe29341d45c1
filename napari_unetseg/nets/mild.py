"""MILDNet, MILDNet with plain skips, and U-Net with MLR skips.

Paper: Gudhe et al. 2021, "Multi-level dilated residual network for biomedical image segmentation", Scientific Reports
11, 14105 (Figures 2 to 4). No counts are published; those below (three channels in) are what the reading gives.

Reading: a block has two levels of BN, ReLU, three parallel 3x3 convolutions of dilation 1, 3 and 5, each level with its
input added, and the block's input (projected once by a 1x1 convolution where widths differ) added over both. How the
branches merge is unstated and decides the size: they are *summed*, the only reading in which each is a full residual
mapping as in equation 2 (25,379,463; 22,242,183 with plain skips); ``parts={"merge": "concat"}`` lets them share the
width (11,252,935; 8,115,655), ``"project"`` concatenates them in full before a 1x1 convolution. An MLR skip has two
levels of BN, ReLU, two 3x3 convolutions, with the same sums; U-Net with MLR skips has 10,897,377. Equation 1 ends in
a ReLU, which contradicts the order of the figures, and is left out. The first block's BN and ReLU act on the image
itself, as drawn; ``parts={"image": "plain"}`` spares the image. Not to be confused with MILD-Net of Graham et al.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from napari_unetseg.nets.assembly import BLOCKS, NETS, SKIPS, Parts, SkipConn
from napari_unetseg.nets.blocks import Layers
from napari_unetseg.nets.making import Request

__all__ = ["DilatedBlock", "MultiLevelSkip", "mildnet", "mildnet_plain_skips", "unet_mlr"]

_LAYERS = {"init": "glorot-normal", "eps": 1e-5, "momentum": 0.1}
_PAPER = "Gudhe et al. 2021, Scientific Reports 11, 14105"
_OPTIONS = {
    "merge": ("sum", "concat", "project"),
    "rates": ((1, 3, 5), (1, 2, 4), (1, 2, 5), (1, 2, 6), (1, 3, 7), (2, 4, 8)),
    "levels": (2, 1, 3, 4, 5),
    "image": ("activated", "plain"),
}


class _Branches(nn.Module):
    """Parallel dilated convolutions, merged to `width` channels."""

    def __init__(self, layers: Layers, cin: int, width: int, rates: Sequence[int], merge: str) -> None:
        super().__init__()
        widths = [width] * len(rates)
        if merge == "concat":
            share = max(1, width // len(rates))
            widths = [*[share] * (len(rates) - 1), max(1, width - share * (len(rates) - 1))]
        self.convs = nn.ModuleList(layers.conv(cin, w, dilation=r) for w, r in zip(widths, rates, strict=True))
        self.merge = merge
        # Only a width smaller than the branches needs the 1x1 after "concat": never at the paper's widths.
        project = merge == "project" or (merge == "concat" and sum(widths) != width)
        self.project = layers.conv(sum(widths), width, 1) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branches = [conv(x) for conv in self.convs]
        if self.merge != "sum":
            return self.project(torch.cat(branches, dim=1))
        total = branches[0]
        for branch in branches[1:]:
            total = total + branch
        return total


class _Levels(nn.Module):
    """Residual mappings in a row, with one more shortcut over all of them."""

    def __init__(self, mappings: Sequence[nn.Module], shortcut: nn.Module) -> None:
        super().__init__()
        self.mappings = nn.ModuleList(mappings)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels of the mappings at the size of `x`."""
        outer = inner = self.shortcut(x)
        for level, mapping in enumerate(self.mappings):
            inner = inner + mapping(inner if level else x)
        return outer + inner


def _activated(layers: Layers, channels: int, *body: nn.Module) -> nn.Sequential:
    return nn.Sequential(layers.norm(channels), nn.ReLU(), *body)


@BLOCKS.register("mldr", sentence="Dilated convolutions side by side, residual on two levels")
class DilatedBlock(_Levels):
    """Multi-level dilated residual block.

    Parameters
    ----------
    rates : sequence of int
        Dilations of the parallel convolutions.
    merge : str
        ``sum``, ``concat`` or ``project``.
    levels : int
        Residual mappings in a row.
    image : str
        ``plain`` leaves out the first normalisation and ReLU (for the block that sees the image).
    """

    def __init__(
        self,
        layers: Layers,
        cin: int,
        width: int,
        *,
        rates: Sequence[int] = (1, 3, 5),
        merge: str = "sum",
        levels: int = 2,
        image: str = "activated",
    ) -> None:
        self.out = width
        inputs = [cin, *[width] * (levels - 1)]
        mappings: list[nn.Module] = []
        for level, channels in enumerate(inputs):
            branches = _Branches(layers, channels, width, rates, merge)
            mappings.append(branches if image == "plain" and not level else _activated(layers, channels, branches))
        super().__init__(mappings, layers.conv(cin, width, 1) if cin != width else nn.Identity())


@SKIPS.register("mlr", sentence="Multi-level residual blocks, then concatenated")
class MultiLevelSkip(SkipConn):
    """Skips that pass a multi-level residual block of plain convolutions, channels kept."""

    def __init__(self, layers: Layers, channels: Sequence[int], parts: Parts, *, levels: int = 2) -> None:
        super().__init__(layers, channels, parts)
        self.paths = nn.ModuleList(
            _Levels([_activated(layers, c, layers.conv(c, c), layers.conv(c, c)) for _ in range(levels)], nn.Identity())
            for c in channels[:-1]
        )

    def prepare(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Send every level but the bottom through its block."""
        return [*(path(x) for path, x in zip(self.paths, pyramid, strict=False)), pyramid[-1]]


def _mild(request: Request, skip: type[SkipConn]) -> Parts:
    options = dict(request.options)
    image = options.pop("image")
    block = partial(DilatedBlock, **options)
    return Parts(request.widths(32, 64, 128, 256, 512), block=block, stem=partial(block, image=image), skip=skip)


@NETS.register(
    "mildnet",
    title="MILDNet",
    family="MILDNet",
    paper=_PAPER,
    sentence="Dilated convolutions at three rates: for objects of irregular shape and scale; large and slow.",
    layers=_LAYERS,
    options=_OPTIONS,
)
def mildnet(request: Request) -> Parts:
    """Dilated residual blocks and MLR skips."""
    return _mild(request, MultiLevelSkip)


@NETS.register(
    "mildnet-plain-skips",
    title="MILDNet with plain skips",
    family="MILDNet",
    paper=_PAPER,
    sentence="MILDNet without the blocks in its skips: somewhat lighter.",
    layers=_LAYERS,
    options=_OPTIONS,
)
def mildnet_plain_skips(request: Request) -> Parts:
    """Dilated residual blocks, plain skips."""
    return _mild(request, SkipConn)


@NETS.register(
    "unet-mlr",
    title="U-Net with MLR skips",
    family="MILDNet",
    paper=_PAPER,
    sentence="U-Net whose skips are residual blocks: smoother boundaries at a moderate price.",
    layers=_LAYERS,
)
def unet_mlr(request: Request) -> Parts:
    """U-Net with MLR skips."""
    return Parts(request.widths(32, 64, 128, 256, 512), skip=MultiLevelSkip)
