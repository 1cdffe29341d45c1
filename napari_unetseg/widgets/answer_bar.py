"""Who made the mask on screen, in one line above the steps, and a switch for instant answers."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QWidget

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.parts import label, repolish, row, set_role
from napari_unetseg.widgets.watch import timer
from napari_unetseg.workspace.first_answer import FirstAnswer

__all__ = ["AnswerBar"]

_NAMES = {"instant": "instant", "net": "U-Net", "saved": "saved", "": "no mask"}
_TOOLTIP = (
    "Instant answers: a moment after each stroke, the mask of what is on screen is worked out from all strokes so far, "
    "in about a second and without training. They end when a net is trained, which does better."
)


class AnswerBar(QWidget):
    """A badge with the name of who answers, a sentence about it, and the switch.

    Parameters
    ----------
    context : Context
        Whose workspace and layers it follows.
    answers : FirstAnswer
        Asked when the user pauses.
    """

    def __init__(self, context: Context, answers: FirstAnswer) -> None:
        super().__init__()
        self.context, self.answers = context, answers
        self.badge = label("", "badge", wrap=False)
        self.sentence = label("", "muted")
        self.switch = QPushButton("Live")
        self.switch.setCheckable(True)
        self.switch.setToolTip(_TOOLTIP)
        self.switch.setAccessibleName("Instant answers")
        set_role(self.switch, "switch")
        line = row(self.badge, self.sentence, self.switch, stretch=(0, 1, 0), spacing=8)
        for beside in (self.badge, self.switch):
            line.setAlignment(beside, Qt.AlignmentFlag.AlignVCenter)
        self.setLayout(line)
        self._pause = timer(self, 200, self._ask)
        self.switch.clicked.connect(self.answers.turn)
        answers.wanted.connect(self._wait)
        answers.changed.connect(self.refresh)
        context.bridge.view_moved.connect(lambda: answers.look(context.bridge.slice_index()))
        self.refresh()

    def refresh(self) -> None:
        """Bring badge, sentence and switch up to date."""
        who, workspace = self.answers.who, self.context.workspace
        training = workspace.stage == "training"
        busy = training or workspace.stage == "predicting"
        self.badge.setText("waiting" if busy and not who else _NAMES[who])
        if self.badge.property("kind") != who:
            self.badge.setProperty("kind", who)
            repolish(self.badge)
        self.sentence.setText(self.answers.says())
        self.sentence.setToolTip(workspace.leads if training else "")
        self.switch.setChecked(self.answers.on)
        self.switch.setVisible(workspace.model is None and not workspace.read_only and not training)
        self.setVisible(workspace.case is not None)

    def _wait(self, seconds: float) -> None:
        self._pause.start(max(round(1000 * seconds), self._pause.remainingTime()))

    def _ask(self) -> None:
        self.answers.index = self.context.bridge.slice_index()
        self.answers.ask(self._near())

    def _near(self) -> Any:
        """The pixel in the middle of the view."""
        layer = self.context.bridge.annotation or self.context.bridge.mask
        if layer is None:
            return None
        viewer = self.context.viewer
        point = [*viewer.dims.point[:-2], *viewer.scene.camera.center[-2:]]
        return [float(at) for at in layer.world_to_data(point[-layer.ndim :])[-2:]]
