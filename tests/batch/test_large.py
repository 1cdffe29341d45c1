"""Files of a folder that do not fit the memory allowed."""

from __future__ import annotations

import csv
import gc

import numpy as np
import pytest

from napari_unetseg.batch import Outputs, segment_folder
from napari_unetseg.events import FileDone
from napari_unetseg.inference import predict, predict_doubt
from napari_unetseg.inference.memory import release, used_memory
from napari_unetseg.io import read, read_labels, write
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Geometry, Volume


def held() -> int:
    """Bytes that the program holds, after all that it could give back: what went later would count as room."""
    gc.collect()
    release()
    return used_memory() or 2**28


@pytest.fixture
def model():
    plan = Plan(
        net={"width": 0.1, "depth": 2},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (64, 64), "device": "cpu", "precision": "float32"},
        inference={"tile": (64, 64), "memory": (held() + 96 * 2**20) / 2**30},
    )
    return Model(build(plan.net).eval(), plan, ("background", "cell"))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, side in (("small", 60), ("slide", 2200)):
        values = np.zeros((1, side, side), np.uint16)
        values[:, :200, :300] = rng.integers(0, 60000, values[:, :200, :300].shape)
        values[0, -9:] = rng.integers(0, 60000, side)
        write(tmp_path / "in" / f"{name}.nii", Volume(values, Geometry((0.5, 0.5), "mm")))
    return tmp_path


def test_a_large_file_is_segmented_from_disk_to_disk_beside_small_ones(model, folder):
    rows = segment_folder(folder / "in", model, folder / "out")
    assert {row["status"] for row in rows} == {"done"}
    row = next(row for row in rows if "slide" in row["file"])
    mask = read_labels(folder / "out" / row["mask"])
    np.testing.assert_array_equal(mask.data, predict(model, read(folder / "in" / "slide.nii")).data)
    assert int(row["voxels"]) == int((mask.data == 1).sum())
    assert float(row["size"]) == pytest.approx(0.25 * int(row["voxels"]))
    assert row["components"] is None
    with (folder / "out" / "table.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2
    again = segment_folder(folder / "in", model, folder / "out")
    assert len(again) == 2


def little() -> int:
    """Ceiling below which the slide, which needs 120 MiB more than the program has, does not fit."""
    return held() + 80 * 2**20


def test_averages_and_doubt_are_written_for_a_large_file_too(model, folder):
    slide = write(folder / "slide.tif", read(folder / "in" / "slide.nii"))
    wanted = Outputs(probabilities=True, uncertainty=True, tta=True, memory=little())
    rows = segment_folder(slide, model, folder / "out", wanted)
    assert [(row["status"], row["components"]) for row in rows] == [("done", None)]
    truth = predict_doubt(model, read(slide), tta="flips")
    for end, wanted in (("prob", truth.probability[1]), ("uncertainty", truth.entropy)):
        found = read(folder / "out" / f"slide_{end}.tif").data
        assert np.abs(found[-1] / 255 - wanted).mean() < 0.005, end
    assert read(folder / "out" / "slide_disagreement.tif").data.any()


def test_the_ceiling_of_a_run_decides_no_mask(model, folder):
    """What was segmented below one ceiling is not done again below another."""
    model.plan = model.plan.change(inference={"memory": None})
    high = Outputs(memory=2**36)
    rows = segment_folder(folder / "in", model, folder / "out", Outputs(memory=little()))
    assert sum(row["components"] is None for row in rows) == 1
    again = list(segment_folder.events(folder / "in", model, folder / "out", high))
    assert [event.status for event in again if isinstance(event, FileDone)] == ["done before", "done before"]
    rows = segment_folder(folder / "in", model, folder / "other", high)
    assert all(row["components"] is not None for row in rows)
