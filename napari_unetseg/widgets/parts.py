"""Small widgets that every panel is made of: sections, buttons that say why they are disabled, labels, swatches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QPoint, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QMouseEvent, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

__all__ = [
    "Action",
    "Actions",
    "Bar",
    "Choice",
    "Column",
    "Panel",
    "Section",
    "label",
    "lock",
    "repolish",
    "row",
    "set_role",
    "swatch",
    "title",
]

_TITLES = 114  # pixels: the widest title of a field


class Section(QFrame):
    """One numbered step: a header with its state, and a content that opens and closes under it.

    superqt's `QCollapsible` fixes its height from the size hint, which cuts labels that wrap; this one lets the layout
    decide.
    """

    toggled = Signal(bool)

    def __init__(self, number: int, title: str, content: QWidget) -> None:
        super().__init__()
        self.content = content
        self._header = _Header(number, title)
        self._header.clicked.connect(lambda: self.set_open(not self.is_open))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._header)
        layout.addWidget(content)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.set_open(False)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return not self.content.isHidden()

    @property
    def state(self) -> str:
        """Text at the right end of the header."""
        return self._header.state.text()

    def set_open(self, opened: bool) -> None:
        """Show or hide the content."""
        self.content.setVisible(opened)
        self._header.arrow.setText("▾" if opened else "▸")
        self.toggled.emit(opened)

    def set_state(self, text: str, kind: str = "", why: str = "") -> None:
        """Say how far this step is; `kind` is ``done``, ``next``, ``blocked`` (`why` says by what) or empty."""
        self._header.state.setText(text)
        self._header.state.setToolTip(why or text)
        if self._header.number.property("kind") != kind:
            for part in (self._header, self._header.number, self._header.title):
                part.setProperty("kind", kind)
                repolish(part)


class _Header(QFrame):
    clicked = Signal()

    def __init__(self, number: int, title: str) -> None:
        super().__init__()
        set_role(self, "header")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setAccessibleName(title)
        self.number = label(str(number), "number")
        self.number.setFixedSize(20, 20)
        self.number.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.title = label(title, "title", wrap=False)
        self.state = QElidingLabel("")
        set_role(self.state, "muted")
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.arrow = label("▸", wrap=False)
        layout = row(self.number, self.title, self.state, self.arrow, stretch=(0, 0, 1, 0), spacing=8)
        layout.setContentsMargins(5, 5, 8, 5)
        self.setLayout(layout)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.clicked.emit()

    def keyPressEvent(self, event: Any) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.clicked.emit()
        else:
            super().keyPressEvent(event)


class Panel(QWidget):
    """Content of a section: a column with even margins."""

    title = ""

    def __init__(self) -> None:
        super().__init__()
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(8, 8, 8, 10)
        self.column.setSpacing(7)

    def summary(self) -> tuple[str, str]:
        """State of this step for its header, and its kind: ``done``, ``next`` or empty."""
        return "", ""

    def add(self, *things: QWidget | QLayout) -> None:
        """Append widgets or layouts, from top to bottom."""
        for thing in things:
            if isinstance(thing, QWidget):
                self.column.addWidget(thing)
            else:
                self.column.addLayout(thing)


class Column(QScrollArea):
    """Scrolls up and down only, and is never narrower than what it holds."""

    def __init__(self, page: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(page)
        page.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask for more room when the page needs it."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def minimumSizeHint(self) -> QSize:
        """Width of the page and of the bar beside it."""
        bar = self.verticalScrollBar().sizeHint().width()
        return QSize(self.widget().minimumSizeHint().width() + bar, super().minimumSizeHint().height())

    def scroll_to(self, widget: QWidget) -> None:
        """Bring a widget of the page to the top."""
        QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)  # what just opened or closed counts
        self.verticalScrollBar().setValue(widget.mapTo(self.widget(), QPoint(0, 0)).y() - 4)


class Action(QPushButton):
    """A button that says why it cannot be pressed: in its tooltip, and in the line under its `Actions`."""

    changed = Signal()

    def __init__(self, text: str, tooltip: str = "", *, role: str = "") -> None:
        super().__init__(text)
        self._tooltip = tooltip
        self.why = ""
        self.setToolTip(tooltip)
        set_role(self, role)

    def set_why(self, reason: str) -> None:
        """Disable the button for `reason`; enable it when there is none."""
        if reason == self.why and self.isEnabled() == (not reason):
            return
        self.why = reason
        self.setEnabled(not reason)
        self.setToolTip(reason or self._tooltip)
        self.changed.emit()

    def setVisible(self, visible: bool) -> None:
        """Show or hide it; a hidden button needs no reason."""
        super().setVisible(visible)
        self.changed.emit()


class Actions(QWidget):
    """Buttons side by side, and under them a line that says why those that are disabled are disabled."""

    def __init__(self, *actions: Action, stretch: Iterable[int] = ()) -> None:
        super().__init__()
        self._actions = actions
        self.line = label("", "why")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(row(*actions, stretch=stretch))
        layout.addWidget(self.line)
        for action in actions:
            action.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Collect the reasons; one that several buttons share is said once."""
        reasons: dict[str, list[str]] = {}
        for action in self._actions:
            if action.why and not action.isHidden():
                reasons.setdefault(action.why, []).append(action.text().strip(" ‹›…"))
        visible = [action for action in self._actions if not action.isHidden()]
        named = len(reasons) > 1 or sum(map(len, reasons.values())) < len(visible)
        lines = [f"{', '.join(names)}: {why}" if named else why for why, names in reasons.items()]
        self.line.setText("\n".join(lines))
        self.line.setVisible(bool(lines))


