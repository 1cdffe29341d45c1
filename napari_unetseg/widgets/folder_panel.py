"""Step 6, folder: segment many files with the current model, look at the worst, and send them back to annotation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QColor, QDesktopServices
from qtpy.QtWidgets import QHeaderView, QLineEdit, QPushButton, QTreeWidget, QTreeWidgetItem, QWidget

from napari_unetseg.widgets import files
from napari_unetseg.widgets.context import Context, duration
from napari_unetseg.widgets.parts import Action, Actions, Bar, Panel, label, row

__all__ = ["FolderPanel"]

_WORDS = {"unlike": "unlike the training images"}


class FolderPanel(Panel):
    """Input and output folder, progress, a row a file."""

    title = "Segment a folder"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        workspace = context.workspace
        self.inputs, inputs = self._make_line(
            "Images",
            "folder, pattern, list",
            "Folder of images to segment, a pattern such as scans/*/t1.nii.gz, or a text file with one path a line",
            self._take_inputs,
        )
        self.out, out = self._make_line(
            "Masks go to", "new folder", "Folder for masks, table.csv and report.html", self._take_out
        )
        self.segment = Action("Segment folder", "One mask a file, in the file's own format and place", role="primary")
        self.stop = Action("Stop", "Finish the file at hand; a later run goes on from there")
        self.again = Action("Failed ones again", "Try again only the files that failed")
        self.send_back = Action(
            "Send back to annotation", "Take the chosen file into the project, with its mask, to be corrected"
        )
        self.undo = Action("Undo", "Take the last file that was sent back out of the project again")
        self.undo_run = Action(
            "Undo the run",
            "Remove the masks of the last run, and bring back those they replaced; a mask changed since stays",
        )
        self.report = Action("Report", "Open report.html, with the worst files first")
        self.segment.clicked.connect(lambda: self.start())
        self.again.clicked.connect(lambda: self.start(failed_only=True))
        self.stop.clicked.connect(lambda: context.do(workspace.stop))
        self.send_back.clicked.connect(self.send_chosen_back)
        self.undo.clicked.connect(lambda: context.do(workspace.undo_send_back))
        self.undo_run.clicked.connect(lambda: context.do(workspace.undo_segment))
        self.report.clicked.connect(self.open_report)
        self.bar = Bar("How many files are done")
        self.sentence = label("", "muted")
        self.rows = _rows()
        self.rows.itemSelectionChanged.connect(self.refresh)
        self.rows.itemDoubleClicked.connect(lambda *_: self.send_chosen_back())
        self.add(inputs, out, Actions(self.segment, self.stop, self.again, stretch=(2, 2, 1)), self.bar)
        self.add(self.sentence, self.rows, Actions(self.send_back, self.undo, self.report, stretch=(3, 1, 1)))
        self.add(Actions(self.undo_run))
        self.inputs.textChanged.connect(self.refresh)
        self.out.textChanged.connect(self.refresh)
        workspace.folder_changed.connect(self._fill)
        workspace.progress_changed.connect(self._show_progress)
        workspace.stage_changed.connect(self._on_stage)
        workspace.actions_changed.connect(self.refresh)
        context.look_changed.connect(self._paint)
        self._fill()
        self.refresh()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        rows = workspace.folder_rows
        if workspace.stage == "segmenting":
            return f"{len(rows)} files, {duration(workspace.progress.left) or '?'} left", "next"
        if not rows:
            return "", ""
        failed = sum(row["status"] == "failed" for row in rows)
        return f"{len(rows) - failed} done" + (f", {failed} failed" if failed else ""), "done"

    def start(self, *, failed_only: bool = False) -> None:
        """Segment the folder, or again only what failed in it."""
        inputs, out = [self.inputs.text().strip()], self.out.text().strip()
        self.context.do(self.context.workspace.segment_folder, inputs, out, failed_only=failed_only)

    def send_chosen_back(self) -> None:
        """Take the chosen file into the project, with its mask, to be corrected there."""
        row = self._chosen()
        if row is not None and not self.send_back.why:
            self.context.do(self.context.workspace.send_back, row["file"], row.get("mask", ""))

    def open_report(self) -> None:
        """Open the report in the web browser."""
        path = self._report()
        if path is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))

    def _report(self) -> Path | None:
        out = self.context.workspace.folder_out
        path = out / "report.html" if out is not None else None
        return path if path is not None and path.is_file() else None

    def _chosen(self) -> dict[str, Any] | None:
        """Row of the file chosen in the list."""
        items = self.rows.selectedItems()
        if not items:
            return None
        item = items[0].parent() or items[0]  # the line below a failed file says why it failed
        index = item.data(0, Qt.ItemDataRole.UserRole)
        rows = self.context.workspace.folder_rows
        return rows[index] if index < len(rows) else None

    def _make_line(self, title: str, short: str, tooltip: str, answer: Any) -> tuple[QLineEdit, QWidget]:
        edit = QLineEdit()
        edit.setToolTip(tooltip)
        edit.setAccessibleName(title)
        edit.setPlaceholderText(short)
        browse = QPushButton("Browse…")
        browse.setToolTip(f"Choose a folder. {title}: {tooltip[0].lower()}{tooltip[1:]}")
        browse.clicked.connect(lambda: files.ask_folder(self, tooltip, answer, edit.text()))
        name = label(title, wrap=False)
        name.setFixedWidth(92)
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
        for index in range(self.rows.topLevelItemCount(), len(rows)):
            row = rows[index]
            item = self._item(index, row)
            failed = row["status"] == "failed"
            self.rows.insertTopLevelItem(0 if failed else index, item)
            if failed:
                item.child(0).setFirstColumnSpanned(True)
                item.setExpanded(True)
            self._paint_item(item, row)
        self.rows.setVisible(bool(rows))
        if rows:
            self.rows.scrollToItem(self.rows.topLevelItem(len(rows) - 1))

    def _item(self, index: int, row: dict[str, Any]) -> QTreeWidgetItem:
        """Line of a file; a failed one says why below."""
        failed, flags = row["status"] == "failed", row.get("flags") or ()
        state = ", ".join(_WORDS.get(flag, flag) for flag in flags) or row["status"]
        item = QTreeWidgetItem([Path(row["file"]).name, state, "" if failed else f"{row['seconds']:.1f} s"])
        item.setData(0, Qt.ItemDataRole.UserRole, index)
        item.setToolTip(0, str(row["file"]))
        if row.get("doubt") is not None:
            item.setToolTip(1, f"Doubt of the net: {row['doubt']:.2f} of 1")
        if failed:
            why = QTreeWidgetItem([str(row["error"])])
            why.setToolTip(0, str(row["error"]))
            item.addChild(why)
        return item

    def _paint(self, _: Any = None) -> None:
        """Colour what deserves a look, as the theme has it."""
        rows = self.context.workspace.folder_rows
        for item in filter(None, map(self.rows.topLevelItem, range(self.rows.topLevelItemCount()))):
            self._paint_item(item, rows[item.data(0, Qt.ItemDataRole.UserRole)])

    def _paint_item(self, item: QTreeWidgetItem, row: dict[str, Any]) -> None:
        look = self.context.look
        if row["status"] == "failed" or row.get("flags"):
            item.setForeground(1, QColor(look.error if row["status"] == "failed" else look.warning))

    def _on_stage(self, stage: str) -> None:
        if stage == "idle" and self.context.workspace.folder_rows:
            self._sort()

    def _sort(self) -> None:
        """Put failed files first, then those that deserve a look, then the others by the doubt of the net."""
        rows = self.context.workspace.folder_rows
        items = [self.rows.takeTopLevelItem(0) for _ in range(self.rows.topLevelItemCount())]
        for item in sorted(items, key=lambda one: _badness(rows[one.data(0, Qt.ItemDataRole.UserRole)]), reverse=True):
            self.rows.addTopLevelItem(item)
            if item.childCount():
                item.child(0).setFirstColumnSpanned(True)
                item.setExpanded(True)
        self.rows.scrollToTop()

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
            failed = sum(r["status"] == "failed" for r in workspace.folder_rows)
            flagged = sum(bool(r.get("flags")) for r in workspace.folder_rows)
            look = f" {flagged} deserve a look: they come first." if flagged else ""
            done = len(workspace.folder_rows) - failed
            self.sentence.setText(f"{done} segmented, {failed} failed.{look} Masks and table.csv are in the folder.")
        self.sentence.setVisible(busy or bool(workspace.folder_rows))

    def refresh(self, _: Any = None) -> None:
        """Bring the buttons up to date."""
        workspace = self.context.workspace
        self.segment.set_why(workspace.why_not("segment_folder") or self._missing())
        segmenting = workspace.stage == "segmenting"
        self.stop.set_why(workspace.why_not("stop") if segmenting else "")
        self.segment.setVisible(not segmenting)
        self.stop.setVisible(segmenting)
        rows = workspace.folder_rows
        self.again.setVisible(not segmenting and any(row["status"] == "failed" for row in rows))
        self.again.set_why(workspace.why_not("segment_folder") or self._missing())
        for button in (self.send_back, self.report):
            button.setVisible(bool(rows))
        self.undo.setVisible(bool(rows) and not workspace.why_not("undo_send_back"))
        self.undo_run.setVisible(bool(rows) and not segmenting)
        self.undo_run.set_why(workspace.why_not("undo_segment"))
        self.send_back.set_why(workspace.why_not("send_back") or self._not_sent())
        self.report.set_why("" if self._report() else "It is written when the run is over.")
        self._show_progress()

    def _not_sent(self) -> str:
        row = self._chosen()
        if row is None:
            return "Choose a file in the list."
        return "It could not be segmented, so there is no mask to correct." if row["status"] == "failed" else ""

    def _missing(self) -> str:
        inputs, out = self.inputs.text().strip(), self.out.text().strip()
        if not inputs:
            return "Choose the folder with the images."
        if not Path(inputs).expanduser().exists() and not any(sign in inputs for sign in "*?["):
            return f"There is no folder {inputs}."
        if not out:
            return "Choose the folder for the masks."
        return "Choose another folder for the masks than for the images." if Path(inputs) == Path(out) else ""


def _badness(row: dict[str, Any]) -> float:
    return 10.0 if row["status"] == "failed" else len(row.get("flags") or ()) + (row.get("doubt") or 0.0)


def _rows() -> QTreeWidget:
    made = QTreeWidget()
    made.setAccessibleName("Files of the folder")
    made.setToolTip("What became of each file; when all are done, those that deserve a look come first")
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
