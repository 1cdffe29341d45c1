"""The annotation of one image on disk: its last revision, with the journalled strokes painted over it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import AnnotationError, WriteError
from napari_unetseg.io import atomic_write
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
        self.frozen: int | None = None  # revision to speak of, whatever is painted meanwhile; 0 for nothing painted

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
            self._journals = {base: Journal(self._journal_path(base), self.shape)}
        return self._journals[base]

    def _journal_path(self, base: int) -> Path:
        return self.revisions.folder / f"strokes-{base:04d}.journal"

    def read(self) -> np.ndarray:
        """All that was painted, uint8; a fresh array."""
        if self.frozen is not None:
            return self.revisions.read(self.frozen) if self.frozen else np.zeros(self.shape, dtype=np.uint8)
        last = self.last
        labels = self.revisions.read(last) if last else np.zeros(self.shape, dtype=np.uint8)
        # the journal of the revision that was read, should a newer one appear meanwhile: together they are complete
        Journal(self._journal_path(last), self.shape).replay(labels)
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
        number = self.revisions.write(labels, self._facts(done, classes), self._begin_journal)
        self._forget_journals(before=last)
        return number

    def seal(self, classes: Sequence[str], mutex: AbstractContextManager[Any]) -> int:
        """Make a revision of all that is painted by now, while strokes go on being painted.

        Strokes that come while the file is written stay in the journal, which is carried over to the new revision in
        the moment that it appears; `mutex` is held for that moment only.
        """
        with mutex:
            last, journal = self.last, self.journal
            sealed = journal.end
        labels = self.revisions.read(last) if last else np.zeros(self.shape, dtype=np.uint8)
        journal.replay(labels, sealed)

        def carry_over(number: int) -> None:
            self._begin_journal(number, journal.tail(sealed))

        number = self.revisions.write(labels, self._facts(False, classes), carry_over, mutex)
        self._forget_journals(before=last)
        return number

    def _facts(self, done: bool, classes: Sequence[str]) -> dict[str, Any]:
        return {"done": done, "classes": list(classes), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}

    def _begin_journal(self, number: int, strokes: bytes = b"") -> None:
        """Have the journal of a revision that is about to appear hold `strokes`, and nothing older."""
        path = self._journal_path(number)
        if strokes:
            atomic_write(path, lambda beside: beside.write_bytes(strokes))
        else:
            path.unlink(missing_ok=True)

    def _forget_journals(self, before: int) -> None:
        # the journal just retired stays until the next revision, for whoever is reading it at this moment
        for old in self.revisions.folder.glob("strokes-*.journal"):
            if old.stem < f"strokes-{before:04d}":
                old.unlink(missing_ok=True)

    @property
    def done(self) -> bool:
        """Whether the last revision was said to be complete."""
        return bool(self.last and self.revisions.facts(self.last).get("done"))

    def counts(self) -> list[int]:
        """Voxels of each label value, from 0 on; at least two numbers."""
        if self.frozen is None and self.journal.path.is_file():
            return count_labels(self.read())
        last = self.last if self.frozen is None else self.frozen
        if last:
            return [int(count) for count in self.revisions.facts(last)["counts"]]
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
