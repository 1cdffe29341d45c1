"""Four parts make a U-Net: ConvBlock, DownOp, UpOp, SkipConn (Laird 2019, "U-Net based architectures", section 4).

Every U-shaped net is a choice of parts (`Parts`) and none writes its own ``forward``: `UShape` has the only one. The
parts that families bring are registered by name here, so that a user can compose them freely.

=========  ================================================  ====================================================
part       made by                                           forward
=========  ================================================  ====================================================
ConvBlock  ``block(layers, cin, width)``                     ``(x)``
DownOp     ``down(layers, cin, width, before)``              ``(x, finer)``: finer is the level before x
UpOp       ``up(layers, cin, width)``                        ``(x, size)``: the skip gives the size
SkipConn   ``skip(layers, channels, parts)``                 ``prepare(pyramid)`` once, ``merge`` per level
=========  ================================================  ====================================================

Every part has ``out``, the channels it gives; ``width`` is the level's nominal number of features, ``before`` the
channels of ``finer`` (None at the top, where ``finer`` is x itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.blocks import DoubleConv, Layers, MaxPool, Resize, StridedDown, TransposeUp, resize
from napari_unetseg.registry import Registry

__all__ = [
    "BLOCKS", "DOWNS", "NETS", "SKIPS", "UPS", "Encoder", "Padded", "Parts", "SkipConn", "UShape", "head",
]  # fmt: skip

Factory = Callable[..., Any]

NETS: Registry[Factory] = Registry("net")
BLOCKS: Registry[Factory] = Registry("block")
DOWNS: Registry[Factory] = Registry("down-sampling")
UPS: Registry[Factory] = Registry("up-sampling")
SKIPS: Registry[Factory] = Registry("skip connection")

BLOCKS.register("double", sentence="Two convolutions")(DoubleConv)
BLOCKS.register("double-norm", sentence="Two convolutions, each normalised")(partial(DoubleConv, norm="batch"))
DOWNS.register("maxpool", sentence="Maximum of 2x2")(MaxPool)
DOWNS.register("strided", sentence="Convolution of stride 2")(StridedDown)
UPS.register("transpose", sentence="Transposed convolution")(TransposeUp)
UPS.register("nearest", sentence="Repeat")(Resize)
UPS.register("linear", sentence="Linear interpolation")(partial(Resize, mode="linear"))


def head(layers: Layers, cin: int, outputs: int, *, kernel: int = 1) -> nn.Module:
    """Convolution with bias from features to logits."""
    return layers.conv(cin, outputs, kernel)


@SKIPS.register("concat", sentence="Concatenation")
class SkipConn(nn.Module):
    """Hand the encoder's levels to the decoder: by concatenation, in the base class.

    Parameters
    ----------
    layers : Layers
        What parts are made of.
    channels : sequence of int
        Channels of the pyramid, finest level first, the bottom last.
    parts : Parts
        The net's parts, for skips that are made of blocks themselves.
    """

    averages = False  # whether the logits of deep supervision are averaged in evaluation

    def __init__(self, layers: Layers, channels: Sequence[int], parts: Parts) -> None:
        super().__init__()
        self.channels = list(channels)

    def connect(self, layers: Layers, level: int, up: int, below: int) -> int:
        """Make what merging at `level` needs and return the channels it gives.

        Called once per level, coarsest first. `up` and `below` are the channels of the upsampled tensor and of the
        tensor that it was upsampled from.
        """
        return self.channels[level] + up

    def prepare(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Turn the encoder's pyramid into the skips, finest first, the bottom last; once per forward."""
        return pyramid

    def merge(self, level: int, skip: Tensor, up: Tensor, below: Tensor) -> Tensor:
        """Join a level's skip with the tensor from below."""
        return torch.cat([up, skip], dim=1)

    def side_channels(self, decoder: Sequence[int]) -> list[int]:
        """Channels of the tensors that `sides` gives, from those of the decoder's levels, coarsest first."""
        return list(decoder[:-1])

    def sides(self, states: Sequence[Tensor], skips: Sequence[Tensor]) -> list[Tensor]:
        """Tensors that deep supervision looks at besides the last: the decoder's coarser levels."""
        return list(states[:-1])


@dataclass(frozen=True)
class Parts:
    """A U-Net as a choice of parts.

    Attributes
    ----------
    widths : tuple of int
        Nominal features of the levels, finest first; the last is the bottom.
    block, down, up, skip : callables
        Factories, see the table above.
    head : callable
        ``head(layers, cin, outputs)``.
    stem, bottom, decoder : callable or None
        Blocks of the finest encoder level, of the bottom and of the decoder, where they are not `block`.
    decoder_widths, up_widths : tuple of int or None
        Features of the decoder's blocks and of its UpOps, finest first, where they are not `widths`.
    encoder : callable or None
        ``encoder(layers, in_channels)`` in place of blocks and DownOps: a module with ``channels`` that gives the
        pyramid.
    """

    widths: tuple[int, ...]
    block: Factory = DoubleConv
    down: Factory = MaxPool
    up: Factory = TransposeUp
    skip: Factory = SkipConn
    head: Factory = head
    stem: Factory | None = None
    bottom: Factory | None = None
    decoder: Factory | None = None
    decoder_widths: tuple[int, ...] | None = None
    up_widths: tuple[int, ...] | None = None
    encoder: Factory | None = None


