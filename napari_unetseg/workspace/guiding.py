"""`Guiding`: where to paint next, asked for as soon as a model is new, and strokes that look like slips of the hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.workspace.errand import Errand
from napari_unetseg.workspace.state import Jobs, Message, Preview
from napari_unetseg.workspace.workspace import Workspace

__all__ = ["Guiding", "Place", "Slip"]

_SECONDS = 6.0  # for looking: shorter than the user looks at the new mask
_KEPT = "kept_strokes"

Box = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Place:
    """Where it is worth painting next: plane `index` of a case (None: an image of one plane), and `box` on it.

    `mask` is what the model makes of `window`, ``(Y, X)``; both boxes are ``((y0, y1), (x0, x1))``.
    """

    case: str
    index: int | None
    point: tuple[int, int]
    box: Box
    reason: str
    window: Box
    mask: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Slip:
    """A stroke that others contradict; `painted` and `predicted` are class indices, 0 the background."""

    case: str
    index: int | None
    point: tuple[int, int]
    box: Box
    painted: int
    predicted: int
    voxels: int
    reason: str

    @property
    def key(self) -> list[Any]:
        """What it is remembered by."""
        return [self.case, self.index, [list(part) for part in self.box], self.painted]


class Guiding:
    """Places and slips of the project in hand.

    Signals: ``places_changed(tuple[Place, ...])``, ``arrived(Place)`` when one that was waited for is there,
    ``slips_changed(tuple[Slip, ...])``, ``changed()`` when a button may have another answer.
    """

    places_changed = Signal(tuple)
    arrived = Signal(object)
    slips_changed = Signal(tuple)
    changed = Signal()

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self.workspace = workspace
        self.places: tuple[Place, ...] = ()
        self.place: Place | None = None  # where the user was sent last
        self.slips: tuple[Slip, ...] = ()
        self.searched = False  # whether slips were looked for
        self._proposing, self._searching = Errand(workspace, jobs, keep=True), Errand(workspace, jobs)
        self._model: Path | None = None  # that the places are of
        self._wanted = False
        self._turn = 0
        workspace.project_changed.connect(self._forget)
        workspace.stage_changed.connect(self._on_stage)
        workspace.actions_changed.connect(self.changed.emit)
        self._searching.changed.connect(self.changed.emit)
        self._proposing.changed.connect(self._on_proposing)

    # -- the next place ---------------------------------------------------------------------------------------

    @property
    def looking(self) -> bool:
        """Whether the user waits for a place."""
        return self._wanted

    @property
    def searching(self) -> bool:
        """Whether slips are being looked for."""
        return self._searching.running

    def why_not_next(self) -> str:
        """Why no place can be shown; ``""`` when it can."""
        workspace = self.workspace
        if self._wanted:
            return "Looking for a place."
        return workspace.why_not("add_images") or ("" if self.places else workspace.why_not("segment_folder"))

    def next(self) -> None:
        """Go to the next place, once there is one; see `arrived`."""
        if reason := self.why_not_next():
            raise UnetSegError(reason)
        if self._model != self.workspace.model:
            self.places = ()
        place, self.places = next(iter(self.places), None), self.places[1:]
        if place is None:
            if not self._proposing.running:
                self._propose()
            self._wanted = True
            self.changed.emit()
        else:
            self._arrive(place)
        if not self.places:
            self._look_ahead()

    def show(self, place: Place) -> None:
        """Show what the model makes of a place, until the mask of the whole image is there."""
        shown = self.workspace.prediction
        image = self.workspace.image()
        if image is None or place.case != self.workspace.case or shown is not None:
            return
        mask = np.zeros(image.shape[-2:], np.uint8)
        (top, bottom), (left, right) = place.window
        mask[top:bottom, left:right] = place.mask
        self.workspace._show(preview=Preview(0, place.case, place.index, mask))

    def _arrive(self, place: Place) -> None:
        self.place = place
        if self.workspace.project is not None:
            self.workspace.project.log("proposed", case=place.case, plane=place.index)
        self.places_changed.emit(self.places)
        self.arrived.emit(place)

    def _on_proposing(self) -> None:
        self._wanted = self._wanted and self._proposing.running  # it may have failed
        self.changed.emit()

    def _on_stage(self, stage: str) -> None:
        if stage == "idle" and self._model != self.workspace.model:
            self._look_ahead()
        elif stage != "idle" and self._wanted:
            self._wanted = False
            self.changed.emit()

    def _look_ahead(self) -> None:
        """Have places ready when the user asks for one."""
        workspace = self.workspace
        if self._proposing.running or workspace.read_only or workspace.why_not("segment_folder") or not workspace.cases:
            return
        self._propose()

    def _propose(self) -> None:
        project, model = self.workspace.project, self.workspace.model
        assert project is not None
        self._turn += 1
        args = {"project": str(project.path), "model": str(model), "seconds": _SECONDS, "seed": self._turn}
        self._proposing.start("propose", args, lambda result: self._on_places(model, result))

    def _on_places(self, model: Path | None, result: Mapping[str, Any]) -> None:
        if model != self.workspace.model:
            self._wanted = False
            return
        found = [_place(one) for one in result["suggestions"] if one["case"] in self.workspace.cases]
        self.places = (*self.places, *found) if self._model == model else tuple(found)
        if found:
            self._model = model
        self.places_changed.emit(self.places)
        if self._wanted:
            self._wanted = False
            if self.places:
                place, self.places = self.places[0], self.places[1:]
                self._arrive(place)
            else:
                self.workspace.message.emit(Message("No place was found that is worth painting: all of it is painted."))

    # -- slips ------------------------------------------------------------------------------------------------

    def why_not_search(self) -> str:
        """Why strokes cannot be checked now; ``""`` when they can."""
        workspace = self.workspace
        if self.searching:
            return "The strokes are being checked."
        return workspace.why_not("train") if workspace.stage == "idle" else workspace.why_not("segment_folder")

    def search(self) -> None:
        """Look for strokes that others contradict; see `slips_changed`."""
        if reason := self.why_not_search():
            raise UnetSegError(reason)
        project = self.workspace.project
        assert project is not None
        self._searching.start("doubtful_strokes", {"project": str(project.path)}, self._on_slips)

    def stop_search(self) -> None:
        """Look no further."""
        self._searching.stop()

    def keep(self, slip: Slip) -> None:
        """Name a stroke no more: it is as it should be."""
        kept = self.workspace.recall(_KEPT, [])
        self.workspace.remember(**{_KEPT: [*kept, slip.key]})
        self._without(slip)

    def erased(self, slip: Slip) -> None:
        """The user erased a stroke."""
        if self.workspace.project is not None:
            self.workspace.project.log("slip erased", case=slip.case, plane=slip.index)
        self._without(slip)

    def _without(self, slip: Slip) -> None:
        self.slips = tuple(one for one in self.slips if one != slip)
        self.slips_changed.emit(self.slips)

    def _on_slips(self, result: Mapping[str, Any]) -> None:
        kept = self.workspace.recall(_KEPT, [])
        found = (_slip(one) for one in result["strokes"] if one["case"] in self.workspace.cases)
        self.slips, self.searched = tuple(one for one in found if one.key not in kept), True
        self.slips_changed.emit(self.slips)

    def _forget(self, _: Any = None) -> None:
        self.places, self.place, self.slips, self.searched = (), None, (), False
        self._model, self._wanted = None, False
        self.places_changed.emit(())
        self.slips_changed.emit(())


def _place(found: Mapping[str, Any]) -> Place:
    mask = np.load(found["mask"])
    point = (int(found["point"][0]), int(found["point"][1]))
    return Place(found["case"], found["index"], point, _box(found["box"]), found["reason"], _box(found["window"]), mask)


def _slip(found: Mapping[str, Any]) -> Slip:
    where = found["case"], found["index"], (int(found["point"][0]), int(found["point"][1])), _box(found["box"])
    return Slip(*where, found["painted"], found["predicted"], found["voxels"], found["reason"])


def _box(sides: Any) -> Box:
    (top, bottom), (left, right) = sides
    return (int(top), int(bottom)), (int(left), int(right))
