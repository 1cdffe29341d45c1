"""Step 5, review: how good the mask is and on what that was measured; accept it, or correct it and train again."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem, QTreeWidget, QTreeWidgetItem

from napari_unetseg.scores import Scores
from napari_unetseg.widgets.accept_parts import AcceptParts
from napari_unetseg.widgets.context import Context, duration
from napari_unetseg.widgets.parts import Action, Actions, Bar, Panel, label, swatch
from napari_unetseg.widgets.tables import Cell, Table
from napari_unetseg.workspace import Round

__all__ = ["ReviewPanel"]

_FEW_VOXELS, _FEW_IMAGES = 500, 3
_IMAGES = (
    ("Held-out image", "Click a row to go to the image"),
    ("Class", ""),
    ("Dice", "2 · overlap / (mask + truth) in this image, 0 to 1; the worst come first"),
)


class ReviewPanel(Panel):
    """Scores per class, rounds, Accept and Correct."""

    title = "Review"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        workspace = context.workspace
        self.sentence = label("", "")
        self.caution = label("", "why")
        self.table = _table()
        self.images = Table(_IMAGES, self._go, "Held-out images and their scores")
        self.predict = Action("Predict this image", "Segment the image in hand with the current model")
        self.stop = Action("Stop", "Compute no mask of this image now")
        self.bar = Bar("How far the mask of this image is")
        self.accept = Action(
            "Accept mask",
            "Save the mask in the image's own format and place; your strokes overrule the net",
            role="primary",
        )
        self.correct = Action("Correct", "Take the brush and paint where the mask is wrong, then train again")
        self.undo_accept = Action("Undo accept", "Take the last acceptance back")
        self.rounds = _rounds()
        self._rounds_title = label("Rounds: every model is kept", "muted")
        self.go_back = Action("Use the chosen round", "Predict with that model from now on")
        self.undo_round = Action("Undo round", "Use again what was in use before this round was trained")
        self.difference = label("", "")
        self.hide_difference = Action("Hide the difference", "Take the layer away that shows where the rounds differ")
        self._differ = Actions(self.hide_difference)
        self._back = Actions(self.go_back, self.undo_round, stretch=(2, 1))
        self.predict.clicked.connect(lambda: context.do(workspace.predict_current))
        self.stop.clicked.connect(lambda: context.do(workspace.stop))
        self.accept.clicked.connect(lambda: context.do(workspace.accept))
        self.correct.clicked.connect(self.take_brush)
        self.undo_accept.clicked.connect(self.take_back)
        self.go_back.clicked.connect(self.use_round)
        self.undo_round.clicked.connect(lambda: context.do(workspace.undo_round))
        self.rounds.itemSelectionChanged.connect(self.refresh)
        self.rounds.itemDoubleClicked.connect(lambda *_: self.use_round())
        self.add(
            self.sentence,
            self.caution,
            self.table,
            self.images,
            Actions(self.predict, self.stop, stretch=(1, 1)),
            self.bar,
            Actions(self.accept, self.correct, stretch=(2, 1)),
        )
        self.parts = AcceptParts(context)
        self.add(self.parts, Actions(self.undo_accept), self._rounds_title, self.rounds, self._back)
        self.add(self.difference, self._differ)
        self.hide_difference.clicked.connect(lambda: context.do(workspace.forget_difference))
        workspace.difference_changed.connect(self._show_difference)
        workspace.rounds_changed.connect(self._fill)
        workspace.progress_changed.connect(self._show_progress)
        workspace.classes_changed.connect(self._fill)
        workspace.nets_changed.connect(self._fill)  # which have the titles of the architectures
        workspace.case_changed.connect(self.refresh)
        workspace.actions_changed.connect(self.refresh)
        self._show_difference()
        self._fill()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        current = self._current()
        if workspace.stage == "predicting":
            return "segmenting …", "next"
        if current is None:
            return "", ""
        if current.scores is None or not current.scores.voxels:
            return "no score yet", "next"
        on = " on strokes" if current.scores.on_strokes else ""
        return f"Dice {current.scores.mean_dice:.2f}{on}", "done" if workspace.accepted else "next"

    def take_brush(self) -> None:
        """Go back to the annotation layer with the brush in the hand."""
        if self.context.do(self.context.workspace.correct):
            self.context.bridge.annotate()

    def take_back(self) -> None:
        """Take the last acceptance back."""
        self.context.do(self.context.workspace.undo_accept)

    def use_round(self) -> None:
        """Go back (or forward) to the round chosen in the list."""
        chosen = self.rounds.selectedItems()
        if chosen:
            self.context.do(self.context.workspace.go_back_to_round, chosen[0].data(0, Qt.ItemDataRole.UserRole))

    def _current(self) -> Round | None:
        return next((r for r in self.context.workspace.rounds if r.current), None)

    def _fill(self, _: Any = None) -> None:
        workspace, current = self.context.workspace, self._current()
        scores = current.scores if current else None
        if current is None:
            self.sentence.setText("Nothing is trained yet; the scores of the model will be shown here.")
        else:
            measured = scores.sentence() if scores else "No score yet: nothing was held out to measure on."
            kept = f"\nKept: step {current.kept[0]:,} of {current.kept[1]:,}." if current.kept else ""
            self.sentence.setText(f"Round {current.number} ({workspace.title_of(current.net)}): {measured}{kept}")
        caution = _caution(scores)
        self.caution.setText(caution)
        self.caution.setVisible(bool(caution))
        self._fill_table(scores)
        self._fill_images(scores)
        self._fill_rounds()
        self.refresh()

    def _fill_table(self, scores: Scores | None) -> None:
        self.table.setVisible(bool(scores and scores.voxels))
        if scores is None:
            return
        names = ["Class, on strokes" if scores.on_strokes else "Class", "Dice", "Jaccard"]
        self.table.setHorizontalHeaderLabels(names)
        colours = {c.name: c.colour for c in self.context.workspace.classes}
        lines = [(name, scores.dice[name], scores.jaccard.get(name, float("nan"))) for name in scores.dice]
        if len(lines) > 1:
            lines.append(("mean", scores.mean_dice, scores.mean_jaccard))
        self.table.setRowCount(len(lines))
        for index, (name, dice, jaccard) in enumerate(lines):
            first = QTableWidgetItem(name)
            if name in colours:
                first.setIcon(swatch(colours[name]))
            self.table.setItem(index, 0, first)
            for column, value in ((1, dice), (2, jaccard)):
                item = QTableWidgetItem(f"{value:.2f}")
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                item.setToolTip(f"{value:.4f}")
                self.table.setItem(index, column, item)
        height = self.table.horizontalHeader().sizeHint().height() + 26 * min(6, len(lines)) + 6
        self.table.setFixedHeight(height)

    def _fill_images(self, scores: Scores | None) -> None:
        each = scores.per_image if scores and scores.voxels else {}
        self.images.setVisible(len(each) > 1)
        rows = [(case, name, dice) for case, found in each.items() for name, dice in found.items()]
        self.images.fill([[Cell(case), Cell(name), Cell(dice)] for case, name, dice in rows])
        self.images.sortItems(2)

    def _go(self, case: str) -> None:
        workspace = self.context.workspace
        if case in workspace.cases and case != workspace.case:
            self.context.bridge.remember_view()
            self.context.do(workspace.select_case, case)

    def _show_difference(self, difference: Any = None) -> None:
        shown = self.context.workspace.difference
        key = "Yellow: only now. Pink: only before. Red: another class." if shown and shown.voxels else ""
        self.difference.setText(f"{shown.sentence()}\n{key}".strip() if shown else "")
        for widget in (self.difference, self._differ):
            widget.setVisible(shown is not None)

    def _fill_rounds(self) -> None:
        rounds = self.context.workspace.rounds
        self.rounds.blockSignals(True)
        self.rounds.clear()
        for one in reversed(rounds):
            scores = one.scores if one.scores and one.scores.voxels else None
            dice = f"{scores.mean_dice:.2f}{' on strokes' * scores.on_strokes}" if scores else "–"
            item = QTreeWidgetItem(
                [f"Round {one.number}", self.context.workspace.title_of(one.net), dice, "in use" if one.current else ""]
            )
            item.setData(0, Qt.ItemDataRole.UserRole, one.number)
            item.setToolTip(2, scores.sentence() if scores else "Nothing was held out to measure on.")
            self.rounds.addTopLevelItem(item)
        self.rounds.blockSignals(False)
        self.rounds.setFixedHeight(min(max(1, len(rounds)), 5) * max(22, self.rounds.sizeHintForRow(0)) + 8)
        for widget in (self.rounds, self._rounds_title, self._back):
            widget.setVisible(bool(rounds))

    def _show_progress(self, _: Any = None) -> None:
        workspace = self.context.workspace
        predicting = workspace.stage == "predicting"
        self.bar.setVisible(predicting)
        if predicting:
            left = duration(workspace.progress.left)
            self.bar.setValue(round(1000 * workspace.progress.fraction))
            self.bar.setFormat(f"{left} left" if left else "computing the mask")

    def refresh(self, _: Any = None) -> None:
        """Bring the buttons up to date."""
        workspace = self.context.workspace
        self.predict.set_why(workspace.why_not("predict"))
        predicting = workspace.stage == "predicting"
        self.predict.setVisible(workspace.prediction is None and not predicting)
        self.stop.setVisible(predicting)
        self.stop.set_why(workspace.why_not("stop") if predicting else "")
        self._show_progress()
        self.accept.set_why(workspace.why_not("accept"))
        self.correct.set_why(workspace.why_not("correct"))
        self.undo_accept.setVisible(workspace.accepted)
        self.undo_accept.set_why(workspace.why_not("undo_accept"))
        chosen = self.rounds.selectedItems()
        number = chosen[0].data(0, Qt.ItemDataRole.UserRole) if chosen else None
        current = self._current()
        pick = "" if number is not None else "Choose a round in the list."
        same = "That round is in use already." if current and number == current.number else ""
        self.go_back.setVisible(any(not one.current for one in workspace.rounds))
        self.go_back.set_why(workspace.why_not("go_back") or pick or same)
        undo = workspace.why_not("undo_round")
        self.undo_round.setText(f"Undo round {current.number}" if current else "Undo round")
        self.undo_round.setVisible(current is not None and workspace.round_before is not None)
        self.undo_round.set_why(undo)


def _caution(scores: Scores | None) -> str:
    """Say when a score was measured on so little that it may mislead; empty when it was not."""
    if scores is None or not scores.voxels or not scores.rule:
        return ""
    if scores.voxels >= _FEW_VOXELS and len(scores.images) >= _FEW_IMAGES:
        return ""
    what = "few strokes" if scores.on_strokes else "little"
    return f"Measured on {what}: look at the mask before you trust the number."


def _table() -> QTableWidget:
    table = QTableWidget(0, 3)
    table.setAccessibleName("Scores of the round in use, by class")
    table.setToolTip("How well the round in use does where it was not trained: 0 nothing fits, 1 is perfect")
    table.setHorizontalHeaderLabels(["Class", "Dice", "Jaccard"])
    table.horizontalHeaderItem(1).setToolTip("2 · overlap / (mask + truth), 0 to 1; 1 is perfect")
    table.horizontalHeaderItem(2).setToolTip("overlap / union, 0 to 1; 1 is perfect")
    table.horizontalHeaderItem(0).setTextAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(26)
    table.setShowGrid(False)
    table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
    table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    for column in (1, 2):
        table.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
    return table


def _rounds() -> QTreeWidget:
    made = QTreeWidget()
    made.setAccessibleName("Rounds of training")
    made.setToolTip("Every round with its net and its Dice; choose one, and the button below uses it again")
    made.setHeaderHidden(True)
    made.setColumnCount(4)
    made.setRootIsDecorated(False)
    made.header().setStretchLastSection(False)
    made.header().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
    for column in (0, 2, 3):
        made.header().setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
    return made
