"""`FirstAnswer`: a mask of what is on screen a moment after each stroke, until a trained net answers; and who does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.workspace.errand import Errand
from napari_unetseg.workspace.reasons import missing_strokes
from napari_unetseg.workspace.state import Jobs, Preview
from napari_unetseg.workspace.workspace import Workspace

__all__ = ["FirstAnswer"]

_KEPT = "live answers"


class FirstAnswer:
    """Asks for the instant answer while no net is trained, and says who made the mask on screen.

    Signals: ``wanted(float)``, something new asks for an answer that many seconds from now, unless more follows;
    ``changed()``, `says` or `why_not` may have another answer.
    """

    wanted = Signal(float)
    changed = Signal()

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self.workspace = workspace
        self.errand = Errand(workspace, jobs)
        self.index: int | None = None  # plane on screen
        self.seconds = float("nan")  # that the last answer took, in the worker
        self._turn = 0  # one more with every change of the strokes
        self._shown: Preview | None = None
        self._images = 0
        self.errand.changed.connect(self.changed.emit)
        for signal in (workspace.actions_changed, workspace.preview_changed, workspace.prediction_changed):
            signal.connect(self._tell)
        workspace.leader_changed.connect(self._tell)
        workspace.rounds_changed.connect(self._on_rounds)
        workspace.strokes_changed.connect(self._on_strokes)
        workspace.classes_changed.connect(self._on_strokes)
        workspace.case_changed.connect(self._on_case)
        workspace.project_changed.connect(self._on_case)

    # -- what the user chooses --------------------------------------------------------------------------------

    @property
    def on(self) -> bool:
        """Whether the user wants instant answers; remembered with the project."""
        return bool(self.workspace.recall(_KEPT, True))

    def turn(self, on: bool) -> None:
        """Switch instant answers on or off."""
        self.workspace.remember(**{_KEPT: on})
        if on:
            self._on_strokes()
        else:
            self.errand.drop()
        self.changed.emit()

    def look(self, index: int | None) -> None:
        """The user went to another plane."""
        if index != self.index:
            self.index = index
            self.wanted.emit(0.1)

    # -- what is said -----------------------------------------------------------------------------------------

    def why_not(self) -> str:
        """Why there is no instant answer now; ``""`` when there is."""
        workspace = self.workspace
        if workspace.model is not None:
            return "A trained net answers: its mask is better than an instant one."
        if reason := workspace.why_not("annotate"):
            return reason
        if not self.on:
            return "Instant answers are switched off."
        if workspace.stage != "idle":
            return "Something else is being computed."
        return missing_strokes(workspace.stroke_counts())

    @property
    def who(self) -> str:
        """Whose mask is on screen: ``instant``, ``net``, ``saved``, or empty when there is none."""
        workspace = self.workspace
        if workspace.stage == "training":
            return {"": "", "instant": "instant"}.get(workspace.leader, "net")
        if workspace.prediction is not None:
            net = "instant" if any(one.current and one.net == "instant" for one in workspace.rounds) else "net"
            return "saved" if workspace.accepted else net
        shown = workspace.preview
        return "instant" if shown is not None and shown is self._shown else ""

    def says(self) -> str:
        """Whose mask is on screen, in a sentence."""
        workspace = self.workspace
        if workspace.stage == "training":
            if self.who == "":
                return "The net begins to learn; the mask on screen is the last one."
            if self.who == "instant":
                return "The instant model answers until the net takes over."
            return f"{workspace.title_of(workspace.leader)} answers."
        if self.who == "saved":
            return "This mask is accepted and saved."
        if workspace.prediction is not None:
            current = next((one for one in workspace.rounds if one.current), None)
            if current is None:
                return "A trained net answers."
            return f"Round {current.number} ({workspace.title_of(current.net)}) answers."
        if self.who == "instant":
            on = f" on {self._images} images" if self._images > 1 else ""
            return f"Instant answer from your strokes{on} (not trained yet)."
        if workspace.case is None or workspace.model is not None:
            return ""
        if missing_strokes(workspace.stroke_counts()):
            return "An instant answer follows your first strokes of two classes."
        if self.errand.running:
            return "Working out an instant answer …"
        return self.why_not() or "The instant answer follows your next stroke."

    # -- asking -----------------------------------------------------------------------------------------------

    def ask(self, near: Sequence[float] | None = None) -> None:
        """Ask for an answer now; `near` is the pixel ``(y, x)`` the user looks at. Without strokes, get ready for it.

        An answer that is still being worked out is no longer wanted.
        """
        workspace = self.workspace
        if workspace.project is None:
            return
        reason = self.why_not()
        if reason and reason != missing_strokes(workspace.stroke_counts()):
            return
        args = {
            "project": str(workspace.project.path),
            "case": workspace.case,
            "index": self.index,
            "near": None if near is None else [float(at) for at in near],
            "annotated": workspace.annotated,
            "strokes": self._turn,
        }
        self.errand.start("instant", args, lambda result: self._on_answer(args, result))

    def _on_answer(self, args: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        workspace = self.workspace
        if result["mask"] is None or args["case"] != workspace.case or self.why_not():
            return
        try:
            mask = np.load(result["mask"])
        except OSError:  # a newer answer has taken its place already
            return
        self._images, self.seconds = int(result["images"]), float(result["seconds"])
        self._shown = Preview(0, args["case"], args["index"], mask)
        workspace.show_preview(self._shown)

    def _on_strokes(self, _: Any = None) -> None:
        self._turn += 1
        self.wanted.emit(0.2)

    def _on_rounds(self, _: Any = None) -> None:
        if self.workspace.rounds and self.workspace.model is None:  # the first round was undone
            self.wanted.emit(0.2)

    def _on_case(self, _: Any = None) -> None:
        self._shown, self.index = None, None
        self._on_strokes()

    def _tell(self, _: Any = None) -> None:
        self.changed.emit()
