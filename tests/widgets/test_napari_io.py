"""The manifest, and what napari reads and writes through it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels
from napari.utils.notifications import notification_manager
from npe2 import PluginManifest

import napari_unetseg
from napari_unetseg.io import read, read_labels, write
from napari_unetseg.samples import SAMPLES
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.widgets import napari_io
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


def opened(path):
    return get_reader(str(path))(str(path))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".ome.zarr"])
def test_place_units_and_axes_reach_the_layer_and_the_mask(suffix, tmp_path):
    grid = Geometry((2.0, 0.5, 0.25), "um").shifted((3, 4, 5))
    volume = Volume(np.random.default_rng(0).integers(0, 99, (1, 4, 5, 6)).astype(np.uint8), grid)
    ((data, options, kind),) = opened(write(tmp_path / f"scan{suffix}", volume))
    layer = Image(data, **options)
    assert (kind, layer.axis_labels) == ("image", ("z", "y", "x"))
    assert layer.scale == pytest.approx((2, 0.5, 0.25))
    assert [str(u) for u in layer.units] == ["micrometer"] * 3
    assert layer.translate == pytest.approx(grid.origin)
    path = tmp_path / f"mask{suffix}"
    write_labels(str(path), (data > 50).astype(np.uint8), layer.as_layer_data_tuple()[1])
    assert read_labels(path).geometry.matches(grid, 1e-4)


def test_an_oblique_scan_is_said_to_be_oblique(tmp_path, oblique):
    notification_manager.records.clear()
    volume = Volume(np.ones((1, 4, 5, 6), np.uint8), oblique)
    ((_, options, _),) = opened(write(tmp_path / "scan.nrrd", volume))
    assert options["metadata"]["oblique"] == pytest.approx(napari_io.tilt(oblique))
    assert napari_io.tilt(Geometry((1, 2, 3), "mm")) == 0
    assert any("scan.nrrd is oblique" in note.message for note in notification_manager.records)


def test_labels_of_ome_zarr_are_labels(tmp_path):
    image = write(tmp_path / "a.ome.zarr", Volume(np.ones((2, 4, 5, 6), np.uint8)))
    mask = write(tmp_path / "mask.ome.zarr", LabelVolume(np.ones((4, 5, 6), np.uint8)))
    assert [kind for _, _, kind in opened(mask)] == ["labels"]
    zarr.open_group(image, mode="a").create_group("labels").attrs["labels"] = ["cells", "gone"]
    write(image / "labels" / "cells", LabelVolume(np.full((4, 5, 6), 7, np.uint8)))
    layers = opened(image)
    assert [(kind, options["name"]) for _, options, kind in layers] == [
        ("image", "a · channel 1"),
        ("image", "a · channel 2"),
        ("labels", "a · cells"),
    ]
    assert (layers[2][0] == 7).all()


@pytest.mark.parametrize("shape", [(1, 7, 8, 9), (2, 7, 8, 9), (2, 8, 9)])
def test_a_large_image_stays_on_the_disk(shape, tmp_path, monkeypatch):
    monkeypatch.setattr(napari_io, "_LARGE", 100)
    volume = Volume(np.random.default_rng(0).integers(0, 99, shape).astype(np.uint8))
    layers = opened(write(tmp_path / "a.ome.zarr", volume))
    assert len(layers) == shape[0]
    for channel, (data, options, _) in zip(volume.data, layers, strict=True):
        assert not isinstance(data, np.ndarray)
        layer = Image(data, **options)
        assert layer.ndim == channel.ndim
        assert layer.get_value((2,) * channel.ndim) is not None
        assert np.array_equal(data[..., ::2, ::-1], channel[..., ::2, ::-1])
        assert np.array_equal(data[3], channel[3])
        assert np.array_equal(np.asarray(data), channel)
