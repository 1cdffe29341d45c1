"""The strokes of the case in hand as they were last journalled, and how much is painted of each class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_unetseg.errors import AnnotationError
from napari_unetseg.project import Project
from napari_unetseg.workspace.state import Message

__all__ = ["Region", "Strokes", "Unsaved", "recovered", "slabs"]

Region = tuple[slice, ...]

_SLAB = 2**20  # voxels that are compared or counted in one go: few enough to stay in the processor's cache


class Strokes:
    """Shadow of the annotation layer: what the journal knows.

    Comparing the layer with it finds what changed, whatever changed it (a stroke, undo, a script), and only that is
    written to the journal.

    Parameters
    ----------
    project : Project
        Where the strokes are kept.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._counts: dict[str, np.ndarray] = {}
        self.case: str | None = None
        self.labels = np.zeros((0, 0), np.uint8)

    def take(self, case: str | None) -> None:
        """Hold the annotation of another case."""
        labels = np.zeros((0, 0), np.uint8) if case is None else self._project.annotation(case).data
        self.case, self.labels = case, labels
        if case is not None:
            self._counts[case] = _count(labels)

    def forget(self, case: str) -> None:
        """A case was removed from the project."""
        self._counts.pop(case, None)

    def sync(self, labels: np.ndarray, near: Region | None = None) -> Region | None:
        """Journal whatever differs between `labels` and what was last journalled.

        Parameters
        ----------
        labels : ([Z,] Y, X) integer ndarray
            The whole annotation layer of the case in hand.
        near : tuple of slice, optional
            Where to look, for example the visible slice; everywhere when omitted.

        Returns
        -------
        tuple of slice or None
            Bounding box of what changed, in voxels.
        """
        if labels.shape != self.labels.shape:
            raise AnnotationError(
                f"The strokes of {self.case} have shape {labels.shape}, its image {self.labels.shape}.",
                hint="Paint on the annotation layer that belongs to the image.",
            )
        near = near or (slice(None),) * labels.ndim
        box = _difference(labels[near], self.labels[near])
        if box is None:
            return None
        starts = [part.indices(size)[0] for part, size in zip(near, labels.shape, strict=True)]
        region = tuple(slice(start + s.start, start + s.stop) for start, s in zip(starts, box, strict=True))
        self.write(region, labels[region])
        return region

    def write(self, region: Region, values: np.ndarray) -> None:
        """Journal `values` painted at `region` of the case in hand, and count them."""
        if self.case is None:
            raise AnnotationError("There is no image to paint on.", hint="Choose an image first.")
        self._project.journal(self.case, region, values)
        values = values.astype(np.uint8)
        self._counts[self.case] = self._counts[self.case] - _count(self.labels[region]) + _count(values)
        self.labels[region] = values

    def counts(self, case: str | None = None) -> dict[str, int]:
        """Voxels painted of each class, in `case` or in the whole project."""
        total = sum((self._of(name) for name in ([case] if case else self._project.cases)), np.zeros(256, np.int64))
        return {name: int(total[label]) for label, name in enumerate(self._project.classes, start=1)}

    def share(self, case: str) -> float:
        """Share of the voxels of a case that are painted, 0 to 1."""
        counts = self._of(case)
        return 1.0 - float(counts[0]) / max(1, int(counts.sum()))

    def _of(self, case: str) -> np.ndarray:
        if case not in self._counts:
            known = self._project.counts(case)
            self._counts[case] = np.pad(np.asarray(known, np.int64), (0, 256 - len(known)))
        return self._counts[case]


@dataclass(frozen=True, eq=False)
class Unsaved:
    """What was painted on an image when its project had been taken over: a box, its values, and which of them."""

    case: str
    region: Region
    values: np.ndarray
    changed: np.ndarray

    @classmethod
    def of(cls, case: str, labels: np.ndarray, saved: np.ndarray) -> Unsaved | None:
        """Where `labels` are not as they were `saved`; None when they are."""
        region = _difference(labels, saved) if labels.shape == saved.shape else None
        if region is None:
            return None
        return cls(case, region, labels[region].astype(np.uint8), labels[region] != saved[region])

    def paint(self, project: Project) -> None:
        """Journal it over what is painted there by now."""
        if self.case in project.cases:
            there = project.annotation(self.case).data[self.region]
            project.journal(self.case, self.region, np.where(self.changed, self.values, there))


def recovered(project: Project) -> Message:
    """Say what is left of a session that ended without closing the project: every stroke that was finished."""
    images = project.journalled()
    where = f", the last ones on {images[0] if len(images) == 1 else f'{len(images)} images'}" if images else ""
    return Message(
        f"All strokes are back{where}. {project.name} was not closed last time (open since {project.crashed}).",
        "Only a stroke that was being painted may be missing. Go on where you were.",
        "warning",
    )


def slabs(shape: tuple[int, ...], voxels: int = _SLAB) -> list[Region]:
    """Parts of an array of this shape, along its first axis, with about so many voxels each."""
    step = max(1, voxels // max(1, math.prod(shape[1:])))
    rest = tuple(slice(0, size) for size in shape[1:])
    return [(slice(start, min(start + step, shape[0])), *rest) for start in range(0, shape[0], step)]


def _count(labels: np.ndarray) -> np.ndarray:
    total = np.zeros(256, np.int64)
    for slab in slabs(labels.shape):
        part = labels[slab]
        if _blank(part):  # as most of a large image is
            total[0] += part.size
        else:
            total += np.bincount(part.ravel(), minlength=256)
    return total


def _blank(part: np.ndarray) -> bool:
    words = _words(part)
    return not (part if words is None else words).any()


def _difference(a: np.ndarray, b: np.ndarray) -> Region | None:
    """Bounding box of where two label arrays differ; most of them are alike, which is quick to see."""
    found: Region | None = None
    for slab in slabs(a.shape):
        ours, theirs = a[slab], b[slab]
        wide, wider = _words(ours), _words(theirs)
        if wide is not None and wider is not None and np.array_equal(wide, wider):
            continue
        box = _bounding_box(ours != theirs)
        if box is not None:
            first = slab[0].start
            box = (slice(box[0].start + first, box[0].stop + first), *box[1:])
            found = box if found is None else _union(found, box)
    return found


def _words(part: np.ndarray) -> np.ndarray | None:
    """The same bytes, eight at a time; None where they do not lie side by side."""
    whole = part.dtype == np.uint8 and part.flags.c_contiguous and part.size % 8 == 0
    return part.reshape(-1).view(np.uint64) if whole else None


def _union(a: Region, b: Region) -> Region:
    return tuple(slice(min(x.start, y.start), max(x.stop, y.stop)) for x, y in zip(a, b, strict=True))


def _bounding_box(changed: np.ndarray) -> Region | None:
    box = []
    for axis in range(changed.ndim):
        others = tuple(other for other in range(changed.ndim) if other != axis)
        where = np.flatnonzero(changed.any(axis=others))
        if not where.size:
            return None
        box.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(box)
