"""Which of the series in a study folder to open: a small dialog that does not stop the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDialog, QDialogButtonBox, QLabel, QListWidget, QListWidgetItem, QVBoxLayout

from napari_unetseg.io import Series

__all__ = ["SeriesDialog", "ask_series"]


class SeriesDialog(QDialog):
    """Lists series by number, modality and size; never by what stands in their headers about the patient.

    Parameters
    ----------
    folder : str
        Name of the folder, for the title.
    series : sequence of Series
        The choices.
    answer : callable
        Called with the paths of the chosen series, once the user says so.
    """

    def __init__(self, folder: str, series: Sequence[Series], answer: Callable[[list[Path]], object]) -> None:
        super().__init__(QApplication.activeWindow())
        self.setWindowTitle(f"Series in {folder}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setModal(False)
        self._answer = answer
        self.list = QListWidget()
        self.list.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        for one in series:
            item = QListWidgetItem(str(one))
            item.setData(Qt.ItemDataRole.UserRole, str(one.path))
            item.setToolTip(str(one.path))
            self.list.addItem(item)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self.open_button = self.buttons.button(QDialogButtonBox.StandardButton.Open)
        layout = QVBoxLayout(self)
        layout.addWidget(QLabel(f"{folder} holds {len(series)} series. Which do you want to open?"))
        layout.addWidget(self.list)
        layout.addWidget(self.buttons)
        self.resize(520, 260)
        self.list.itemSelectionChanged.connect(self._on_selection)
        self.list.itemDoubleClicked.connect(lambda item: self.accept())
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        # the one with most slices is what most people come for
        self.list.setCurrentRow(max(range(len(series)), key=lambda index: series[index].slices))

    def chosen(self) -> list[Path]:
        """Paths of the series that are selected."""
        return [Path(item.data(Qt.ItemDataRole.UserRole)) for item in self.list.selectedItems()]

    def accept(self) -> None:
        """Hand the chosen series on."""
        chosen = self.chosen()
        super().accept()
        if chosen:
            self._answer(chosen)

    def _on_selection(self) -> None:
        self.open_button.setEnabled(bool(self.list.selectedItems()))


def ask_series(folder: str, series: Sequence[Series], answer: Callable[[list[Path]], object]) -> SeriesDialog | None:
    """Ask which series to open; None, and nothing asked, where there is no window."""
    if QApplication.instance() is None:
        return None
    dialog = SeriesDialog(folder, series, answer)
    dialog.show()
    return dialog
