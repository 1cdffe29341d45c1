"""`AfterNet`: the steps done to masks after the net, tried out while they are chosen, kept with project and model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.io import atomic_write
from napari_unetseg.postprocess import check_steps, parted
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace.rounds import model_facts
from napari_unetseg.workspace.state import Jobs, Message, Prediction, Preview
from napari_unetseg.workspace.workspace import Workspace

__all__ = ["AfterNet", "Measured", "Objects"]

Steps = tuple[tuple[str, dict[str, Any]], ...]

_ACCEPTED = "The mask is accepted as it is: undo the acceptance to change it."
_READ_ONLY = "The project is open for reading only: the table has no place."


@dataclass(frozen=True, eq=False)
class Objects:
    """Numbers of the objects of plane `index` of a case, or of the whole image; None where no step numbers them."""

    case: str
    index: int | None
    numbers: np.ndarray | None = field(repr=False)


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows of `measure` of a case, the table they were written to, and the numbers of the objects."""

    case: str
    rows: list[dict[str, Any]] = field(repr=False)
    table: Path
    numbers: np.ndarray = field(repr=False)


class AfterNet:
    """Steps of the plan, and what they make of the image in hand.

    The worker keeps what the net said, so that a change is answered without another pass of the net. Requests never
    queue up: while one is answered, only the last wish is remembered.

    Parameters
    ----------
    workspace : Workspace
        Whose plan, model and mask they are.
    jobs : Jobs
        Who does them.
    """

    steps_changed = Signal(tuple)
    objects_changed = Signal(object)
    measured = Signal(object)
    told = Signal(str)

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self.workspace, self._jobs = workspace, jobs
        self.steps: Steps = _steps_of(workspace.plan.post.steps)
        self.note = ""
        self.measuring = False
        self._asked: tuple[Any, ...] | None = None  # case, model, steps and index of the request being answered
        self._wish: tuple[Any, ...] | None = None
        self._done: tuple[Any, ...] | None = None  # what the whole mask on screen was made of
        self._late = False  # whether steps changed while they could not be tried out
        self._model: Path | None = None
        workspace.plan_changed.connect(self._on_plan)
        workspace.rounds_changed.connect(self._on_rounds)
        workspace.prediction_changed.connect(self._on_prediction)
        workspace.case_changed.connect(self._forget)

    # -- choosing ---------------------------------------------------------------------------------------------

    def change(self, steps: Sequence[tuple[str, Mapping[str, Any]]], index: int | None = None) -> None:
        """Take other steps, and try them out on plane `index` (None: the whole image); `keep` makes them last.

        Raises
        ------
        PlanError
            When a step cannot be as it is.
        """
        self.steps = _steps_of(check_steps(steps))
        self.steps_changed.emit(self.steps)
        self._ask(index)

    def keep(self) -> None:
        """Write the steps into the plan of the project and into the model in use, and do them to the whole mask."""
        if self.steps != _steps_of(self.workspace.plan.post.steps):
            self.workspace.change_plan(post={"steps": self.steps})
        if self.workspace.model is not None and not self.workspace.read_only:
            save_steps(self.workspace.model, self.steps)
        self._ask(None)

    def why_not(self) -> str:
        """Why nothing can be computed now; ``""`` when it can."""
        return self.workspace.why_not("predict")

    def why_not_try(self) -> str:
        """Why the mask on screen does not follow the steps; ``""`` when it does."""
        return self.why_not() or (_ACCEPTED if self.workspace.accepted else "")

    def why_not_measure(self) -> str:
        """Why objects cannot be measured now; ``""`` when they can."""
        read_only = _READ_ONLY if self.workspace.read_only else ""
        return self.why_not() or read_only or ("Measuring." if self.measuring else "")

    # -- trying out -------------------------------------------------------------------------------------------

    def _ask(self, index: int | None) -> None:
        workspace = self.workspace
        self._late = bool(self.why_not_try())
        if self._late:
            return
        wish = (workspace.case, str(workspace.model), self.steps, index)
        if wish == self._done and index is None:
            return
        if self._asked is not None:
            self._wish = wish
            return
        self._asked = wish
        args = {**self._args(), "index": index}
        self._jobs.submit("preview_post", args, lambda event: self._on_tried(wish, event))

    def _args(self) -> dict[str, Any]:
        workspace = self.workspace
        assert workspace.project is not None
        steps = [[name, options] for name, options in self.steps]
        where = {"project": str(workspace.project.path), "case": workspace.case}
        return {**where, "model": str(workspace.model), "steps": steps}

    def _on_tried(self, asked: tuple[Any, ...], event: Mapping[str, Any]) -> None:
        if event["event"] not in ("Done", "Failed"):
            return
        if asked is self._asked:
            self._asked = None
        wish, self._wish = self._wish, None
        case, model, steps, _ = asked
        current = (self.workspace.case, str(self.workspace.model)) == (case, model)
        if event["event"] == "Failed":
            self._tell(" ".join(filter(None, (event["message"], event.get("hint")))))
        elif current and not self.why_not_try() and (steps == self.steps or wish is not None):
            self._take(asked, event["result"])
        if wish is not None and wish[2] == self.steps:
            self._ask(wish[3])

    def _take(self, asked: tuple[Any, ...], result: Mapping[str, Any]) -> None:
        case, model, _, index = asked
        image = self.workspace.image()
        try:
            mask = np.load(result["mask"])
            numbers = None if result["objects"] is None else np.load(result["objects"])
        except OSError:  # a newer one has taken its place already
            return
        self._tell(result["note"])
        if index is None and image is not None:
            self._done = asked
            made = Prediction(case, Path(model), LabelVolume(mask, image.geometry))
            self.workspace._show(preview=None, prediction=made)
        else:
            self._done = None
            self.workspace._show(preview=Preview(0, case, index, mask))
        self.objects_changed.emit(Objects(case, index, numbers))

    def _tell(self, note: str) -> None:
        self.note = note
        self.told.emit(note)

    # -- measuring --------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Measure classes and objects of the image in hand into ``measures/`` of the project; see `measured`."""
        if reason := self.why_not_measure():
            raise UnetSegError(reason)
        project = self.workspace.project
        assert project is not None
        case = self.workspace.case
        self.measuring = True
        args = {**self._args(), "out": str(project.path / "measures")}
        self._jobs.submit("measure", args, lambda event: self._on_measured(case, event))
        self.workspace.actions_changed.emit()

    def _on_measured(self, case: Any, event: Mapping[str, Any]) -> None:
        if event["event"] not in ("Done", "Failed"):
            return
        self.measuring = False
        workspace = self.workspace
        if event["event"] == "Failed":
            workspace.message.emit(Message(event["message"], event.get("hint", ""), "error"))
        else:
            result = event["result"]
            count = sum(bool(row["object"]) for row in result["rows"])
            table = Path(result["table"])
            objects = "1 object" if count == 1 else f"{count:,} objects"
            workspace.message.emit(Message(f"{objects} of {case} measured: measures/{table.name} in the project."))
            if case == workspace.case:
                self.measured.emit(Measured(case, result["rows"], table, np.load(result["objects"])))
        workspace.actions_changed.emit()

    # -- what happens elsewhere -------------------------------------------------------------------------------

    def _on_plan(self, plan: Any) -> None:
        steps = _steps_of(plan.post.steps)
        if steps != self.steps:
            self.steps = steps
            self.steps_changed.emit(steps)

    def _on_rounds(self, rounds: Any) -> None:
        """Give a new model the steps of the project; of an earlier round, which the user goes back to, take its own."""
        model, before = self.workspace.model, self._model
        self._model = model
        if model is None or model == before:
            return
        theirs = _model_steps(model)
        if before is None or theirs == self.steps:
            return
        newest = max(rounds, key=lambda one: one.number, default=None)
        if newest is not None and Path(newest.folder) == Path(model):
            if not self.workspace.read_only:
                save_steps(model, self.steps)
        else:
            self.workspace.change_plan(post={"steps": theirs})

    def _on_prediction(self, prediction: Prediction | None) -> None:
        """Have the steps done that the mask was not made with, and the objects numbered."""
        if prediction is None or prediction.model is None or (self._done is not None and self._matches(prediction)):
            return
        self._done = None
        numbered = bool(parted(self.steps)[1])
        if self._late or numbered or _model_steps(prediction.model) != self.steps:
            self._ask(None)

    def _matches(self, prediction: Prediction) -> bool:
        return self._done == (prediction.case, str(prediction.model), self.steps, None)

    def _forget(self, _: Any = None) -> None:
        self._done = self._wish = None
        self._tell("")


def save_steps(model: Path, steps: Steps) -> None:
    """Write steps into the plan of a saved model, so that every later use of it does them too.

    Raises
    ------
    WriteError
        The disk is full, or the folder read-only.
    """
    facts = model_facts(model)
    if not facts or _model_steps(model) == steps:
        return
    plan = {**facts.get("plan", {}), "post": {"steps": [[name, options] for name, options in steps]}}
    text = json.dumps({**facts, "plan": plan}, indent=1)
    atomic_write(model / "model.json", lambda path: path.write_text(text, encoding="utf-8") and None)


def _model_steps(model: Path) -> Steps:
    return _steps_of(model_facts(model).get("plan", {}).get("post", {}).get("steps", ()))


def _steps_of(steps: Sequence[tuple[str, Mapping[str, Any]]]) -> Steps:
    return tuple((str(name), dict(options)) for name, options in steps)
