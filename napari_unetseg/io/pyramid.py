"""Coarser copies of an image or a mask, for viewers that look at large ones from afar."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["coarser", "factors_of", "fill_levels"]


def factors_of(shape: Sequence[int], spacing: Sequence[float], side: int) -> list[tuple[int, ...]]:
    """By what each axis ``([Z,] Y, X)`` is divided, level by level, the finest first.

    Sides are halved until the plane fits into a square of `side`. An axis whose voxels are already twice as long as the
    shortest waits for the others, so that voxels grow towards cubes.
    """
    levels = [(1,) * len(shape)]
    while max(_divided(shape, levels[-1])[-2:]) > side:
        last = levels[-1]
        steps = [step * factor for step, factor in zip(spacing, last, strict=True)]
        able = [size > 1 for size in _divided(shape, last)]
        finest = min(step for step, halved in zip(steps, able, strict=True) if halved)
        halved = [one and step < 2 * finest for one, step in zip(able, steps, strict=True)]
        levels.append(tuple(2 * f if half else f for f, half in zip(last, halved, strict=True)))
    return levels


def _divided(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // factor) for size, factor in zip(shape, factors, strict=True))


def coarser(array: np.ndarray, steps: Sequence[int], labels: bool) -> np.ndarray:
    """Every second voxel of labels, which never mix; the mean of neighbours of an image.

    Parameters
    ----------
    array : ndarray
        Its last axes are those of `steps`.
    steps : sequence of int
        1 or more an axis.
    labels : bool
        Whether it is a mask.
    """
    lead = array.ndim - len(steps)
    if labels:
        return array[(slice(None),) * lead + tuple(slice(None, None, step) for step in steps)]
    mean = array.astype(np.float64)
    for axis, step in enumerate(steps, start=lead):
        short = -mean.shape[axis] % step
        if short:  # the last voxels stand for those that are missing
            mean = np.pad(mean, [(0, short if a == axis else 0) for a in range(mean.ndim)], mode="edge")
        mean = mean.reshape(*mean.shape[:axis], -1, step, *mean.shape[axis + 1 :]).mean(axis=axis + 1)
    return (mean if array.dtype.kind == "f" else np.rint(mean)).astype(array.dtype)


def fill_levels(arrays: Sequence[Any], factors: Sequence[Sequence[int]], labels: bool) -> None:
    """Fill all levels but the first, each from the one before, chunk by chunk of both."""
    for fine, coarse, old, new in zip(arrays, arrays[1:], factors, factors[1:], strict=False):
        lead = len(coarse.shape) - len(new)
        steps = [1] * lead + [n // o for n, o in zip(new, old, strict=True)]
        for target in _blocks([slice(0, size) for size in coarse.shape], coarse.chunks):
            made = np.zeros([part.stop - part.start for part in target], coarse.dtype)
            for block in _blocks(target, [max(1, n // step) for n, step in zip(coarse.chunks, steps, strict=True)]):
                source = tuple(slice(b.start * step, b.stop * step) for b, step in zip(block, steps, strict=True))
                inner = tuple(slice(b.start - t.start, b.stop - t.start) for b, t in zip(block, target, strict=True))
                made[inner] = coarser(np.asarray(fine[source]), steps[lead:], labels)
            if made.any():  # zeros are what a chunk that is not there reads as
                coarse[target] = made


def _blocks(region: Sequence[slice], sides: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """A region in blocks of at most these sides."""
    axes = (
        [slice(at, min(at + side, whole.stop)) for at in range(whole.start, whole.stop, side)]
        for whole, side in zip(region, sides, strict=True)
    )
    return itertools.product(*axes)
