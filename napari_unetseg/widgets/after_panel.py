"""*After the net*: steps done to every mask, chosen while their effect is watched on the slice on screen; measures.

The form is made from the registry of the steps: a row a step, a box an option, words and units from the registry too.
"""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_unetseg.errors import UnetSegError
from napari_unetseg.postprocess import STEPS, Option
from napari_unetseg.volume import Volume
from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.drawer import Drawer
from napari_unetseg.widgets.fields import Number
from napari_unetseg.widgets.objects_layer import ObjectsLayer
from napari_unetseg.widgets.parts import Action, Actions, Choice, label, row
from napari_unetseg.widgets.watch import timer
from napari_unetseg.workspace.after import AfterNet

__all__ = ["AfterPanel"]

_TRY_MS, _KEEP_MS = 60, 700  # after the last change: show it on the slice, then do it to all and write it down


class AfterPanel(Drawer):
    """A drawer with a row a step, and the button that measures.

    Parameters
    ----------
    context : Context
        Whose workspace has plan and mask.
    after : AfterNet
        Who tries the steps out and keeps them.
    """

    def __init__(self, context: Context, after: AfterNet) -> None:
        super().__init__(
            "After the net",
            "What is done to every mask after the net, here and in folders; kept with project and model",
        )
        self.context, self.after = context, after
        self.objects = ObjectsLayer(context, after)
        self.rows = {name: _StepRow(name, self._on_edited) for name in STEPS}
        self.note = label("", "muted")
        self.measure = Action(
            "Measure objects",
            "Size, place, form and intensity of every object, into a table beside the project's masks",
        )
        self.measure.clicked.connect(lambda: context.do(after.measure))
        self.add(*self.rows.values(), self.note, Actions(self.measure))
        self._try = timer(self, _TRY_MS, self._try_out)
        self._keep = timer(self, _KEEP_MS, lambda: context.do(after.keep))
        workspace = context.workspace
        after.steps_changed.connect(self._show)
        after.told.connect(self._refresh)
        workspace.case_changed.connect(self._show)
        workspace.classes_changed.connect(self._show)
        workspace.actions_changed.connect(self._refresh)
        self._show()

    # -- what the user does -----------------------------------------------------------------------------------

    def _on_edited(self) -> None:
        self._refresh()
        self._try.start()
        self._keep.start()

    def _try_out(self) -> None:
        image = self.context.workspace.image()
        plane = self.context.bridge.slice_index() if image is not None else None
        try:
            self.after.change(self._steps(), plane)
        except UnetSegError as error:
            self._keep.stop()
            self.note.setText(str(error))

    def _steps(self) -> list[tuple[str, dict[str, Any]]]:
        """Steps that are ticked, in the order of the plan; a new one comes where the registry has it."""
        ticked = {name: one.options() for name, one in self.rows.items() if one.box.isChecked()}
        steps = [(name, ticked.pop(name)) for name, _ in self.after.steps if name in ticked]
        order = list(STEPS)
        for name, options in ticked.items():
            later = (i for i, (other, _) in enumerate(steps) if order.index(other) > order.index(name))
            steps.insert(next(later, len(steps)), (name, options))
        return steps

    # -- shown ------------------------------------------------------------------------------------------------

    def _show(self, _: Any = None) -> None:
        workspace = self.context.workspace
        image, names = workspace.image(), [one.name for one in workspace.classes[1:]]
        for name, one in self.rows.items():
            one.measure_in(image, names)
            if not self._try.isActive():  # else the user is ahead of what is told
                one.show_options(next((options for step, options in self.after.steps if step == name), None))
        self._refresh()

    def _refresh(self, _: Any = None) -> None:
        titles = [STEPS.facts(name)["title"].lower() for name, one in self.rows.items() if one.box.isChecked()]
        self.say(f"{len(titles)} steps" if len(titles) > 1 else next(iter(titles), "nothing"))
        reason = self.after.why_not_try() if titles and self.context.workspace.model else ""
        self.note.setText(self.after.note or reason)
        self.note.setVisible(bool(self.note.text()))
        self.measure.set_why(self.after.why_not_measure())


