"""The verb that scores images of a project: against truth files of any values, accepted masks and strokes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import blobs

from napari_unetseg.data.annotation import from_mask
from napari_unetseg.data.truth import as_classes
from napari_unetseg.errors import AnnotationError, Stopped
from napari_unetseg.events import Control, Running, TileDone
from napari_unetseg.instant import fit_instant
from napari_unetseg.io import write
from napari_unetseg.metrics import dice
from napari_unetseg.plan import Plan
from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.worker import loop  # noqa: F401 - all verbs are registered
from napari_unetseg.worker.verbs import VERBS, Bench

GRID = Geometry((0.5, 0.5), "um")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two images, strokes on the first, the mask of the second accepted, truth files of both; an instant model."""
    folder = tmp_path_factory.mktemp("p")
    project = Project.create(folder / "blobs.unetseg", ["background", "blob"])
    truths = {}
    for index in range(2):
        image, mask = blobs((64, 64), index, noise=0.1)
        case = project.add_array(f"case{index}", Volume(image[None], GRID))
        truths[case] = str(folder / f"{case}.png")
        write(truths[case], LabelVolume(mask * 255, Geometry((1.0, 1.0))))
        if index == 0:
            known = np.random.default_rng(0).random(mask.shape) < 0.2
            project.annotate(case, from_mask(mask, known))
        else:
            project.accept(case, LabelVolume(mask, GRID))
    model = folder / "model"
    fit_instant(project, Plan(data={"heldout": 0.0})).save(model)
    yield project, str(model), truths
    project.close()


def ask(scene, folder, control=None, **args):
    project, model, _ = scene
    args = {"project": str(project.path), "model": model, **args}
    run = Running(VERBS["score_cases"](args, control or Control(), Bench(folder)))
    events = list(run)
    json.dumps(run.result)
    return run.result, events


def test_against_files_of_0_and_255(scene, tmp_path):
    result, events = ask(scene, tmp_path, on="truth", cases=["case0", "case1"], truths=scene[2])
    assert [(row["case"], row["class"], row["unit"]) for row in result["rows"]] == [
        ("case0", "blob", "um"),
        ("case1", "blob", "um"),
    ]
    assert all(row["dice"] > 0.8 and row["voxels"] == 64 * 64 for row in result["rows"])
    assert all(0 <= row["hausdorff95"] < 16 for row in result["rows"])
    assert [(event.done, event.total) for event in events if isinstance(event, TileDone)] == [(1, 2), (2, 2)]


def test_against_strokes_there_are_no_distances(scene, tmp_path):
    result, _ = ask(scene, tmp_path, on="strokes", cases=["case0"])
    (row,) = result["rows"]
    assert row["hausdorff95"] is None
    assert row["voxels"] == (scene[0].annotation("case0").data > 0).sum()
    assert row["dice"] > 0.8


def test_against_the_accepted_mask(scene, tmp_path):
    result, _ = ask(scene, tmp_path, on="accepted", cases=["case1"])
    wrong = ask(scene, tmp_path, on="truth", cases=["case1"], truths={"case1": scene[2]["case0"]})[0]
    assert result["rows"][0]["dice"] > wrong["rows"][0]["dice"] + 0.2


def test_an_image_that_fails_is_named_and_the_others_are_scored(scene, tmp_path):
    write(tmp_path / "small.png", LabelVolume(np.eye(8, dtype=np.uint8), Geometry((1.0, 1.0))))
    truths = {"case0": str(tmp_path / "small.png"), "case1": scene[2]["case1"]}
    result, _ = ask(scene, tmp_path, on="truth", cases=["case0", "case1"], truths=truths)
    assert "shape" in result["failed"]["case0"]
    assert [row["case"] for row in result["rows"]] == ["case1"]


def test_it_stops(scene, tmp_path):
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        ask(scene, tmp_path, control, on="strokes", cases=["case0"])


def test_values_of_truth_become_classes():
    mask, known = as_classes(np.array([[0, 2, 1], [-1, 0, 2]]), 3, "it")
    np.testing.assert_array_equal(mask, [[0, 2, 1], [0, 0, 2]])
    assert not known[1, 0]
    mask, _ = as_classes(np.array([[0, 10, 20]]), 3, "it")
    np.testing.assert_array_equal(mask, [[0, 1, 2]])
    instances = np.arange(40)[None]
    assert dice(as_classes(instances, 2, "it")[0] > 0, instances > 0) == 1
    with pytest.raises(AnnotationError, match="2 label values, the project 3 classes"):
        as_classes(np.array([[0, 255]]), 3, "it")
