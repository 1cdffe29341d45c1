"""Whole areas put into the strokes at once: a mask copied, a slice said to be done, the gap between painted slices."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from napari_unetseg.data.annotation import BACKGROUND, UNLABELLED, from_mask

__all__ = ["Fill", "between", "copied", "finished", "gaps"]

Region = tuple[slice, ...]


class Fill(NamedTuple):
    """New strokes: `values` of a `region` of the annotation, ``([Z,] Y, X)`` both."""

    region: Region
    values: np.ndarray


def copied(strokes: np.ndarray, mask: np.ndarray, index: int | None = None) -> Fill:
    """The classes of `mask` as strokes, where nothing is painted yet; its background stays unlabelled.

    Parameters
    ----------
    strokes : ([Z,] Y, X) uint8 ndarray
        Annotation so far: 0 unlabelled, 1 background, 2.. the other classes.
    mask : ([Z,] Y, X) ndarray
        Class indices, 0 for background.
    index : int, optional
        Slice along Z; all of them when omitted.
    """
    region = _here(strokes, index)
    painted, found = strokes[region], mask[region]
    return Fill(region, np.where((painted == UNLABELLED) & (found > 0), from_mask(found), painted))


def finished(strokes: np.ndarray, index: int | None = None) -> Fill:
    """What is unlabelled is background: a slice, or all of it, that is painted completely; see `copied`."""
    region = _here(strokes, index)
    painted = strokes[region]
    return Fill(region, np.where(painted == UNLABELLED, painted.dtype.type(BACKGROUND), painted))


def gaps(strokes: np.ndarray, label: int, index: int) -> list[tuple[int, int]]:
    """Pairs of slices with `label` that have slices without it between them: those next to, or around, `index`."""
    painted = np.array([bool((plane == label).any()) for plane in strokes])
    slices = np.flatnonzero(painted)
    before, after = slices[slices < index], slices[slices > index]
    middle = [index] if painted[index] else []
    near = [*before[-1:].tolist(), *middle, *after[:1].tolist()]
    return [(low, high) for low, high in pairwise(near) if high - low > 1]


def between(strokes: np.ndarray, label: int, low: int, high: int) -> Fill | None:
    """The shapes of a class on two slices, changed step by step into one another on the slices between them.

    The signed distances to the two borders are mixed, after both shapes were moved to where their centre is on the way,
    so that thin or wandering shapes do not vanish half way (shape-based interpolation: Raya and Udupa, IEEE Trans.
    Med. Imaging 9, 1990). What is painted already stays.

    Parameters
    ----------
    strokes : (Z, Y, X) uint8 ndarray
        Annotation so far.
    label : int
        Value of the class in it.
    low, high : int
        The two slices, both of which have the class.

    Returns
    -------
    Fill or None
        None when nothing is added.
    """
    first, last = strokes[low] == label, strokes[high] == label
    box = _box(first | last)
    first, last = np.pad(first[box], 1), np.pad(last[box], 1)
    ends = [_signed(shape) for shape in (first, last)]
    centres = [np.array([axis.mean() for axis in np.nonzero(shape)]) for shape in (first, last)]
    region = (slice(low + 1, high), *box)
    values = strokes[region].copy()
    for number, plane in enumerate(values, start=1):
        share = number / (high - low)
        here = (1 - share) * centres[0] + share * centres[1]
        moved = [_moved(end, here - centre) for end, centre in zip(ends, centres, strict=True)]
        inside = ((1 - share) * moved[0] + share * moved[1] > 0)[1:-1, 1:-1]
        plane[inside & (plane == UNLABELLED)] = label
    return None if np.array_equal(values, strokes[region]) else Fill(region, values)


def _here(strokes: np.ndarray, index: int | None) -> Region:
    region = tuple(slice(0, size) for size in strokes.shape)
    return region if index is None else (slice(index, index + 1), *region[1:])


def _box(shape: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _signed(shape: np.ndarray) -> np.ndarray:
    """Distance to the border, above 0 inside; half a voxel off, so that it is never 0."""
    from scipy.ndimage import distance_transform_edt

    return np.where(shape, distance_transform_edt(shape) - 0.5, 0.5 - distance_transform_edt(~shape))


def _moved(distances: np.ndarray, by: np.ndarray) -> np.ndarray:
    from scipy.ndimage import shift

    return shift(distances, by, order=1, mode="nearest")