class Encoder(nn.Module):
    """Blocks and DownOps in turn; gives the pyramid, finest level first."""

    def __init__(self, parts: Parts, layers: Layers, in_channels: int) -> None:
        super().__init__()
        self.blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        self.channels: list[int] = []
        last = len(parts.widths) - 1
        for level, width in enumerate(parts.widths):
            cin = in_channels
            if level:
                before = self.channels[-2] if level > 1 else None
                self.downs.append(parts.down(layers, self.channels[-1], width, before))
                cin = self.downs[-1].out
            block = {0: parts.stem, last: parts.bottom}.get(level) or parts.block
            self.blocks.append(block(layers, cin, width))
            self.channels.append(self.blocks[-1].out)

    def forward(self, x: Tensor, dropout: nn.Module) -> list[Tensor]:
        """Return the pyramid of an image (B, C, ...)."""
        pyramid: list[Tensor] = []
        for level, block in enumerate(self.blocks):
            if level:
                x = self.downs[level - 1](pyramid[-1], pyramid[-2] if level > 1 else pyramid[-1])
            pyramid.append(dropout(block(x)))
        return pyramid


class UShape(nn.Module):
    """The one U: encoder, skips, decoder, head.

    Parameters
    ----------
    parts : Parts
        What it is made of.
    layers : Layers
        dims, normalisation, initialisation.
    in_channels, outputs : int
        Channels of the image, and of the logits.
    dropout : float
        Share of features dropped after every block while training.
    deep_supervision : bool
        Whether it returns, in training, a list of logits at full size: those of the last block and of earlier ones.
    """

    def __init__(
        self,
        parts: Parts,
        layers: Layers,
        in_channels: int,
        outputs: int,
        *,
        dropout: float = 0.0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.encoder = (parts.encoder or partial(Encoder, parts))(layers, in_channels)
        channels = self.encoder.channels
        self.divisor = 2 ** (len(channels) - 1)
        self.skip = parts.skip(layers, channels, parts)
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        widths = parts.decoder_widths or parts.widths
        decoder: list[int] = []
        below = channels[-1]
        for level in reversed(range(len(channels) - 1)):
            up = parts.up(layers, below, (parts.up_widths or widths)[level])
            merged = self.skip.connect(layers, level, up.out, below)
            block = (parts.decoder or parts.block)(layers, merged, widths[level])
            self.ups.append(up)
            self.blocks.append(block)
            below = block.out
            decoder.append(below)
        self.head = parts.head(layers, below, outputs)
        sides = self.skip.side_channels(decoder) if deep_supervision else []
        self.side_heads = nn.ModuleList(parts.head(layers, c, outputs) for c in sides)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits (B, outputs, ...) of an image (B, C, ...) whose sizes `divisor` divides."""
        skips = self.skip.prepare(self.encoder(x, self.dropout))
        states = [skips[-1]]
        for step, (up, block) in enumerate(zip(self.ups, self.blocks, strict=True)):
            level = len(skips) - 2 - step
            below = states[-1]
            raised = up(below, skips[level].shape[2:])
            states.append(self.dropout(block(self.skip.merge(level, skips[level], raised, below))))
        logits = self.head(states[-1])
        if not self.side_heads or not (self.training or self.skip.averages):
            return logits
        sides = self.skip.sides(states[1:], skips)
        every = [logits, *(resize(h(s), x.shape[2:]) for h, s in zip(self.side_heads, sides, strict=True))]
        return every if self.training else torch.stack(every).mean(dim=0)


class Padded(nn.Module):
    """Any size in, the same size out: pads the image to the divisor and crops the logits; nothing is ever resized.

    Both sides of an axis are padded alike, by reflection, or by repeating the edge where the image is too small to
    reflect.

    Parameters
    ----------
    net : nn.Module
        A net for sizes that `divisor` divides.
    divisor : int
        What the sizes must be multiples of.
    """

    def __init__(self, net: nn.Module, divisor: int) -> None:
        super().__init__()
        self.net = net
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits (B, outputs, *size) of an image (B, C, *size); a list of them in deeply supervised training."""
        size = x.shape[2:]
        before = [(-n % self.divisor) // 2 for n in size]
        logits = self.net(_pad(x, before, [-n % self.divisor - b for n, b in zip(size, before, strict=True)]))
        window = (slice(None), slice(None), *(slice(b, b + n) for b, n in zip(before, size, strict=True)))
        return [each[window] for each in logits] if isinstance(logits, list) else logits[window]


def _pad(x: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    reflect, replicate = [], []
    for axis in reversed(range(len(before))):
        pair = [before[axis], after[axis]]
        fits = max(pair) < x.shape[2 + axis]
        reflect += pair if fits else [0, 0]
        replicate += [0, 0] if fits else pair
    for margins, mode in ((reflect, "reflect"), (replicate, "replicate")):
        if any(margins):
            x = functional.pad(x, margins, mode=mode)
    return x
