"""Coarser levels of large images and masks: at the same place, and known to other programs."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_unetseg import io
from napari_unetseg.io import ome_zarr
from napari_unetseg.io.pyramid import coarser, factors_of
from napari_unetseg.volume import Geometry, LabelVolume, Volume


@pytest.mark.parametrize(
    ("shape", "spacing", "side", "levels"),
    [
        ((60, 70), (1, 1), 100, [(1, 1)]),
        ((100, 401), (1, 1), 100, [(1, 1), (2, 2), (4, 4), (8, 8)]),
        ((30, 400, 400), (4, 1, 1), 100, [(1, 1, 1), (1, 2, 2), (1, 4, 4)]),
        ((30, 800, 800), (4, 1, 1), 100, [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]),
        ((2, 400, 400), (0.1, 1, 1), 200, [(1, 1, 1), (2, 1, 1), (2, 2, 2)]),
    ],
)
def test_sides_are_halved_until_the_plane_fits(shape, spacing, side, levels):
    assert factors_of(shape, spacing, side) == levels


def test_labels_are_taken_and_values_averaged():
    array = np.array([[1, 3, 5], [7, 9, 11], [2, 4, 255]], np.uint8)
    np.testing.assert_array_equal(coarser(array, (2, 2), labels=True), [[1, 5], [2, 255]])
    np.testing.assert_array_equal(coarser(array[None], (2, 2), labels=False), [[[5, 8], [3, 255]]])
    assert coarser(array.astype(np.float32), (1, 3), labels=False).dtype == np.float32


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(ome_zarr, "_CHUNK", {2: (16, 16), 3: (4, 16, 16)})


def levels_in(path, version):
    """Arrays, scales and translations of the levels, as another program finds them."""
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs["ome"] if version == "0.5" else group.attrs
    found = []
    for level in attributes["multiscales"][0]["datasets"]:
        steps = {step["type"]: np.array(step[step["type"]]) for step in level["coordinateTransformations"]}
        array = group[level["path"]]
        found.append((array[...], steps["scale"], steps.get("translation", np.zeros(array.ndim))))
    return found


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_marked_voxel_is_at_the_same_place_in_all_levels(ndim, version, tmp_path):
    shape, index = ((8, 50, 61)[-ndim:], (4, 24, 40)[-ndim:])
    affine = np.diag((2.0, 0.5, 0.5, 1.0))
    affine[:3, 3] = (10, 20, 30)
    if ndim == 2:
        affine[0] = (1, 0, 0, 0)
    mask = np.zeros(shape, np.uint8)
    mask[index] = 3
    geometry = Geometry((2.0, 0.5, 0.5)[-ndim:], "um", affine)
    like = Volume(np.zeros((1, *shape), np.uint8), geometry, header={"ome-zarr": version})
    io.write(tmp_path / "m.ome.zarr", LabelVolume(mask, geometry), like=like)
    levels = levels_in(tmp_path / "m.ome.zarr", version)
    assert len(levels) == 3
    for array, scale, start in levels:
        assert np.argwhere(array) * scale + start == pytest.approx(geometry.to_world(index)[None, -ndim:])
    back = io.read_labels(tmp_path / "m.ome.zarr")
    np.testing.assert_array_equal(back.data, mask)
    assert back.geometry.matches(geometry)


def test_the_mean_of_an_image_lies_in_the_middle_of_what_it_is_of(tmp_path):
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32) * 0.5 + 7, (2, 40, 64))
    geometry = Geometry((0.5, 0.5), "um", np.array([[1, 0, 0, 0], [0, 0.5, 0, 3], [0, 0, 0.5, 7], [0, 0, 0, 1.0]]))
    io.write(tmp_path / "a.ome.zarr", Volume(ramp, geometry))
    for array, scale, start in levels_in(tmp_path / "a.ome.zarr", "0.4"):
        np.testing.assert_allclose(array[1, 0], np.arange(array.shape[2]) * scale[2] + start[2])  # its own position


def test_a_mask_filled_in_parts_has_its_levels_and_empty_chunks_are_not_stored(tmp_path):
    like = Volume(np.zeros((1, 64, 64), np.uint8))
    with io.create_lazy(tmp_path / "m.ome.zarr", like) as file:
        file[2, 2] = 5
        file[40:64, 40:64] = 7
    arrays = [array for array, *_ in levels_in(tmp_path / "m.ome.zarr", "0.4")]
    assert [array.shape for array in arrays] == [(64, 64), (32, 32), (16, 16)]
    np.testing.assert_array_equal(arrays[1], arrays[0][::2, ::2])
    np.testing.assert_array_equal(arrays[2], arrays[0][::4, ::4])
    assert sorted(path.name for path in (tmp_path / "m.ome.zarr" / "1" / "0").iterdir()) == ["0"]
