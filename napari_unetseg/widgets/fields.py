"""Fields of a form: numbers that read well and leave the wheel to the column, and rows with their titles in line."""

from __future__ import annotations

import itertools
from typing import Any, cast

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDoubleSpinBox, QFormLayout, QLabel, QWidget

from napari_unetseg.widgets.parts import title

__all__ = ["Form", "Minutes", "Number", "tab_after"]


def tab_after(anchor: QWidget, *made: QWidget) -> None:
    """Have Tab reach widgets that were made late where they stand, after `anchor`, and not last of all."""
    while anchor.focusPolicy() == Qt.FocusPolicy.NoFocus and anchor.parentWidget() is not None:
        anchor = cast("QWidget", anchor.previousInFocusChain())  # Qt puts nothing after what Tab passes over
    for before, one in itertools.pairwise((anchor, *made)):
        QWidget.setTabOrder(before, one)


class Number(QDoubleSpinBox):
    """A number without the zeros at its end.

    Parameters
    ----------
    name : str
        What it is, to screen readers.
    tooltip : str
        What it does, with typical values.
    """

    def __init__(self, name: str, tooltip: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip(tooltip)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the column: scrolling past must not change a plan."""
        event.ignore()

    def textFromValue(self, value: float) -> str:
        """Write a number without the zeros at its end."""
        return f"{value:.6g}"


class Minutes(Number):
    """How long something may take."""

    def __init__(self, name: str, tooltip: str) -> None:
        super().__init__(name, tooltip)
        self.setRange(0.05, 100_000)
        self.setSuffix(" min")


class Form(QFormLayout):
    """Fields below one another, each as wide as there is room; `inset` is how far to the right it stands."""

    def __init__(self, parent: QWidget, *, inset: int = 0) -> None:
        super().__init__(parent)
        self._inset = inset
        self.setContentsMargins(0, 0, 0, 0)
        self.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)

    def field(self, words: str, box: QWidget) -> QLabel:
        """Append a field under its title, which says what the field does; returns the title."""
        said = title(words, inset=self._inset)
        said.setToolTip(box.toolTip().partition("\n")[0])
        if not box.accessibleName():
            box.setAccessibleName(words)
        self.addRow(said, box)
        return said
