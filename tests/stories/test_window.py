"""A biologist's first quarter of an hour, in a real napari window with a real mouse: read this one first."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_unetseg.io import read, read_labels
from napari_unetseg.samples import demo_project, sample

pytestmark = pytest.mark.window

LEFT = Qt.MouseButton.LeftButton


class Hand:
    """The user's hand on the mouse and the keys, over the canvas of one window."""

    def __init__(self, viewer, bench) -> None:
        self.viewer, self.bench = viewer, bench

    @property
    def canvas(self) -> QWidget:
        top = self.bench.window()
        shown = [w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")]
        return next(w for w in shown if w.window() is top and w.isVisible())

    def at(self, y: float, x: float) -> QPoint:
        """Where voxel (y, x) of the image in hand is on the canvas."""
        layer, camera = self.bench.context.bridge.annotation, self.viewer.scene.camera
        index = (y, x) if layer.ndim == 2 else (self.bench.context.bridge.slice_index(), y, x)
        world = np.array(layer.data_to_world(index)[-2:])
        offset = (world - np.array(camera.center[-2:])) * camera.zoom
        return QPoint(round(self.canvas.width() / 2 + offset[1]), round(self.canvas.height() / 2 + offset[0]))

    def stroke(self, *points) -> None:
        canvas = self.canvas
        QTest.mousePress(canvas, LEFT, pos=self.at(*points[0]))
        for start, end in itertools.pairwise(points):
            for share in np.linspace(0.2, 1, 5):
                QTest.mouseMove(canvas, self.at(*(np.array(start) * (1 - share) + np.array(end) * share)))
                QTest.qWait(2)
        QTest.mouseRelease(canvas, LEFT, pos=self.at(*points[-1]))
        QTest.qWait(10)

    def key(self, key) -> None:
        QTest.keyClick(self.canvas, key)

    def click(self, button) -> None:
        """Bring the button on screen and press it."""
        self.bench.column.ensureWidgetVisible(button)
        QTest.qWait(20)
        assert button.isVisible()
        QTest.mouseClick(button, LEFT)

    def scribble(self, truth, number=4) -> None:
        """A few short strokes in the middle of the objects, and as many on the background."""
        from scipy import ndimage

        for label, key in ((0, Qt.Key.Key_1), (1, Qt.Key.Key_2)):
            self.key(key)
            depth = ndimage.distance_transform_edt(np.pad(truth == label, 1))[1:-1, 1:-1]
            for _ in range(number):
                y, x = np.unravel_index(depth.argmax(), depth.shape)
                reach = min(depth[y, x] * 0.6, 14)
                self.stroke((y, x - reach), (y, x + reach))
                depth[max(0, y - 25) : y + 25, max(0, x - 25) : x + 25] = 0


@pytest.fixture
def open_window(make_napari_viewer, qtbot):
    """Windows with the workbench, as the command line opens them."""
    from napari_unetseg.widgets.workbench import open_workbench

    opened = []

    def make(path):
        viewer = make_napari_viewer(show=True)
        viewer.window.resize(1280, 720)
        _, bench = open_workbench(path, viewer)
        opened.append(bench)
        qtbot.waitExposed(bench)
        qtbot.waitUntil(lambda: bench.workspace.nets != (), timeout=90_000)
        return viewer, bench, Hand(viewer, bench)

    yield make
    for bench in opened:
        bench.shutdown()


def wait_idle(qtbot, bench):
    qtbot.waitUntil(lambda: bench.workspace.stage == "idle" and bench.workspace.prediction is not None, timeout=90_000)


@pytest.mark.timeout(600)
def test_scribble_train_correct_retrain_segment_and_come_back(tmp_path, open_window, qtbot):
    chosen = sample("nuclei-2d")
    path = tmp_path / "nuclei.unetseg"
    demo_project(path).close()
    truth = {image.stem: read_labels(mask).data for image, mask in chosen.pairs}

    # open the project: the first image is there, and the brush is in the hand
    viewer, bench, hand = open_window(path)
    space = bench.workspace
    first = space.case
    assert space.cases == tuple(truth)
    assert str(bench.context.bridge.annotation.mode) == "paint"
    assert not bench.train.train.isEnabled()
    assert "stroke" in bench.train.train.why

    # paint strokes of two classes on two images
    hand.scribble(truth[first])
    counts = space.stroke_counts(first)
    assert min(counts.values()) > 30, counts

    # nothing is trained, and yet there is a mask a moment later; the window says who made it
    qtbot.waitUntil(lambda: bench.answer.badge.text() == "instant", timeout=90_000)
    assert bench.context.bridge.mask.data.any()
    assert bench.answer.sentence.text().startswith("Instant answer from your strokes")
    hand.key(Qt.Key.Key_N)
    second = space.case
    assert second == space.cases[1]
    hand.scribble(truth[second])
    hand.key(Qt.Key.Key_2)
    before = bench.context.bridge.annotation.data.copy()
    hand.stroke((5, 5), (9, 9))
    assert not np.array_equal(bench.context.bridge.annotation.data, before)
    QTest.keyClick(hand.canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(bench.context.bridge.annotation.data, before), "undone"

    # a small net and little time; then Train, and paint on while it learns
    space.change_plan(net={"width": 0.125}, training={"minutes": 1.5})
    for section in bench.sections[:3]:
        section.set_open(False)
    bench.show_step(bench.train)
    hand.click(bench.train.train)
    active = viewer.layers.selection.active
    mask = bench.context.bridge.mask
    qtbot.waitUntil(lambda: space.stage == "training", timeout=60_000)
    qtbot.waitUntil(lambda: space.preview is not None, timeout=120_000)
    assert space.preview.case == second
    assert viewer.layers.selection.active is active
    assert bench.context.bridge.mask is mask
    assert np.array_equal(mask.data, space.preview.mask)
    painted = sum(space.stroke_counts(second).values())
    hand.key(Qt.Key.Key_1)
    hand.stroke((250, 10), (250, 30))
    # one can go on painting; what was painted is counted when the event loop comes to it
    qtbot.waitUntil(lambda: sum(space.stroke_counts(second).values()) > painted, timeout=60_000)

    # stop: the best model so far is kept, its score says on what it was measured, its mask is shown
    qtbot.waitUntil(lambda: len(space.curves.validations) >= 1, timeout=120_000)
    hand.click(bench.train.stop)
    qtbot.waitUntil(lambda: space.stage != "training", timeout=60_000)
    wait_idle(qtbot, bench)
    assert len(space.rounds) == 1
    scores = space.rounds[0].scores
    assert scores.rule
    assert scores.sentence() in bench.review.sentence.text()
    assert bench.review.table.item(0, 1).text() == f"{scores.dice['nucleus']:.2f}"
    assert np.array_equal(mask.data, space.prediction.mask.data)

    # correct where it is wrong, and train again
    bench.show_step(bench.review)
    hand.click(bench.review.correct)
    assert str(bench.context.bridge.annotation.mode) == "paint"
    wrong = (space.prediction.mask.data > 0) != (truth[second] > 0)
    ys, xs = np.nonzero(wrong[20:-20, 20:-20])
    y, x = ys[len(ys) // 2] + 20, xs[len(xs) // 2] + 20
    hand.key(Qt.Key.Key_2 if truth[second][y, x] else Qt.Key.Key_1)
    hand.stroke((y, x - 1), (y, x + 1))
    space.change_plan(training={"minutes": 0.15})
    bench.show_step(bench.train)
    hand.click(bench.train.train)
    qtbot.waitUntil(lambda: space.stage == "training", timeout=60_000)
    qtbot.waitUntil(lambda: len(space.rounds) == 2, timeout=120_000)
    wait_idle(qtbot, bench)
    assert len(space.corrections) == 1, "the new strokes were scored before they were learned"
    assert bench.review.rounds.topLevelItemCount() == 2

    # take the training back, and go forward to it again
    bench.show_step(bench.review)
    used = next(one for one in space.rounds if one.current)
    hand.click(bench.review.undo_round)
    assert space.model != used.folder
    qtbot.waitUntil(lambda: space.stage == "idle", timeout=90_000)
    space.go_back_to_round(used.number)
    wait_idle(qtbot, bench)
    assert space.model == used.folder

    # accept: strokes overrule the net, the mask lies on the image's grid
    hand.click(bench.review.accept)
    qtbot.waitUntil(lambda: space.accepted, timeout=60_000)  # it is written aside
    strokes = bench.context.bridge.annotation.data
    saved = space.project.mask(second)
    assert (saved.data[strokes == 2] == 1).all()
    assert (saved.data[strokes == 1] == 0).all()
    assert saved.geometry.matches(read(space.project.image_path(second)).geometry)

    # a folder, with a file in it that is no image
    folder, out = tmp_path / "new", tmp_path / "new-masks"
    folder.mkdir()
    for image, _ in chosen.pairs[-3:]:
        (folder / image.name).write_bytes(image.read_bytes())
    (folder / "broken.tif").write_bytes(b"II*\0 no image")
    bench.show_step(bench.folder)
    bench.folder.inputs.setText(str(folder))
    bench.folder.out.setText(str(out))
    hand.click(bench.folder.segment)
    qtbot.waitUntil(lambda: space.stage == "segmenting", timeout=60_000)
    qtbot.waitUntil(lambda: space.stage == "idle", timeout=90_000)
    assert sorted(row["status"] for row in space.folder_rows) == ["done", "done", "done", "failed"]
    assert bench.folder.rows.topLevelItem(0).text(0) == "broken.tif"
    with open(out / "table.csv", newline="") as file:
        assert {row["status"] for row in csv.DictReader(file)} == {"done", "failed"}
    hand.click(bench.folder.undo_run)
    qtbot.waitUntil(lambda: space.stage == "idle" and not space.folder_rows, timeout=90_000)
    assert list(out.iterdir()) == [], "the run is taken back"

    # close, come back, and find everything
    viewer.close()
    _, bench, _ = open_window(path)
    assert bench.workspace.case == second
    assert np.array_equal(bench.context.bridge.annotation.data, strokes)
    assert np.array_equal(bench.context.bridge.mask.data, saved.data)
    assert len(bench.workspace.rounds) == 2
    assert bench.workspace.project.accepted() == [second]
    assert bench.workspace.plan.net.width == 0.125
    assert bench.workspace.stroke_counts(first) == counts


@pytest.mark.timeout(300)
def test_a_killed_worker_costs_a_message_and_no_stroke(tmp_path, open_window, qtbot):
    import os
    import signal

    path = tmp_path / "nuclei.unetseg"
    demo_project(path).close()
    _, bench, hand = open_window(path)
    hand.key(Qt.Key.Key_1)
    hand.stroke((10, 10), (10, 40))
    hand.key(Qt.Key.Key_2)
    hand.stroke((100, 100), (120, 120))
    strokes = bench.context.bridge.annotation.data.copy()
    bench.workspace.change_plan(net={"width": 0.125}, training={"minutes": 10})
    bench.show_step(bench.train)
    hand.click(bench.train.train)
    qtbot.waitUntil(lambda: len(bench.workspace.curves.steps) > 0, timeout=120_000)
    os.kill(bench.jobs.engine.facts["pid"], getattr(signal, "SIGKILL", signal.SIGTERM))
    qtbot.waitUntil(lambda: bench.workspace.stage == "idle", timeout=60_000)
    assert "safe" in bench.status.text()
    assert np.array_equal(bench.workspace.annotation(), strokes)
    qtbot.waitUntil(lambda: bench.jobs.engine.ready, timeout=90_000)
    assert bench.train.train.isEnabled()
