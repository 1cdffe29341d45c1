"""Files of a folder that do not fit the memory allowed."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_unetseg.batch import Outputs, segment_folder
from napari_unetseg.inference import predict
from napari_unetseg.inference.memory import used_memory
from napari_unetseg.io import read, read_labels, write
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Geometry, Volume


@pytest.fixture
def model():
    plan = Plan(
        net={"width": 0.1, "depth": 2},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (64, 64), "device": "cpu", "precision": "float32"},
        inference={"tile": (64, 64), "memory": ((used_memory() or 2**28) + 96 * 2**20) / 2**30},
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


def test_what_needs_the_whole_image_is_refused_for_that_file_alone(model, folder):
    rows = segment_folder(folder / "in", model, folder / "out", Outputs(uncertainty=True))
    said = {("slide" in row["file"]): (row["status"], row["error"]) for row in rows}
    assert said[False][0] == "done"
    assert said[True][0] == "failed"
    assert "does not fit the memory allowed" in said[True][1]
