"""Touching objects to objects with numbers of their own: the watershed of the distance to the background.

Objects are cut out and laid side by side on strips, so that the work goes with the voxels of the objects, never with
the size of the image, and small objects do not each pay for a call.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_unetseg.postprocess.options import STEPS, Option
from napari_unetseg.postprocess.runs import Runs, boxes, firsts
from napari_unetseg.postprocess.steps import CLASSES, chosen

__all__ = ["number_objects", "split_touching"]

_STRIP = 4_000_000  # voxels worked on at a time, unless one object has more

Box = tuple[slice, ...]


@STEPS.register(
    "split-touching",
    title="Split touching objects",
    idempotent=False,
    instances=True,
    options={
        "neck": Option(
            "Neck",
            "share",
            "Cut where the neck is narrower than this share of the thinner bulge. 0.6 cuts little, 0.9 much.",
            0.75,
        ),
        "classes": CLASSES,
    },
)
def split_touching(
    mask: np.ndarray, spacing: Sequence[float], neck: float = 0.75, classes: Collection[int] | None = None
) -> np.ndarray:
    """Give every object a number of its own, cutting at narrow necks.

    The numbers are int32 and run through the classes in order. Two bulges are two objects where the neck between them
    is narrower than `neck` times the thinner bulge. Cuts follow the watershed of the distance to the background; no
    voxel is lost.
    """
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    runs = Runs.of(mask)
    objects, part = runs.objects()
    values, rank = _numbers(runs, objects, part)
    out = runs.image(values)
    meant = chosen(objects.label[firsts(part)], classes)
    found = [(int(rank[i]), box) for i, box in enumerate(boxes(objects, part)) if meant[i]]
    pieces: dict[int, tuple[Box, np.ndarray]] = {}
    for strip in _strips(found, out):
        pieces |= strip.split(spacing, neck)
    count = np.ones(len(rank) + 1, np.int64)
    for number, (_, piece) in pieces.items():
        count[number] = piece.max()
    before = np.cumsum(count) - count
    before[0] = 0
    out = runs.image(before[values].astype(np.int32))
    for number, (box, piece) in pieces.items():
        own = piece > 0
        out[box][own] = piece[own] + (before[number] - 1)
    return out


def number_objects(mask: np.ndarray) -> np.ndarray:
    """Give every connected object a number of its own, int32, in the order of the classes and as `measure` does."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    runs = Runs.of(mask)
    return runs.image(_numbers(runs, *runs.objects())[0])


def _numbers(runs: Runs, objects: Runs, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the object of each run, 0 on the background, and the number of each part."""
    order = np.argsort(objects.label[firsts(part)], kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(1, len(order) + 1)
    values = np.zeros(len(runs.label), np.int32)
    values[runs.label > 0] = rank[part]
    return values, rank


@dataclass(frozen=True)
class _Strip:
    """Objects side by side along the last axis, a voxel of background around each."""

    canvas: np.ndarray  # numbers of the objects
    places: list[tuple[int, Box, Box]]  # number, where it is in the image, where here

    def split(self, spacing: Sequence[float], neck: float) -> dict[int, tuple[Box, np.ndarray]]:
        """Pieces 1, 2, .. of each object that is more than one."""
        from skimage.morphology import local_maxima
        from skimage.segmentation import watershed

        depth = ndimage.distance_transform_edt(self.canvas > 0, sampling=spacing).astype(np.float32)
        full = np.ones((3,) * depth.ndim)
        tops, count = ndimage.label(local_maxima(depth) & (self.canvas > 0), full)
        at = np.flatnonzero(tops)
        owner = np.zeros(count + 1, np.int64)
        owner[tops.flat[at]] = self.canvas.flat[at]
        height = np.zeros(count + 1, np.float32)
        height[tops.flat[at]] = depth.flat[at]
        several = np.bincount(owner[1:], minlength=int(self.canvas.max()) + 1) > 1
        several[0] = False
        if not several.any():
            return {}
        basin = watershed(-depth, tops, mask=several[self.canvas], connectivity=depth.ndim)
        bulge = _merge(height, *_saddles(basin, depth), neck)
        found = {}
        for number, box, here in self.places:
            if several[number]:
                own = np.where(self.canvas[here] == number, bulge[basin[here]], 0)
                labels, piece = np.unique(own, return_inverse=True)
                piece = piece.reshape(own.shape) + (labels[0] != 0)
                if piece.max() > 1:
                    found[number] = (box, piece.astype(np.int32))
        return found


def _strips(found: list[tuple[int, Box]], numbers: np.ndarray) -> Iterator[_Strip]:
    """Lay objects out, those of like size together."""
    sizes = {number: tuple(s.stop - s.start for s in box) for number, box in found}
    rest = sorted(found, key=lambda each: sizes[each[0]])
    while rest:
        taken, width, across = 0, 1, np.zeros(numbers.ndim - 1, int)
        for number, _ in rest:
            *sides, length = sizes[number]
            wider = np.maximum(across, sides)
            if taken and np.prod(wider + 2) * (width + length + 1) > _STRIP:
                break
            taken, width, across = taken + 1, width + length + 1, wider
        some, rest = rest[:taken], rest[taken:]
        canvas, places, x = np.zeros((*(across + 2), width), np.int32), [], 1
        for number, box in some:
            *sides, length = sizes[number]
            here = (*(slice(1, 1 + side) for side in sides), slice(x, x + length))
            canvas[here] = np.where(numbers[box] == number, number, 0)
            places.append((number, box, here))
            x += length + 1
        yield _Strip(canvas, places)


def _saddles(basin: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of basins that touch, and the greatest depth at which one goes from one to the other."""
    pairs, heights = [], []
    most = int(basin.max()) + 1
    for step in itertools.product((-1, 0, 1), repeat=basin.ndim):
        if step <= (0,) * basin.ndim:
            continue
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, basin.shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, basin.shape, strict=True))
        one, other = basin[here], basin[there]
        border = (one != other) & (one > 0) & (other > 0)
        a, b = one[border].astype(np.int64), other[border].astype(np.int64)
        pairs.append(np.minimum(a, b) * most + np.maximum(a, b))
        heights.append(np.minimum(depth[here][border], depth[there][border]))
    pair, index = np.unique(np.concatenate(pairs), return_inverse=True)
    saddle = np.zeros(len(pair), np.float32)
    np.maximum.at(saddle, index, np.concatenate(heights))
    return np.stack(np.divmod(pair, most), axis=1), saddle


def _merge(height: np.ndarray, pairs: np.ndarray, saddle: np.ndarray, neck: float) -> np.ndarray:
    """Bulge of each basin: basins are one where the way between them is wide enough for the lower of the two."""
    root, top = np.arange(len(height)), height.astype(float)

    def find(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for index in np.argsort(-saddle, kind="stable"):
        a, b = find(pairs[index, 0]), find(pairs[index, 1])
        if a != b and saddle[index] >= neck * min(top[a], top[b]):
            low, high = sorted((a, b), key=lambda one: top[one])
            root[low] = high
    return np.array([find(one) for one in range(len(height))])
