"""How whole images will be segmented: averages over mirrored copies or dropout, and 2D nets on volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from qtpy.QtWidgets import QLabel, QWidget

from napari_unetseg.plan import DataPlan, InferencePlan
from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.fields import Form
from napari_unetseg.widgets.parts import Choice

__all__ = ["SegmentingBox"]

_ROWS: dict[tuple[str, str], tuple[str, Sequence[tuple[str, Any]], str]] = {
    ("data", "neighbours"): (
        "Slices beside",
        (
            ("none: each slice by itself", None),
            ("1 on each side (2.5D)", 1),
            ("2 on each side (2.5D)", 2),
            ("4 on each side", 4),
        ),
        "A 2D net gets the slices beside as further channels: nearly as fast as 2D, and it sees what goes through.",
    ),
    ("inference", "axes"): (
        "Along",
        (("slices only", None), ("all three axes: 3 times slower", "all")),
        "A 2D net segments the volume along Z, Y and X, and the three answers are averaged.",
    ),
    ("inference", "tta"): (
        "Mirrored copies",
        (
            ("one look", None),
            ("mirrored: 4 looks (8 in 3D)", "flips"),
            ("and turned: 8 looks (16)", "turns"),
        ),
        "Segment mirrored copies too and average the answers: a little better, as many times slower.",
    ),
    ("inference", "dropout_passes"): (
        "Dropout looks",
        (("none", None), ("5 looks", 5), ("10 looks", 10), ("20 looks", 20)),
        "Average looks with dropout kept on; the net needs dropout above, for example 0.2.",
    ),
}
_SECTIONS: dict[str, type[BaseModel]] = {"data": DataPlan, "inference": InferencePlan}
_VOLUMES = (("data", "neighbours"), ("inference", "axes"))


class SegmentingBox(QWidget):
    """Fields of the plan's inference section, and of its data section what belongs to them.

    Parameters
    ----------
    context : Context
        Whose workspace has the plan.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.fields: dict[tuple[str, str], Choice] = {}
        self._titles: dict[tuple[str, str], QLabel] = {}
        form = Form(self, inset=8)
        for (section, name), (words, options, tip) in _ROWS.items():
            about = _SECTIONS[section].model_fields[name].description
            box = Choice(
                options, f"{tip} It holds for models trained from now on.\n\nPlan field {section}.{name}: {about}"
            )
            box.chosen.connect(lambda value, key=(section, name): self._choose(key, value))
            self.fields[section, name], self._titles[section, name] = box, form.field(words, box)
        workspace = context.workspace
        workspace.plan_changed.connect(self._show)
        workspace.case_changed.connect(self._show)
        self._show()

    @property
    def given(self) -> list[str]:
        """What was chosen, in a word each."""
        plan = self.context.workspace.plan
        return [_ROWS[key][0].lower() for key in self.fields if plan.given(*key)]

    def reset(self) -> None:
        """Take every choice back."""
        for section in _SECTIONS:
            names = [name for part, name in self.fields if part == section]
            self.context.do(self.context.workspace.decide_for_me, section, *names)

    def _choose(self, key: tuple[str, str], value: Any) -> None:
        section, name = key
        if value is None:
            self.context.do(self.context.workspace.decide_for_me, section, name)
        else:
            self.context.do(self.context.workspace.change_plan, **{section: {name: value}})

    def _show(self, _: Any = None) -> None:
        workspace = self.context.workspace
        plan, image = workspace.plan, workspace.image()
        for key, box in self.fields.items():
            section, name = key
            box.set_value(getattr(getattr(plan, section), name) if plan.given(section, name) else None)
        deep = image is not None and image.ndim == 3
        planes = deep and not (plan.given("net", "dims") and plan.net.dims == 3)
        for key in _VOLUMES:
            shown = planes or plan.given(*key)
            self.fields[key].setVisible(shown)
            self._titles[key].setVisible(shown)
