"""NAS U-Net and NAS reduction U-Net: U-Nets of NASNet-A's cells.

Paper: Laird 2019, "U-Net based architectures for medical image segmentation" (Figure 4), about 8.5 million parameters
at four channels in; cells of NASNet-A (Zoph et al. 2018, arXiv:1707.07012). Neither filters nor depth nor code are
given.

* ``nas-unet``: filters 16 to 256, the only round set that lands near 8.5 million (8,534,593). What "previous" means
  in a U-Net is not said: both states of a cell are projected from its input (the other plausible reading, the input
  of the encoder cell before, gives 8,402,625).
* ``nas-reduction-unet``: the paper's Figure 4 and its text disagree on who takes the place of DownOp. Here the
  reduction cells *are* the DownOps of the encoder, after a 3x3 stem, and normal cells the blocks of bottom and
  decoder; "conv skip 2x2" brings the level before a cell's input to its size, as its previous state. Filters 21 and 9
  were chosen to come near (8,526,427), so that count is no evidence for the reading.

NASNet's normalisation had a momentum of 0.9997, which no training of minutes survives; Keras' 0.99 is used. An odd
number of levels or widths scales both sets alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_unetseg.nets.assembly import BLOCKS, DOWNS, NETS, Parts
from napari_unetseg.nets.blocks import Layers
from napari_unetseg.nets.making import Request

__all__ = ["NasCell", "ReductionCell", "nas_reduction_unet", "nas_unet"]


def _separable(layers: Layers, width: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Two rounds of ReLU, depthwise and pointwise convolution, normalisation; the first may stride."""
    steps: list[nn.Module] = []
    for step in (stride, 1):
        steps += [
            nn.ReLU(),
            layers.conv(width, width, kernel, stride=step, padding=kernel // 2, groups=width, bias=False),
            layers.conv_norm(width, width, 1),
        ]
    return nn.Sequential(*steps)


def _state(layers: Layers, cin: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), layers.conv_norm(cin, width, 1))


@BLOCKS.register("nasnet", sentence="Normal cell of NASNet-A")
class NasCell(nn.Module):
    """Normal cell of NASNet-A; gives six times `width` channels.

    Parameters
    ----------
    before : int or None
        Channels of the previous state; None where the input is its own.
    """

    def __init__(self, layers: Layers, cin: int, width: int, *, before: int | None = None) -> None:
        super().__init__()
        self.out = 6 * width
        self.current, self.previous = _state(layers, cin, width), _state(layers, before or cin, width)
        self.a5, self.a3 = _separable(layers, width, 5), _separable(layers, width, 3)
        self.b5, self.b3 = _separable(layers, width, 5), _separable(layers, width, 3)
        self.c3 = _separable(layers, width, 3)
        self.mean = layers.average_pool(3, padding=1)

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """Return six times `width` channels at the size of `x`, and of its previous state `before`."""
        h, p = self.current(x), self.previous(x if before is None else before)
        mean = self.mean(p)
        states = [
            self.a5(h) + self.a3(p),
            self.b5(p) + self.b3(p),
            self.mean(h) + p,
            mean + mean,
            self.c3(h) + h,
        ]
        return torch.cat([p, *states], dim=1)


def _bring(layers: Layers, channels: int) -> nn.Module:
    """The paper's "conv skip 2x2": brings a level to half its size, as the previous state of the next cell."""
    return layers.conv(channels, channels, 2, stride=2, padding=0)


@DOWNS.register("reduction", sentence="Reduction cell of NASNet-A")
class ReductionCell(nn.Module):
    """Reduction cell of NASNet-A as a DownOp; gives four times `width` channels at half the size.

    Parameters
    ----------
    before : int or None
        Channels of the level before the input, at twice its size; None at the top, where the input is its own previous.
    """

    def __init__(self, layers: Layers, cin: int, width: int, before: int | None = None) -> None:
        super().__init__()
        self.out = 4 * width
        self.bring = _bring(layers, before) if before else None
        self.current, self.previous = _state(layers, cin, width), _state(layers, before or cin, width)
        self.a5, self.a7 = _separable(layers, width, 5, 2), _separable(layers, width, 7, 2)
        self.b7, self.c5 = _separable(layers, width, 7, 2), _separable(layers, width, 5, 2)
        self.d3 = _separable(layers, width, 3)
        self.largest = layers.max_pool(3, 2, 1)
        self.halved_mean = layers.average_pool(3, 2, 1)
        self.mean = layers.average_pool(3, padding=1)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """Halve `x`; `finer` is the level before it."""
        h, p = self.current(x), self.previous(self.bring(finer) if self.bring is not None else x)
        largest = self.largest(h)
        x1 = self.a5(h) + self.a7(p)
        x2 = largest + self.b7(p)
        x3 = self.halved_mean(h) + self.c5(p)
        return torch.cat([x2, x3, self.mean(x1) + x2, self.d3(x1) + largest], dim=1)


class _Bottom(nn.Module):
    """The last DownOp: a reduction cell, and the normal cell that is the bottom, whose previous state is the level
    above.
    """

    def __init__(self, layers: Layers, cin: int, width: int, before: int | None, *, normal: int) -> None:
        super().__init__()
        self.reduction = ReductionCell(layers, cin, width, before)
        self.bring = _bring(layers, cin)
        self.normal = NasCell(layers, self.reduction.out, normal, before=cin)
        self.out = self.normal.out

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        return self.normal(self.reduction(x, finer), self.bring(x))


class _Pass(nn.Identity):
    """No block at all: the reduction cell before it was the block."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        self.out = cin


class _Stem(nn.Sequential):
    """3x3 convolution and normalisation, to four times `width` channels as the cells give."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__(*layers.conv_norm(cin, 4 * width))
        self.out = 4 * width


_PAPER = "Laird 2019, U-Net based architectures for medical image segmentation"


@NETS.register(
    "nas-unet",
    title="NAS U-Net",
    family="NAS U-Nets",
    paper=_PAPER,
    sentence="Blocks that a search found (NASNet-A): accurate for its size, three times as slow as U-Net.",
)
def nas_unet(request: Request) -> Parts:
    """U-Net of NASNet-A's normal cells."""
    widths = request.widths(16, 32, 64, 128, 256)
    return Parts(widths, block=NasCell, up_widths=tuple(6 * width for width in widths))


@NETS.register(
    "nas-reduction-unet",
    title="NAS Reduction U-Net",
    family="NAS U-Nets",
    paper=_PAPER,
    sentence="NAS U-Net that also goes down by a searched cell; a little weaker in its paper.",
)
def nas_reduction_unet(request: Request) -> Parts:
    """Reduction cells down, normal cells at the bottom and up."""
    widths = request.widths(21, 42, 84, 168, 336)
    normal = request.widths(9, 18, 36, 72, 144)

    def down(layers: Layers, cin: int, width: int, before: int | None) -> nn.Module:
        if width == widths[-1]:
            return _Bottom(layers, cin, width, before, normal=normal[-1])
        return ReductionCell(layers, cin, width, before)

    return Parts(
        widths,
        block=_Pass,
        down=down,
        stem=_Stem,
        decoder=NasCell,
        decoder_widths=normal,
        up_widths=tuple(4 * width for width in widths),
    )
