"""Step 6, folder: segment many files with the current model; a failure is a row, and the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView, QLineEdit, QProgressBar, QPushButton, QTreeWidget, QTreeWidgetItem, QWidget

from napari_unetseg.widgets import files
from napari_unetseg.widgets.context import Context, duration
from napari_unetseg.widgets.parts import Action, Actions, Panel, label, row

__all__ = ["FolderPanel"]


class FolderPanel(Panel):
    """Input and output folder, progress, a row a file."""

    title = "Segment a folder"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        workspace = context.workspace
        self.inputs, inputs = self._make_line("Images", "to segment", "Folder of images to segment", self._take_inputs)
        self.out, out = self._make_line(
            "Masks go to", "new folder", "Folder for masks, table.csv and run.json", self._take_out
        )
        self.segment = Action("Segment folder", "One mask a file, in the file's own format and place", role="primary")
        self.stop = Action("Stop", "Finish the file at hand; a later run goes on from there")
        self.segment.clicked.connect(self.start)
        self.stop.clicked.connect(lambda: context.do(workspace.stop))
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.sentence = label("", "muted")
        self.rows = _rows()
        self.add(inputs, out, Actions(self.segment, self.stop, stretch=(1, 1)), self.bar, self.sentence, self.rows)
        self.inputs.textChanged.connect(self.refresh)
        self.out.textChanged.connect(self.refresh)
        workspace.folder_changed.connect(self._fill)
        workspace.progress_changed.connect(self._show_progress)
        workspace.stage_changed.connect(self._on_stage)
        workspace.actions_changed.connect(self.refresh)
        self._fill()
        self.refresh()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        rows = workspace.folder_rows
        failed = sum(row["status"] == "failed" for row in rows)
        if workspace.stage == "segmenting":
            return f"{len(rows)} files, {duration(workspace.progress.left) or '?'} left", "next"
        if not rows:
            return "", ""
        return f"{len(rows) - failed} done" + (f", {failed} failed" if failed else ""), "done"

    def start(self) -> None:
        """Segment the folder."""
        self.context.do(self.context.workspace.segment_folder, [self.inputs.text().strip()], self.out.text().strip())

    def _make_line(self, title: str, short: str, tooltip: str, answer: Any) -> tuple[QLineEdit, QWidget]:
        edit = QLineEdit()
        edit.setToolTip(tooltip)
        edit.setPlaceholderText(short)
        browse = QPushButton("Browse…")
        browse.clicked.connect(lambda: files.ask_folder(self, tooltip, answer, edit.text()))
        name = label(title, wrap=False)
        name.setFixedWidth(84)
        box = QWidget()
        box.setLayout(row(name, edit, browse, stretch=(0, 1, 0)))
        return edit, box

    def _take_inputs(self, path: str) -> None:
        self.inputs.setText(path)
        if not self.out.text().strip():
            self.out.setText(str(Path(path).with_name(f"{Path(path).name}-masks")))

    def _take_out(self, path: str) -> None:
        self.out.setText(path)

    def _fill(self, rows: Any = None) -> None:
        rows = self.context.workspace.folder_rows
        if len(rows) < self.rows.topLevelItemCount():
            self.rows.clear()
        for one in rows[self.rows.topLevelItemCount() :]:
            failed = one["status"] == "failed"
            took = f"{one['seconds']:.1f} s" if not failed else ""
            item = QTreeWidgetItem([Path(one["file"]).name, one["status"], took])
            item.setToolTip(0, str(one["file"]))
            if failed:
                item.setForeground(1, QColor(self.context.look.error))
                item.addChild(QTreeWidgetItem([str(one["error"])]))
            self.rows.insertTopLevelItem(0 if failed else self.rows.topLevelItemCount(), item)
            if failed:
                item.child(0).setFirstColumnSpanned(True)
                item.child(0).setToolTip(0, str(one["error"]))
                item.setExpanded(True)
        self.rows.setVisible(bool(rows))
        if rows:
            self.rows.scrollToItem(self.rows.topLevelItem(self.rows.topLevelItemCount() - 1))

    def _on_stage(self, stage: str) -> None:
        if stage == "idle":
            self.rows.scrollToTop()  # failures come first

    def _show_progress(self, progress: Any = None) -> None:
        workspace = self.context.workspace
        busy = workspace.stage == "segmenting"
        self.bar.setVisible(busy)
        if busy:
            left = duration(workspace.progress.left)
            self.bar.setValue(round(1000 * workspace.progress.fraction))
            self.bar.setFormat(f"{left} left" if left else "starting")
            self.sentence.setText(workspace.progress.sentence)
        elif workspace.folder_rows:
            failed = [r for r in workspace.folder_rows if r["status"] == "failed"]
            done = len(workspace.folder_rows) - len(failed)
            self.sentence.setText(f"{done} segmented, {len(failed)} failed. Masks and table.csv are in the folder.")
        self.sentence.setVisible(busy or bool(workspace.folder_rows))

    def refresh(self, _: Any = None) -> None:
        """Bring the buttons up to date."""
        workspace = self.context.workspace
        self.segment.set_why(workspace.why_not("segment_folder") or self._missing())
        segmenting = workspace.stage == "segmenting"
        self.stop.set_why(workspace.why_not("stop") if segmenting else "")
        self.segment.setVisible(not segmenting)
        self.stop.setVisible(segmenting)
        self._show_progress()

    def _missing(self) -> str:
        inputs, out = self.inputs.text().strip(), self.out.text().strip()
        if not inputs:
            return "Choose the folder with the images."
        if not Path(inputs).expanduser().exists():
            return f"There is no folder {inputs}."
        if not out:
            return "Choose the folder for the masks."
        return "Choose another folder for the masks than for the images." if Path(inputs) == Path(out) else ""


def _rows() -> QTreeWidget:
    made = QTreeWidget()
    made.setHeaderHidden(True)
    made.setColumnCount(3)
    made.setIndentation(12)
    made.setMinimumHeight(90)
    made.setMaximumHeight(190)
    made.header().setStretchLastSection(False)
    made.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    for column in (1, 2):
        made.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
    return made
