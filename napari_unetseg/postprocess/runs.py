"""A label image as runs: stretches of one label along the last axis, of which there are far fewer than voxels.

Connected parts, their sizes and what encloses what are found on runs, for all labels at once; a volume of 512^3 voxels
then costs a second or two, and no label image of four bytes a voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["Runs", "boxes", "firsts"]


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of a label image, background included, in the order of its voxels.

    Attributes
    ----------
    shape : tuple of int
        Shape of the image.
    label : (N,) ndarray
        Label of each run.
    length : (N,) ndarray
        Its number of voxels.
    row : (N,) ndarray
        Its row: all axes but the last in one number, with a row to spare on each side, so that neighbours never wrap.
    start : (N,) ndarray
        Its first voxel in the row.
    """

    shape: tuple[int, ...]
    label: np.ndarray
    length: np.ndarray
    row: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, instances: np.ndarray | None = None) -> Runs:
        """Find the runs of a label image; with `instances`, each of one number there too."""
        flat = np.ascontiguousarray(mask).reshape(-1)
        width = mask.shape[-1]
        first = np.empty(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=first[1:])
        if instances is not None:
            number = np.ascontiguousarray(instances).reshape(-1)
            first[1:] |= number[1:] != number[:-1]
        first[:: max(1, width)] = True
        at = np.flatnonzero(first)
        row, start = np.divmod(at, max(1, width))
        if mask.ndim == 3:
            row = row + 2 * (row // max(1, mask.shape[1]))
        return cls(mask.shape, flat[at], np.diff(at, append=flat.size), row + 1, start)

    def image(self, values: np.ndarray) -> np.ndarray:
        """Image in which each run has a value of its own."""
        return np.repeat(values, self.length).reshape(self.shape)

    @cached_property
    def stop(self) -> np.ndarray:
        """Voxel after the last of each run, in its row."""
        return self.start + self.length

    @cached_property
    def at_border(self) -> np.ndarray:
        """Whether a run touches the border of the image."""
        found = (self.start == 0) | (self.stop == self.shape[-1])
        rows = self.row - 1
        if len(self.shape) == 2:
            return found | (rows == 0) | (rows == self.shape[0] - 1)
        plane, row = np.divmod(rows, self.shape[1] + 2)
        return found | (plane == 0) | (plane == self.shape[0] - 1) | (row == 0) | (row == self.shape[1] - 1)

    def neighbours(self, *, corners: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of runs in neighbouring rows that touch: over faces, or over edges and corners too."""
        for offset in self._offsets(corners):
            yield self._touching(offset, int(corners))

    def _offsets(self, corners: bool) -> list[int]:
        if len(self.shape) == 2:
            return [1]
        plane = self.shape[1] + 2
        return [1, plane - 1, plane, plane + 1] if corners else [1, plane]

    def _touching(self, offset: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
        """Each run with those that it overlaps, widened by `reach`, `offset` rows before it."""
        width = self.shape[-1] + 2
        begin, end = self.row * width + 1 + self.start, self.row * width + 1 + self.stop
        first = np.searchsorted(end, begin - offset * width - reach, side="right")
        last = np.searchsorted(begin, end - offset * width + reach, side="left")
        count = np.maximum(last - first, 0)
        one = np.repeat(np.arange(len(count)), count)
        # 0, 1, .. within the neighbours of each run
        step = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        return one, np.repeat(first, count) + step

    def parts(self, touching: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Number of the connected part of each run, of all labels, 0, 1, .. in the order of their first voxels."""
        part = np.arange(len(self.label))
        for one, other in touching:
            same = self.label[one] == self.label[other]
            part = join(part, part[one[same]], part[other[same]])
        return part

    def objects(self) -> tuple[Runs, np.ndarray]:
        """Runs without the background, and the number of the object that each belongs to.

        Objects hold together over faces, edges and corners.
        """
        kept = self.take(self.label > 0)
        return kept, kept.parts(kept.neighbours(corners=True))

    def take(self, chosen: np.ndarray) -> Runs:
        """Only the chosen runs; `image` no longer applies."""
        return Runs(self.shape, self.label[chosen], self.length[chosen], self.row[chosen], self.start[chosen])

    def index(self) -> np.ndarray:
        """Position of each run's first voxel, ``([z,] y, x)``, one axis a row."""
        if len(self.shape) == 2:
            return np.stack([self.row - 1, self.start])
        return np.stack([*np.divmod(self.row - 1, self.shape[1] + 2), self.start])


def join(part: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Numbers of parts after pairs of them were found to be the same one; numbered in order of appearance."""
    count = int(part.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(len(one), bool), (one, other)), (count, count))
    return connected_components(graph, directed=False)[1][part]


def firsts(part: np.ndarray) -> np.ndarray:
    """First run of each part, for parts numbered in order of appearance."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(part), prepend=-1))


def boxes(runs: Runs, part: np.ndarray) -> list[tuple[slice, ...]]:
    """Bounding box of each part, in order of their numbers."""
    if not len(part):
        return []
    order = np.argsort(part, kind="stable")
    begin = np.flatnonzero(np.diff(part[order], prepend=-1))
    index = runs.index()[:, order]
    low = np.minimum.reduceat(index, begin, axis=1)
    index[-1] = runs.stop[order] - 1
    high = np.maximum.reduceat(index, begin, axis=1) + 1
    return [tuple(itertools.starmap(slice, zip(a, b, strict=True))) for a, b in zip(low.T, high.T, strict=True)]
