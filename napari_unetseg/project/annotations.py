"""The annotation of one image on disk: its last revision, with the journalled strokes painted over it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_unetseg.errors import AnnotationError, WriteError
from napari_unetseg.project.journal import Journal
from napari_unetseg.project.revisions import Revisions, count_labels

__all__ = ["CaseAnnotation", "as_labels", "as_region"]


class CaseAnnotation:
    """Revisions and journal of one image.

    Parameters
    ----------
    folder : Path
        Where they are; it need not exist yet.
    shape : tuple of int
        Shape ``([Z,] Y, X)`` of the image.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.revisions = Revisions(folder, shape)
        self._journals: dict[int, Journal] = {}

    @property
    def last(self) -> int:
        """Number of the last revision; 0 when there is none."""
        return max(self.revisions.numbers(), default=0)

    @property
    def journal(self) -> Journal:
        """The journal of the last revision."""
        base = self.last
        if base not in self._journals:
            # a journal belongs to one base: once there is a newer revision, the older journal is void
            path = self.revisions.folder / f"strokes-{base:04d}.journal"
            self._journals = {base: Journal(path, self.shape)}
        return self._journals[base]

    def read(self) -> np.ndarray:
        """All that was painted, uint8; a fresh array."""
        last = self.last
        labels = self.revisions.read(last) if last else np.zeros(self.shape, dtype=np.uint8)
        self.journal.replay(labels)
        return labels

    def stroke(self, region: tuple[slice, ...], values: np.ndarray) -> None:
        """Journal new `values` of a `region`; on the disk when this returns."""
        try:
            self.journal.append(region, values)
        except OSError as error:
            raise WriteError(
                f"The last stroke could not be saved in {self.revisions.folder}: {error.strerror or error}.",
                hint="Free some space or make the folder writable; painting on saves this stroke too.",
            ) from error

    def commit(self, labels: np.ndarray, done: bool, classes: Sequence[str]) -> int:
        """Keep `labels` as a new revision, unless they are the last one's; the journal begins anew."""
        last = self.last
        same = last and self.done == done and np.array_equal(self.revisions.read(last), labels)
        if same:
            self.journal.path.unlink(missing_ok=True)
            self._journals.clear()
            return last
        moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        number = self.revisions.write(labels, {"done": done, "classes": list(classes), "time": moment})
        # the journal just retired stays until the next revision, for whoever is reading it at this moment
        for old in self.revisions.folder.glob("strokes-*.journal"):
            if old.stem < f"strokes-{last:04d}":
                old.unlink(missing_ok=True)
        return number

    @property
    def done(self) -> bool:
        """Whether the last revision was said to be complete."""
        return bool(self.last and self.revisions.facts(self.last).get("done"))

    def counts(self) -> list[int]:
        """Voxels of each label value, from 0 on; at least two numbers."""
        if self.journal.path.is_file():
            return count_labels(self.read())
        if self.last:
            return [int(count) for count in self.revisions.facts(self.last)["counts"]]
        return [int(np.prod(self.shape)), 0]


def as_labels(values: np.ndarray, highest: int, shape: Sequence[int], what: str) -> np.ndarray:
    """`values` as uint8 labels, checked.

    Raises
    ------
    AnnotationError
        If they are not whole numbers from 0 to `highest`, or not of `shape`; `what` names them in the message.
    """
    values = np.asarray(values)
    if values.shape != tuple(shape):
        raise AnnotationError(
            f"{what} has the shape {values.shape}, its image {tuple(shape)}.",
            hint="Labels need one value for each voxel of the image, without a channel axis.",
        )
    if values.dtype != bool and not np.issubdtype(values.dtype, np.integer):
        raise AnnotationError(f"{what} holds {values.dtype} numbers.", hint="Convert them to integers.")
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > highest:
        raise AnnotationError(
            f"{what} holds the value {low if low < 0 else high}, but the project's classes end at {highest}.",
            hint="Add the missing class to the project, or correct the labels.",
        )
    return values.astype(np.uint8)


def as_region(region: Sequence[slice], shape: Sequence[int]) -> tuple[slice, ...]:
    """`region` with plain start and stop along each axis.

    Raises
    ------
    AnnotationError
        If it does not have one slice with step 1 for each axis.
    """
    if len(region) != len(shape) or any(part.step not in (None, 1) for part in region):
        raise AnnotationError(
            f"The region {region} does not fit an image of shape {tuple(shape)}.",
            hint="Give one slice with step 1 for each axis.",
        )
    bounds = (part.indices(size)[:2] for part, size in zip(region, shape, strict=True))
    return tuple(slice(start, max(start, stop)) for start, stop in bounds)
