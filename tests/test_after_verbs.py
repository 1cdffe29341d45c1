"""The worker's verbs for what comes after the net, on a model that says what the image is."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy import ndimage
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.errors import PlanError
from napari_unetseg.events import Control, finish
from napari_unetseg.io import read_labels
from napari_unetseg.postprocess import apply_steps
from napari_unetseg.project import Project
from napari_unetseg.training import fine_tune
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.worker import loop  # noqa: F401 - registers the verbs
from napari_unetseg.worker.verbs import VERBS, Bench

SPLIT = [["minimum-size", {"size": 3.0}], ["split-touching", {}]]
PLAN = nus.Plan(
    net={"name": "unet", "width": 0.1, "depth": 2},
    training={"epochs": 1, "steps_per_epoch": 1, "patch": (32, 32), "batch_size": 1, "device": "cpu"},
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with Project.create(tmp_path_factory.mktemp("p") / "blobs.unetseg", ["background", "blob"]) as project:
        for index in range(2):
            image, mask = blobs((64, 64), index)
            case = project.add_array(f"case{index}", Volume(image[None], Geometry((0.5, 0.5), "um")))
            project.annotate(case, (mask + 1).astype(np.uint8))
        fine_tune(project, PLAN, folder=project.new_model_folder())
        yield project


@pytest.fixture
def args(project):
    return {"project": str(project.path), "case": "case0", "model": str(project.models[0])}


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def do(verb, args, bench):
    return finish(VERBS[verb](args, Control(), bench))


def speckled(seed=0, shape=(64, 64)):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    return ((field > 0.05) | (rng.random(shape) < 0.05)).astype(np.uint8)


def say(bench, args, mask, spacing=(0.5, 0.5)):
    """Have the net have said `mask`."""
    from napari_unetseg.worker.masks import _key
    from napari_unetseg.worker.verbs import named

    bench.masks._masks[_key(*named(args))] = LabelVolume(mask, Geometry(spacing, "um"))


def test_a_predicted_mask_is_tried_without_the_net(args, bench, monkeypatch):
    first = np.load(do("predict", args, bench)["mask"])
    monkeypatch.setattr(bench, "model", None)  # no net any more
    again = do("preview_post", {**args, "steps": []}, bench)
    np.testing.assert_array_equal(np.load(again["mask"]), first)
    assert again["objects"] is None
    raw = speckled()
    say(bench, args, raw)
    tried = do("preview_post", {**args, "steps": SPLIT}, bench)
    np.testing.assert_array_equal(np.load(tried["mask"]), apply_steps(raw, SPLIT[:1], (0.5, 0.5)))
    objects = np.load(tried["objects"])
    np.testing.assert_array_equal(objects, apply_steps(raw, SPLIT, (0.5, 0.5)))
    assert objects.dtype == np.uint16


def test_steps_are_tried_on_a_mask_that_was_never_predicted(args, bench):
    tried = do("preview_post", {**args, "steps": SPLIT[:1]}, bench)
    assert np.load(tried["mask"]).shape == (64, 64)


def test_a_plane_is_tried_as_part_of_its_volume(args, bench, monkeypatch):
    raw = speckled(1, (9, 40, 40))
    raw[4, 1, 1] = raw[3, 1, 1] = 1
    say(bench, args, raw, (2.0, 0.5, 0.5))
    steps = [["minimum-size", {"size": 30.0}]]
    whole = apply_steps(raw, steps, (2.0, 0.5, 0.5))
    tried = do("preview_post", {**args, "steps": steps, "index": 4}, bench)
    np.testing.assert_array_equal(np.load(tried["mask"]), whole[4])
    assert (whole[4] != apply_steps(raw[4], [["minimum-size", {"size": 7.5}]], (0.5, 0.5))).any()
    assert tried["note"] == ""
    monkeypatch.setattr("napari_unetseg.worker.after._AT_ONCE", 3 * 1600)
    tried = do("preview_post", {**args, "steps": steps, "index": 4}, bench)
    np.testing.assert_array_equal(np.load(tried["mask"]), apply_steps(raw[3:6], steps, (2.0, 0.5, 0.5))[1])
    assert tried["note"] == "Tried on planes 3 to 5; the whole volume follows."


def test_steps_that_cannot_be_are_refused_before_the_net_runs(args, bench):
    with pytest.raises(PlanError, match="size of 'minimum-size'"):
        do("preview_post", {**args, "steps": [["minimum-size", {"size": -1}]]}, bench)


def test_measures_are_of_the_mask_that_would_be_accepted(args, bench, project, tmp_path):
    raw = speckled(3)
    say(bench, args, raw)
    done = do("measure", {**args, "steps": SPLIT, "out": str(tmp_path / "measures")}, bench)
    strokes = project.annotation("case0").data
    mask = np.where(strokes > 0, strokes - 1, apply_steps(raw, SPLIT[:1], (0.5, 0.5)))
    objects = np.load(done["objects"])
    np.testing.assert_array_equal(objects > 0, mask > 0)
    np.testing.assert_array_equal(read_labels(tmp_path / "measures" / "case0_objects.tif").data, objects)
    with open(done["table"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + objects.max() == len(done["rows"])
    assert float(rows[0]["area"]) == pytest.approx((mask > 0).sum() * 0.25)
    own = project.image("case0").data[0][objects == 2]
    assert float(rows[2]["mean"]) == pytest.approx(own.mean())
    assert rows[0]["class"] == "blob"


def test_an_accepted_mask_is_measured_as_it_was_accepted(args, bench, project, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[5:15, 5:15] = 1
    project.accept("case1", LabelVolume(mask, project.image("case1").geometry))
    done = do("measure", {**args, "case": "case1", "steps": SPLIT, "out": str(tmp_path)}, bench)
    assert [(row["object"], row["area"]) for row in done["rows"]] == [(0, 25), (1, 25)]
