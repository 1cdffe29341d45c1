"""As napari sees it: the menu's widget, the samples, the file types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import napari_unetseg
from napari_unetseg.io import read_labels

pytestmark = pytest.mark.window


@pytest.fixture
def viewer(npe2pm, make_napari_viewer):
    with npe2pm.tmp_plugin(manifest=str(Path(napari_unetseg.__file__).with_name("napari.yaml"))):
        yield make_napari_viewer()


def test_the_menu_opens_the_workbench(viewer):
    dock, bench = viewer.window.add_plugin_dock_widget("napari-unetseg", "U-Net Segmentation")
    assert dock.name.startswith("U-Net Segmentation")
    assert bench.context.viewer is viewer or bench.context.viewer == viewer
    bench.shutdown()


def test_a_sample_opens_and_its_mask_is_saved_in_place(viewer, tmp_path):
    image, mask = viewer.open_sample("napari-unetseg", "organ-3d")
    assert image.scale == pytest.approx(mask.scale)
    saved = mask.save(str(tmp_path / "mask.nii.gz"), plugin="napari-unetseg")
    labels = read_labels(saved[0])
    assert np.array_equal(labels.data, mask.data)
    assert labels.geometry.spacing == pytest.approx(tuple(mask.scale))


def test_a_nifti_opens_by_its_suffix(viewer, tmp_path):
    from napari_unetseg.io import write
    from napari_unetseg.volume import Geometry, Volume

    write(tmp_path / "scan.nii", Volume(np.ones((1, 3, 8, 9), np.int16), Geometry((2.0, 1.0, 1.0), "mm")))
    (layer,) = viewer.open(str(tmp_path / "scan.nii"), plugin="napari-unetseg")
    assert layer.data.shape == (3, 8, 9)
    assert layer.scale == pytest.approx([2, 1, 1])