class _StepRow(QWidget):
    """A step: whether it is done, and its options."""

    def __init__(self, name: str, edited: Any) -> None:
        super().__init__()
        facts = STEPS.facts(name)
        self.box = QCheckBox(facts["title"])
        self.box.setToolTip(STEPS.describe(name))
        self.numbers = {key: _Number(one) for key, one in facts["options"].items() if one.kind != "classes"}
        self.classes = Choice(
            (("all classes", None),), facts["options"]["classes"].sentence, f"{facts['title']}: classes"
        )
        self._names: list[str] = []
        first = row(self.box, *self.numbers.values(), stretch=(1,))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(first)
        layout.addLayout(indented := row(self.classes))
        indented.setContentsMargins(22, 0, 0, 0)
        self.box.toggled.connect(self._show_parts)
        self.box.toggled.connect(lambda _: edited())
        self.classes.chosen.connect(lambda _: edited())
        for number in self.numbers.values():
            number.valueChanged.connect(lambda _: edited() if self.box.isChecked() else None)

    def options(self) -> dict[str, Any]:
        """Options as the plan has them; those that are as usual are left out."""
        chosen = {key: number.value() for key, number in self.numbers.items() if number.value() > number.minimum()}
        return {**chosen, **({"classes": self.classes.value} if self.classes.value is not None else {})}

    def measure_in(self, image: Volume | None, names: list[str]) -> None:
        """Take units and usual values from an image, and names of classes."""
        for number in self.numbers.values():
            number.blockSignals(True)
            number.measure_in(image)
            number.blockSignals(False)
        if names != self._names:
            self._names = names
            self.classes.set_options((("all classes", None), *((n, [i]) for i, n in enumerate(names, start=1))))

    def show_options(self, options: dict[str, Any] | None) -> None:
        """Show what a plan has; None: this step is not in it."""
        widgets = (self.box, self.classes, *self.numbers.values())
        for widget in widgets:
            widget.blockSignals(True)
        self.box.setChecked(options is not None)
        for key, number in self.numbers.items():
            number.show_value(None if options is None else options.get(key), options is not None)
        chosen = list((options or {}).get("classes") or ()) or None
        self.classes.set_value(chosen)
        for widget in widgets:
            widget.blockSignals(False)
        self._show_parts()

    def _show_parts(self, _: Any = None) -> None:
        checked = self.box.isChecked()
        for number in self.numbers.values():
            number.setVisible(checked)
        self.classes.setVisible(checked and (len(self._names) > 1 or self.classes.value is not None))


class _Number(Number):
    """An option with its unit; one that may be left out has its least value for that."""

    def __init__(self, option: Option) -> None:
        super().__init__(option.title, f"{option.title}. {option.sentence}")
        self._option, self._usual = option, option.usual or 0.0
        self.setKeyboardTracking(False)
        self.setFixedWidth(128)
        if option.kind == "share":
            self.setRange(0.0, 0.99)
            self.setSingleStep(0.05)
        else:
            self.setRange(0.0, 1e12)
            self.setStepType(Number.StepType.AdaptiveDecimalStepType)
        if option.usual is None:
            self.setSpecialValueText("any size")
        self.measure_in(None)
        self.show_value(None, False)

    def measure_in(self, image: Volume | None) -> None:
        """Take unit and usual value from an image."""
        kind, usual = self._option.kind, self._option.usual or 20.0
        if kind == "share":
            self._usual = usual
            return
        spacing, unit = ((1.0, 1.0), "pixel") if image is None else (image.geometry.spacing, image.geometry.unit)
        usual *= math.prod(spacing) if kind == "size" else min(spacing)
        digits = 1 - math.floor(math.log10(usual))
        self._usual = round(usual, digits)
        self.setDecimals(max(0, digits + 1))
        self.setSuffix(f" {_unit(unit, len(spacing) if kind == 'size' else 1)}")

    def show_value(self, value: float | None, used: bool) -> None:
        """Show a value of the plan; where it has none, what is usual, or that it is left out."""
        if value is None:
            value = self._usual if self._option.usual is not None or not used else 0.0
        if self._option.usual is None and not used:
            value = 0.0
        self.setValue(value)


def _unit(unit: str, power: int) -> str:
    short = {"um": "µm", "pixel": "px"}.get(unit, unit)
    return short + {1: "", 2: "²", 3: "³"}[power]
