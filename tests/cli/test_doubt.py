"""What the command line says about doubt: calibration, averages, explanations of a place."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.instant import fit_instant


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    data = folder_of_blobs(place / "data", number=2)
    fit_instant(data, nus.Plan(data={"heldout": 0.0})).save(place / "m")
    return place / "m"


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Images that the model has and has not seen: blobs 0 to 3."""
    return folder_of_blobs(tmp_path_factory.mktemp("others"), number=4)


def test_calibrate_measures_on_unseen_images_and_keeps_the_temperature(cli, model, others, tmp_path):
    code, out, _ = cli("calibrate", others, "-m", model, "-o", tmp_path / "r.png", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["images"], found["saved"]) == (2, False)
    assert (tmp_path / "r.png").stat().st_size > 1000
    assert nus.Model.load(model).plan.inference.temperature == 1
    code, out, _ = cli("calibrate", others, "-m", model, "--save")
    assert code == 0
    assert "2 images not learned from" in out
    assert nus.Model.load(model).plan.inference.temperature == pytest.approx(found["temperature"])
    again = json.loads(cli("calibrate", others, "-m", model, "--json")[1])
    assert again["temperature"] == pytest.approx(found["temperature"], rel=0.02)
    assert again["ece_before"] == pytest.approx(found["ece_after"], abs=0.01)


def test_calibrate_refuses_what_was_learned(cli, model):
    code, _, err = cli("calibrate", model.parent / "data", "-m", model)
    assert code == 2
    assert "has learned from all" in err


def test_segment_averages(cli, model, others, tmp_path):
    code, _, _ = cli(
        "segment", others / "images" / "case3.tif", "-m", model, "-o", tmp_path, "--turns", "--uncertainty"
    )
    assert code == 0
    assert nus.read(tmp_path / "case3_disagreement.tif").data.max() > 0
    code, out, err = cli("segment", others / "images" / "case3.tif", "-m", model, "-o", tmp_path / "d", "--dropout", 3)
    assert code == 2
    assert "no dropout" in out + err


def test_explain_the_object_at_a_place(cli, model, others, tmp_path):
    mask = nus.predict(nus.Model.load(model), nus.read(others / "images" / "case3.tif")).data
    y, x = np.argwhere(mask == 1)[0]
    image = others / "images" / "case3.tif"
    code, _, _ = cli("explain", image, "-m", model, "-o", tmp_path, "--at", f"{y},{x}", "--json")
    assert code == 0
    near = nus.read(tmp_path / "case3_saliency.tif").data[0]
    whole = tmp_path / "whole"
    cli("explain", image, "-m", model, "-o", whole)
    assert not np.array_equal(near, nus.read(whole / "case3_saliency.tif").data[0])
    for wrong in ("1,2,3", "middle"):
        code, _, err = cli("explain", image, "-m", model, "-o", tmp_path, "--at", wrong)
        assert code == 2
        assert "no point of a 2D image" in err
