"""Fills of the workbench: what they write is journalled at once, undone like a stroke, and asked for with keys."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetseg.project import Project
from napari_unetseg.volume import LabelVolume
from napari_unetseg.widgets import edits as edits_module
from napari_unetseg.workspace import Prediction

pytestmark = pytest.mark.window


def on_disk(bench):
    with Project.open(bench.workspace.project.path, read_only=True) as project:
        return project.annotation(bench.workspace.case).data


def press(bench, key):
    layer = bench.context.bridge.annotation
    from app_model.types import KeyBinding

    layer.keymap[KeyBinding.from_str(key)](layer)


@pytest.fixture
def volume(bench):
    bench.images.go_to("volume")
    bench.context.bridge.step_slice(-10)
    return bench.context.bridge


def predict(bench, where):
    shape = bench.workspace.image().shape
    mask = np.zeros(shape, np.uint8)
    mask[where] = 1
    shown = LabelVolume(mask, bench.workspace.image().geometry)
    bench.workspace.prediction = Prediction(bench.workspace.case, None, shown)
    bench.workspace.prediction_changed.emit(bench.workspace.prediction)


def test_the_mask_of_a_slice_becomes_strokes_then_it_is_done_and_all_is_undone(bench, volume):
    predict(bench, (slice(None), slice(5, 20), slice(5, 20)))
    volume.step_slice(2)
    layer = volume.annotation
    layer.paint((2, 10, 10), 1)
    bench.annotate.copy_mask.click()
    assert (layer.data[2, 5:20, 5:20] > 0).all()
    assert layer.data[2, 10, 10] == 1, "what was painted stays"
    assert layer.data[2, 5, 5] == 2
    assert not layer.data[[0, 1, 3]].any()
    press(bench, "D")
    assert layer.data[2].all()
    assert np.array_equal(on_disk(bench), layer.data)
    press(bench, "Ctrl+Z")
    assert not layer.data[2].all()
    press(bench, "Ctrl+Z")
    bench.context.bridge.flush()
    assert layer.data[2, 5, 5] == 0
    assert layer.data[2, 10, 10] == 1
    assert np.array_equal(on_disk(bench), layer.data)


def test_large_fills_come_back_in_the_order_in_which_things_were_done(bench, volume, monkeypatch):
    monkeypatch.setattr(edits_module, "SMALL", 100)
    layer, seen = volume.annotation, []

    def note():
        volume.flush()
        assert np.array_equal(on_disk(bench), layer.data)
        seen.append(layer.data.copy())

    note()
    layer.paint((0, 10, 10), 2)
    note()
    press(bench, "Shift+D")
    note()
    layer.paint((0, 30, 30), 2)
    note()
    assert seen[2].all()
    for state in (2, 1, 0):
        volume.undo()
        assert np.array_equal(layer.data, seen[state])
    for state in (1, 2, 3):
        volume.redo()
        assert np.array_equal(layer.data, seen[state])
    volume.flush()
    assert np.array_equal(on_disk(bench), seen[3])


def test_slices_between_are_filled_on_disk_too_and_taken_back_at_once(bench, volume):
    layer = volume.annotation
    for index in (0, 4):
        layer.data_setitem(tuple(np.nonzero(np.arange(6)[:, None, None] * np.ones((6, 40, 60)) == index)), 0)
        layer.data[index, 10:30, 10:30] = 2
    volume.flush()
    volume.select_class(2)
    volume.step_slice(2)
    bench.annotate.between.click()
    assert (layer.data[1:4, 12:28, 12:28] == 2).all()
    assert not layer.data[5].any()
    assert np.array_equal(on_disk(bench), layer.data)
    volume.undo()
    assert not layer.data[1:4].any()


def test_what_cannot_be_filled_says_why(bench, volume, notes):
    press(bench, "C")
    assert "no mask here yet" in notes[-1].message
    press(bench, "D")
    assert "Nothing is painted here" in notes[-1].message
    press(bench, "I")
    assert "no gap" in notes[-1].message
    bench.images.go_to("plane-a")
    assert bench.annotate.between.isHidden()
    press(bench, "I")
    assert "plane" in notes[-1].message


def test_keys_walk_choose_and_are_listed(bench, volume):
    press(bench, "Right")
    press(bench, "Right")
    press(bench, "Left")
    assert volume.slice_index() == 1
    press(bench, "1")
    assert volume.annotation.selected_label == 1
    press(bench, "O")
    assert bench.annotate.outline.isChecked()
    assert volume.mask.contour == 1
    press(bench, "T")
    assert not volume.mask.visible
    press(bench, "N")
    assert bench.workspace.case != "volume"
    bench.annotate.keys.button.click()
    assert not bench.annotate.keys.inside.isHidden()
