"""The manifest, and what napari reads and writes through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels
from npe2 import PluginManifest

import napari_unetseg
from napari_unetseg.io import read, read_labels, write
from napari_unetseg.samples import SAMPLES
from napari_unetseg.volume import Volume
from napari_unetseg.widgets.napari_io import get_reader, write_image, write_labels

MANIFEST = Path(napari_unetseg.__file__).with_name("napari.yaml")


def test_the_manifest_is_valid_and_every_command_exists():
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "napari-unetseg"
    assert {s.key for s in manifest.contributions.sample_data} == set(SAMPLES), "every sample set is in the menu"


def test_a_scan_goes_through_napari_unharmed(tmp_path, oblique):
    volume = Volume(np.random.default_rng(0).integers(-1000, 1000, (1, 4, 5, 6)).astype(np.int16), oblique)
    write(tmp_path / "scan.nii.gz", volume)
    reader = get_reader(str(tmp_path / "scan.nii.gz"))
    ((data, options, kind),) = reader(str(tmp_path / "scan.nii.gz"))
    layer = Image(data, **options)
    assert (kind, layer.name) == ("image", "scan")
    state, mask = layer.as_layer_data_tuple()[1], Labels((data > 0).astype(np.uint8), metadata=layer.metadata,
                                                         scale=layer.scale, units=layer.units)  # fmt: skip
    write_image(str(tmp_path / "again.nii.gz"), layer.data, state)
    write_labels(str(tmp_path / "mask.nii.gz"), mask.data, mask.as_layer_data_tuple()[1])
    again, labels = read(tmp_path / "again.nii.gz"), read_labels(tmp_path / "mask.nii.gz")
    assert (again.data == volume.data).all()
    assert again.geometry.matches(volume.geometry)
    assert labels.geometry.matches(volume.geometry)


@pytest.mark.parametrize("path", ["notes.txt", ["scan.nii.gz", "notes.txt"], []])
def test_other_files_are_left_to_others(path):
    assert get_reader(path) is None
