"""A scan that goes through any format gives the same mask at the same place in the world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dicoms
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.spatial import KDTree

from napari_unetseg.inference import predict, predict_probabilities
from napari_unetseg.inference.disk import predict_file
from napari_unetseg.io import mask_suffix, read, read_labels, stem, write
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.samples import sample
from napari_unetseg.volume import LabelVolume, Volume

FAMILIES: dict[str, Callable[[Path, Volume], Path]] = {
    "nifti": lambda folder, scan: write(folder / "scan.nii.gz", scan),
    "nifti in parts": lambda folder, scan: write(folder / "scan.nii", scan),
    "nrrd": lambda folder, scan: write(folder / "scan.nrrd", scan),
    "metaimage": lambda folder, scan: write(folder / "scan.mha", scan),
    "ome-zarr 0.4": lambda folder, scan: write(folder / "scan.ome.zarr", scan),
    "ome-zarr 0.5": lambda folder, scan: write(folder / "scan.ome.zarr", replace(scan, header={"ome-zarr": "0.5"})),
    "ome-tiff": lambda folder, scan: write(folder / "scan.ome.tif", scan),
}


@pytest.fixture(scope="module")
def phantom() -> Volume:
    """A part of an oblique scan of thick slices."""
    scan = read(sample("organ-3d").pairs[0][0])
    return replace(scan.crop((slice(6, 18), slice(20, 60), slice(24, 60))), header={}, path=None)


@pytest.fixture(scope="module")
def model(phantom) -> Model:
    """A net of random weights, whose threshold halves the phantom: whatever moves in the file shows in the mask."""
    torch.manual_seed(0)
    plan = Plan(
        net={"dims": 3, "width": 0.1, "depth": 2, "norm": "instance"},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (16, 16, 16), "device": "cpu", "precision": "float32"},
        inference={"tile": (16, 16, 16), "margin": 4},
    )
    made = Model(build(plan.net).eval(), plan, ("background", "organ"))
    middle = float(np.median(predict_probabilities(made, phantom)[1]))
    return replace(made, plan=plan.change(inference={"threshold": middle}))


def cloud(mask: LabelVolume) -> np.ndarray:
    """World positions (mm) of the foreground."""
    return np.argwhere(mask.data) @ mask.geometry.affine[:3, :3].T + mask.geometry.affine[:3, 3]


def same_cloud(here: np.ndarray, there: np.ndarray) -> bool:
    """Whether the points are the same in any order, to a micrometre: NIfTI keeps 32 bits."""
    return here.shape == there.shape and KDTree(here).query(there)[0].max() < 1e-3


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_mask_lies_at_the_same_place(family, phantom, model, tmp_path):
    truth = predict(model, phantom)
    assert 0.4 < truth.data.mean() < 0.6
    file = FAMILIES[family](tmp_path, phantom)
    scan = read(file)
    assert np.array_equal(scan.data, phantom.data)
    out = tmp_path / "out" / (stem(file) + mask_suffix(file))
    write(out, predict(model, scan), like=scan)
    mask = read_labels(out)
    assert same_cloud(cloud(mask), cloud(truth))
    streamed = read_labels(predict_file(model, file, tmp_path / "streamed" / out.name))
    assert np.array_equal(streamed.data, mask.data)
    assert streamed.geometry.matches(mask.geometry, 1e-6)


@pytest.mark.parametrize(("family", "steps"), [("nifti", 1), ("nrrd", -1), ("metaimage", -1)])
def test_another_library_finds_the_mask_there(family, steps, phantom, model, tmp_path):
    file = FAMILIES[family](tmp_path, phantom)
    out = write(tmp_path / ("mask" + mask_suffix(file)), predict(model, read(file)), like=read(file))
    if family == "nifti":
        seen = nib.load(out)
        places = nib.affines.apply_affine(seen.affine, np.argwhere(np.asarray(seen.dataobj)))
    else:
        seen = sitk.ReadImage(str(out))
        index = np.argwhere(sitk.GetArrayFromImage(seen))[:, ::-1]
        places = np.array([seen.TransformIndexToPhysicalPoint([int(i) for i in one]) for one in index])
    places = places * (steps, steps, 1)  # ITK counts to the left and to the back
    assert same_cloud(places, cloud(predict(model, phantom)))


def test_through_a_dicom_series_and_its_segmentation(phantom, model, tmp_path):
    pytest.importorskip("highdicom")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.geometry.affine  # DICOM counts to the left and to the back
    if np.cross(affine[:3, 2], affine[:3, 1]) @ affine[:3, 0] < 0:  # slices are read along their normal
        turned = phantom.geometry.affine.copy()
        turned[:3, 3] += turned[:3, 0] * (phantom.shape[0] - 1)
        turned[:3, 0] *= -1
        geometry = replace(phantom.geometry, affine=turned)
        phantom = replace(phantom, data=phantom.data[:, ::-1].copy(), geometry=geometry)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ turned
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    along = affine[:3, :3] / spacing

    def place(made, index: int) -> None:
        made.ImagePositionPatient = [f"{p:.10g}" for p in affine[:3, 3] + affine[:3, 0] * index]
        made.ImageOrientationPatient = [f"{d:.10g}" for d in (*along[:, 2], *along[:, 1])]
        made.PixelSpacing = [f"{s:.10g}" for s in spacing[1:]]

    values = np.rint(phantom.data[0]).astype(np.int16)
    dicoms.series(tmp_path / "scan", values, change=place)
    phantom = replace(phantom, data=values[None])
    scan = read(tmp_path / "scan")
    assert np.array_equal(scan.data, phantom.data)
    truth = predict(model, phantom)
    out = write(tmp_path / ("mask" + mask_suffix(tmp_path / "scan")), predict(model, scan), like=scan)
    assert out.suffix == ".dcm"
    assert same_cloud(cloud(read_labels(out)), cloud(truth))
