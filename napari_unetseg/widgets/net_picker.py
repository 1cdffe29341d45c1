"""Choosing an architecture: the chosen one in two lines, and under it, when opened, a searchable list of all."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QLineEdit, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_unetseg.widgets.net_row import NET, REASON, NetRow, facts_line, marks
from napari_unetseg.widgets.parts import label, row, set_role, title
from napari_unetseg.widgets.theme import Look

__all__ = ["NetPicker"]

NAME = Qt.ItemDataRole.UserRole

_STEPS: dict[int, int] = {
    Qt.Key.Key_Down: 1,
    Qt.Key.Key_Up: -1,
    Qt.Key.Key_PageDown: 3,
    Qt.Key.Key_PageUp: -3,
}
_TIMES = (
    "Size and time are those of the paper's full width. The time is that of a training step beside U-Net's, as "
    "measured on one processor thread; a graphics card has other ratios."
)


class NetPicker(QWidget):
    """Shows facts of the nets as the engine tells them, and lets one be chosen, by mouse or by keys.

    From the search field Up and Down go through those that fit and can be chosen, Enter takes one, Escape closes.

    Parameters
    ----------
    look : Look
        Colours of the theme.
    """

    chosen = Signal(str)

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._nets: dict[str, dict[str, Any]] = {}
        self._name = "unet"
        self._dims: tuple[int, ...] = (2,)
        self.button = QPushButton("U-Net")
        self.button.setCheckable(True)
        self.button.setToolTip("Choose another architecture; the first in the list is the one to begin with")
        self.button.setAccessibleName("Architecture")
        set_role(self.button, "class")
        self.facts = label("", "muted")
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search: name, family, 3D, sharp, ImageNet …")
        self.search.setToolTip("Words that must all occur in name, family, sentence, paper or marks; ↑ ↓ Enter, Esc")
        self.search.setAccessibleName("Search the architectures")
        self.search.setClearButtonEnabled(True)
        self.list = QListWidget()
        self.list.setFixedHeight(340)
        self.list.setAccessibleName("Architectures")
        self.list.setToolTip("Click an architecture to take it; its time a step is given as a multiple of U-Net's")
        self.list.setMouseTracking(True)
        self.list.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._rows = NetRow(self.list, look)
        self.list.setItemDelegate(self._rows)
        self._none = label("No architecture has that in its name, family or description.", "muted")
        self._chooser = QWidget()
        inner = QVBoxLayout(self._chooser)
        inner.setContentsMargins(0, 0, 0, 0)
        for widget in (self.search, self.list, self._none):
            inner.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row(title("Architecture"), self.button, stretch=(0, 1)))
        layout.addWidget(self.facts)
        layout.addWidget(self._chooser)
        self._chooser.hide()
        self._none.hide()
        self.button.toggled.connect(self._open)
        self.search.textChanged.connect(self._filter)
        self.list.itemClicked.connect(self._take)
        for watched in (self.button, self.search, self.list):
            watched.installEventFilter(self)
        self._show()

    def set_look(self, look: Look) -> None:
        """Take the colours of another theme."""
        self._rows.look = look
        self.list.viewport().update()

    def set_nets(self, nets: tuple[dict[str, Any], ...]) -> None:
        """Take the facts of all architectures."""
        self._nets = {net["name"]: net for net in nets}
        self._fill()
        self._show()

    def set_choice(self, name: str, dims: tuple[int, ...]) -> None:
        """Show which one the plan has, and which of the others are possible: those that can do one of `dims`."""
        changed = dims != self._dims
        self._name, self._dims = name, dims
        if changed:
            self._fill()
        self._show()

    def reason(self, name: str) -> str:
        """Why an architecture cannot be chosen for these images; empty when it can."""
        net = self._nets[name]
        if set(self._dims) & set(net["dims"]):
            return ""
        able = " and ".join(f"{d}D" for d in net["dims"])
        asked = "volumes are to be learned as 3D" if self._dims == (3,) else "planes are to be learned as 2D"
        return f"Cannot do {self._dims[0]}D, only {able}: {asked}."

    # -- the list ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        self.list.clear()
        for name, net in self._nets.items():
            reason = self.reason(name)
            # the text is what a screen reader says; `NetRow` paints the facts
            item = QListWidgetItem(f"{net['title']}, {_facts(net)}. {reason or net['sentence']}")
            item.setData(NAME, name)
            item.setData(NET, net)
            item.setData(REASON, reason)
            item.setToolTip(f"{net['title']} ({name})\n{reason or net['sentence']}\n{net['paper']}\n{_TIMES}")
            if reason:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
            self.list.addItem(item)
        self._filter(self.search.text())

    def _show(self) -> None:
        net = self._nets.get(self._name)
        self.button.setText(f"{net['title'] if net else self._name}   ▾")
        if net is None:
            self.facts.setText("The list of architectures comes with the engine, in a moment.")
            return
        self.facts.setText(f"{net['sentence']}\n{_facts(net)}")
        self.facts.setToolTip(f"{net['paper']}\n{_TIMES}")
        self._go_to_chosen()

    def _go_to_chosen(self) -> None:
        for item in self._items():
            if item.data(NAME) == self._name and not item.isHidden():
                self.list.setCurrentItem(item)
                self.list.scrollToItem(item)

    def _items(self) -> list[QListWidgetItem]:
        items = (self.list.item(index) for index in range(self.list.count()))
        return [item for item in items if item is not None]

    def _possible(self) -> list[QListWidgetItem]:
        return [item for item in self._items() if not item.isHidden() and item.flags() & Qt.ItemFlag.ItemIsEnabled]

    def _filter(self, text: str) -> None:
        words = text.lower().split()
        shown = 0
        for item in self._items():
            item.setHidden(not all(word in _hay(item.data(NET)) for word in words))
            shown += not item.isHidden()
        self._none.setVisible(bool(self._nets) and not shown)
        possible = self._possible()
        if words:
            self.list.setCurrentItem(possible[0] if possible else None)
        else:
            self._go_to_chosen()

    # -- choosing ---------------------------------------------------------------------------------------------

    def _open(self, opened: bool) -> None:
        self._chooser.setVisible(opened)
        if opened:
            self.search.clear()
            self._go_to_chosen()
            self.search.setFocus()
        else:
            self.button.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keys of the button, the search field and the list."""
        if not isinstance(event, QKeyEvent) or event.type() != QEvent.Type.KeyPress:
            return False
        key = event.key()
        if watched is self.button:
            if key not in (Qt.Key.Key_Down, Qt.Key.Key_Return, Qt.Key.Key_Enter):
                return False
            self.button.setChecked(True)
        elif key == Qt.Key.Key_Escape:
            self.button.setChecked(False)
        elif key in _STEPS:
            self._step(_STEPS[key])
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._take(self.list.currentItem())
        else:
            return False
        return True

    def _step(self, count: int) -> None:
        """Go further among those that can be chosen."""
        possible = self._possible()
        if not possible:
            return
        here = self.list.currentItem()
        index = possible.index(here) + count if here in possible else 0
        self.list.setCurrentItem(possible[max(0, min(index, len(possible) - 1))])

    def _take(self, item: QListWidgetItem | None) -> None:
        if item is not None and not item.isHidden() and item.flags() & Qt.ItemFlag.ItemIsEnabled:
            self.button.setChecked(False)
            self.chosen.emit(item.data(NAME))


def _facts(net: dict[str, Any]) -> str:
    return f"{', '.join(marks(net))} · {facts_line(net)}"


def _hay(net: dict[str, Any]) -> str:
    words = " ".join(marks(net))
    if net.get("pretrained"):
        words += f" pretrained start weights {net['pretrained']}"
    return f"{net['name']} {net['title']} {net['family']} {net['sentence']} {net['paper']} {words}".lower()
