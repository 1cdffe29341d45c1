"""Asking for files and folders without stopping the window: the dialogs are not modal, and answer by a call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_unetseg.io import FORMATS

__all__ = ["ask_files", "ask_folder", "ask_new", "image_filter"]


def image_filter() -> str:
    """Filter line of a dialog with the suffixes of all formats."""
    suffixes = sorted({suffix for name in FORMATS for suffix in FORMATS[name].suffixes})
    return f"Images ({' '.join('*' + suffix for suffix in suffixes)});;All files (*)"


def ask_files(parent: QWidget, title: str, answer: Callable[[list[str]], object]) -> QFileDialog:
    """Ask for images to open."""
    dialog = QFileDialog(parent, title, str(Path.home()), image_filter())
    dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
    dialog.filesSelected.connect(lambda paths: answer(list(paths)))
    return _show(dialog)


def ask_folder(parent: QWidget, title: str, answer: Callable[[str], object], start: str = "") -> QFileDialog:
    """Ask for a folder that exists."""
    dialog = QFileDialog(parent, title, start or str(Path.home()))
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly, True)
    dialog.fileSelected.connect(lambda path: answer(str(path)))
    return _show(dialog)


def ask_new(parent: QWidget, title: str, name: str, answer: Callable[[str], object]) -> QFileDialog:
    """Ask for the name and place of a folder to be made."""
    dialog = QFileDialog(parent, title, str(Path.home()), "Projects (*.unetseg)")
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setFileMode(QFileDialog.FileMode.AnyFile)
    dialog.setLabelText(QFileDialog.DialogLabel.Accept, "Create")
    dialog.setDefaultSuffix("unetseg")
    dialog.selectFile(name)
    dialog.fileSelected.connect(lambda path: answer(str(path)))
    return _show(dialog)


def _show(dialog: QFileDialog) -> QFileDialog:
    dialog.setModal(False)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.show()
    return dialog
