"""Real DICOM series, with every oddity that their list of facts names; skipped where they are absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError
from napari_unetseg.volume import LabelVolume

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NAPARI_UNETSEG_DATA", ROOT.parent / "shared" / "data")) / "dicom-series"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA.is_dir(), reason="the DICOM series are not here")]

FACTS = json.loads((DATA / "series_facts.json").read_text()) if DATA.is_dir() else {}
TILTED = "ct-head-ge-tilt"


@pytest.mark.parametrize("name", FACTS)
def test_each_series_is_what_its_facts_say(name):
    facts, scan = FACTS[name], io.read(DATA / name)
    assert scan.data.shape == (1, facts["n_files"], facts["rows"], facts["columns"])
    assert [Path(file).name for file in scan.header["dicom"]["files"]] == facts["order_by_position"]
    assert scan.geometry.spacing[1:] == pytest.approx(facts["pixel_spacing_mm"], abs=1e-7)
    assert [scan.data.min(), scan.data.max()] == pytest.approx(facts["value_min_max_after_rescale"], rel=1e-6)
    assert scan.data.dtype.kind in ("iu" if facts["rescale"][0] == 1 else "f")
    gaps = facts["slice_gap_mm"]
    if gaps["max"] - gaps["min"] < 0.01:
        assert scan.geometry.spacing[0] == pytest.approx(gaps["median"], abs=1e-3), "not the slice thickness"
        assert not any("spaced" in note or "missing" in note for note in scan.notes)
    tilted = facts["gantry_tilt"] != "None"
    assert any("gantry tilt" in note for note in scan.notes) == tilted
    (series,) = [s for s in io.list_series(DATA / name) if s.kind == "image"]
    assert (series.modality, series.slices) == (facts["modality"], facts["n_files"])


def test_tilt_uneven_gaps_and_padding_are_said():
    facts, scan = FACTS[TILTED], io.read(DATA / TILTED)
    text = " ".join(scan.notes)
    assert f"{abs(float(facts['gantry_tilt'])):.1f} degrees" in text
    assert "unevenly spaced, 1.08 to 7 mm apart" in text
    assert "padding outside the scanned field (stored -1500)" in text
    assert scan.geometry.oblique


def test_the_study_lists_its_series_and_each_is_one_input():
    study = DATA / "mr-brain-study3"
    with pytest.raises(ReadError, match="holds 3 series") as caught:
        io.read(study)
    assert "T1post: number 11" not in str(caught.value), "no description"
    assert [path.name for path in io.find_images(study)] == [
        "11-T1post-18670",
        "11_HCropVolume",
        "36468-FLAIRreg-58706",
    ]
    assert [s.number for s in io.list_series(study)] == [11, 36468, None]
    names = {io.stem(path) for path in io.find_images(DATA)}
    assert names == {Path(name).name for name in FACTS}


def test_a_file_of_a_series_is_its_series():
    name = "mr-dT1-study2-6slices"
    whole = io.read(DATA / name)
    assert np.array_equal(io.read(DATA / name / "000008.dcm").data, whole.data)
    assert io.find_images(sorted((DATA / name).iterdir())) == [DATA / name]


@pytest.mark.parametrize("name", [name for name in FACTS if name != TILTED])
def test_simpleitk_sees_the_same(name, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    scan = io.read(DATA / name)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(DATA / name)))
    seen = reader.Execute()
    assert np.allclose(sitk.GetArrayFromImage(seen), scan.data[0], rtol=1e-6)
    last = tuple(size - 1 for size in scan.shape)
    for index in ((0, 0, 0), last, (2, 30, 20)):
        theirs = np.array(seen.TransformIndexToPhysicalPoint(index[::-1])) * (-1, -1, 1)
        # it makes the directions square to one another, and takes the distance of the first two slices
        assert scan.geometry.to_world(index) == pytest.approx(theirs, abs=0.02)
    mask = LabelVolume((scan.data[0] > np.percentile(scan.data, 90)).astype(np.uint8))
    nifti = sitk.ReadImage(str(io.write(tmp_path / "mask.nii.gz", mask, like=scan)))
    theirs = np.array(nifti.TransformIndexToPhysicalPoint(last[::-1])) * (-1, -1, 1)
    assert scan.geometry.to_world(last) == pytest.approx(theirs, abs=0.02)


@pytest.mark.parametrize("name", FACTS)
def test_a_mask_goes_out_as_dicom_seg_and_comes_back(name, tmp_path):
    hd = pytest.importorskip("highdicom")
    import pydicom

    scan = io.read(DATA / name)
    mask = LabelVolume((scan.data[0] > np.percentile(scan.data, 90)).astype(np.uint8))
    path = io.write(tmp_path / f"mask{io.mask_suffix(DATA / name)}", mask, like=scan)
    back = io.read_labels(path)
    assert np.array_equal(back.data, mask.data)
    assert back.geometry.matches(scan.geometry, 1e-3)
    seen = hd.seg.segread(path)
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in scan.header["dicom"]["files"]]
    assert np.array_equal(seen.get_pixels_by_source_instance(uids, combine_segments=True), mask.data)
