"""How the next training will go: what is decided about patches and augmentation, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtWidgets import QWidget

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.fields import Form
from napari_unetseg.widgets.parts import Action, Choice, label, set_role

__all__ = ["PlannedBox"]

_OWN = ("decided for me", None)
_FIELDS: dict[str, tuple[str, Sequence[tuple[str, Any]], str]] = {
    "patch": (
        "Patch",
        (_OWN, *((f"{side} voxels a side", (side,) * 3) for side in (32, 48, 64, 96, 128, 192, 256, 384, 512))),
        "What the net sees at once. Larger patches show more of the surroundings of large objects, and are slower. "
        "Decided for you: about three objects wide.",
    ),
    "batch_size": (
        "Patches a step",
        (_OWN, *((str(count), count) for count in (1, 2, 4, 8, 16, 32))),
        "More are steadier and slower, and need more memory. Decided for you: as many as fit.",
    ),
    "augment": (
        "Augmentation",
        (_OWN, ("none", 0.0), ("half", 0.5), ("usual", 1.0), ("strong", 1.5)),
        "How much patches are turned, bent and changed in tone, so that few strokes teach more. For you: usual, "
        "half where there are many masks to learn from.",
    ),
}


class PlannedBox(QWidget):
    """Fields of the plan's training section, and a button that tells what it comes to.

    Parameters
    ----------
    context : Context
        Whose workspace has the plan.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.fields = {name: Choice(options, tip) for name, (_, options, tip) in _FIELDS.items()}
        self.ask = Action("What will be done?", "Every decision with its reason, the time and the memory it takes")
        self.told = label("", "muted")
        form = Form(self, inset=8)
        for name, box in self.fields.items():
            form.field(_FIELDS[name][0], box)
            box.chosen.connect(lambda value, name=name: self._choose(name, value))
        form.addRow(self.ask)
        form.addRow(self.told)
        self.ask.clicked.connect(self._ask)
        workspace = context.workspace
        workspace.plan_changed.connect(self._show)
        workspace.strokes_changed.connect(self._forget)
        workspace.actions_changed.connect(self._show_why)
        self._show()

    def _choose(self, field: str, value: Any) -> None:
        workspace = self.context.workspace
        if value is None:
            self.context.do(workspace.decide_for_me, "training", field)
        else:
            self.context.do(workspace.change_plan, training={field: value})

    def _ask(self) -> None:
        if self.context.do(self.context.workspace.ask_plan, self._tell):
            self._say("Looking at the images and measuring a step …")

    def _tell(self, answer: Mapping[str, Any]) -> None:
        if "sentence" in answer:
            self._say("\n".join([answer["sentence"], *(f"· {note}" for note in answer["notes"])]))
        else:
            self._say(f"{answer['message']} {answer.get('hint', '')}".strip(), "error")

    def _say(self, text: str, role: str = "muted") -> None:
        self.told.setText(text)
        set_role(self.told, role)
        self.told.setVisible(bool(text))

    def _forget(self, _: Any = None) -> None:
        self._say("")

    def _show(self, _: Any = None) -> None:
        plan = self.context.workspace.plan
        for name, box in self.fields.items():
            value = getattr(plan.training, name) if plan.given("training", name) else None
            box.set_value((value[-1],) * 3 if isinstance(value, tuple) else value)
        self._forget()
        self._show_why()

    def _show_why(self) -> None:
        self.ask.set_why(self.context.workspace.why_not("train"))
