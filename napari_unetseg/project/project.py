"""`Project`: the folder that holds a user's images, strokes, models and masks, and never loses any of them."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_unetseg.errors import ProjectError
from napari_unetseg.io import mask_suffix, read_labels, write
from napari_unetseg.project.annotations import CaseAnnotation, as_labels, as_region
from napari_unetseg.project.document import Document
from napari_unetseg.project.images import ProjectImages
from napari_unetseg.project.lock import Lock
from napari_unetseg.project.names import check_classes
from napari_unetseg.project.revisions import Revisions
from napari_unetseg.volume import LabelVolume

__all__ = ["Project"]

_ROUND = re.compile(r"round-(\d{3,6})")


class Project(ProjectImages):
    """A folder of images with annotations, models and masks; `create` or `open` one.

    Every change is on the disk when the call returns, and is either whole or not there, whenever the process is
    killed. An object is safe to use from several threads; a folder is open for work in one process at a time, and for
    reading in any number.

    Attributes
    ----------
    path : Path
        The folder.
    read_only : bool
        Whether changes are refused.

    Examples
    --------
    >>> project = Project.create("cells.unetseg", classes=["background", "cell"])  # doctest: +SKIP
    >>> case = project.add("image.tif")  # doctest: +SKIP
    >>> project.annotate(case, labels)  # doctest: +SKIP
    1
    """

    def __init__(self, path: Path, document: Document, lock: Lock | None) -> None:
        super().__init__(path, document, lock)
        self._on_disk: dict[str, CaseAnnotation] = {}
        self._writing = threading.RLock()  # big files, so that strokes painted meanwhile are journalled at once
        self._promised = 0  # the highest round that was handed out

    def __repr__(self) -> str:
        return f"Project({str(self.path)!r}, {len(self.cases)} images, classes {', '.join(self.classes)})"

    def set_classes(self, names: Sequence[str], colours: Sequence[str] | None = None) -> None:
        """Rename classes, or add some at the end: the n-th name stays the n-th class of what is painted.

        Raises
        ------
        ProjectError
            If a class that would go has strokes or accepted voxels, or the names cannot be.
        """
        names, tints = check_classes(names, colours)
        for case in self.cases if len(names) < len(self.classes) else ():
            # label values end one above the class index in annotations, at it in masks
            highest = len(self.counts(case)) - 1
            accepted = self._entry(case).accepted
            if accepted:
                highest = max(highest, len(self._accepted(case).facts(accepted[-1])["counts"]))
            if highest > len(names):
                raise ProjectError(
                    f"The class {self.classes[highest - 1]!r} cannot go: it is painted on {case}.",
                    hint="Erase it there first, or give the class another name.",
                )
        self._commit(self._doc.model_copy(update={"classes": names, "colours": tints}))

    # ---- annotations -------------------------------------------------------------------------------------------

    def annotation(self, case: str) -> LabelVolume:
        """All that was painted on an image, the last stroke included: 0 unlabelled, then class index + 1.

        Returns
        -------
        LabelVolume
            uint8 ``([Z,] Y, X)`` on the image's grid, zeros where nothing was painted yet.
        """
        return LabelVolume(self._annotation(case).read(), self._entry(case).grid)

    def annotate(self, case: str, labels: LabelVolume | np.ndarray, done: bool = False) -> int:
        """Keep `labels` as the annotation of an image.

        Parameters
        ----------
        case : str
            Name of the image.
        labels : LabelVolume or integer ndarray
            0 unlabelled, then class index + 1; of the image's shape.
        done : bool
            Whether the user says that the image is annotated completely.

        Returns
        -------
        int
            Number of the new revision, or of the last one when nothing has changed since.

        Raises
        ------
        AnnotationError
            If the shape is not the image's, or a value has no class.
        WriteError
            If the disk is full or the folder read-only; what was there before is untouched.
        """
        values = labels.data if isinstance(labels, LabelVolume) else labels
        with self._writing, self._mutex:
            values = as_labels(values, len(self.classes), self.shape(case), f"The annotation of {case}")
            self.check()
            return self._annotation(case).commit(values, done, self.classes)

    def snapshot(self) -> dict[str, int]:
        """Keep what is painted on each image as a revision; strokes may be painted meanwhile, and belong to the next.

        Returns
        -------
        dict
            Number of the last revision of every image with strokes.

        Raises
        ------
        WriteError
            If the disk is full or the folder read-only; the journal still has every stroke.
        """
        with self._writing:
            self.check()
            for case in self.journalled():
                self._annotation(case).seal(self.classes, self._mutex)
            return {case: self._annotation(case).last for case in self.annotated() if self._annotation(case).last}

    def journal(self, case: str, region: tuple[slice, ...], values: np.ndarray) -> None:
        """Save a stroke as it is painted: on the disk when this returns, and in `annotation` from then on.

        Parameters
        ----------
        case : str
            Name of the image.
        region : tuple of slice
            The box that changed, one slice for each axis.
        values : integer ndarray
            The annotation in this box, as it is now.

        Raises
        ------
        AnnotationError, WriteError
            As `annotate`.
        """
        with self._mutex:
            box = as_region(region, self.shape(case))
            size = [part.stop - part.start for part in box]
            values = as_labels(values, len(self.classes), size, f"A stroke on {case}")
            self.check()
            if values.size:
                self._annotation(case).stroke(box, values)

    def journalled(self) -> list[str]:
        """Images with strokes that are newer than their last revision."""
        return [case for case in self.cases if self._annotation(case).journal.path.is_file()]

    def revisions(self, case: str) -> list[int]:
        """Numbers of all revisions of an annotation, oldest first."""
        return self._annotation(case).revisions.numbers()

    def annotation_at(self, case: str, revision: int) -> LabelVolume:
        """The annotation of an image as it was at a `revision`."""
        return LabelVolume(self._annotation(case).revisions.read(revision), self._entry(case).grid)

    def freeze(self, revisions: Mapping[str, int]) -> None:
        """Have this reader speak of these `revisions` from now on, of no strokes on other images.

        Who trains reads a project beside a window that paints on: what is learned, and what is written down as learned,
        must be the same.
        """
        if not self.read_only:
            raise ProjectError("Only a project that is open for reading can be frozen.", hint="Open it read-only.")
        for case in self.cases:
            self._annotation(case).frozen = int(revisions.get(case, 0))

    def counts(self, case: str) -> list[int]:
        """Voxels of each value in the annotation of an image, from 0 on; at least two numbers."""
        return self._annotation(case).counts()

    def annotated(self) -> list[str]:
        """Images with any stroke on them."""
        return [case for case in self.cases if any(self.counts(case)[1:])]

    def done(self, case: str) -> bool:
        """Whether the user said that the image is annotated completely."""
        return self._annotation(case).done

    # ---- models ------------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[Path]:
        """Folders of the finished models, oldest first."""
        return [path for _, path in sorted(self._rounds()) if (path / "model.json").is_file()]

    def new_model_folder(self) -> Path:
        """Path for the next model, ``models/round-NNN``; not made yet, and not handed out twice."""
        with self._mutex:
            self._promised = 1 + max([self._promised, *(number for number, _ in self._rounds())])
            return self._inside("models", f"round-{self._promised:03d}")

    @property
    def current_model(self) -> Path | None:
        """Folder of the model in use; None when none is, or when it is gone."""
        name = self._doc.current_model
        path = self.path / "models" / name  # a full path, of a model kept elsewhere, replaces what is before it
        return path if name and (path / "model.json").is_file() else None

    def set_current_model(self, path: str | os.PathLike[str] | None) -> None:
        """Say which model is in use: one of the project's, one kept elsewhere, or None.

        Raises
        ------
        ProjectError
            If there is no model at `path`.
        """
        name = ""
        if path is not None:
            full = Path(os.path.abspath(path))
            if not (full / "model.json").is_file():
                raise ProjectError(f"There is no model in {full}.", hint="Choose a folder with a model.json.")
            name = full.name if full.parent == self.path / "models" else str(full)
        with self._mutex:
            self._commit(self._doc.model_copy(update={"current_model": name}))

    def _rounds(self) -> list[tuple[int, Path]]:
        folder = self.path / "models"
        paths = folder.iterdir() if folder.is_dir() else ()
        return [(int(match[1]), path) for path in paths if (match := _ROUND.fullmatch(path.name)) and path.is_dir()]

    # ---- masks -------------------------------------------------------------------------------------------------

    def mask(self, case: str) -> LabelVolume | None:
        """The mask of an image, accepted or predicted; None when there is none."""
        path = self._mask_path(case)
        return read_labels(path) if self._entry(case).mask != "none" and path.exists() else None

    def save_mask(self, case: str, mask: LabelVolume | np.ndarray) -> Path:
        """Write a predicted mask like its image, and return its file.

        Parameters
        ----------
        case : str
            Name of the image.
        mask : LabelVolume or integer ndarray
            Class indices, 0 for background; of the image's shape.

        Raises
        ------
        AnnotationError
            If the shape is not the image's, or a value has no class.
        WriteError
            If it cannot be written; the mask before it is untouched.
        """
        with self._writing:
            path = self._write_mask(case, self._as_mask(case, mask))
            if self._entry(case).mask != "predicted":
                self._change(case, mask="predicted")
            return path

    def accept(self, case: str, mask: LabelVolume | np.ndarray) -> Path:
        """Write a mask that the user accepts, and keep it among the accepted ones for `undo_accept`.

        The caller has let the strokes overrule the net. Parameters and errors are those of `save_mask`.
        """
        with self._writing:
            values = self._as_mask(case, mask)
            self.check()
            number = self._accepted(case).write(values, {"classes": list(self.classes)})
            path = self._write_mask(case, values)
            self._change(case, mask="accepted", accepted=(*self._entry(case).accepted, number))
            self.log("accepted", case=case, number=number)
            return path

    def undo_accept(self, case: str) -> LabelVolume | None:
        """Go back to the mask that was accepted before; return it, or None when there was none.

        The mask that goes stays in ``masks/history``. If a prediction was saved since, it is the one that goes.
        """
        with self._writing:
            self.check()
            entry = self._entry(case)
            stack = entry.accepted[:-1] if entry.mask == "accepted" else entry.accepted
            if not stack:
                self._change(case, mask="none", accepted=())
                self._mask_path(case).unlink(missing_ok=True)
                return None
            self._write_mask(case, self._accepted(case).read(stack[-1]))
            self._change(case, mask="accepted", accepted=stack)
            self.log("accept undone", case=case, number=stack[-1])
            return self.mask(case)

    def accepted(self) -> list[str]:
        """Images whose mask is accepted."""
        return [case for case in self.cases if self._entry(case).mask == "accepted"]

    # ---- where labels lie --------------------------------------------------------------------------------------

    def _annotation(self, case: str) -> CaseAnnotation:
        with self._mutex:
            if case not in self._on_disk:
                self._on_disk[case] = CaseAnnotation(self._inside("annotations", case), self.shape(case))
            return self._on_disk[case]

    def _accepted(self, case: str) -> Revisions:
        return Revisions(self._inside("masks", "history", case), self.shape(case))

    def _mask_path(self, case: str) -> Path:
        entry = self._entry(case)
        return self._inside("masks", case + mask_suffix(entry.relative or entry.absolute, nameless=True))

    def _as_mask(self, case: str, mask: LabelVolume | np.ndarray) -> np.ndarray:
        values = mask.data if isinstance(mask, LabelVolume) else mask
        return as_labels(values, len(self.classes) - 1, self.shape(case), f"The mask of {case}")

    def _write_mask(self, case: str, values: np.ndarray) -> Path:
        self.check()
        image = self.image(case)
        return write(self._mask_path(case), LabelVolume(values, image.geometry), like=image)
