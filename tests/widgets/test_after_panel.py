"""The drawer *After the net*: rows from the registry, tried out on the slice, kept with project and model; measures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from asking import answer, arrays, asked

from napari_unetseg.errors import UnetSegError
from napari_unetseg.plan import Plan
from napari_unetseg.postprocess import STEPS, measure
from napari_unetseg.widgets.layers import role_of


def folder_of(bench, number, steps=()):
    folder = bench.workspace.project.path / "models" / f"round-{number:03d}"
    folder.mkdir(parents=True)
    plan = json.loads(Plan(post={"steps": steps}).to_json())
    (folder / "model.json").write_text(json.dumps({"plan": plan, "classes": ["background", "a"], "scores": None}))
    return folder


def saved(folder):
    return json.loads((folder / "model.json").read_text())["plan"]["post"]["steps"]


@pytest.fixture
def after(bench, jobs, tmp_path, qtbot):
    """The drawer, with a model that has said where the objects are."""
    folder = folder_of(bench, 1)
    bench.workspace._use(folder)
    take(bench, jobs, "plane-a", qtbot, tmp_path)
    bench.after.button.setChecked(True)
    bench.review.show()
    return bench.after


def take(bench, jobs, case, qtbot, tmp_path):
    """Take a case in hand, whose mask the model gives at once."""
    bench.workspace.select_case(case)
    qtbot.waitUntil(lambda: bench.workspace.stage == "predicting")
    mask = np.zeros(bench.workspace.image().shape, np.uint8)
    answer(jobs, "predict", {**arrays(tmp_path, mask=mask), "objects": None})


def test_a_row_for_each_step_with_units(after, bench):
    assert list(after.rows) == list(STEPS)
    size = after.rows["minimum-size"].numbers["size"]
    assert not size.isVisible()
    after.rows["minimum-size"].box.setChecked(True)
    assert size.suffix() == " µm²"
    assert size.text() == "5 µm²"
    assert "smallest real one" in size.toolTip()
    bench.workspace.select_case("volume")
    assert size.suffix() == " mm³"
    assert after.rows["smooth"].numbers["radius"].suffix() == " mm"
    assert after.button.text() == "▾  After the net"


def test_a_change_is_shown_on_the_slice_then_kept(after, bench, jobs, qtbot, tmp_path):
    workspace = bench.workspace
    take(bench, jobs, "volume", qtbot, tmp_path)
    bench.context.viewer.dims.set_point(0, 2 * 3.0)
    after.rows["minimum-size"].box.setChecked(True)
    after.rows["minimum-size"].numbers["size"].setValue(7.0)
    qtbot.waitUntil(lambda: bool(asked(jobs, "preview_post")))
    (request,) = asked(jobs, "preview_post")
    assert (request["case"], request["index"]) == ("volume", 2)
    assert request["steps"] == [["minimum-size", {"size": 7.0}]]
    plane = np.ones((40, 60), np.uint8)
    answer(jobs, "preview_post", {**arrays(tmp_path, mask=plane), "objects": None, "note": "Tried on planes 1 to 3."})
    np.testing.assert_array_equal(bench.context.bridge.mask.data[2], plane)
    assert bench.context.bridge.mask.data.sum() == plane.sum()
    assert after.note.text() == "Tried on planes 1 to 3."
    qtbot.waitUntil(lambda: len(asked(jobs, "preview_post")) == 2, timeout=3000)
    assert asked(jobs, "preview_post")[1]["index"] is None
    assert workspace.plan.post.steps == (("minimum-size", {"size": 7.0}),)
    assert saved(workspace.model) == [["minimum-size", {"size": 7.0}]]
    whole = np.full((6, 40, 60), 1, np.uint8)
    answer(jobs, "preview_post", {**arrays(tmp_path, mask=whole), "objects": None, "note": ""})
    np.testing.assert_array_equal(workspace.prediction.mask.data, whole)
    assert workspace.prediction.model == workspace.model
    count = len(jobs.submitted)
    qtbot.wait(100)
    assert len(jobs.submitted) == count


def test_while_one_is_answered_only_the_last_wish_waits(after, bench, jobs, tmp_path):
    for size in (1.0, 2.0, 3.0):
        bench.after.after.change([("minimum-size", {"size": size})])
    assert len(asked(jobs, "preview_post")) == 1
    mask = np.zeros((40, 60), np.uint8)
    answer(jobs, "preview_post", {**arrays(tmp_path, mask=mask), "objects": None, "note": ""})
    assert [request["steps"][0][1]["size"] for request in asked(jobs, "preview_post")] == [1.0, 3.0]
    answer(jobs, "preview_post", {"message": "The disk is full.", "hint": "Free some space."}, "Failed")
    assert after.note.text() == "The disk is full. Free some space."


def test_steps_of_a_plan_are_shown_and_their_order_is_kept(after, bench):
    steps = [("largest-component", {"classes": [1]}), ("smooth", {"radius": 2.5})]
    bench.workspace.change_plan(post={"steps": steps})
    rows = after.rows
    assert [name for name, one in rows.items() if one.box.isChecked()] == ["smooth", "largest-component"]
    assert rows["smooth"].numbers["radius"].value() == 2.5
    assert rows["largest-component"].classes.value == [1]
    rows["split-touching"].box.setChecked(True)
    assert after._steps() == [*steps, ("split-touching", {"neck": 0.75})]
    rows["fill-holes"].box.setChecked(True)
    assert after._steps()[0] == ("fill-holes", {})
    assert rows["fill-holes"].numbers["size"].text() == "any size"
    after._try_out()
    after.button.setChecked(False)
    assert after.button.text() == "▸  After the net: 4 steps"


def test_an_accepted_mask_stays(after, bench, jobs):
    from napari_unetseg.volume import LabelVolume

    image = bench.workspace.image()
    bench.workspace.project.accept("plane-a", LabelVolume(np.zeros(image.shape, np.uint8), image.geometry))
    after.after.change([("fill-holes", {})])
    assert asked(jobs, "preview_post") == []
    after._show()
    assert "undo the acceptance" in after.note.text()


def test_objects_have_a_layer_and_their_measures(after, bench, jobs, tmp_path, notes):
    workspace, viewer = bench.workspace, bench.context.viewer
    bench.context.bridge.annotate()
    mask = np.zeros((40, 60), np.uint8)
    mask[2:6, 2:6], mask[10:14, 10:20] = 1, 1
    numbers = mask.astype(np.uint16)
    numbers[10:14] *= 2
    after.after.change([("split-touching", {})])
    answer(jobs, "preview_post", {**arrays(tmp_path, mask=mask, objects=numbers), "note": ""})
    layer = next(layer for layer in viewer.layers if role_of(layer).get("role") == "objects")
    np.testing.assert_array_equal(layer.data, numbers)
    assert viewer.layers.selection.active is bench.context.bridge.annotation
    assert viewer.layers.index(layer) < viewer.layers.index(bench.context.bridge.annotation)
    after.measure.click()
    (request,) = asked(jobs, "measure")
    assert request["out"].endswith("measures")
    assert after.measure.why == "Measuring."
    rows = measure(mask, (0.5, 0.5), "um", ("background", "a"), instances=numbers)
    result = {"rows": rows, "table": str(tmp_path / "plane-a.csv"), **arrays(tmp_path, objects=numbers)}
    answer(jobs, "measure", result)
    assert list(layer.features["area"].dropna()) == [4.0, 10.0]
    assert list(layer.features["index"]) == [0, 1, 2]
    assert list(bench.context.bridge.mask.features["objects"].dropna()) == [2]
    assert "2 objects of plane-a measured" in bench.status.text()
    workspace.select_case("plane-b")
    assert not any(role_of(layer).get("role") == "objects" for layer in viewer.layers)


def test_a_new_round_takes_the_projects_steps_and_an_old_one_brings_its_own(after, bench, jobs):
    workspace, first = bench.workspace, bench.workspace.model
    after.after.change([("fill-holes", {})])
    after.after.keep()
    assert saved(first) == [["fill-holes", {}]]
    second = folder_of(bench, 2)
    after.after.change([("smooth", {"radius": 1.0})])
    after.after.workspace.change_plan(post={"steps": after.after.steps})
    workspace._use(second)
    assert saved(second) == [["smooth", {"radius": 1.0}]]
    assert saved(first) == [["fill-holes", {}]]
    workspace._use(first)
    assert after.after.steps == (("fill-holes", {}),)
    assert workspace.plan.post.steps == (("fill-holes", {}),)
    assert saved(second) == [["smooth", {"radius": 1.0}]]


def test_a_project_open_for_reading_only_is_not_written(after, bench, monkeypatch):
    workspace, folder = bench.workspace, bench.workspace.model
    monkeypatch.setattr(type(workspace), "read_only", property(lambda _: True))
    after.after.change([("fill-holes", {})])
    after.after.keep()
    assert saved(folder) == []
    assert "reading only" in after.after.why_not_measure()
    with pytest.raises(UnetSegError, match="reading only"):
        after.after.measure()
