"""Curves round by round, the forecast, comparing nets and the difference layer, as the user sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyqtgraph as pg
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_unetseg.metrics import Correction, Forecast, forecast_corrections
from napari_unetseg.scores import Scores
from napari_unetseg.widgets.layers import role_of
from napari_unetseg.widgets.plots import Plots
from napari_unetseg.widgets.tables import Cell, Table
from napari_unetseg.widgets.theme import look
from napari_unetseg.workspace import Curves, Difference, Prediction, Round

pytestmark = pytest.mark.window


def click(widget):
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


def scores(cell, wall=0.5):
    dice = {"cell": cell, "wall": wall}
    return Scores({k: v / 2 for k, v in dice.items()}, dice, "2 held-out images", ("a", "b"), 900, "m")


@pytest.fixture
def plots(qtbot):
    made = Plots(look("dark"))
    made.set_colours({"cell": "#99aabb", "wall": "#445566"})
    qtbot.addWidget(made)
    made.show()
    return made


def test_one_view_at_a_time_and_each_says_its_content_in_words(plots):
    curves = Curves(2, [1, 2, 3], [0.9, 0.5, 0.4], [(3, scores(0.8))], kept=3)
    plots.training.show_curves(curves)
    plots.training.draw()
    assert plots.training.loss.accessibleDescription() == "Loss, smoothed: 0.400 after 3 steps."
    assert "cell 0.80   wall 0.50" in plots.training.score.accessibleDescription()
    plots.training.shown.setCurrentIndex(1)
    plots.training.draw()
    assert "cell 0.40   wall 0.25" in plots.training.score.toolTip()
    rounds = tuple(Round(n, Path(f"round-{n}"), "unet", scores(0.6 + 0.1 * n), n == 1) for n in (1, 2, 3))
    plots.rounds.show_rounds(rounds)
    click(plots.buttons[1])
    assert not plots.rounds.isHidden()
    assert plots.training.isHidden()
    plots.rounds.draw()
    assert "cell 0.70 → 0.80 → 0.90; wall 0.50 → 0.50 → 0.50" in plots.rounds.sentence.text()
    assert "rounds 1 to 3" in plots.rounds.score.accessibleDescription()
    first = plots.rounds.score.listDataItems()[0]
    assert first.getData()[0].tolist() == [1, 2, 3]
    assert pg.mkPen(first.opts["pen"]).color().name() == "#99aabb"


def test_the_forecast_is_a_sentence_above_its_band(plots):
    strokes = {"background": 4, "cell": 4, "wall": 3}
    rounds = tuple(Correction(scores(0.5 + 0.07 * n, 0.4), n, 10 * n, strokes) for n in range(1, 6))
    plots.worth.show_worth(rounds[:1], forecast_corrections(rounds[:1]))
    plots.worth.draw()
    assert plots.worth.sentence.text().startswith("Too early")
    told = forecast_corrections(rounds)
    plots.worth.show_worth(rounds, told, lambda name: forecast_corrections(rounds, name))
    plots.worth.draw()
    assert plots.worth.sentence.text() == told.sentence()
    assert "cell" in plots.worth.details.text()
    items = plots.worth.score.getPlotItem().items
    assert any(isinstance(item, pg.FillBetweenItem) for item in items)
    layout = plots.worth.column
    assert layout.indexOf(plots.worth.sentence) < layout.indexOf(plots.worth.score)
    plots.worth.show_worth((), Forecast(0))
    plots.worth.draw()
    assert not plots.worth.score.listDataItems()


def test_the_plots_follow_the_theme(plots):
    plots.set_look(look("light"))
    assert plots.worth.score.backgroundBrush().color().name() == look("light").foreground


def test_a_table_sorts_numbers_as_numbers_and_a_row_leads_somewhere(qtbot):
    went = []
    table = Table((("Image", ""), ("Dice", "")), went.append)
    qtbot.addWidget(table)
    table.fill([[Cell("a"), Cell(0.1)], [Cell("b"), Cell(None)], [Cell("c"), Cell(0.09)]])
    table.sortItems(1)
    assert [table.item(row, 0).text() for row in range(3)] == ["c", "a", "b"]
    assert table.item(2, 1).text() == "–"
    table.show()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=table.visualItemRect(table.item(1, 0)).center())
    assert went == ["a"]


NETS = [
    {"name": name, "title": name.title(), "dims": [2, 3], "sentence": "", "paper": "", "parameters": {"trainable": 1}}
    for name in ("unet", "unet++", "mildnet")
]


def tick(box, *names):
    for index in range(box.count()):
        item = box.item(index)
        chosen = item.data(Qt.ItemDataRole.UserRole) in names
        item.setCheckState(Qt.CheckState.Checked if chosen else Qt.CheckState.Unchecked)


def strokes(bench):
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 1)
    layer.paint((30, 40), 2)
    bench.context.bridge.flush()


def found(out):
    def row(net, mean, sd):
        return {"net": net, "class": "object", "cases": 2, "dice_mean": mean, "dice_sd": sd, "jaccard_mean": mean / 2}

    def case(name, net, dice):
        return {"case": name, "net": net, "class": "object", "dice": dice, "hausdorff95": None}

    return {
        "report": str(out / "report.html"), "runs": 4, "expected": 4, "failed": [],
        "table": [row("unet", 0.7, 0.1), row("mildnet", 0.8, None)],
        "tests": [{"net": "unet", "other": "mildnet", "pairs": 2, "difference": -0.1, "p": 0.5, "p_holm": 0.5}],
        "rows": [case("plane-a", "unet", 0.7), case("plane-b", "mildnet", 0.3)],
    }  # fmt: skip


def test_nets_are_compared_from_the_window(bench, jobs, tmp_path):
    panel = bench.compare
    strokes(bench)
    bench.workspace.nets, bench.workspace.losses = (
        tuple(NETS),
        {"dice": {"title": "Overlap (Dice)", "sentence": "Alike."}},
    )
    assert bench.workspace.title_of("unet:dice") == "Unet, overlap (Dice)"
    bench.workspace.nets_changed.emit(bench.workspace.nets)
    tick(panel.nets, "unet")
    assert panel.compare.why == "Tick at least two nets, or two losses."
    tick(panel.losses, "", "dice")
    assert panel.chosen() == ["unet", "unet:dice"]
    tick(panel.losses, "")
    tick(panel.nets, "unet", "mildnet", "instant")
    assert panel.chosen() == ["unet", "mildnet", "instant"]
    panel.folds.setValue(2)
    panel.minutes.setValue(1.0)
    assert panel.estimate.text() == "6 trainings, about 4 min 46 s."
    click(panel.compare)
    assert jobs.submitted[-1][0] == "compare"
    assert jobs.submitted[-1][1]["plan"]["training"]["minutes"] == 1.0
    assert not panel.bar.isHidden()
    assert panel.compare.isHidden()
    click(panel.stop)
    assert jobs.stopped == [len(jobs.listeners)]
    jobs.tell("Done", result=found(tmp_path))
    assert panel.bar.isHidden()
    assert panel.verdict.text() == (
        "Mildnet scores best: Dice 0.80 on 2 held-out cases. With 2 independent cases that may be chance."
    )
    rows = [[panel.results.item(row, column).text() for column in range(4)] for row in range(2)]
    assert rows == [["Unet", "0.70 ± 0.10", "0.35", ".500"], ["Mildnet", "0.80", "0.40", "best"]]
    assert [panel.cases.item(row, 0).text() for row in range(2)] == ["plane-b", "plane-a"], "the worst first"
    assert panel.cases.isColumnHidden(4), "no distance could be measured"
    bench.workspace.select_case("plane-a")
    panel.cases.cellClicked.emit(0, 0)
    assert bench.workspace.case == "plane-b"
    assert panel.summary() == ("best: Mildnet", "done")


def test_the_difference_between_rounds_is_a_layer_that_goes_away_again(bench):
    space = bench.workspace
    space.select_case("plane-a")
    mask = space.image().data[0] > 2000
    volume = type(space.project.annotation("plane-a"))
    geometry = space.image().geometry
    masks = [Prediction("plane-a", None, volume(m.astype(np.uint8), geometry)) for m in (mask, ~mask)]
    space._show(difference=Difference.between(*masks, ("round 2", "Round 1")))
    layer = next(one for one in bench.context.viewer.layers if role_of(one).get("role") == "difference")
    assert set(np.unique(layer.data)) == {1, 2}
    assert "100.0% of plane-a" in bench.review.difference.text()
    click(bench.review.hide_difference)
    assert layer not in bench.context.viewer.layers
    assert bench.review.difference.isHidden()


def test_an_interrupted_training_is_offered(bench, jobs):
    strokes(bench)
    assert bench.train.resume.isHidden()
    click(bench.train.train)
    args = jobs.submitted[-1][1]
    checkpoint = bench.workspace.project.path / "models" / ".round-001.training"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    jobs.tell("Failed", message="The engine was killed.", hint="", crashed=True)
    assert bench.train.resume.text() == "Resume round 1"
    click(bench.train.resume)
    assert jobs.submitted[-1][1] == {**args, "resume": True}


def test_work_aside_ends_on_the_window_thread_and_says_what_went_wrong(qtbot):
    from threading import current_thread

    from napari_unetseg.widgets.jobs import QtAside

    aside, ends = QtAside(), []

    def fail():
        raise OSError("disk full")

    aside(current_thread, lambda value, error: ends.append((value, error, current_thread())))
    aside(fail, lambda value, error: ends.append((value, error, current_thread())))
    aside.wait()
    assert not ends, "it is told when the window has time"
    qtbot.waitUntil(lambda: len(ends) == 2)
    assert ends[0][0] is not current_thread()
    assert ends[0][1:] == (None, current_thread())
    assert str(ends[1][1]) == "disk full"
    aside.close()
