"""The verbs of doubt, guidance and explanation: what they are given and what they answer, on a real project."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.data.annotation import from_mask
from napari_unetseg.errors import EngineError, ModelError, PlanError
from napari_unetseg.events import Control, Running, TileDone
from napari_unetseg.project import Project
from napari_unetseg.training import fine_tune
from napari_unetseg.volume import Volume
from napari_unetseg.worker import loop  # noqa: F401 - all verbs are registered
from napari_unetseg.worker.verbs import VERBS, Bench

PLAN = nus.Plan(
    net={"name": "unet", "width": 0.15, "depth": 3, "dims": 2},
    training={"epochs": 6, "steps_per_epoch": 10, "patch": (32, 32), "batch_size": 4, "device": "cpu"},
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Three planes of blobs a case; the third case is bare, and the second has a slip on its last plane."""
    project = Project.create(tmp_path_factory.mktemp("p") / "blobs.unetseg", ["background", "blob"])
    for index in range(3):
        pairs = [blobs((64, 64), 3 * index + z, noise=0.1) for z in range(3)]
        image, mask = (np.stack(parts) for parts in zip(*pairs, strict=True))
        case = project.add_array(f"case{index}", Volume(image[None]))
        strokes = from_mask(mask, np.random.default_rng(index).random(mask.shape) < 0.3)
        if index == 1:
            y, x = np.argwhere(mask[2] == 1)[len(np.argwhere(mask[2] == 1)) // 2]
            strokes[2, y - 2 : y + 3, x - 2 : x + 3] = 1
        if index < 2:
            project.annotate(case, strokes)
    yield project
    project.close()


@pytest.fixture(scope="module")
def model(project):
    folder = project.new_model_folder()
    fine_tune(project, PLAN, folder=folder)
    return str(folder)


@pytest.fixture
def ask(project, model, tmp_path):
    bench = Bench(tmp_path)

    def ask(verb, **args):
        run = VERBS[verb]({"project": str(project.path), "model": model, **args}, Control(), bench)
        ask.events = []
        if isinstance(run, dict):
            return run
        running = Running(run)
        ask.events = list(running)
        json.dumps(running.result)  # nothing but plain values travels
        return running.result

    return ask


def test_doubt_of_a_volume_and_of_a_plane(ask):
    whole = ask("doubt", case="case2")
    assert np.load(whole["probability"]).shape == (2, 3, 64, 64)
    assert whole["disagreement"] is None
    assert any(isinstance(event, TileDone) for event in ask.events)
    plane = ask("doubt", case="case2", index=1, tta="flips")
    entropy, disagreement = np.load(plane["entropy"]), np.load(plane["disagreement"])
    assert entropy.shape == disagreement.shape == np.load(plane["mask"]).shape == (64, 64)
    assert plane["passes"] == 4
    assert 0 <= disagreement.min() < disagreement.max() < 1
    assert (disagreement <= entropy + 1e-5).all()
    assert plane["index"] == 1


def test_doubt_of_several_models(ask, model):
    two = ask("doubt", case="case2", index=0, models=[model, model])
    assert two["passes"] == 2
    assert np.load(two["disagreement"]).max() < 1e-5
    with pytest.raises(ModelError, match="no dropout"):
        ask("doubt", case="case2", dropout_passes=3)


def test_proposals_come_with_their_mask(ask):
    found = ask("propose", number=6, seconds=20, random_every=3)["suggestions"]
    assert len(found) == 6
    assert [one["drawn"] for one in found] == [False, False, True, False, False, True]
    assert "case2" in {one["case"] for one in found[:2]}
    for one in found:
        (top, bottom), (left, right) = one["box"]
        assert top <= one["point"][0] < bottom
        assert left <= one["point"][1] < right
        assert one["index"] in (0, 1, 2)
        assert np.load(one["mask"]).shape == (64, 64)
        assert one["class"] == ("background", "blob")[one["label"]]
        assert repr(one["class"]) in one["reason"]
    assert {one["case"] for one in ask("propose", cases=["case1"], number=2)["suggestions"]} == {"case1"}


def test_a_slip_is_found(ask):
    (slip,) = (one for one in ask("doubtful_strokes", confidence=0.6)["strokes"] if one["voxels"] > 10)
    assert (slip["case"], slip["index"], slip["painted"], slip["predicted"]) == ("case1", 2, 0, 1)
    assert slip["by"] == "model"
    (top, bottom), (left, right) = slip["box"]
    assert bottom - top <= 9
    assert right - left <= 9
    assert "'blob'" in slip["reason"]


@pytest.mark.parametrize("method", ["saliency", "decoder-saliency", "gradcam"])
def test_explanations_of_a_plane(ask, method):
    assert method in ask("explanations")["methods"]
    found = ask("explain", case="case0", method=method, index=1)
    maps = np.load(found["maps"])
    assert maps.shape == (len(found["names"]), 64, 64)
    assert maps.max() == pytest.approx(1)
    assert (found["class"], found["region"]) == ("blob", None)
    assert "'blob'" in found["legend"]


def test_explanations_of_a_clicked_object(ask):
    mask = np.load(ask("doubt", case="case0", index=1)["mask"])
    place = np.argwhere(mask == 1)[0]
    found = ask("explain", case="case0", method="saliency", index=1, point=place.tolist())
    region = np.load(found["region"])
    assert region[tuple(place)]
    assert mask[region].all()
    assert found["voxels"] == region.sum()
    assert found["class_index"] == 1
    other = ask("explain", case="case0", method="saliency", index=1, point=place.tolist(), class_index=0)
    assert other["class"] == "background"
    assert np.load(other["region"]).sum() <= 17 * 17
    with pytest.raises(PlanError, match="outside"):
        ask("explain", case="case0", method="saliency", index=1, point=[64, 0])
    with pytest.raises(EngineError, match="method"):
        ask("explain", case="case0", index=1)


def test_how_honest_the_model_is(ask, project, tmp_path):
    found = ask("reliability")
    if found["picture"] is not None:
        assert np.load(found["picture"]).shape[2] == 3
    model = fine_tune(project, PLAN.change(data={"heldout": 0.4}, training={"epochs": 1}))
    bare = fine_tune(project, PLAN.change(data={"heldout": 0.0}, training={"epochs": 1}))
    held = ask("reliability", model=str(model.save(tmp_path / "held")))
    assert np.load(held["picture"]).dtype == np.uint8
    assert held["temperature"] == model.plan.inference.temperature
    assert held["rule"]
    assert ask("reliability", model=str(bare.save(tmp_path / "bare")))["picture"] is None
