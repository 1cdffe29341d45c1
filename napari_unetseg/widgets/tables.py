"""Tables of numbers: sorted by a click on the head, a row goes where it leads by a click on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

__all__ = ["Cell", "Table"]

_ROW, _MOST = 24, 7


class Cell(QTableWidgetItem):
    """A number or a text that sorts as what it is; a number that is unknown comes last."""

    def __init__(self, value: Any, text: str | None = None, icon: QIcon | None = None) -> None:
        number = isinstance(value, (int, float)) or value is None
        unknown = value is None or (isinstance(value, float) and not math.isfinite(value))
        shown = "–" if unknown else (f"{value:.2f}" if isinstance(value, float) else str(value))
        super().__init__(shown if text is None else text)
        self.value = math.inf if unknown else value
        if number:
            self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setToolTip("not defined: one of the two is empty" if unknown else f"{value:.4g}")
        else:
            self.setToolTip(self.text())
        if icon is not None:
            self.setIcon(icon)

    def __lt__(self, other: QTableWidgetItem) -> bool:
        """Order of sorting."""
        if isinstance(other, Cell) and isinstance(self.value, str) == isinstance(other.value, str):
            return bool(self.value < other.value)
        return super().__lt__(other)


class Table(QTableWidget):
    """Columns with a tooltip each, and as many rows as are useful at once.

    Parameters
    ----------
    columns : sequence of (str, str)
        Head and tooltip of each.
    go : callable, optional
        Called with the text of the first column of a row that is clicked, or chosen with Return.
    name : str
        What it is a table of, to screen readers and under the mouse.
    """

    def __init__(
        self, columns: Sequence[tuple[str, str]], go: Callable[[str], None] | None = None, name: str = ""
    ) -> None:
        super().__init__(0, len(columns))
        self.setAccessibleName(name)
        self.setToolTip(name and f"{name}. Click a head to sort" + (", a row to go there." if go else "."))
        self._go = go
        self.setHorizontalHeaderLabels([name for name, _ in columns])
        for index, (_, tip) in enumerate(columns):
            self.horizontalHeaderItem(index).setToolTip(tip)
        left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        self.horizontalHeaderItem(0).setTextAlignment(left)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW)
        self.setShowGrid(False)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        if go is None:
            self.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
            self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        else:
            self.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
            self.setTabKeyNavigation(False)
            self.cellClicked.connect(lambda row, column: self._leave(row))
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    def narrow(self, widths: Mapping[int, int]) -> None:
        """Give columns these widths in pixels, where the room for the others is short."""
        for column, width in widths.items():
            self.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.setColumnWidth(column, width)

    def fill(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Show these rows, in the order that the user has sorted them."""
        self.setSortingEnabled(False)
        self.setRowCount(len(rows))
        for index, cells in enumerate(rows):
            for column, cell in enumerate(cells):
                self.setItem(index, column, cell)
        self.setSortingEnabled(self._go is not None)
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + _ROW * max(1, min(_MOST, len(rows))) + 6)

    def keyPressEvent(self, event: Any) -> None:
        """Return goes where a click would."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self._go is not None:
            self._leave(self.currentRow())
        else:
            super().keyPressEvent(event)

    def _leave(self, row: int) -> None:
        if self._go is not None and (cell := self.item(row, 0)) is not None:
            self._go(cell.text())
