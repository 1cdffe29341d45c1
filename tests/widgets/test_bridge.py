"""The bridge: what is painted, however it is painted, is on disk; and the user's layers stay the user's."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unetseg.project import Project
from napari_unetseg.widgets.layers import role_of
from napari_unetseg.workspace import Prediction, Preview

pytestmark = pytest.mark.window


def on_disk(bench, case=None):
    """The strokes as another program, or the next session, would find them."""
    with Project.open(bench.workspace.project.path, read_only=True) as project:
        return project.annotation(case or bench.workspace.case).data


def same(bench, qtbot):
    layer = bench.context.bridge.annotation
    qtbot.waitUntil(lambda: np.array_equal(on_disk(bench), layer.data), timeout=3000)
    return layer.data


def test_the_brush_is_in_the_hand_on_a_layer_like_the_image(bench):
    bridge = bench.context.bridge
    layer = bridge.annotation
    assert bench.context.viewer.layers.selection.active is layer
    assert str(layer.mode) == "paint"
    assert layer.data.shape == (40, 60)
    assert layer.scale == pytest.approx([0.5, 0.5])
    assert [str(u) for u in layer.units] == ["micrometer"] * 2
    assert layer.selected_label == 2
    assert layer.locked
    assert 3 <= layer.brush_size <= 30
    assert role_of(layer) == {"role": "annotation", "case": "plane-a"}


def test_strokes_are_journalled_whatever_made_them(bench, qtbot):
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 2)
    assert (same(bench, qtbot) == 2).any()
    layer.paint((30, 40), 1)
    layer.paint_polygon(np.array([(2, 30), (2, 50), (12, 50), (12, 30)]), 2)
    same(bench, qtbot)
    layer.fill((5, 35), 1)
    assert (same(bench, qtbot)[5, 35]) == 1
    layer.undo()
    assert (same(bench, qtbot)[5, 35]) == 2
    layer.redo()
    assert (same(bench, qtbot)[5, 35]) == 1
    layer.data_setitem((np.array([20]), np.array([20])), 2)
    layer.data[0, :5] = 1  # a script
    layer.refresh()
    assert (same(bench, qtbot)[0, :5] == 1).all()
    assert bench.workspace.stroke_counts()["background"] == (layer.data == 1).sum()


def test_only_the_changed_region_is_compared(bench, qtbot, monkeypatch):
    bench.images.go_to("volume")
    bridge, seen = bench.context.bridge, []
    sync = bench.workspace.sync_strokes
    monkeypatch.setattr(bench.workspace, "sync_strokes", lambda labels, near: (seen.append(near), sync(labels, near)))
    bench.context.viewer.dims.set_point(0, 4 * 3.0)
    bridge.annotation.paint((4, 10, 10), 2)
    qtbot.waitUntil(lambda: bool(seen))
    near = seen[0]
    assert near[0] == slice(4, 5)
    assert near[1].stop - near[1].start <= 12
    assert (same(bench, qtbot)[4] == 2).any()


def test_a_ball_painted_in_three_dimensions_is_kept(bench, qtbot):
    bench.images.go_to("volume")
    layer = bench.context.bridge.annotation
    layer.n_edit_dimensions = 3
    layer.brush_size = 13
    layer.paint((3, 20, 30), 2)
    assert len(np.unique(np.nonzero(same(bench, qtbot))[0])) > 1


def test_undo_just_before_the_next_image_is_kept(bench):
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 2)
    layer.paint((30, 40), 1)
    bench.context.bridge.flush()
    layer.undo()
    bench.images.go_further(1)
    assert bench.workspace.case == "plane-b"
    assert not (on_disk(bench, "plane-a") == 1).any()
    assert (on_disk(bench, "plane-a") == 2).any()
    assert not bench.context.bridge.annotation.data.any()
    bench.images.go_further(-1)
    assert (bench.context.bridge.annotation.data == 2).any()


def test_the_layers_may_be_renamed_reordered_and_deleted(bench, qtbot):
    viewer, bridge = bench.context.viewer, bench.context.bridge
    layer = bridge.annotation
    layer.name = "mine"
    viewer.layers.move(viewer.layers.index(layer), 0)
    layer.paint((10, 10), 2)
    assert (same(bench, qtbot) == 2).any()
    layer.data[12, 12] = 1
    viewer.layers.remove(layer)
    viewer.layers.remove(bridge.mask)
    assert bridge.annotation is None
    assert on_disk(bench)[12, 12] == 1
    assert not bench.annotate.start.isHidden()
    bench.annotate.start.click()
    assert bridge.annotation.data[12, 12] == 1
    assert bridge.mask is not None


def test_a_label_beyond_the_classes_cannot_be_painted(bench, notes):
    layer = bench.context.bridge.annotation
    layer.selected_label = 200  # napari's own keys go that far
    assert layer.selected_label == 3
    layer.data[0, 0] = 77  # and a script may do anything
    bench.context.bridge.flush()
    assert "77" in notes[-1].message


def test_a_preview_takes_nothing_out_of_the_hand(bench):
    viewer, bridge = bench.context.viewer, bench.context.bridge
    layers, active, mask = list(viewer.layers), viewer.layers.selection.active, bridge.mask.data
    shown = np.zeros((40, 60), np.uint8)
    shown[5:20, 5:20] = 1
    bench.workspace.preview_changed.emit(Preview(3, "plane-a", None, shown))
    assert np.array_equal(bridge.mask.data, shown)
    assert bridge.mask.data is mask, "the same layer and array, so that nothing flickers"
    assert list(viewer.layers) == layers
    assert viewer.layers.selection.active is active
    bench.workspace.preview_changed.emit(Preview(4, "plane-b", None, shown * 0))
    assert bridge.mask.data.any(), "of another image"


def test_a_preview_of_a_slice_fills_that_slice(bench):
    bench.images.go_to("volume")
    bridge = bench.context.bridge
    bench.workspace.preview_changed.emit(Preview(3, "volume", 2, np.ones((40, 60), np.uint8)))
    assert bridge.mask.data[2].all()
    assert not bridge.mask.data[[0, 1, 3, 4, 5]].any()


def test_a_prediction_is_shown_and_stays_until_the_next(bench):
    from napari_unetseg.volume import LabelVolume

    mask = LabelVolume(np.ones((40, 60), np.uint8), bench.workspace.image().geometry)
    bench.workspace.prediction_changed.emit(Prediction("plane-a", None, mask))
    assert bench.context.bridge.mask.data.all()
    bench.workspace.prediction_changed.emit(None)
    assert bench.context.bridge.mask.data.all()


def test_slice_zoom_and_brush_are_found_again(bench):
    bench.images.go_to("volume")
    viewer, bridge = bench.context.viewer, bench.context.bridge
    viewer.dims.set_point(0, 5 * 3.0)
    bridge.set_brush(7)
    fit = viewer.scene.camera.zoom
    viewer.scene.camera.zoom = 3 * fit
    path = bench.workspace.project.path
    bridge.remember_view()
    bench.images.open_project(str(path))
    assert bench.workspace.case == "volume"
    assert bridge.slice_index() == 5
    assert bridge.annotation.brush_size == 7
    assert viewer.scene.camera.zoom == pytest.approx(3 * fit)


def test_closing_lets_go_of_viewer_lock_and_signals(bench):
    path, layer = bench.workspace.project.path, bench.context.bridge.annotation
    layer.data[1, 1] = 2
    bench.shutdown()
    with Project.open(path) as project:  # the lock is free
        assert project.annotation("plane-a").data[1, 1] == 2
    layer.paint((10, 10), 1)  # and nothing breaks afterwards
    bench.context.viewer.layers.clear()


def test_contrast_and_what_is_shown_are_found_again(bench):
    bridge = bench.context.bridge
    (image,) = bridge.own_layers("image")
    image.contrast_limits, image.gamma, image.colormap = (100, 2000), 0.5, "magma"
    bridge.toggle_mask()
    bridge.toggle_contour()
    path = bench.workspace.project.path
    bridge.remember_view()
    bench.images.create_project(str(path.with_name("other.unetseg")))
    assert not bridge.contour
    bench.images.open_project(str(path))
    (image,) = bridge.own_layers("image")
    assert image.contrast_limits == [100, 2000]
    assert (image.gamma, image.colormap.name) == (0.5, "magma")
    assert not bridge.mask.visible
    assert bridge.mask.contour == 1
    assert bench.annotate.outline.isChecked()


def test_after_a_crash_the_strokes_are_back_and_the_user_is_told(bench, notes, tmp_path):
    import shutil

    bench.context.bridge.annotation.paint((10, 10), 2)
    bench.context.bridge.flush()
    left = tmp_path / "left.unetseg"
    shutil.copytree(bench.workspace.project.path, left)
    lock = json.loads((left / "project.lock").read_text())
    (left / "project.lock").write_text(json.dumps({**lock, "pid": 2**22 + 1}))  # of a process that is no more
    bench.images.open_project(str(left))
    assert "All strokes are back, the last ones on plane-a" in notes[-1].message
    assert (bench.context.bridge.annotation.data == 2).any()
    bench.images.open_project(str(left))
    assert len([one for one in notes if "are back" in one.message]) == 1
