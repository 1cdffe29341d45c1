"""Choosing an architecture: the chosen one in two lines, and under it, when opened, a searchable list of all."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QLineEdit, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_unetseg.widgets.parts import label, row, set_role

__all__ = ["NetPicker"]

NAME = Qt.ItemDataRole.UserRole


class NetPicker(QWidget):
    """Shows facts of the nets as the engine tells them, and lets one be chosen."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._nets: dict[str, dict[str, Any]] = {}
        self._name, self._dims = "unet", 2
        self.button = QPushButton("U-Net")
        self.button.setCheckable(True)
        self.button.setToolTip("Choose another architecture; the first in the list is the one to begin with")
        set_role(self.button, "class")
        self.facts = label("", "muted")
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search: name, family, 3D, sharp, attention …")
        self.search.setClearButtonEnabled(True)
        self.list = QListWidget()
        self.list.setMinimumHeight(190)
        self.list.setMaximumHeight(230)
        self.list.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._none = label("No architecture has that in its name or description.", "muted")
        self._chooser = QWidget()
        inner = QVBoxLayout(self._chooser)
        inner.setContentsMargins(0, 0, 0, 0)
        for widget in (self.search, self.list, self._none):
            inner.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row(label("Architecture", wrap=False), self.button, stretch=(0, 1)))
        layout.addWidget(self.facts)
        layout.addWidget(self._chooser)
        self._chooser.hide()
        self._none.hide()
        self.button.toggled.connect(self._open)
        self.search.textChanged.connect(self._filter)
        self.search.returnPressed.connect(self._take_first)
        self.list.itemClicked.connect(self._take)
        self.list.itemActivated.connect(self._take)
        self._show()

    def set_nets(self, nets: tuple[dict[str, Any], ...]) -> None:
        """Take the facts of all architectures."""
        self._nets = {net["name"]: net for net in nets}
        self._fill()
        self._show()

    def set_choice(self, name: str, dims: int) -> None:
        """Show which one the plan has; `dims` decides which of the others are possible."""
        changed = dims != self._dims
        self._name, self._dims = name, dims
        if changed:
            self._fill()
        self._show()

    def _fill(self) -> None:
        self.list.clear()
        for name, net in self._nets.items():
            possible = self._dims in net["dims"]
            marks = "/".join(f"{d}D" for d in net["dims"])
            item = QListWidgetItem(f"{net['title']}   {marks} · {_millions(net)}\n{net['sentence']}")
            item.setData(NAME, name)
            item.setSizeHint(QSize(100, 40))
            if possible:
                item.setToolTip(f"{net['title']} ({name}): {net['sentence']}\n{net['paper']}")
            else:
                reason = f"{net['title']} cannot do {self._dims}D, only {marks}."
                item.setText(f"{net['title']}   {marks}\n{reason}")
                item.setToolTip(reason)
                item.setFlags(Qt.ItemFlag.NoItemFlags)
                # the theme's style sheet does not grey out items
                item.setForeground(self.palette().color(QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text))
            self.list.addItem(item)
        self._filter(self.search.text())

    def _show(self) -> None:
        net = self._nets.get(self._name)
        self.button.setText(f"{net['title'] if net else self._name}   ▾")
        if net is None:
            self.facts.setText("The list of architectures comes with the engine, in a moment.")
            return
        marks = " and ".join(f"{d}D" for d in net["dims"])
        self.facts.setText(f"{net['sentence']} {marks}, {_millions(net)} at full size.")
        self.facts.setToolTip(net["paper"])
        for index in range(self.list.count()):
            if self.list.item(index).data(NAME) == self._name:
                self.list.setCurrentRow(index)

    def _open(self, opened: bool) -> None:
        self._chooser.setVisible(opened)
        if opened:
            self.search.setFocus()

    def _filter(self, text: str) -> None:
        words = text.lower().split()
        shown = 0
        for index in range(self.list.count()):
            item = self.list.item(index)
            net = self._nets[item.data(NAME)]
            dims = " ".join(f"{d}d" for d in net["dims"])
            hay = f"{net['name']} {net['title']} {net['family']} {net['sentence']} {net['paper']} {dims}".lower()
            item.setHidden(not all(word in hay for word in words))
            shown += not item.isHidden()
        self._none.setVisible(bool(self._nets) and not shown)

    def _take_first(self) -> None:
        items = [self.list.item(index) for index in range(self.list.count())]
        first = next((i for i in items if not i.isHidden() and i.flags() & Qt.ItemFlag.ItemIsEnabled), None)
        if first is not None:
            self._take(first)

    def _take(self, item: QListWidgetItem) -> None:
        if item.flags() & Qt.ItemFlag.ItemIsEnabled:
            self.button.setChecked(False)
            self.chosen.emit(item.data(NAME))


def _millions(net: dict[str, Any]) -> str:
    count = net["parameters"]["trainable"]
    return f"{count / 1e6:.1f} M weights" if count >= 1e5 else f"{count / 1e3:.0f} k weights"
