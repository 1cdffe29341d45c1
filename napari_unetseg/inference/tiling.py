"""Where tiles lie and how they are weighted: evenly spaced, reaching a little beyond the image, blended without seams.

The weights of a tile are a product of one weight an axis, each divided beforehand by the sum over all tiles there. So
results are added up and nothing is divided afterwards; and tiles can be added in any order, or in rows that are
finished one after the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = [
    "Axis",
    "Grid",
    "Wish",
    "evened",
    "grid_for",
    "mirrored",
    "one_value",
    "tile_slices",
    "tile_weights",
    "windowed",
]


def tile_slices(shape: Sequence[int], tile: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Evenly spaced tiles that cover `shape`, neighbours overlapping by at least `overlap` of a tile.

    Parameters
    ----------
    shape, tile : sequence of int
        Size of the image and of a tile, in voxels; a tile is cut to the image where that is smaller.
    overlap : float
        In [0, 1).

    Examples
    --------
    >>> [s[0] for s in tile_slices((10,), (6,), 0.25)]
    [slice(0, 6, None), slice(4, 10, None)]
    """
    axes = [Axis.of(size, side, overlap) for size, side in zip(shape, tile, strict=True)]
    return list(itertools.product(*([slice(a, a + axis.side) for a in axis.starts] for axis in axes)))


def evened(whole: int, wanted: int, limits: tuple[int, int], overlap: float) -> int:
    """Side of tiles that divide an axis of `whole` voxels with no more overlap than asked for, near the `wanted` one.

    Parameters
    ----------
    limits : (int, int)
        Smallest and largest side; where neither number of tiles gives one between, `wanted` it is.

    Examples
    --------
    >>> evened(544, 288, (128, 544), 0.25)  # three tiles of 288 would overlap by more than half
    320
    """
    count = (whole / wanted - overlap) / (1 - overlap)
    for n in (max(1, math.floor(count)), max(1, math.ceil(count))):  # fewer and larger ones cost less
        side = 16 * math.ceil(whole / (n - (n - 1) * overlap) / 16)
        if limits[0] <= side <= min(limits[1], 1.5 * wanted):
            return side
    return wanted


def one_value(tile: np.ndarray) -> np.ndarray | None:
    """The first voxel ``(C, 1, ...)`` of a tile ``(C, ...)`` that is the same everywhere; None of any other."""
    flat = tile.reshape(len(tile), -1)
    first = flat[:, :1]
    if (flat[:, :64] != first).any() or (flat != first).any():
        return None
    return first.reshape(len(tile), *(1,) * (tile.ndim - 1))


def tile_weights(tile: Sequence[int]) -> np.ndarray:
    """Gaussian weights of a tile, float32, 1 in the middle and small but positive at the rim (sigma an eighth)."""
    weights = np.ones(())
    for side in tile:
        weights = weights[..., None] * _bell(side)
    return weights.astype(np.float32)


def _bell(side: int) -> np.ndarray:
    x = (np.arange(side) - (side - 1) / 2) / max(side / 8, 1e-6)
    bell = np.exp(-0.5 * x**2)
    return np.maximum(bell / bell.max(), 1e-3)


def mirrored(start: int, stop: int, size: int) -> np.ndarray:
    """Indices ``start..stop-1``, those outside ``0..size-1`` folded back in by mirroring at both ends."""
    index = np.arange(start, stop)
    if size == 1:
        return np.zeros_like(index)
    index %= 2 * size - 2
    return np.minimum(index, 2 * size - 2 - index)


