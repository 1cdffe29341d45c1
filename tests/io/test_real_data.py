"""Every file of the public sets reads, and a mask goes back onto it."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import napari_unetseg.io as io

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NAPARI_UNETSEG_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "isbi2012-em").is_dir(), reason="the public sets are not here"),
]

# file count, channels, axes, dtypes of the images
SETS = {
    "isbi2012-em": (2, {1}, {3}, {"uint8"}),
    "msd-hippocampus": (406, {1}, {3}, {"uint8", "float32"}),
    "dsb2018-nuclei": (310, {1, 3}, {2}, {"uint8", "uint16"}),
    "cvc-clinicdb": (308, {1, 3}, {2}, {"uint8"}),
    "chasedb1-vessels": (84, {1, 3}, {2}, {"uint8"}),
    "covid-ct-multiclass": (196, {1, 3}, {2}, {"uint8"}),
    "drosophila-vnc-em": (100, {1}, {2}, {"uint8"}),
}


@pytest.mark.parametrize("name", SETS)
def test_every_file_reads(name):
    count, channels, ndims, dtypes = SETS[name]
    volumes = [io.read(path) for path in io.find_images(DATA / name)]
    assert len(volumes) == count
    assert {len(v.data) for v in volumes} == channels
    assert {v.ndim for v in volumes} == ndims
    assert {str(v.data.dtype) for v in volumes} == dtypes


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        ("isbi2012-em/train-labels.tif", {0, 255}),
        ("msd-hippocampus/labelsTr/*.nii.gz", {0, 1, 2}),
        ("cvc-clinicdb/labels/*", {0, 255}),
        ("chasedb1-vessels/**/*HO.png", {0, 1}),
        ("covid-ct-multiclass/**/GT/*.png", {0, 1, 2}),
        ("drosophila-vnc-em/stack1/labels/*", {0, 32, 64, 96, 128, 159, 191, 223, 255}),
    ],
)
def test_labels_are_the_numbers_that_the_set_describes(pattern, values):
    paths = io.find_images(str(DATA / pattern))
    seen = Counter(int(value) for path in paths for value in np.unique(io.read_labels(path).data))
    assert set(seen) == values


def test_masks_go_back_onto_the_scans(tmp_path):
    nib = pytest.importorskip("nibabel")
    for path in io.find_images(DATA / "msd-hippocampus" / "imagesTr")[:20]:
        scan, truth = io.read(path), io.read_labels(DATA / "msd-hippocampus" / "labelsTr" / path.name)
        written = nib.load(io.write(tmp_path / path.name, truth, like=scan))
        theirs = nib.load(path)
        assert np.array_equal(written.affine, theirs.affine)
        assert written.shape == theirs.shape
        assert np.array_equal(np.asarray(written.dataobj), truth.data.T)
