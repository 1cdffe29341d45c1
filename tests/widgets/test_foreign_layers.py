"""Images opened by other plugins: channels in layers of their own, time, turned axes, lazy arrays; and turned views."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
from asking import model_folder
from napari.layers import Image

from napari_unetseg.errors import GeometryError
from napari_unetseg.volume import LabelVolume
from napari_unetseg.widgets import layers as layers_module
from napari_unetseg.widgets.layers import pictures, volume_of, volume_of_channels
from napari_unetseg.workspace import Prediction

pytestmark = pytest.mark.window


def channel(colour, value=0, **options):
    return Image(np.full((8, 9), value, np.uint16), colormap=colour, blending="additive", **options)


def test_channels_of_one_picture_are_found_together():
    green, magenta = channel("green", 1), channel("magenta", 2)
    elsewhere = channel("green", 3, translate=(5, 5))
    grey = Image(np.zeros((8, 9), np.uint16))
    again = channel("green", 4)
    found = pictures([green, magenta, grey, elsewhere, again])
    assert found == [[green, magenta], [grey], [elsewhere], [again]]
    assert volume_of_channels(found[0]).data[:, 0, 0].tolist() == [1, 2]


def test_a_turned_layer_keeps_its_place():
    turned = Image(np.zeros((5, 8, 9)), scale=(2, 0.5, 0.5), rotate=(20, 0, 0), translate=(1, 2, 3), units=("mm",) * 3)
    geometry = volume_of(turned).geometry
    assert geometry.spacing == pytest.approx((2, 0.5, 0.5))
    assert geometry.oblique
    for corner in ((0, 0, 0), (4, 7, 8)):
        assert geometry.to_world(corner) == pytest.approx(turned.data_to_world(corner))
    flat = Image(np.zeros((8, 9)), scale=(0.5, 0.25), rotate=30)
    assert volume_of(flat).geometry.to_world((7, 8))[1:] == pytest.approx(flat.data_to_world((7, 8)))


def test_a_lazy_layer_is_loaded_or_refused_before_memory_runs_out(monkeypatch):
    lazy = Image(da.ones((4, 6, 40, 50), chunks=(1, 6, 40, 50), dtype=np.uint8), multiscale=False)
    assert volume_of(lazy, (1, 0, 0, 0)).data.shape == (1, 6, 40, 50)
    monkeypatch.setattr(layers_module, "available_memory", lambda: 6 * 40 * 50)
    with pytest.raises(GeometryError, match="too large"):
        volume_of(lazy, (1, 0, 0, 0))


def test_open_channels_become_one_image_and_a_time_series_the_time_on_screen(bench):
    viewer, workspace = bench.context.viewer, bench.workspace
    rng = np.random.default_rng(0)
    viewer.add_image(rng.integers(0, 99, (2, 30, 30)).astype(np.uint8), channel_axis=0, name="two")
    bench.images.add_layers.click()
    assert len(workspace.cases) == 4
    bench.images.go_to(workspace.cases[-1])
    assert workspace.image().data.shape == (2, 30, 30)
    movie = rng.integers(0, 99, (5, 3, 30, 30)).astype(np.uint8)
    viewer.add_image(movie, name="movie")
    viewer.dims.set_point(0, 3)
    bench.images.add_layers.click()
    bench.images.go_to(workspace.cases[-1])
    assert workspace.image().data.shape == (1, 3, 30, 30)
    assert np.array_equal(workspace.image().data[0], movie[3])
    assert len(viewer.layers) == 3


def test_strokes_in_a_turned_view_are_journalled_and_slices_not_mistaken(bench, qtbot, notes):
    bench.images.go_to("volume")
    viewer, bridge = bench.context.viewer, bench.context.bridge
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, 20)
    bridge.annotation.paint((3, 20, 30), 2)
    qtbot.waitUntil(lambda: np.array_equal(bench.workspace.annotation(), bridge.annotation.data), timeout=3000)
    assert bridge.annotation.data.any()
    bench.annotate.done.click()
    assert "not those of the image" in notes[-1].message
    viewer.dims.order = (0, 1, 2)
    viewer.dims.ndisplay = 3
    bench.annotate.done.click()
    assert "not those of the image" in notes[-1].message
    assert not bridge.annotation.data.all(axis=(1, 2)).any()


def test_an_image_that_is_done_says_so_and_one_with_a_doubt_how_much(bench):
    def words():
        bench.images.refresh()
        return bench.images.list.topLevelItem(0).text(1)

    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 2)
    bench.context.bridge.flush()
    assert words() == "strokes"
    bench.annotate.done.click()
    assert words() == "done"
    layer.data_setitem((np.array([3]), np.array([3])), 0)
    bench.context.bridge.flush()
    assert words() == "99 % painted"


def test_project_after_project_leaves_nothing_behind(bench, tmp_path, images, qtbot):
    import gc
    import threading
    import weakref

    seen, projects, threads = [], [weakref.ref(bench.workspace.project)], set()
    for number in range(4):
        bench.images.create_project(str(tmp_path / f"{number}.unetseg"))
        bench.images.add_paths([str(images)])
        bench.context.bridge.annotation.paint((5, 5), 2)
        bench.images.go_further(1)
        seen += [weakref.ref(layer) for layer in bench.context.viewer.layers]
        gc.collect()
        assert [project() for project in projects] == [None] * len(projects)
        projects.append(weakref.ref(bench.workspace.project))
        threads.add(threading.active_count())
        assert len(bench.context.viewer.layers) == 3
        assert sum(layer() is not None for layer in seen) <= 4
    assert len(threads) == 1
    bench.workspace.close_project()
    gc.collect()
    assert projects[-1]() is None
    bench.answer.answers.ask()  # the pause after the last stroke ends when there is no project any more


def test_a_volume_of_the_users_own_stays_while_planes_are_painted(bench):
    viewer, space = bench.context.viewer, bench.workspace
    volume = viewer.add_image(np.zeros((5, 20, 30), np.float32), name="mine")
    space.select_case(next(case for case in space.project.cases if case != space.case))
    assert bench.context.bridge.annotation is not None
    assert volume in viewer.layers


def test_beside_a_layer_in_pixels_ours_are_in_pixels_and_keep_their_geometry(bench):
    viewer, bridge = bench.context.viewer, bench.context.bridge
    assert viewer.layers.extent.units is not None
    viewer.add_image(np.zeros((40, 60), np.float32), name="mine")
    assert viewer.layers.extent.units is not None, "napari warns at every change while units differ"
    bench.images.go_further(1)
    assert viewer.layers.extent.units is not None
    assert [str(unit) for unit in bridge.mask.units] == ["pixel", "pixel"]
    assert layers_module.labels_of(bridge.mask).geometry == bench.workspace.image().geometry


def test_a_mask_layer_that_was_deleted_comes_back_with_a_mask_under_the_strokes(bench):
    viewer, bridge, space = bench.context.viewer, bench.context.bridge, bench.workspace
    viewer.layers.remove(bridge.mask)
    assert bridge.mask is None
    mask = LabelVolume(np.ones((40, 60), np.uint8), space.image().geometry)
    space._show(prediction=Prediction(space.case, None, mask))
    assert bridge.mask.data.all()
    assert viewer.layers.index(bridge.mask) < viewer.layers.index(bridge.annotation)
    assert viewer.layers.selection.active is bridge.annotation
    viewer.layers.clear()
    space._show(prediction=Prediction(space.case, None, mask))
    bridge.annotate()
    assert bridge.annotation is not None


def test_an_image_of_other_channels_is_not_predicted_and_says_why(bench):
    folder = model_folder(bench)
    facts = json.loads((folder / "model.json").read_text())
    facts["plan"]["net"]["in_channels"] = 3
    facts["plan"]["data"]["neighbours"] = 1
    (folder / "model.json").write_text(json.dumps(facts))
    bench.workspace._use(folder)
    assert bench.workspace.why_not("predict") == ""
    bench.context.viewer.add_image(np.zeros((2, 30, 30), np.uint8), channel_axis=0, name="two")
    bench.images.add_layers.click()
    bench.images.go_to("two")
    assert bench.workspace.why_not("predict") == (
        "This image has 2 channels; the net in use was trained on images with 1."
    )


def test_what_the_application_keeps_of_a_closed_window_holds_nothing(bench):
    shut = bench._shut  # connected to the end of the application, which may be many windows later
    assert shut._parts
    bench.shutdown()
    assert not shut._parts
