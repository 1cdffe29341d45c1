"""Compare architectures on the user's own strokes: by cross-validation, with a report that can go in a paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from napari_unetseg.widgets.context import Context, duration
from napari_unetseg.widgets.fields import Form, Minutes, Number
from napari_unetseg.widgets.parts import Action, Actions, Bar, Panel, label
from napari_unetseg.widgets.tables import Cell, Table

__all__ = ["ComparePanel"]

_NAME = Qt.ItemDataRole.UserRole
_USUAL = ("unet", "instant")
_INSTANT = {"name": "instant", "title": "Instant: a random forest, no net", "sentence": "Trains in seconds."}
_SHOWN = (
    ("Net", "A net, and its loss where it is not the plan's"),
    ("Dice", "Mean ± standard deviation over the held-out images; 1 is perfect"),
    ("Jaccard", "Mean over the held-out images; 1 is perfect"),
    ("p", "That its difference from the best one is chance: paired test on Dice, corrected for the number of nets"),
)
_CASES = (
    ("Image", "Click a row to go to the image"),
    ("Net", "A net, and its loss where it is not the plan's"),
    ("Class", ""),
    ("Dice", "2 · overlap / (mask + strokes), where this net had not seen the image"),
    ("HD95", "95th percentile of the distance between the outlines, in the unit of the image; less is better"),
)


class ComparePanel(Panel):
    """Nets and losses, folds and minutes, progress, results."""

    title = "Compare architectures"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        workspace = context.workspace
        self.nets = _list("Nets to compare; two or more")
        self.losses = _list("What training makes small; every chosen net is trained with each")
        self.folds = Number("Folds", "Parts that the images are divided into, whole images each; 5 is usual")
        self.minutes = Minutes(
            "Time of each training, in minutes",
            "Of each training: 2 minutes for a first look, as long as you would train otherwise",
        )
        self.estimate = label("", "muted")
        self.compare = Action(
            "Compare", "Train each on all folds but one and score it on that one, in turn", role="primary"
        )
        self.stop = Action("Stop", "What is finished is kept; comparing again goes on from there", role="primary")
        self.bar = Bar("How far the comparison is")
        self.sentence = label("", "muted")
        self.verdict = label("")
        self.results = Table(_SHOWN, name="Scores of the compared nets")
        self.cases = Table(_CASES, self._go, "Scores by image")
        self.report = Action("Open report", "The report in your browser: tables, plots, tests and the plan")
        self.place = label("", "muted")
        self.place.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.add(
            label("Which net is best on your own strokes? Each is scored on images that it never saw.", "muted"),
            self.nets,
            label("Losses: what training makes small", "muted"),
            self.losses,
            self._make_form(),
            self.estimate,
            Actions(self.compare, self.stop, stretch=(1, 1)),
        )
        self.add(self.bar, self.sentence, self.verdict, self.results, self.cases, Actions(self.report), self.place)
        self.compare.clicked.connect(self.start)
        self.stop.clicked.connect(lambda: context.do(workspace.stop))
        self.report.clicked.connect(self.open_report)
        for several in (self.nets, self.losses):
            several.itemChanged.connect(self.refresh)
        for box in (self.folds, self.minutes):
            box.valueChanged.connect(self.refresh)
        workspace.nets_changed.connect(self._fill_nets)
        workspace.project_changed.connect(self._on_project)
        workspace.comparison_changed.connect(self._show_result)
        workspace.progress_changed.connect(self._show_progress)
        workspace.actions_changed.connect(self.refresh)
        self._fill_nets()
        self._on_project()
        self._show_result()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        if workspace.stage == "comparing":
            left = duration(workspace.progress.left)
            return f"comparing, {left} left" if left else "comparing …", "next"
        best = self._best()
        return (f"best: {workspace.title_of(best['net'])}", "done") if best else ("optional", "")

    def start(self) -> None:
        """Compare what is ticked."""
        self.context.do(self.context.workspace.compare, self.chosen(), int(self.folds.value()), self.minutes.value())

    def chosen(self) -> list[str]:
        """What is ticked: nets, or with several losses ``net:loss`` each."""
        nets, losses = _ticked(self.nets), _ticked(self.losses)
        if losses in ([], [""]):
            return nets
        pairs = [f"{net}:{loss}" if loss else net for net in nets if net != "instant" for loss in losses]
        return [*pairs, *("instant" for net in nets if net == "instant")]

    def open_report(self) -> None:
        """Show the report in the browser."""
        if report := (self.context.workspace.comparison or {}).get("report"):
            QDesktopServices.openUrl(QUrl.fromLocalFile(report))

    def _make_form(self) -> QWidget:
        self.folds.setRange(2, 20)
        self.folds.setDecimals(0)
        box = QWidget()
        form = Form(box)
        form.field("Folds", self.folds)
        form.field("Each training", self.minutes)
        return box

    # -- shown ------------------------------------------------------------------------------------------------

    def _fill_nets(self, nets: Any = None) -> None:
        workspace = self.context.workspace
        chosen = _ticked(self.nets) if self.nets.count() > 1 else []  # before the nets are known there is but one
        ticked = chosen or [workspace.plan.net.name, *_USUAL]
        known: Sequence[Mapping[str, Any]] = workspace.nets
        image = workspace.image()
        dims = image.ndim if image is not None else 2
        fitting = [net for net in known if dims == 3 or 2 in net["dims"]]
        facts = [*fitting, *([_INSTANT] if all(net["name"] != "instant" for net in known) else [])]
        _fill(self.nets, 5, [(net["name"], net["title"], net.get("sentence", "")) for net in facts], ticked)
        usual = workspace.plan.training.loss
        offered: dict[str, dict[str, str]] = {**{usual: {"title": usual, "sentence": ""}}, **workspace.losses}
        losses = [
            ("" if name == usual else name, said["title"], f"{said['title']}\n{said['sentence']}")
            for name, said in sorted(offered.items(), key=lambda one: one[0] != usual)  # the plan's own comes first
        ]
        _fill(self.losses, 3, losses, _ticked(self.losses) or [""])
        self.refresh()

    def _on_project(self, project: Any = None) -> None:
        workspace = self.context.workspace
        self.folds.setValue(workspace.usual_folds)
        self.minutes.setValue(workspace.plan.training.minutes or 2.0)
        self.refresh()

    def _best(self) -> dict[str, Any] | None:
        scored = [row for row in self._rows() if row["dice_mean"] is not None]
        return max(scored, key=lambda row: row["dice_mean"], default=None)

    def _rows(self) -> list[dict[str, Any]]:
        """One row a net: of its only class, or of the mean of all, which comes last."""
        table = (self.context.workspace.comparison or {}).get("table", ())
        return list({row["net"]: row for row in table}.values())

    def _show_result(self, comparison: Any = None) -> None:
        found = self.context.workspace.comparison
        for widget in (self.verdict, self.results, self.cases, self.report, self.place):
            widget.setVisible(found is not None)
        if found is None:
            return
        best, tests, named = self._best(), found.get("tests", ()), self.context.workspace.title_of
        self.results.fill([self._result(row, best, tests) for row in self._rows()])
        self.verdict.setText(_verdict(found, best, tests, named))
        rows = [
            [
                Cell(row["case"]),
                Cell(named(row["net"])),
                Cell(row["class"]),
                Cell(row["dice"]),
                Cell(row["hausdorff95"]),
            ]
            for row in found.get("rows", ())
        ]
        self.cases.fill(rows)
        self.cases.setColumnHidden(2, len({row["class"] for row in found.get("rows", ())}) < 2)
        # strokes have no outline to measure a distance to
        self.cases.setColumnHidden(4, all(row["hausdorff95"] is None for row in found.get("rows", ())))
        self.cases.sortItems(3)
        path = Path(found["report"])
        self.place.setText(f"Report and tables: {path.parent.parent.name}/{path.parent.name}")
        self.place.setToolTip(str(path))
        self.refresh()

    def _result(self, row: Mapping[str, Any], best: Mapping[str, Any] | None, tests: Sequence[Any]) -> list[Cell]:
        spread = f" ± {row['dice_sd']:.2f}" if row["dice_sd"] is not None else ""
        dice = Cell(row["dice_mean"])
        if row["dice_mean"] is not None:
            dice = Cell(row["dice_mean"], f"{row['dice_mean']:.2f}{spread}")
        p = _p(row["net"], best["net"], tests) if best else None
        same = best is not None and row["net"] == best["net"]
        chance = Cell("best") if same else Cell(p, None if p is None else _p_words(p))
        return [Cell(self.context.workspace.title_of(row["net"])), dice, Cell(row["jaccard_mean"]), chance]

    def _go(self, case: str) -> None:
        workspace = self.context.workspace
        if case in workspace.cases and case != workspace.case:
            self.context.bridge.remember_view()
            self.context.do(workspace.select_case, case)

    def _show_progress(self, _: Any = None) -> None:
        workspace = self.context.workspace
        busy = workspace.stage == "comparing"
        self.bar.setVisible(busy)
        self.sentence.setVisible(busy)
        if busy:
            left = duration(workspace.progress.left)
            self.bar.setValue(round(1000 * workspace.progress.fraction))
            self.bar.setFormat(f"{left} left" if left else "preparing")
            self.sentence.setText(workspace.progress.sentence)

    def refresh(self, _: Any = None) -> None:
        """Bring estimate and buttons up to date."""
        workspace, nets, folds = self.context.workspace, self.chosen(), int(self.folds.value())
        busy = workspace.stage == "comparing"
        few = "" if len(nets) > 1 else "Tick at least two nets, or two losses."
        self.compare.set_why(workspace.why_not("compare") or few)
        self.compare.setVisible(not busy)
        self.stop.setVisible(busy)
        self.stop.set_why(workspace.why_not("stop") if busy else "")
        self.report.set_why("")
        for widget in (self.nets, self.losses, self.folds, self.minutes):
            widget.setEnabled(not busy)
        seconds = workspace.comparison_seconds(nets, folds, self.minutes.value())
        count = len(nets) * folds
        self.estimate.setText(f"{count} trainings, about {duration(seconds)}." if not few and not busy else "")
        self.estimate.setVisible(bool(self.estimate.text()))
        self._show_progress()


def _verdict(
    found: Mapping[str, Any],
    best: Mapping[str, Any] | None,
    tests: Sequence[Mapping[str, Any]],
    named: Callable[[str], str],
) -> str:
    """What the numbers allow to say, in a sentence or two."""
    words = []
    if found["runs"] < found["expected"]:
        words.append(f"Stopped early: {found['runs']} of {found['expected']} trainings are done.")
    if found.get("failed"):
        failed = found["failed"][0]
        words.append(f"{len(found['failed'])} failed; the first, {named(failed['net'])}: {failed['error']}")
    if best is not None:
        words.append(
            f"{named(best['net'])} scores best: Dice {best['dice_mean']:.2f} on {best['cases']} held-out cases."
        )
        others = [test for test in tests if best["net"] in (test["net"], test["other"])]
        sure = [test for test in others if test["p_holm"] is not None and test["p_holm"] < 0.05]
        if others and not sure:
            words.append(f"With {max(t['pairs'] for t in others)} independent cases that may be chance.")
        elif len(sure) < len(others):
            words.append(f"It is better than {len(sure)} of {len(others)} others beyond chance.")
        elif others:
            words.append("That is more than chance.")
    return " ".join(words)


def _p(net: str, best: str, tests: Sequence[Mapping[str, Any]]) -> float | None:
    return next((test["p_holm"] for test in tests if {test["net"], test["other"]} == {net, best}), None)


def _p_words(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"


def _list(tooltip: str) -> QListWidget:
    made = QListWidget()
    made.setToolTip(tooltip)
    made.setAccessibleName(tooltip.partition(";")[0])
    made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    made.setTextElideMode(Qt.TextElideMode.ElideRight)
    return made


def _fill(box: QListWidget, height: int, rows: Sequence[tuple[str, str, str]], ticked: Sequence[str]) -> None:
    """Offer `rows` of name, text and tooltip, of which as many are in view as `height` says."""
    box.blockSignals(True)
    box.clear()
    for name, text, tip in rows:
        item = QListWidgetItem(text)
        item.setData(_NAME, name)
        item.setToolTip(tip)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        item.setCheckState(Qt.CheckState.Checked if name in ticked else Qt.CheckState.Unchecked)
        box.addItem(item)
    box.setFixedHeight(min(height, len(rows)) * box.sizeHintForRow(0) + 6)  # whole rows, and the padding around
    box.blockSignals(False)


def _ticked(box: QListWidget) -> list[str]:
    items = [box.item(index) for index in range(box.count())]
    return [item.data(_NAME) for item in items if item.checkState() == Qt.CheckState.Checked]
