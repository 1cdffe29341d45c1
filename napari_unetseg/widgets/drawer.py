"""A drawer: a line that opens and closes what lies under it, and says in closed state what is inside."""

from __future__ import annotations

from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QColor, QLinearGradient, QPainter
from qtpy.QtWidgets import QLayout, QPushButton, QVBoxLayout, QWidget

from napari_unetseg.widgets.parts import label, row, set_role

__all__ = ["ColourBar", "Drawer"]


class Drawer(QWidget):
    """Closed at first.

    Parameters
    ----------
    title : str
        What is inside.
    tooltip : str
        What it is for.
    """

    def __init__(self, title: str, tooltip: str) -> None:
        super().__init__()
        self._title, self._said = title, ""
        self.button = QPushButton()
        self.button.setCheckable(True)
        self.button.setToolTip(tooltip)
        set_role(self.button, "drawer")
        self.inside = QWidget()
        self._column = QVBoxLayout(self.inside)
        self._column.setContentsMargins(8, 2, 0, 2)
        self._column.setSpacing(4)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.button)
        layout.addWidget(self.inside)
        self.button.toggled.connect(self._open)
        self._open(False)

    def add(self, *things: QWidget | QLayout) -> None:
        """Append widgets or layouts, from top to bottom."""
        for thing in things:
            if isinstance(thing, QWidget):
                self._column.addWidget(thing)
            else:
                self._column.addLayout(thing)

    def say(self, text: str) -> None:
        """Say in closed state what is inside."""
        self._said = text
        opened = self.button.isChecked()
        mark = "" if self._title.endswith("?") else ":"
        self.button.setText(f"▾  {self._title}" if opened or not text else f"▸  {self._title}{mark} {text}")
        if not opened and not text:
            self.button.setText(f"▸  {self._title}")

    def _open(self, opened: bool) -> None:
        self.inside.setVisible(opened)
        self.say(self._said)


class ColourBar(QWidget):
    """Colours of a map from 0 to 1, between two words.

    Parameters
    ----------
    colours : sequence of str
        From 0 to 1, evenly spaced; the first is clear.
    """

    def __init__(self, colours: tuple[str, ...]) -> None:
        super().__init__()
        self.low, self.high = label("", "muted", wrap=False), label("", "muted", wrap=False)
        self.setLayout(line := row(self.low, _Strip(colours), self.high, stretch=(0, 1, 0)))
        line.setContentsMargins(0, 0, 0, 0)

    def set_words(self, low: str, high: str) -> None:
        """Say what the ends mean."""
        self.low.setText(low)
        self.high.setText(high)


class _Strip(QWidget):
    def __init__(self, colours: tuple[str, ...]) -> None:
        super().__init__()
        self._colours = colours
        self.setFixedHeight(10)
        self.setMinimumWidth(60)

    def paintEvent(self, event: object) -> None:
        gradient = QLinearGradient(0, 0, self.width(), 0)
        for index, colour in enumerate(self._colours):
            tint = QColor(colour)
            tint.setAlphaF(0.25 + 0.75 * index / (len(self._colours) - 1))
            gradient.setColorAt(index / (len(self._colours) - 1), tint)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(gradient)
        painter.drawRoundedRect(QRectF(self.rect()), 3, 3)
        painter.end()