def windowed(image: np.ndarray, window: Sequence[slice]) -> np.ndarray:
    """Window of the last axes of `image`, mirrored where it reaches beyond; contiguous."""
    for axis, part in enumerate(window, start=image.ndim - len(window)):
        size = image.shape[axis]
        if part.start >= 0 and part.stop <= size:
            image = image[(slice(None),) * axis + (part,)]
        else:
            index = mirrored(part.start, part.stop, size)
            first = int(index.min())
            near = image[(slice(None),) * axis + (slice(first, int(index.max()) + 1),)]
            image = near.take(index - first, axis=axis)
    return np.ascontiguousarray(image)


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis.

    Attributes
    ----------
    size : int
        Voxels of the image.
    side : int
        Voxels of a tile.
    starts : tuple of int
        First voxel of each tile; negative where it begins in the mirrored margin.
    """

    size: int
    side: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, size: int, side: int, overlap: float, margin: int = 0) -> Axis:
        """Evenly spaced tiles that cover the image and a margin on both sides; one tile where the image fits it."""
        margin = min(margin, size - 1)
        if size <= side:
            return cls(size, size + 2 * margin, (-margin,))
        room = size + 2 * margin - side
        count = 1 + -(-room // max(1, int(side * (1 - overlap))))
        return cls(size, side, tuple(int(start) - margin for start in np.linspace(0, room, count).round()))

    @cached_property
    def weights(self) -> np.ndarray:
        """Weights ``(tiles, side)`` float32; over each voxel of the image they sum to 1."""
        bell, total = _bell(self.side), np.zeros(self.starts[-1] - self.starts[0] + self.side)
        places = [slice(start - self.starts[0], start - self.starts[0] + self.side) for start in self.starts]
        for place in places:
            total[place] += bell
        return np.stack([bell / total[place] for place in places]).astype(np.float32)

    def seen(self, index: int) -> slice:
        """The part of the image that a tile shows, what is mirrored into it among it."""
        shown = mirrored(self.starts[index], self.starts[index] + self.side, self.size)
        return slice(int(shown.min()), int(shown.max()) + 1)

    def finished(self, index: int) -> slice:
        """The part of the image that no later tile touches, and that earlier tiles have not finished."""
        last = index == len(self.starts) - 1
        return slice(max(0, self.starts[index]), self.size if last else max(0, self.starts[index + 1]))

    def first_touching(self, voxel: int) -> int:
        """The first tile that covers a voxel."""
        return next(i for i, start in enumerate(self.starts) if start + self.side > voxel)


@dataclass(frozen=True)
class Grid:
    """Tiles of an image: every combination of the tiles of its axes."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, shape: Sequence[int], tile: Sequence[int], overlap: float, margin: int = 0) -> Grid:
        """Cover `shape` with tiles of the sides `tile`, as `Axis.of` does."""
        return cls(tuple(Axis.of(size, side, overlap, margin) for size, side in zip(shape, tile, strict=True)))

    @property
    def side(self) -> tuple[int, ...]:
        """Sides of a tile."""
        return tuple(axis.side for axis in self.axes)

    @property
    def indices(self) -> list[tuple[int, ...]]:
        """Indices of all tiles, row by row."""
        return list(itertools.product(*(range(len(axis.starts)) for axis in self.axes)))

    def window(self, index: Sequence[int]) -> tuple[slice, ...]:
        """Where a tile lies; it may reach beyond the image."""
        starts = [axis.starts[i] for axis, i in zip(self.axes, index, strict=True)]
        return tuple(slice(start, start + side) for start, side in zip(starts, self.side, strict=True))

    def centre(self, index: Sequence[int]) -> tuple[float, ...]:
        """Middle of a tile, in voxels of the image."""
        return tuple((part.start + part.stop) / 2 for part in self.window(index))

    def weights(self, index: Sequence[int]) -> list[np.ndarray]:
        """Weights of a tile, one array an axis."""
        return [axis.weights[i] for axis, i in zip(self.axes, index, strict=True)]


@dataclass(frozen=True)
class Wish:
    """What a net wants of its tiles: sides without the margin, wished for, smallest and largest; overlap; margin."""

    tile: tuple[int, ...]
    least: tuple[int, ...]
    most: tuple[int, ...]
    overlap: float
    margin: int


def grid_for(shape: Sequence[int], wishes: Sequence[Wish]) -> Grid:
    """Tiles of the last axes of `shape` that are large enough for each net, and divide the image well."""
    wanted = [np.max([getattr(wish, name) for wish in wishes], axis=0).tolist() for name in ("tile", "least", "most")]
    overlap, margin = max(wish.overlap for wish in wishes), max(wish.margin for wish in wishes)
    inner, rim = shape[-len(wanted[0]) :], 2 * margin
    sides = [
        side if least == most else evened(size + rim, side + rim, (least, most + rim), overlap)
        for size, side, least, most in zip(inner, *wanted, strict=True)
    ]
    return Grid.of(inner, sides, overlap, margin)
