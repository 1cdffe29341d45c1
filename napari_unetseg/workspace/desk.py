"""`Desk`: the project in hand, its images, classes and strokes; the half of the workspace that needs no jobs."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.io import read, stem
from napari_unetseg.metrics.forecast import Correction, Forecast
from napari_unetseg.plan import Plan
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume
from napari_unetseg.workspace.pictures import check_picture, doubtful
from napari_unetseg.workspace.reasons import REASONS
from napari_unetseg.workspace.rounds import read_rounds
from napari_unetseg.workspace.state import Class, Curves, Difference, Message, Prediction, Preview, Progress, Round
from napari_unetseg.workspace.strokes import Region, Strokes, Unsaved, recovered

__all__ = ["MINUTES", "Desk"]

logger = logging.getLogger(__name__)

MINUTES = 2.0


class Desk:
    """State and signals of the workspace, and the tasks that are done in an instant."""

    project_changed = Signal(object)
    cases_changed = Signal(tuple)
    case_changed = Signal(object)
    classes_changed = Signal(tuple)
    strokes_changed = Signal(str)
    plan_changed = Signal(object)
    nets_changed = Signal(tuple)
    net_checked = Signal(object)
    stage_changed = Signal(str)
    progress_changed = Signal(object)
    curves_changed = Signal(object)
    rounds_changed = Signal(tuple)
    corrections_changed = Signal(tuple)
    preview_changed = Signal(object)
    prediction_changed = Signal(object)
    difference_changed = Signal(object)
    folder_changed = Signal(list)
    comparison_changed = Signal(object)
    message = Signal(object)
    actions_changed = Signal()

    def __init__(self) -> None:
        self._strokes: Strokes | None = None
        self._unsaved: Unsaved | None = None
        self._image: Volume | None = None
        self._memory: dict[str, Any] = {}
        self.project: Project | None = None
        self.case: str | None = None
        self.plan = Plan().change(training={"minutes": MINUTES})
        self.nets: tuple[dict[str, Any], ...] = ()
        self.parts: dict[str, dict[str, str]] = {}
        self.losses: dict[str, dict[str, str]] = {}
        self.net_check: dict[str, Any] = {}
        self.stage = "idle"
        self.stopping = False
        self.progress = Progress()
        self.curves = Curves()
        self.rounds: tuple[Round, ...] = ()
        self.corrections: tuple[Correction, ...] = ()
        self.forecast = Forecast(0)
        self.preview: Preview | None = None
        self.prediction: Prediction | None = None
        self.difference: Difference | None = None
        self.folder_rows: list[dict[str, Any]] = []  # grows in place, for files may be many
        self.comparison: dict[str, Any] | None = None
        self.saving = False  # whether a mask is being written
        self.removed: tuple[str, ...] = ()  # images taken out of the project, the last of them last

    # -- the project ------------------------------------------------------------------------------------------

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the project's images."""
        return tuple(self.project.cases) if self.project else ()

    @property
    def classes(self) -> tuple[Class, ...]:
        """Names, colours and labels of the classes, background first."""
        if self.project is None:
            return ()
        pairs = zip(self.project.classes, self.project.colours, strict=True)
        return tuple(Class(name, colour, label) for label, (name, colour) in enumerate(pairs, start=1))

    @property
    def model(self) -> Path | None:
        """Folder of the model that predicts now."""
        return self.project.current_model if self.project else None

    def create_project(self, path: str | Path, classes: Sequence[str], colours: Sequence[str] | None = None) -> None:
        """Make a project folder, with the background as first class, and open it."""
        self._hold(Project.create(path, classes, colours=colours))

    @property
    def read_only(self) -> bool:
        """Whether the project may only be looked at, for somebody else works in it."""
        return self.project is not None and self.project.read_only

    @property
    def taken(self) -> str:
        """Who has taken the project over since it was opened here, in a sentence; empty when nobody has."""
        return self.project.taken.message if self.project and self.project.taken else ""

    def check_held(self) -> None:
        """Raise `ProjectLocked` once, when somebody has taken the project over."""
        if self.project and not self.read_only:
            self.project.check()

    def take_back(self) -> None:
        """Open the project that was taken over again for work, with the stroke that could not be saved."""
        unsaved = self._unsaved
        project = Project.open(self._open.path, steal_lock=True)  # where that fails the stroke stays on screen
        try:
            if unsaved is not None:
                unsaved.paint(project)
        finally:
            self._hold(project)

    @property
    def unfinished(self) -> str:
        """Name of the round whose training was broken off and can be resumed; empty when there is none."""
        return ""

    def why_unlike(self) -> str:
        """Why the model in use cannot segment the image in hand, whatever is done; else empty."""
        return ""

    @property
    def annotated(self) -> list[str]:
        """Images with any stroke on them; quick, for it is asked at every stroke."""
        return [case for case in self.cases if any(self.stroke_counts(case).values())]

    def open_project(self, path: str | Path, steal_lock: bool = False, read_only: bool = False) -> None:
        """Open a project folder where it was left; the project in hand stays when that fails.

        One that is open elsewhere (`ProjectLocked` says where) can be opened to look at, or its lock taken over.
        """
        if self.project is not None and Path(path).resolve() == self.project.path.resolve():
            self.close_project()  # else its own lock would keep us out
        self._hold(Project.open(path, steal_lock=steal_lock, read_only=read_only))

    def close_project(self) -> None:
        """Let go of the project; everything painted is on disk already."""
        if self.project is None:
            return
        project, self.project, self.case, self._strokes, self._image = self.project, None, None, None, None
        project.close()
        self._memory = {}
        self.curves, self.corrections, self.folder_rows, self.rounds = Curves(), (), [], ()
        self.forecast, self.saving, self.removed, self._unsaved = Forecast(0), False, (), None
        self._tell_everything()

    def _hold(self, project: Project) -> None:
        self.close_project()
        self.project, self._strokes, self._memory = project, Strokes(project), project.state
        self.rounds = read_rounds(project)
        self.corrections = tuple(Correction.from_dict(one) for one in self.recall("corrections", ()))
        if saved := self.recall("plan"):
            try:
                self.plan = Plan.from_json(json.dumps(saved))
            except UnetSegError as error:
                logger.warning("The plan of the last session is not used: %s", error)
        last = self.recall("case")
        self._tell_everything()
        if self.cases:  # an image that was moved is no reason to keep the project shut
            self._select_any(sorted(self.cases, key=lambda case: case != last))
        if project.crashed:
            self.message.emit(recovered(project))

    def _tell_everything(self) -> None:
        self.project_changed.emit(self.project)
        self.classes_changed.emit(self.classes)
        self.cases_changed.emit(self.cases)
        self.case_changed.emit(self.case)
        self.plan_changed.emit(self.plan)
        self.rounds_changed.emit(self.rounds)
        self.curves_changed.emit(self.curves)
        self.corrections_changed.emit(self.corrections)
        self.folder_changed.emit(self.folder_rows)
        self._show(preview=None, prediction=None, difference=None)
        self._enter("idle")

    def remember(self, **facts: Any) -> None:
        """Keep plain values (slice, zoom, ...) with the project, for the next time it is opened."""
        if self.project and any(self._memory.get(key) != value for key, value in facts.items()):
            self._memory.update(facts)
            if not self.read_only:
                self.project.state = self._memory

    def recall(self, key: str, default: Any = None) -> Any:
        """Value that was remembered with the project."""
        return self._memory.get(key, default)

    # -- images and classes -----------------------------------------------------------------------------------

    def add_images(self, paths: Sequence[str | Path], *, copy: bool = False) -> list[str]:
        """Add image files; one that cannot be read or learned from is named in a message, and the others are added.

        A file like an image of the project that is missing is that image, moved: its strokes are on it again.
        """
        project, added = self._ready("add_images"), []
        doubts: dict[str, list[str]] = {}
        for path in paths:
            try:
                picture = read(path)
                doubts.setdefault(check_picture(Path(path).name, picture), []).append(Path(path).name)
                if (case := self._missing_like(path, picture)) is not None:
                    self._relink(case, path)
                else:
                    added.append(project.add(path, copy=copy))
            except UnetSegError as error:
                self.message.emit(Message(error.message, error.hint, "error"))
        return self._added(added, doubts)

    def _missing_like(self, path: str | Path, picture: Volume) -> str | None:
        """Image of the project whose file is gone, with the name and the shape of this one."""
        for case in self.cases:
            if case == stem(path) and self._open.shape(case) == picture.shape:
                try:
                    self._open.image_path(case)
                except UnetSegError:
                    return case
        return None

    def _relink(self, case: str, path: str | Path) -> None:
        self._open.relink(case, path)
        self.message.emit(Message(f"{case} was missing and is found again; its strokes are on it."))
        self.select_case(case)

    def add_array(self, name: str, volume: Volume) -> str:
        """Add an image that is open already, ``(C, [Z,] Y, X)``; it is kept inside the project."""
        project, doubt = self._ready("add_images"), check_picture(name, volume)
        return self._added([project.add_array(name, volume)], {doubt: [name]})[0]

    def _added(self, names: list[str], doubts: dict[str, list[str]]) -> list[str]:
        for message in doubtful(doubts):
            self.message.emit(message)
        if names:
            self.removed = tuple(case for case in self.removed if case not in names)
            self.cases_changed.emit(self.cases)
            if self.case is None:
                self.select_case(names[0])
            self.actions_changed.emit()
        return names

    def remove_case(self, case: str) -> None:
        """Take an image out of the project."""
        project = self._ready("add_images")
        project.remove(case)
        self.removed = (*self.removed, case)
        self._ink.forget(case)
        if case == self.case:
            self._select_any(self.cases)
        self.cases_changed.emit(self.cases)
        self.actions_changed.emit()

    def undo_remove(self) -> None:
        """Take the last image that was taken out back into the project, with its strokes."""
        project, case = self._ready("undo_remove"), self.removed[-1]
        project.restore(case)
        self.removed = self.removed[:-1]
        self.cases_changed.emit(self.cases)
        self.select_case(case)

    def set_classes(self, names: Sequence[str], colours: Sequence[str] | None = None) -> None:
        """Rename, recolour or add classes; a class that has strokes cannot be removed."""
        self._ready("add_images").set_classes(names, colours)
        self.classes_changed.emit(self.classes)
        self.actions_changed.emit()

    def select_case(self, case: str | None) -> None:
        """Take another image in hand."""
        image = self._open.image(case) if case is not None else None
        self._ink.take(case)
        self.case, self._image = case, image
        self.remember(case=case)
        mask = self._open.mask(case) if case is not None and self.accepted else None
        self._show(preview=None, prediction=Prediction(case, None, mask) if case is not None and mask else None)
        self.case_changed.emit(case)
        self.actions_changed.emit()

    def next_case(self, step: int = 1) -> None:
        """Go `step` images further, round and round."""
        self._ready("next")
        here = self.cases.index(self.case) if self.case in self.cases else -1
        count = len(self.cases)
        self._select_any([self.cases[(here + step * turn) % count] for turn in range(1, count + 1)])

    def _select_any(self, cases: Sequence[str]) -> None:
        """Take the first of these images in hand that can be read; those that cannot are named in a message."""
        for case in cases:
            try:
                return self.select_case(case)
            except UnetSegError as error:
                self.message.emit(Message(error.message, error.hint, "error"))
        return self.select_case(None)

    def image(self) -> Volume | None:
        """Image of the case in hand."""
        return self._image

    @property
    def accepted(self) -> bool:
        """Whether the image in hand has an accepted mask."""
        return bool(self.project and self.case in self.project.accepted())

    # -- strokes ----------------------------------------------------------------------------------------------

    def annotation(self) -> np.ndarray:
        """Copy of the strokes of the case in hand, ``([Z,] Y, X)`` uint8: 0 unlabelled, 1 background, 2.. classes."""
        return self._ink.labels.copy()

    def sync_strokes(self, labels: np.ndarray, near: Region | None = None) -> Region | None:
        """Journal what differs between the annotation layer and what is on disk; see `Strokes.sync`."""
        region = None
        try:
            if not self.read_only:
                self._ready("annotate")
                region = self._ink.sync(labels, near)
        finally:
            if self.taken:
                self._unsaved = Unsaved.of(self.case or "", labels, self._ink.labels) or self._unsaved
        if region is not None:
            self.strokes_changed.emit(self.case)
            self.actions_changed.emit()
        return region

    def stroke_counts(self, case: str | None = None) -> dict[str, int]:
        """Voxels painted of each class in `case`, or in the whole project."""
        return self._strokes.counts(case) if self._strokes else {}

    def painted_share(self, case: str) -> float:
        """Share of the voxels of an image that are painted, 0 to 1; 1 is an image that is done."""
        return self._strokes.share(case) if self._strokes else 0.0

    # -- what may be done -------------------------------------------------------------------------------------

    def why_not(self, action: str) -> str:
        """Plain reason why `action` (one of `ACTIONS`) is not possible now; ``""`` when it is."""
        return REASONS[action](self)

    def _ready(self, action: str) -> Project:
        if reason := self.why_not(action):
            raise UnetSegError(reason)
        return self._open

    @property
    def _open(self) -> Project:
        if self.project is None:
            raise UnetSegError("No project is open.", hint="Open or create a project first.")
        return self.project

    @property
    def _ink(self) -> Strokes:
        if self._strokes is None:
            raise UnetSegError("No project is open.", hint="Open or create a project first.")
        return self._strokes

    # -- setters ----------------------------------------------------------------------------------------------

    def _enter(self, stage: str) -> None:
        self.stage, self.stopping = stage, False
        if stage == "idle":
            self._advance(0.0, math.nan, "")
        self.stage_changed.emit(stage)
        self.actions_changed.emit()

    def _advance(self, fraction: float, left: float, sentence: str) -> None:
        self.progress = Progress(min(1.0, fraction), left, sentence)
        self.progress_changed.emit(self.progress)

    def complain(self, event: Mapping[str, Any]) -> None:
        """Tell why a job failed, quietly when the user stopped it."""
        level = "info" if event.get("stopped") else "error"
        self.message.emit(Message(event["message"], event.get("hint", ""), level))

    def _show(self, **what: Preview | Prediction | Difference | None) -> None:
        for name, value in what.items():
            if getattr(self, name) is not value:
                setattr(self, name, value)
                getattr(self, f"{name}_changed").emit(value)
        self.actions_changed.emit()
