"""Step 2, classes: what there is to tell apart, each with a name and a colour; the background always comes first."""

from __future__ import annotations

from typing import Any

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QLineEdit, QPushButton, QVBoxLayout, QWidget

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.fields import tab_after
from napari_unetseg.widgets.parts import Action, Actions, Panel, label, row, set_role, swatch
from napari_unetseg.widgets.theme import SERIES
from napari_unetseg.workspace import Class

__all__ = ["ClassesPanel"]


class ClassesPanel(Panel):
    """Names and colours of the classes."""

    title = "Classes"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.rows: list[tuple[QPushButton, QLineEdit]] = []
        self._rows_box = QVBoxLayout()
        self._rows_box.setSpacing(4)
        self._hint = label(
            "Name what you want to tell apart. Background is everything else, and is painted like any class.", "muted"
        )
        self.add_class = Action("Add class", "One more thing to tell apart, at most 9 by keys")
        self.add_class.clicked.connect(self.append)
        self.remove_class = Action("Remove last", "Only a class without strokes can be removed")
        self.remove_class.clicked.connect(self.drop_last)
        self.add(self._hint, self._rows_box, Actions(self.add_class, self.remove_class, stretch=(1, 1)))
        context.workspace.classes_changed.connect(self._fill)
        context.workspace.actions_changed.connect(self.refresh)
        self._fill()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        classes = self.context.workspace.classes
        names = ", ".join(c.name for c in classes[1:])
        return (names, "done") if classes else ("", "")

    def append(self) -> None:
        """Add a class with a free name and colour, and let it be named."""
        classes = self.context.workspace.classes
        names = [c.name for c in classes]
        used = {c.colour.lower() for c in classes}
        colour = next((c for c in SERIES if c.lower() not in used), SERIES[len(classes) % len(SERIES)])
        number = len(classes)
        while f"class {number}" in names:
            number += 1
        colours = [*(c.colour for c in classes), colour]
        if self.context.do(self.context.workspace.set_classes, [*names, f"class {number}"], colours):
            self.rows[-1][1].setFocus()
            self.rows[-1][1].selectAll()

    def drop_last(self) -> None:
        """Remove the last class."""
        classes = self.context.workspace.classes[:-1]
        self.context.do(
            self.context.workspace.set_classes, [c.name for c in classes], [c.colour for c in classes]
        )  # fmt: skip

    def rename(self, index: int, name: str) -> None:
        """Rename a class; its strokes stay."""
        classes = self.context.workspace.classes
        if index >= len(classes) or classes[index].name == name.strip():
            return
        names = [c.name for c in classes]
        names[index] = name.strip()
        if not self.context.do(self.context.workspace.set_classes, names, [c.colour for c in classes]):
            self.rows[index][1].setText(classes[index].name)

    def recolour(self, index: int, colour: str) -> None:
        """Give a class another colour."""
        classes = self.context.workspace.classes
        colours = [c.colour for c in classes]
        if colours[index] != colour:
            colours[index] = colour
            self.context.do(self.context.workspace.set_classes, [c.name for c in classes], colours)

    def ask_colour(self, index: int) -> None:
        """Ask for the colour of a class."""
        dialog = QColorDialog(QColor(self.context.workspace.classes[index].colour), self)
        dialog.setModal(False)
        dialog.colorSelected.connect(lambda colour: self.recolour(index, colour.name()))
        dialog.show()

    def _fill(self, classes: Any = None) -> None:
        classes = self.context.workspace.classes
        if len(classes) != len(self.rows):
            self._rebuild(classes)
        for (button, edit), one in zip(self.rows, classes, strict=True):
            button.setIcon(swatch(one.colour, 16))
            if not edit.hasFocus() or edit.text() != one.name:
                edit.setText(one.name)
        self.refresh()

    def _rebuild(self, classes: tuple[Class, ...]) -> None:
        while (item := self._rows_box.takeAt(0)) is not None:
            if item.widget() is not None:
                item.widget().deleteLater()
        self.rows = []
        for index in range(len(classes)):
            button, edit = QPushButton(), QLineEdit()
            set_role(button, "flat")
            button.setToolTip("Choose the colour of this class, in strokes, masks and curves")
            button.setAccessibleName(f"Colour of class {index + 1}")
            button.setFixedSize(30, 28)
            button.clicked.connect(lambda _=False, index=index: self.ask_colour(index))
            edit.setMaxLength(40)
            edit.setToolTip("Name of the class: what you call it, such as nucleus or lesion; at most 40 letters")
            edit.setAccessibleName(f"Name of class {index + 1}")
            edit.editingFinished.connect(lambda index=index, edit=edit: self.rename(index, edit.text()))
            key = label(f"key {index + 1}" if index < 9 else "", "muted", wrap=False)
            line = QWidget()
            line.setLayout(row(button, edit, key, stretch=(0, 1, 0)))
            self._rows_box.addWidget(line)
            self.rows.append((button, edit))
        tab_after(self._hint, *(one for pair in self.rows for one in pair))

    def refresh(self) -> None:
        """Bring the buttons up to date."""
        workspace = self.context.workspace
        reason = workspace.why_not("add_images")
        self.add_class.set_why(reason)
        count = len(workspace.classes)
        few = "Background and one class have to stay." if count <= 2 else ""
        used = count and workspace.stroke_counts().get(workspace.classes[-1].name)
        self.remove_class.set_why(reason or few or ("The last class has strokes." if used else ""))
