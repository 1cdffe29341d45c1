"""`Doubting`: how sure the model is of the image or the slice on screen; a map that follows the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.volume import Geometry
from napari_unetseg.workspace.errand import Errand
from napari_unetseg.workspace.rounds import model_facts
from napari_unetseg.workspace.state import Jobs
from napari_unetseg.workspace.workspace import Workspace

__all__ = ["PROBABILITY", "ROUNDS", "DoubtMap", "Doubting"]

PROBABILITY = "probability of "  # and the name of the class
ROUNDS = "disagreement of rounds"

_ENSEMBLE = 3  # models, the newest, that are asked together

_SAYS = {
    "entropy": "How undecided the model is, for whatever reason: 0 sure, 1 it cannot tell the classes apart.",
    "disagreement": "How much {passes} looks at mirrored copies contradict each other, 0 to 1. High: the model has not "
    "seen such a thing, strokes help. Low where the doubt is high: the image itself does not tell.",
    ROUNDS: "How much the last {passes} rounds contradict each other, 0 to 1: high where one more training may still "
    "change the answer.",
    PROBABILITY: "What the model gives the class here, 0 to 1.{calibrated}",
}


@dataclass(frozen=True, eq=False)
class DoubtMap:
    """A map in [0, 1] of plane `index` of a case, ``(Y, X)``, or of all of it where that is None."""

    case: str
    index: int | None
    kind: str
    says: str
    data: np.ndarray = field(repr=False)
    geometry: Geometry


class Doubting:
    """Keeps the map that is wanted up to date with image, slice and model, whenever nothing else runs.

    Signals: ``map_changed(DoubtMap | None)``, ``reliability_changed((picture or None, sentence))`` and ``changed()``,
    when the buttons may have another answer.
    """

    map_changed = Signal(object)
    changed = Signal()
    reliability_changed = Signal(object)

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self.workspace = workspace
        self._checking = Errand(workspace, jobs)
        self.map: DoubtMap | None = None
        self.kind: str | None = None  # what is wanted; None: nothing
        self.index: int | None = None
        self.errand = Errand(workspace, jobs)
        self._of: tuple[Any, ...] | None = None  # case, model, plane and passes of what was answered
        self._answer: Mapping[str, Any] = {}
        self.errand.changed.connect(self.changed.emit)
        workspace.actions_changed.connect(self.changed.emit)
        workspace.stage_changed.connect(self._on_stage)
        workspace.case_changed.connect(self._on_case)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be shown."""
        classes = tuple(PROBABILITY + one.name for one in self.workspace.classes)
        rounds = (ROUNDS,) if len(self._ensemble()) > 1 else ()
        return ("entropy", "disagreement", *rounds, *classes)

    def why_not(self) -> str:
        """Why there can be no map now; ``""`` when there can."""
        return self.workspace.why_not("predict")

    def want(self, kind: str | None, index: int | None = None) -> None:
        """Show this kind of map, of plane `index` (None: the whole image), from now on; None: no more."""
        self.kind, self.index = kind, index
        if kind is None:
            self.errand.drop()
            self._show(None)
        else:
            self._ask()

    def look(self, index: int | None) -> None:
        """The user went to another plane."""
        if self.kind is not None and index != self.index:
            self.want(self.kind, index)

    def _ensemble(self) -> list[str]:
        """The newest models with the same classes, in the order of training."""
        names = [one.name for one in self.workspace.classes]
        alike = (one for one in self.workspace.rounds if model_facts(one.folder).get("classes") == names)
        return [str(one.folder) for one in alike][-_ENSEMBLE:]

    def stop(self) -> None:
        """Compute no further, and want no map."""
        self.kind = None
        self.errand.stop()

    def ask_reliability(self) -> None:
        """Have it told whether 0.8 means 0.8: ``reliability_changed`` brings a picture ``(Y, X, 3)`` and a sentence."""
        if reason := self.workspace.why_not("segment_folder"):
            raise UnetSegError(reason)
        self._checking.start("reliability", {"model": str(self.workspace.model)}, self._on_reliability)

    def _on_reliability(self, result: Mapping[str, Any]) -> None:
        if result["picture"] is None:
            said = "Not known: nothing was held out to check it on."
            self.reliability_changed.emit((None, said))
            return
        before, after = _number(result["ece_before"]), _number(result["ece_after"])
        said = (
            f"Measured on {result['rule']} ({result['voxels']:,} voxels): what is said and what is differ by {after} "
            f"on average{'' if before == after else f', by {before} before the model was calibrated'}. "
            "On the diagonal, 0.8 means 0.8."
        )
        self.reliability_changed.emit((np.load(result["picture"]), said))

    # -- asking -----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        workspace = self.workspace
        if self.kind is None or self.why_not() or workspace.project is None:
            return
        passes = {"disagreement": "flips", ROUNDS: "rounds"}.get(self.kind, "")
        of = workspace.case, workspace.model, self.index, passes
        if of == self._of or (not passes and (*of[:3], "flips") == self._of):
            self._take()
            return
        where = {"project": str(workspace.project.path), "case": workspace.case, "index": self.index}
        who: dict[str, Any] = {"models": self._ensemble()} if passes == "rounds" else {"model": str(workspace.model)}
        args = {**where, **who, **({"tta": "flips"} if passes == "flips" else {})}
        self.errand.start("doubt", args, lambda result: self._on_answer(of, result))

    def _on_answer(self, of: tuple[Any, ...], result: Mapping[str, Any]) -> None:
        self._of, self._answer = of, result
        if of[:2] == (self.workspace.case, self.workspace.model):
            self._take()

    def _take(self) -> None:
        image, kind, answer = self.workspace.image(), self.kind, self._answer
        if image is None or kind is None or self.workspace.case is None:
            return
        try:
            if kind.startswith(PROBABILITY):
                names = [PROBABILITY + one.name for one in self.workspace.classes]
                data = np.load(answer["probability"], mmap_mode="r")[names.index(kind)]
            else:
                data = np.load(answer["disagreement" if kind == ROUNDS else kind], mmap_mode="r")
        except (OSError, ValueError, IndexError, TypeError):  # newer ones have taken its place, or a class is new
            self._of = None
            return
        says = _SAYS.get(kind, _SAYS[PROBABILITY])
        says = says.format(passes=answer.get("passes"), calibrated=_calibrated(self.workspace.model))
        self._show(DoubtMap(self.workspace.case, answer["index"], kind, says, np.array(data), image.geometry))

    def _show(self, shown: DoubtMap | None) -> None:
        if shown is not self.map:
            self.map = shown
            self.map_changed.emit(shown)

    def _on_stage(self, stage: str) -> None:
        if stage == "idle":
            self._ask()

    def _on_case(self, _: Any = None) -> None:
        self.errand.drop()
        self._show(None)
        image = self.workspace.image()
        if image is None or image.ndim < 3:
            self.index = None
        self._ask()


def _calibrated(model: Path | None) -> str:
    """Say whether 0.8 means 0.8."""
    facts = model_facts(model) if model is not None else {}
    found = (facts.get("scores") or {}).get("calibration")
    if not found:
        return " Not calibrated: nothing was held out to check it on."
    before, after = found.get("ece_before"), found.get("ece_after")
    rule = facts["scores"].get("rule", "")
    return f" Calibrated on {rule}: on average off by {_number(after)} (before: {_number(before)})."


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else "?"
