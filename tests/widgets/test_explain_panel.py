"""What the model looks at: asked of a slice or a clicked spot, shown map by map, stopped, and gone with the image."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from asking import answer, arrays, asked, model_folder, segmented

from napari_unetseg.widgets.explain_panel import METHODS
from napari_unetseg.widgets.overlays import overlays


@pytest.fixture
def why(bench, jobs, tmp_path):
    bench.workspace._use(model_folder(bench))
    segmented(bench, jobs, tmp_path)
    bench.review.show()
    bench.why.button.setChecked(True)
    return bench.why


def explained(jobs, tmp_path, number=2, index=None, region=None):
    maps = np.random.default_rng(0).random((number, 40, 60), np.float32)
    names = [f"level {n + 1} of {number}" for n in range(number)]
    paths = arrays(tmp_path, maps=maps, **({} if region is None else {"region": region}))
    found = {"names": names, "legend": "Bright where.", "class": "object", "class_index": 1, "index": index}
    voxels = None if region is None else int(region.sum())
    answer(jobs, "explain", {**paths, "region": paths.get("region"), **found, "voxels": voxels})
    return maps


def test_every_method_is_offered():
    from napari_unetseg.explain import EXPLANATIONS

    assert set(METHODS) == set(EXPLANATIONS)


def test_the_slice_is_explained_and_its_maps_are_chosen(why, bench, jobs, tmp_path):
    why.method.set_value("gradcam")
    why.label.set_value(1)
    why.slice.click()
    (request,) = asked(jobs, "explain")
    assert (request["method"], request["class_index"], request["index"]) == ("gradcam", 1, None)
    assert "point" not in request
    maps = explained(jobs, tmp_path)
    (layer,) = overlays(bench.context, "explanation")
    np.testing.assert_array_equal(layer.data, maps[1])
    assert "It took" in why.says.text()
    why.map.set_value(0)
    why.map.chosen.emit(0)
    np.testing.assert_array_equal(overlays(bench.context, "explanation")[0].data, maps[0])
    why.hide_maps.click()
    assert overlays(bench.context, "explanation") == []


def click(bench, position, drag=False):
    callback = bench.context.viewer.mouse_drag_callbacks[-1]
    event = SimpleNamespace(type="mouse_press", position=position)
    run = callback(bench.context.viewer, event)
    next(run)
    if drag:
        event.type = "mouse_move"
        next(run)
    event.type = "mouse_release"
    next(run, None)


def test_a_clicked_spot_is_explained_and_the_brush_is_back(why, bench, jobs, tmp_path):
    segmented(bench, jobs, tmp_path, "volume")
    bench.context.viewer.dims.set_point(0, 3 * 3.0)
    bench.context.bridge.annotate("fill")
    others = len(bench.context.viewer.mouse_drag_callbacks)
    why.pick.click()
    assert str(bench.context.bridge.annotation.mode) == "pan_zoom"
    click(bench, (9.0, 12.2, 30.4), drag=True)
    assert asked(jobs, "explain") == [], "moving the picture is no click"
    click(bench, (9.0, -5.0, 30.4))
    assert asked(jobs, "explain") == [], "nor is one beside the image"
    click(bench, (9.0, 12.2, 30.4))
    (request,) = asked(jobs, "explain")
    assert (request["case"], request["index"], request["point"]) == ("volume", 3, [12, 30])
    assert str(bench.context.bridge.annotation.mode) == "fill"
    assert len(bench.context.viewer.mouse_drag_callbacks) == others
    region = np.zeros((40, 60), bool)
    region[10:15, 28:33] = True
    explained(jobs, tmp_path, index=3, region=region)
    layers = overlays(bench.context, "explanation")
    assert [layer.translate[0] for layer in layers] == [9.0, 9.0]
    np.testing.assert_array_equal(layers[1].data[0], region)
    assert "25 voxels of 'object'" in why.says.text()
    bench.workspace.select_case("plane-a")
    assert overlays(bench.context, "explanation") == []


def test_it_is_stopped(why, bench, jobs):
    why.slice.click()
    assert why.stop.isVisibleTo(why)
    why.stop.click()
    assert len(jobs.stopped) == 1
    assert not why.stop.isVisibleTo(why)
