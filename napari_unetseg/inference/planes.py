"""A 2D net on a volume along all three axes, averaged: a fair part of what a 3D net sees, where that is too slow.

Planes across the stack have the stack's spacing along one side. A net that learned square pixels would see its objects
squeezed, so that side is resampled (linearly) to the finer spacing of the planes, and the probabilities are resampled
back.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from napari_unetseg.events import Control, Event, Running, TileDone
from napari_unetseg.inference.sliding import Predictor

__all__ = ["along_all_axes"]

_SLAB = 2**24  # voxels resampled at once
_ALIKE = 1.2  # spacings that differ by less are taken as they are


def along_all_axes(
    predictor: Predictor,
    image: np.ndarray,
    focus: Sequence[float] | None = None,
    control: Control | None = None,
    spacing: Sequence[float] | None = None,
) -> Generator[Event, None, np.ndarray]:
    """Segment the planes along Z, then those along Y and X; parameters and result as for `Predictor.tiles`."""
    by_plane = replace(predictor, plan=predictor.plan.change(inference={"axes": "planes"}))
    depth = _depth(image.shape[1], spacing)
    slabs = [(axis, part) for axis in (1, 2) for part in _slabs(image, axis, depth, predictor.plan.data.neighbours)]
    tiles = [_count(by_plane, image.shape[1:])]
    tiles += [_count(by_plane, (_length(*s), depth, image.shape[4 - axis])) for axis, s in slabs]
    passed = 0
    total = yield from _told(by_plane.tiles(image, focus, control), 0, sum(tiles))
    total /= 3
    for number, (axis, (outer, inner)) in enumerate(slabs):
        passed += tiles[number]
        part = np.moveaxis(image, 1 + axis, 1)[:, outer]  # (C, planes, Z, the other axis)
        found = yield from _told(by_plane.tiles(_stretched(part, depth), control=control), passed, sum(tiles))
        found = _stretched(found[:, inner], image.shape[1])
        start = outer.start + inner.start
        np.moveaxis(total, 1 + axis, 1)[:, start : start + found.shape[1]] += found / 3
    return total


def _depth(planes: int, spacing: Sequence[float] | None) -> int:
    """Number of planes at which voxels are cubes, as seen from the side."""
    if spacing is None:
        return planes
    factor = spacing[0] / min(spacing[1:])
    return planes if 1 / _ALIKE < factor < _ALIKE else max(1, round(planes * factor))


def _slabs(image: np.ndarray, axis: int, depth: int, neighbours: int) -> list[tuple[slice, slice]]:
    """Ranges along an axis, each with the neighbours that its first and last planes see, and the range in that."""
    size = image.shape[1 + axis]
    per_plane = image.shape[0] * depth * (image[0].size // image.shape[1] // size)
    step = max(1, _SLAB // per_plane)
    found = []
    for start in range(0, size, step):
        stop = min(size, start + step)
        outer = slice(max(0, start - neighbours), min(size, stop + neighbours))
        found.append((outer, slice(start - outer.start, stop - outer.start)))
    return found


def _length(outer: slice, _: slice) -> int:
    return outer.stop - outer.start


def _count(predictor: Predictor, shape: Sequence[int]) -> int:
    return shape[0] * math.prod(len(axis.starts) for axis in predictor.grid(shape).axes)


def _stretched(image: np.ndarray, depth: int) -> np.ndarray:
    """``(C, planes, Z, X)`` with `depth` in place of Z, linearly; float32."""
    if image.shape[2] == depth:
        return np.ascontiguousarray(image)
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    size = (depth, image.shape[3])
    return functional.interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=True).numpy()


def _told(run: Generator[Event, None, np.ndarray], passed: int, total: int) -> Generator[Event, None, np.ndarray]:
    """The same run, its tiles counted among all."""
    running = Running(run)
    for event in running:
        if isinstance(event, TileDone):
            left = event.left / max(1, event.total - event.done) * (total - passed - event.done)
            event = replace(event, done=passed + event.done, total=total, left=left)
        yield event
    return running.result
