"""The panels: what they show, what they ask for, and that no button is disabled without a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QMimeData, QPoint, QPointF, QRect, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QComboBox

from napari_unetseg.project import Project
from napari_unetseg.scores import Scores
from napari_unetseg.widgets.context import duration
from napari_unetseg.widgets.parts import Action, Actions
from napari_unetseg.workspace import Message

pytestmark = pytest.mark.window


def click(widget):
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


def strokes(bench):
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 1)
    layer.paint((30, 40), 2)
    bench.context.bridge.flush()
    bench.refresh()


def say_why(bench):
    for box in bench.findChildren(Actions):
        for action in box.findChildren(Action):
            if not action.isEnabled() and not action.isHidden():
                assert action.why, f"{action.text()} does not say why"
                assert action.toolTip() == action.why
                assert action.why in box.line.text()
                assert not box.line.isHidden()


def test_every_disabled_button_says_why_at_every_step(bench):
    say_why(bench)
    strokes(bench)
    say_why(bench)
    assert bench.train.train.isEnabled()
    click(bench.train.train)
    say_why(bench)
    bench.workspace.close_project()
    say_why(bench)
    assert not bench.images.add_files.isEnabled()


def test_the_next_thing_to_do_is_always_said(bench):
    assert "stroke" in bench.next.text()
    strokes(bench)
    assert bench.next.text().startswith("Press Train")
    click(bench.train.train)
    bench.refresh()
    assert "Stop" in bench.next.text()
    bench.workspace.close_project()
    bench.refresh()
    assert "project" in bench.next.text()


def test_images_are_listed_with_their_state(bench):
    listed = bench.images.list
    names = [listed.topLevelItem(i).text(0) for i in range(listed.topLevelItemCount())]
    assert names == ["plane-a", "plane-b", "volume"]
    strokes(bench)
    assert listed.topLevelItem(0).text(1) == "strokes"
    listed.setCurrentItem(listed.topLevelItem(2))
    assert bench.workspace.case == "volume"
    assert bench.sections[0].state == "3 images"


def test_files_and_projects_can_be_dropped(bench, images, tmp_path):
    def drop(path):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
                           Qt.KeyboardModifier.NoModifier)  # fmt: skip
        bench.dropEvent(event)

    path = bench.workspace.project.path
    bench.images.create_project(str(tmp_path / "other.unetseg"))
    drop(images)
    assert len(bench.workspace.cases) == 3
    drop(path)
    assert bench.workspace.project.path == path


def test_a_bad_file_is_a_notification_and_the_others_are_added(bench, tmp_path, notes):
    bad = tmp_path / "notes.tif"
    bad.write_text("no image")
    bench.images.add_paths([str(bad)])
    assert "notes.tif" in notes[-1].message
    assert str(notes[-1].severity) == "error"
    assert len(bench.workspace.cases) == 3


def test_layers_that_are_open_are_taken_over(bench, qtbot):
    viewer = bench.context.viewer
    assert "No other image" in bench.images.add_layers.why
    viewer.add_image(np.random.default_rng(0).random((30, 30)), name="from afar", scale=(2, 2), units=("um", "um"))
    assert bench.images.add_layers.isEnabled()
    click(bench.images.add_layers)
    assert bench.workspace.cases[-1] == "from afar"
    assert "from afar" not in viewer.layers
    bench.images.go_to("from afar")
    assert bench.context.bridge.annotation.scale == pytest.approx([2, 2])


def test_a_layer_without_numbers_does_not_keep_the_others_out(bench, notes):
    viewer = bench.context.viewer
    viewer.add_image(np.full((30, 30), np.nan), name="nothing", contrast_limits=(0, 1))
    viewer.add_image(np.random.default_rng(0).random((30, 30)), name="something")
    click(bench.images.add_layers)
    assert bench.workspace.cases[-1] == "something"
    assert "nothing" not in bench.workspace.cases
    assert "nothing was not added" in notes[-1].message
    assert "nothing" in viewer.layers


def test_classes_are_renamed_coloured_added_and_removed(bench, qtbot):
    _, edit = bench.classes.rows[1]
    edit.selectAll()
    QTest.keyClicks(edit, "nucleus")
    QTest.keyClick(edit, Qt.Key.Key_Return)
    assert bench.workspace.classes[1].name == "nucleus"
    assert bench.annotate.classes[1].text().startswith("nucleus")
    bench.classes.recolour(1, "#ff0000")
    colours = bench.context.bridge.annotation.colormap.color_dict
    assert np.allclose(colours[2], (1, 0, 0, 1))
    click(bench.classes.add_class)
    assert len(bench.workspace.classes) == 4
    assert len(bench.annotate.classes) == 4
    click(bench.classes.remove_class)
    assert len(bench.workspace.classes) == 3
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 3)
    bench.context.bridge.flush()
    assert bench.classes.remove_class.why == "The last class has strokes."


def test_a_name_that_is_taken_is_refused_and_put_back(bench, notes):
    bench.classes.rename(1, "background")
    assert notes
    assert bench.classes.rows[1][1].text() == bench.workspace.classes[1].name


def test_class_buttons_tools_and_brush_follow_the_layer_and_lead_it(bench):
    layer = bench.context.bridge.annotation
    click(bench.annotate.classes[0])
    assert layer.selected_label == 1
    layer.selected_label = 3
    assert [b.isChecked() for b in bench.annotate.classes] == [False, False, True]
    click(bench.annotate.tools["erase"])
    assert str(layer.mode) == "erase"
    layer.mode = "fill"
    assert bench.annotate.tools["fill"].isChecked()
    bench.annotate.brush.setValue(11)
    assert layer.brush_size == 11
    layer.brush_size = 5
    assert bench.annotate.brush.value() == 5
    layer.paint((10, 10), 3)
    click(bench.annotate.undo)
    assert not layer.data.any()
    click(bench.annotate.redo)
    assert layer.data.any()
    click(bench.annotate.mask_shown)
    assert not bench.context.bridge.mask.visible
    click(bench.annotate.next)
    assert bench.workspace.case == "plane-b"
    assert not bench.context.bridge.mask.visible, "as the user left it"
    assert bench.context.bridge.annotation.selected_label == 3


def test_the_plan_is_what_the_form_says(bench):
    bench.train.minutes.setValue(7)
    assert bench.workspace.plan.training.minutes == 7
    assert bench.train.dims.isHidden(), "a plane leaves no choice"
    bench.images.go_to("volume")
    assert not bench.train.dims.isHidden()


def test_training_shows_curves_time_and_score(bench, jobs, tmp_path, qtbot):
    strokes(bench)
    click(bench.train.train)
    assert jobs.submitted[-1][0] == "train"
    assert bench.train.train.isHidden()
    assert not bench.train.stop.isHidden()
    for step in range(1, 30):
        jobs.tell("StepDone", step=step, loss=1 / step, seconds=step, left=90.0 - step, epoch=0)
    scores = Scores(
        {"object": 0.5, "class 2": 0.7}, {"object": 0.66, "class 2": 0.82}, "2 held-out images", ("a",), 900
    )
    jobs.tell("Validated", step=20, scores=scores.to_dict(), best=True, seconds=20.0)
    qtbot.waitUntil(lambda: len(bench.train.curves.training.loss.listDataItems()) == 2, timeout=60_000)
    qtbot.waitUntil(lambda: len(bench.train.curves.training.score.listDataItems()) == 2, timeout=60_000)
    assert "left" in bench.train.bar.text()
    click(bench.train.stop)
    assert jobs.stopped
    assert "Stopping" in bench.train.stop.why
    jobs.tell("Failed", message="Training was stopped before its first step.", hint="", stopped=True)
    assert not bench.train.train.isHidden()


def test_a_training_that_was_interrupted_is_offered_to_go_on(bench, jobs):
    strokes(bench)
    assert bench.train.resume.isHidden()
    click(bench.train.train)
    path = bench.workspace.project.path
    bench.workspace.close_project()
    checkpoint = path / "models" / ".round-001.training"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    bench.images.open_project(str(path))
    bench.refresh()
    assert "Round 1 was interrupted: press Resume" in bench.next.text()
    assert bench.sections[3].state == "round 1 interrupted"
    assert bench.train.resume.text() == "Resume round 1"
    assert (bench.train.resume.property("role"), bench.train.train.property("role")) == ("primary", "")
    click(bench.train.resume)
    assert bench.workspace.stage == "training"
    assert jobs.submitted[-1][1]["resume"]
    assert bench.train.resume.isHidden()


def finish_round(bench, jobs, rule, voxels, images, **facts):
    """Answer a training as a worker would, and look at the mask it makes."""
    folder = Path(next(args["folder"] for verb, args in reversed(jobs.submitted) if verb == "train"))
    folder.mkdir(parents=True, exist_ok=True)
    scores = Scores({"object": 0.87}, {"object": 0.93}, rule, images, voxels).to_dict()
    plan = {"net": {"name": "unet"}}
    (folder / "model.json").write_text(json.dumps({"plan": plan, "classes": ["b", "o"], "scores": scores, **facts}))
    jobs.tell("Done", result={"model": str(folder), "scores": scores, "previous": None})
    bench.refresh()


def test_a_score_on_strokes_says_so_everywhere(bench, jobs):
    strokes(bench)
    click(bench.train.train)
    finish_round(bench, jobs, "strokes of 4 held-out images", 3568, tuple("abcd"))
    review = bench.review
    assert bench.sections[4].state.startswith("segmenting")
    jobs.tell("Failed", message="It was stopped.", hint="", stopped=True)
    bench.refresh()
    assert bench.sections[4].state == "Dice 0.93 on strokes"
    assert "on strokes of 4 held-out images (3,568 voxels)" in review.sentence.text()
    assert "strokes" in review.table.horizontalHeaderItem(0).text()
    assert review.rounds.topLevelItem(0).text(2) == "0.93 on strokes"
    assert review.caution.isHidden()


def test_a_score_on_little_is_not_to_be_trusted_blindly(bench, jobs):
    strokes(bench)
    click(bench.train.train)
    finish_round(bench, jobs, "strokes of 1 held-out image", 40, ("a",))
    assert not bench.review.caution.isHidden()
    assert bench.review.caution.text().startswith("Measured on few strokes: look at the mask")


def test_a_click_on_train_is_not_lost_while_a_mask_is_computed(bench, jobs, qtbot):
    strokes(bench)
    click(bench.train.train)
    finish_round(bench, jobs, "2 held-out images", 900, ("a", "b"))
    jobs.tell("Failed", message="It was stopped.", hint="", stopped=True)
    bench.images.go_to("plane-b")
    qtbot.waitUntil(lambda: bench.workspace.stage == "predicting", timeout=60_000)
    assert bench.train.train.isEnabled()
    assert bench.train.picker.isEnabled()
    click(bench.train.train)
    assert bench.workspace.stage == "training"
    assert jobs.submitted[-1][0] == "train"
    assert jobs.stopped


def test_a_crash_is_read_before_the_new_worker_is_announced(bench, jobs, notes):
    ready = {"device": "cpu", "name": "CPU", "threads": 2, "torch": "2.x"}
    jobs.ready.emit(ready)
    assert bench.status.text() == "Ready: trains on the processor (2 threads)."
    assert "torch 2.x" in bench.status.toolTip()
    strokes(bench)
    click(bench.train.train)
    said = len(notes)
    jobs.listeners[[verb for verb, _ in jobs.submitted].index("train")](
        {"id": 1, "event": "Failed", "message": "The engine was killed.", "hint": "All is safe.", "crashed": True}
    )
    jobs.crashed.emit("The engine was killed. All is safe.")
    jobs.ready.emit(ready)
    bench.refresh()
    assert bench.status.text() == "The engine was killed. All is safe."
    assert "crashed" in bench.next.text()
    assert len(notes) == said + 1, "it is told once"
    strokes(bench)
    assert "crashed" in bench.next.text(), "painting the same again is nothing new"
    bench.context.bridge.annotation.paint((20, 20), 1)
    bench.context.bridge.flush()
    bench.refresh()
    assert "crashed" not in bench.next.text()
    assert bench.status.text().startswith("Ready: trains on the processor")


def test_what_only_engineers_read_stays_in_the_log(bench):
    bench.workspace.message.emit(Message("CPU, 2 threads, bfloat16, channels-last (probed).", level="log"))
    assert "channels" not in bench.status.text()
    assert "channels" in bench.status.toolTip()


def in_view(bench, widget):
    view = bench.column.viewport()
    corner = widget.mapTo(view, QPoint(0, 0))
    return widget.isVisible() and view.rect().contains(QRect(corner, widget.size()))


def test_the_column_goes_where_the_user_goes_on(bench, jobs, qtbot):
    bench.resize(370, 600)  # what a screen of 1280 x 720 leaves
    path = bench.workspace.project.path
    bench.workspace.close_project()
    bench.images.open_project(str(path))
    qtbot.waitUntil(lambda: in_view(bench, bench.annotate.classes[0]), timeout=60_000)
    strokes(bench)
    click(bench.train.train)
    qtbot.waitUntil(lambda: in_view(bench, bench.train.stop), timeout=60_000)
    finish_round(bench, jobs, "strokes of 1 held-out image", 40, ("a",))
    qtbot.waitUntil(lambda: in_view(bench, bench.review.accept), timeout=60_000)
    assert in_view(bench, bench.review.correct)


def test_what_cannot_be_changed_while_training_says_why(bench, jobs):
    strokes(bench)
    train = bench.train
    before = {widget: widget.toolTip() for widget in (train.picker.button, train.minutes, train.advanced.button)}
    assert train.locked.isHidden()
    click(train.train)
    assert not train.locked.isHidden()
    for widget in (*before, train.advanced.fields["width"]):
        assert not widget.isEnabled()
        assert widget.toolTip() == train.locked.text()
        assert widget.toolTip() == "unet, 2 min in all: press Stop to change that."
    assert train.picker.isHidden(), "the curves need the room"
    jobs.tell("Failed", message="It was stopped.", hint="", stopped=True)
    assert train.locked.isHidden()
    assert not train.picker.isHidden()
    assert {widget: widget.toolTip() for widget in before} == before


def test_curve_and_score_are_seen_without_scrolling_in_a_small_window(bench, jobs, qtbot):
    bench.resize(364, 672)  # the dock in a window of 1280 x 720
    strokes(bench)
    click(bench.train.train)
    scores = Scores({"object": 0.5}, {"object": 0.9}, "strokes of 2 held-out images", ("a", "b"), 900)
    jobs.tell("StepDone", step=1, loss=0.5, seconds=1.0, left=60.0, memory=2**29)
    jobs.tell("Validated", step=1, scores=scores.to_dict(), best=True, seconds=1.0)
    bench.show_step(bench.train)
    bench.refresh()
    assert bench.sections[4].state == "needs a net"
    view = bench.train.curves.training
    qtbot.waitUntil(lambda: view._score_now.text() != "" and in_view(bench, view.score), timeout=60_000)
    qtbot.waitUntil(lambda: in_view(bench, view.loss), timeout=60_000)


def test_no_text_of_a_box_or_field_is_cut(bench):
    bench.resize(370, 600)
    bench.images.go_to("volume")
    bench.train.advanced.button.click()
    for section in bench.sections:
        section.set_open(True)
    QApplication.processEvents()
    for box in bench.findChildren(QComboBox):
        if box.isVisible():
            assert box.fontMetrics().horizontalAdvance(box.currentText()) + 24 <= box.width(), box.currentText()
    for edit in (bench.folder.inputs, bench.folder.out):
        assert edit.fontMetrics().horizontalAdvance(edit.placeholderText()) + 10 <= edit.width()


def test_the_step_that_is_kept_is_marked_and_said(bench, jobs):
    strokes(bench)
    click(bench.train.train)
    folder = Path(jobs.submitted[-1][1]["folder"])
    for step, dice, best in ((10, 0.5, True), (31, 0.93, True), (81, 0.9, False)):
        scores = Scores({"object": 0.5}, {"object": dice}, "2 held-out images", ("a", "b"), 900)
        jobs.tell("Validated", step=step, scores=scores.to_dict(), best=best, seconds=1.0)
    bench.train.curves.training.draw()
    assert bench.train.curves.training.kept.value() == 31
    assert bench.train.curves.training.kept in bench.train.curves.training.score.getPlotItem().items
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("step,seconds,dice object\n10,1,0.5\n31,2,0.93\n81,3,0.9\n")
    finish_round(bench, jobs, "2 held-out images", 900, ("a", "b"), steps=81)
    assert "Kept: step 31 of 81." in bench.review.sentence.text()


def test_a_failure_is_a_notification(bench, jobs, notes):
    strokes(bench)
    click(bench.train.train)
    jobs.tell("Failed", message="The disk is full.", hint="Free some space.")
    assert notes[-1].message.splitlines() == ["The disk is full.", "Free some space."]
    assert bench.train.train.isEnabled()


def test_folder_needs_folders_and_lists_failures_first(bench, jobs, images, tmp_path, monkeypatch):
    bench.folder.inputs.setText(str(tmp_path / "nowhere"))
    monkeypatch.setattr(bench.workspace, "why_not", lambda action: "")
    bench.folder.refresh()
    assert "no folder" in bench.folder.segment.why
    bench.folder.inputs.setText(str(images))
    bench.folder.out.setText(str(images))
    assert "another folder" in bench.folder.segment.why
    bench.folder.out.setText(str(tmp_path / "out"))
    assert bench.folder.segment.isEnabled()
    rows = [{"index": 0, "file": "a.tif", "status": "done", "error": "", "seconds": 1.0},
            {"index": 1, "file": "b.tif", "status": "failed", "error": "b.tif is empty.", "seconds": 0.0}]  # fmt: skip
    bench.workspace.folder_rows = rows
    bench.workspace.folder_changed.emit(rows)
    first = bench.folder.rows.topLevelItem(0)
    assert (first.text(0), first.child(0).text(0)) == ("b.tif", "b.tif is empty.")


def test_the_look_follows_the_theme(bench):
    dark = bench.styleSheet()
    bench.context.viewer.theme = "light"
    assert bench.styleSheet() != dark


def test_the_dock_fits_a_small_screen(bench):
    assert bench.minimumSizeHint().width() <= 400
    assert bench.minimumSizeHint().height() <= 500


def test_two_workbenches_in_one_window_do_not_meddle(bench, qtbot, jobs, tmp_path, images):
    from napari_unetseg.widgets.workbench import Workbench

    other = Workbench(bench.context.viewer, jobs=type(jobs)())
    qtbot.addWidget(other)
    other.images.create_project(str(tmp_path / "other.unetseg"))
    other.images.add_paths([str(images / "plane-b.tif")])
    other.context.bridge.annotation.paint((10, 10), 2)
    other.context.bridge.flush()
    bench.context.bridge.flush()
    assert not any(bench.workspace.stroke_counts().values())
    assert any(other.workspace.stroke_counts().values())
    other.shutdown()
    assert bench.context.bridge.annotation in bench.context.viewer.layers


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(float("nan"), ""), (5, "5 s"), (75, "1 min 15 s"), (119.7, "2 min"), (1800, "30 min"), (7260, "2 h 01 min")],
)
def test_durations_read_well(seconds, words):
    assert duration(seconds) == words


def test_dialogs_do_not_stop_the_window(bench, images, tmp_path):
    from napari_unetseg.widgets import files

    answers = []
    dialogs = [
        files.ask_files(bench, "Add images", answers.append),
        files.ask_folder(bench, "Open project", answers.append, str(tmp_path)),
        files.ask_new(bench, "New project", "mine.unetseg", answers.append),
    ]
    assert not any(dialog.isModal() for dialog in dialogs)
    dialogs[0].filesSelected.emit([str(images / "plane-a.tif")])
    dialogs[2].fileSelected.emit(str(tmp_path / "mine.unetseg"))
    assert answers == [[str(images / "plane-a.tif")], str(tmp_path / "mine.unetseg")]
    for dialog in dialogs:
        dialog.close()
    assert "*.nii.gz" in files.image_filter()


def test_a_sample_project_is_made_once_and_opened_again(bench, monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data")
    bench.images.open_sample("ihc")
    assert bench.workspace.cases == ("ihc",)
    viewer = bench.context.viewer
    assert viewer.layers[0].rgb
    bench.context.bridge.annotation.paint((10, 10), 3)
    bench.images.open_sample("ihc")
    assert bench.workspace.stroke_counts()["nucleus"] > 0


def test_a_project_that_is_open_elsewhere_says_by_whom(bench, jobs, qtbot, notes):
    from napari.components import ViewerModel

    from napari_unetseg.widgets.workbench import Workbench

    other = Workbench(ViewerModel(), jobs=type(jobs)())
    qtbot.addWidget(other)
    path = str(bench.workspace.project.path)
    assert not other.images.open_project(path)
    assert "already open" in notes[-1].message
    assert "already open" in other.images.locked.text()
    assert not other.images.look_only.isHidden()
    click(other.images.look_only)
    assert other.workspace.read_only
    assert other.images.locked.isHidden()
    assert other.workspace.case == "plane-a"
    assert not other.context.bridge.annotation.editable
    assert other.train.train.why == "The project is open for reading only."
    other.images.open_project(path)
    click(other.images.take_over)
    assert not other.workspace.read_only
    assert other.workspace.why_not("annotate") == ""
    other.shutdown()


def test_a_project_that_is_taken_over_says_so_once_and_keeps_the_stroke(bench, notes):
    layer, path = bench.context.bridge.annotation, bench.workspace.project.path
    layer.paint((10, 10), 1)
    bench.context.bridge.flush()
    with Project.open(path, steal_lock=True) as thief:
        layer.paint((30, 40), 2)
        bench.context.bridge.flush()
        assert not layer.editable, "nothing is painted that could not be saved"
        bench.context.bridge.flush()
        bench.context.bridge.remember_view()
        bench.images.go_further(1)
        bench.images.go_further(-1)
        assert ["taken over by" in note.message for note in notes] == [True]
        assert "taken over by" in bench.images.locked.text()
        bench.refresh()
        assert "Take back" in bench.next.text()
        assert "Take back" in bench.train.train.why
        thief.journal("plane-a", (slice(0, 2), slice(0, 60)), np.full((2, 60), 1))
    click(bench.images.take_back)
    labels = bench.context.bridge.annotation.data
    assert (labels[10, 10], labels[30, 40], labels[0, 0]) == (1, 2, 1)
    assert np.array_equal(bench.workspace.project.annotation("plane-a").data, labels)
    assert bench.context.bridge.annotation.editable
    assert bench.images.take_back.isHidden()
    assert bench.images.locked.isHidden()
    assert len(notes) == 1


def test_a_window_that_is_turned_to_looks_whether_it_still_has_the_project(bench, notes):
    with Project.open(bench.workspace.project.path, steal_lock=True):
        pass
    for _ in range(2):
        QApplication.sendEvent(bench.window(), QEvent(QEvent.Type.WindowActivate))
    assert ["meanwhile opened elsewhere" in note.message for note in notes] == [True]
    assert bench.workspace.taken


def test_what_a_job_brings_to_a_project_that_was_taken_over_is_a_notification(bench, jobs, notes):
    strokes(bench)
    click(bench.train.train)
    with Project.open(bench.workspace.project.path, steal_lock=True):
        finish_round(bench, jobs, "1 held-out image", 40, ("plane-b",))
        assert "taken over" in notes[-1].message
        assert bench.workspace.model is None
    click(bench.images.take_back)
    assert bench.workspace.model.name == "round-001"
