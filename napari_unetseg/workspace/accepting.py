"""`Accepting`: a slice or a class of a mask that the user finds right stays as it is, whatever is trained."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_unetseg.data.annotation import overrule
from napari_unetseg.errors import PlanError, UnetSegError
from napari_unetseg.io import atomic_write
from napari_unetseg.project import Project
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace.folders import Folders
from napari_unetseg.workspace.state import Aside, Difference, Jobs, Message, Prediction, Preview

__all__ = ["AcceptedPart", "Accepting"]

logger = logging.getLogger(__name__)

Kind = Literal["slice", "class"]


@dataclass(frozen=True, eq=False)
class AcceptedPart:
    """A slice or a class that was accepted.

    Attributes
    ----------
    kind : str
        ``slice`` or ``class``.
    which : int
        Index of the slice along Z, or of the class (0 background, 1.. classes).
    path : Path
        File that it is kept in.
    values : ndarray
        Of a slice its mask ``(Y, X)``; of a class where it is, as bits.
    shape : tuple of int
        Of the image.
    """

    kind: Kind
    which: int
    path: Path
    values: np.ndarray = field(repr=False)
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mask: np.ndarray, kind: Kind, which: int, path: Path) -> AcceptedPart:
        """Take a part of a mask."""
        values = mask[which].astype(np.uint8) if kind == "slice" else np.packbits(mask == which)
        return cls(kind, which, path, values, mask.shape)

    def write(self) -> None:
        """Keep it on disk."""

        def save(beside: Path) -> None:
            with beside.open("wb") as file:
                kind, which, shape = np.asarray(self.kind), np.asarray(self.which), np.asarray(self.shape)
                np.savez_compressed(file, kind=kind, which=which, values=self.values, shape=shape)

        atomic_write(self.path, save)

    @classmethod
    def read(cls, path: Path) -> AcceptedPart:
        """Undo `write`."""
        with np.load(path, allow_pickle=False) as kept:
            kind: Kind = "slice" if str(kept["kind"]) == "slice" else "class"
            return cls(kind, int(kept["which"]), path, kept["values"], tuple(int(n) for n in kept["shape"]))

    def put(self, mask: np.ndarray, index: int | None = None) -> None:
        """Write it into a mask, or into plane `index` of one."""
        if self.kind == "slice":
            if index is None:
                mask[self.which] = self.values
            elif index == self.which:
                mask[...] = self.values
            return
        size = int(np.prod(self.shape))
        there = np.unpackbits(self.values, count=size).astype(bool).reshape(self.shape)
        there = there if index is None or len(self.shape) == 2 else there[index]
        mask[(mask == self.which) & ~there] = 0
        mask[there] = self.which


class Accepting(Folders):
    """Keeps accepted parts of the image in hand, and puts them into every mask that is shown of it."""

    def __init__(self, jobs: Jobs, aside: Aside | None = None) -> None:
        super().__init__(jobs, aside)
        self.accepted_parts: tuple[AcceptedPart, ...] = ()
        self._bare: Prediction | None = None  # what the model says
        self._put: Prediction | None = None  # the same with the accepted parts, as it is shown

    def close_project(self) -> None:
        """Let go of the project; see `Desk.close_project`."""
        self.accepted_parts, self._bare, self._put = (), None, None
        super().close_project()

    def select_case(self, case: str | None) -> None:
        """Take another image in hand."""
        before = self.accepted_parts, self._bare, self._put
        self.accepted_parts, self._bare, self._put = (), None, None
        try:
            super().select_case(case)
        except UnetSegError:  # the image before stays in hand
            self.accepted_parts, self._bare, self._put = before
            raise
        self.accepted_parts = _read_parts(self._open, case) if case is not None else ()
        self.actions_changed.emit()

    def accept_part(self, kind: Kind, which: int) -> None:
        """Accept slice or class `which` of the mask of the image in hand, strokes overruling the net."""
        project, shown = self._ready("accept_part"), self.prediction
        assert shown is not None
        highest = shown.mask.data.shape[0] if kind == "slice" else len(self.classes)
        if not 0 <= which < highest or (kind == "slice" and shown.mask.data.ndim == 2):
            raise PlanError(f"There is no {kind} {which} in {shown.case}.")
        strokes, path = self._ink.labels.copy(), _next_path(project, shown.case, kind, which)
        self._keeping(True)

        def save() -> AcceptedPart:
            part = AcceptedPart.of(overrule(shown.mask.data, strokes), kind, which, path)
            part.write()
            return part

        def saved(part: AcceptedPart) -> None:
            project.log("part accepted", case=shown.case, part=kind, which=which)
            if self.case == shown.case:
                self.accepted_parts = (*self.accepted_parts, part)
                self._show_parts()
            self.message.emit(Message(f"{self.part_name(part)} of {shown.case} stays as it is from now on."))
            self._keeping(False)

        self._write(save, saved, lambda: self._keeping(False))

    def undo_part(self) -> None:
        """Take the last accepted slice or class back: the model may change it again."""
        project = self._ready("undo_part")
        part = self.accepted_parts[-1]
        part.path.unlink(missing_ok=True)
        project.log("part taken back", case=self.case, part=part.kind, which=part.which)
        self.accepted_parts = self.accepted_parts[:-1]
        self._show_parts()

    def part_name(self, part: AcceptedPart) -> str:
        """What the user calls it."""
        if part.kind == "slice":
            return f"Slice {part.which}"
        names = [one.name for one in self.classes]
        return f"Class {names[part.which] if part.which < len(names) else part.which}"

    def _show_parts(self) -> None:
        self._put = self._with_parts(self._bare)
        super()._show(prediction=self._put)

    def _keeping(self, saving: bool) -> None:
        self.saving = saving
        self.actions_changed.emit()

    def _show(self, **what: Preview | Prediction | Difference | None) -> None:
        if "prediction" in what and not self.accepted:
            shown = what["prediction"]
            if shown is not self._put or shown is None:
                self._bare = shown if isinstance(shown, Prediction) else None
                self._put = self._with_parts(self._bare)
            what["prediction"] = self._put
        preview = what.get("preview")
        if isinstance(preview, Preview) and preview.case == self.case and self.accepted_parts and not self.accepted:
            mask = np.array(preview.mask)
            for part in self.accepted_parts:
                part.put(mask, preview.index)
            what["preview"] = replace(preview, mask=mask)
        super()._show(**what)

    def _with_parts(self, bare: Prediction | None) -> Prediction | None:
        if bare is None or bare.case != self.case or bare.mask.data.shape != self._shape() or not self.accepted_parts:
            return bare
        mask = np.array(bare.mask.data)
        for part in self.accepted_parts:
            part.put(mask)
        return replace(bare, mask=LabelVolume(mask, bare.mask.geometry))

    def _shape(self) -> tuple[int, ...]:
        return self._image.shape if self._image is not None else ()


def _folder(project: Project, case: str) -> Path:
    return project.path / "masks" / "parts" / case


def _next_path(project: Project, case: str, kind: str, which: int) -> Path:
    folder = _folder(project, case)
    numbers = [int(path.name[:4]) for path in folder.glob("[0-9][0-9][0-9][0-9]-*.npz")]
    return folder / f"{max(numbers, default=0) + 1:04d}-{kind}-{which}.npz"


def _read_parts(project: Project, case: str) -> tuple[AcceptedPart, ...]:
    """Parts in the order of acceptance; one that cannot be read is left out."""
    found: list[Any] = []
    for path in sorted(_folder(project, case).glob("[0-9][0-9][0-9][0-9]-*.npz")):
        try:
            part = AcceptedPart.read(path)
        except (OSError, ValueError, KeyError) as error:
            logger.warning("%s could not be read: %s", path.name, error)
            continue
        if part.shape == project.shape(case):
            found.append(part)
    return tuple(found)