class Bar(QProgressBar):
    """How far something is.

    Parameters
    ----------
    name : str
        What it is about, to screen readers and under the mouse.
    endless : bool
        Whether it only says that something goes on, and not how far it is.
    """

    def __init__(self, name: str, *, endless: bool = False) -> None:
        super().__init__()
        self.setRange(0, 0 if endless else 1000)
        if endless:
            self.setFormat("")
        self.setAccessibleName(name)
        self.setToolTip(name)


class Choice(QComboBox):
    """A box of values in plain words; a value that is none of them, from a file, is shown as it is.

    Parameters
    ----------
    options : sequence of (str, value)
        Words and what they stand for.
    tooltip : str
        What it does, with typical values.
    name : str
        What is chosen, to screen readers, where no title stands beside it.
    """

    chosen = Signal(object)

    def __init__(self, options: Sequence[tuple[str, Any]], tooltip: str, name: str = "") -> None:
        super().__init__()
        self.setAccessibleName(name)
        self._values: list[Any] = []
        self._own = 0
        self._tooltip = tooltip
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.setToolTip(tooltip)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.currentTextChanged.connect(self._say_all)
        self.set_options(options)
        self.activated.connect(lambda index: self.chosen.emit(self._values[index]))

    def _say_all(self, text: str) -> None:
        """Have the text in the tooltip, for where the box is too narrow for it."""
        self.setToolTip(f"{self._tooltip}\n\nNow: {text}" if text else self._tooltip)

    @property
    def value(self) -> Any:
        """What is shown."""
        return self._values[self.currentIndex()]

    def paintEvent(self, event: Any) -> None:
        """Draw it as usual, but end a text that is too long with dots."""
        painter, option = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(option)
        field = QStyle.SubControl.SC_ComboBoxEditField
        room = self.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, field, self).width()
        option.currentText = self.fontMetrics().elidedText(option.currentText, Qt.TextElideMode.ElideRight, room)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def wheelEvent(self, event: Any) -> None:
        """Leave the wheel to the column: scrolling past must not change a plan."""
        event.ignore()

    def set_options(self, options: Sequence[tuple[str, Any]]) -> None:
        """Offer these, the first of which is shown."""
        self.clear()
        self.addItems([text for text, _ in options])
        self._values = [value for _, value in options]
        self._own = len(options)
        self.view().setMinimumWidth(self.view().sizeHintForColumn(0) + 24)

    def set_value(self, value: Any) -> None:
        """Show a value, without telling that it was chosen."""
        while self.count() > self._own:
            self.removeItem(self._own)
            self._values.pop()
        if value not in self._values:
            self.addItem(f"{value} (from the plan)")
            self._values.append(value)
        self.setCurrentIndex(self._values.index(value))


def label(text: str, role: str = "", *, wrap: bool = True) -> QLabel:
    """Plain-text label in one of the roles of the style sheet."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setWordWrap(wrap)
    made.setIndent(0)  # or Qt moves it half a letter to the right of the buttons above and below
    set_role(made, role)
    return made


def title(text: str, *, inset: int = 0) -> QLabel:
    """What stands to the left of a field, as wide as all others; `inset` is how far to the right it stands."""
    made = label(text, wrap=False)
    made.setMinimumWidth(_TITLES - inset)
    return made


def lock(widget: QWidget, reason: str) -> None:
    """Have a disabled widget say `reason` in its tooltip; without one, what it says otherwise."""
    if reason and widget.toolTip() != reason:
        widget.setProperty("unlocked", widget.toolTip())
        widget.setToolTip(reason)
    elif not reason and (before := widget.property("unlocked")) is not None:
        widget.setToolTip(before)
        widget.setProperty("unlocked", None)


def row(*things: QWidget | QLayout, stretch: Iterable[int] = (), spacing: int = 6) -> QHBoxLayout:
    """Things side by side."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for thing in things:
        if isinstance(thing, QWidget):
            layout.addWidget(thing)
        else:
            layout.addLayout(thing)
    for index, share in enumerate(stretch):
        layout.setStretch(index, share)
    return layout


def set_role(widget: QWidget, role: str) -> None:
    """Give the widget a role that the style sheet knows."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        repolish(widget)


def repolish(widget: QWidget) -> None:
    """Let a changed property reach the style sheet."""
    style = widget.style()
    if style is not None:
        style.unpolish(widget)
        style.polish(widget)


def swatch(colour: str, size: int = 14) -> QIcon:
    """A rounded square filled with `colour`."""
    pixmap = QPixmap(2 * size, 2 * size)
    pixmap.setDevicePixelRatio(2.0)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(colour))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.drawRoundedRect(0, 0, size, size, 3, 3)
    painter.end()
    return QIcon(pixmap)
