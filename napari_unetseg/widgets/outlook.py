"""How long the next training will take, told beside the Train button before it is pressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtWidgets import QLabel

from napari_unetseg.widgets.context import Context, duration
from napari_unetseg.widgets.parts import set_role
from napari_unetseg.widgets.watch import timer

__all__ = ["Outlook"]

PAUSE_MS = 5000  # measuring takes the worker some seconds, in which there is no instant answer


class Outlook(QLabel):
    """A line that is asked for when the user pauses, again whenever the plan or the painted images are others.

    Parameters
    ----------
    context : Context
        Whose workspace has the plan.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.setWordWrap(True)
        self.setIndent(0)
        set_role(self, "muted")
        self.setToolTip("Measured on this computer with your images: two training steps were made and forgotten.")
        self._known: Any = None
        self._soon = timer(self, PAUSE_MS, self.ask)
        workspace = context.workspace
        workspace.strokes_changed.connect(self._wait)
        for signal in (workspace.plan_changed, workspace.project_changed, workspace.cases_changed):
            signal.connect(self._forget)
        workspace.stage_changed.connect(self._on_stage)
        self._forget()

    def ask(self) -> None:
        """Ask now, unless nothing changed or something is running."""
        workspace = self.context.workspace
        now = (workspace.plan, tuple(workspace.annotated))
        if workspace.stage != "idle" or workspace.read_only or workspace.why_not("train") or now == self._known:
            return
        self._known = now
        workspace.ask_plan(self._tell)

    def _tell(self, answer: Mapping[str, Any]) -> None:
        if "first_mask" not in answer:  # Train says it when it is pressed
            return
        first, whole = duration(max(1.0, answer["first_mask"])), duration(answer["estimate_seconds"])
        steps = int(float(f"{answer['steps']:.2g}"))
        self.setText(f"First mask after about {first}, then about {steps:,} steps in {whole}.")
        self.show()

    def _on_stage(self, stage: str) -> None:
        self.setVisible(bool(self.text()) and stage == "idle")
        self._wait()

    def _wait(self, _: Any = None) -> None:
        self._soon.start()

    def _forget(self, _: Any = None) -> None:
        self._known = None
        self.setText("")
        self.hide()
        self._wait()
