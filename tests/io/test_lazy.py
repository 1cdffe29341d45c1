"""Regions of files: what is read in parts is what is read as a whole, and files that are filled in parts are whole."""

import errno
import os
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import tifffile

import napari_unetseg.io as io
from napari_unetseg.errors import GeometryError, WriteError
from napari_unetseg.io.lazy import RawFile
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RNG = np.random.default_rng(9)
GRID = Geometry((2.0, 0.5, 0.25), "um").shifted((3, 4, 5))
IN_PARTS = [".nii", ".tif", ".nrrd", ".mha", ".ome.zarr"]


def stack(*shape, dtype=np.uint16):
    return RNG.integers(0, 250, shape).astype(dtype)


def same_in_parts(path, in_memory=False):
    lazy, whole = io.open_lazy(path), io.read(path)
    assert (lazy.shape, lazy.dtype) == (whole.data.shape, whole.data.dtype)
    assert lazy.geometry.matches(whole.geometry, 1e-9)
    assert (lazy.geometry.unit, lazy.path, lazy.in_memory) == (whole.geometry.unit, path, in_memory)
    middle = tuple(slice(size // 3, max(size // 3 + 1, size - 1)) for size in lazy.shape)
    for region in (..., middle, (0, ..., slice(2, 4)), (-1, 0)):
        assert np.array_equal(lazy[region], whole.data[region])
    assert np.array_equal(lazy.crop(middle[1:]).data, whole.crop(middle[1:]).data)
    assert lazy.crop(middle[1:]).geometry.matches(whole.crop(middle[1:]).geometry, 1e-9)
    return lazy


@pytest.mark.parametrize("shape", [(1, 5, 6, 7), (3, 5, 6, 7), (1, 1, 6, 7)])
@pytest.mark.parametrize("suffix", IN_PARTS)
def test_regions_of_what_was_filled_in_parts(suffix, shape, tmp_path):
    data = stack(*shape)
    like = Volume(data, GRID)
    path = tmp_path / f"a{suffix}"
    with io.create_lazy(path, like, np.uint16, channels=shape[0]) as file:
        assert not path.exists()
        for z in range(shape[1]):
            file[:, z] = data[:, z]
        assert np.array_equal(file[0, 0, 2:4], data[0, 0, 2:4])
    lazy = same_in_parts(path)
    assert np.array_equal(lazy[...], data)
    assert lazy.geometry.matches(GRID, 1e-6)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [*IN_PARTS, ".nii.gz"])
def test_a_mask_filled_in_parts_lies_on_its_image(suffix, tmp_path):
    data = stack(5, 6, 7, dtype=np.uint8) % 3
    scan = io.write(tmp_path / f"scan{suffix}", Volume(stack(1, 5, 6, 7), GRID))
    with io.create_lazy(tmp_path / f"mask{suffix}", io.open_lazy(scan)) as file:
        file[2:, 1:] = data[2:, 1:]
        file[0] = 1
    expected = np.zeros_like(data)
    expected[2:, 1:], expected[0] = data[2:, 1:], 1
    mask = io.read_labels(tmp_path / f"mask{suffix}")
    assert np.array_equal(mask.data, expected)
    assert mask.geometry.matches(io.read(scan).geometry, 1e-6)
    assert mask.geometry.unit == io.read(scan).geometry.unit


@pytest.mark.parametrize("suffix", [".png", ".tif", ".ome.zarr", ".nrrd", ".mha"])
def test_a_plane_filled_in_parts(suffix, tmp_path):
    like = Volume(stack(1, 60, 70))
    with io.create_lazy(tmp_path / f"mask{suffix}", like) as file:
        file[10:20, 5:] = 2
    assert io.read_labels(tmp_path / f"mask{suffix}").data.sum() == 2 * 10 * 65


@pytest.mark.parametrize("suffix", [*IN_PARTS, ".nii.gz"])
def test_nothing_is_left_of_a_file_that_was_given_up(suffix, tmp_path):
    like = Volume(stack(1, 5, 6, 7), GRID)

    def half(file):
        file[0] = 1
        raise KeyError

    with pytest.raises(KeyError), io.create_lazy(tmp_path / f"a{suffix}", like) as file:
        half(file)
    assert not os.listdir(tmp_path)


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(WriteError, match="the disk is full"),
        io.create_lazy(tmp_path / "a.nii", Volume(stack(1, 5, 6, 7))),
    ):
        pytest.fail("was entered")
    assert not os.listdir(tmp_path)


def by_tifffile(path, kind):
    array = stack(5, 300, 400, dtype=np.uint8)
    if kind == "tiles":
        tifffile.imwrite(
            path, array, tile=(64, 64), compression="zlib", photometric="minisblack", metadata={"axes": "ZYX"}, ome=True
        )
    elif kind == "pyramid":
        with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
            tif.write(array, subifds=1, tile=(64, 64), photometric="minisblack", metadata={"axes": "ZYX"})
            tif.write(array[:, ::2, ::2], subfiletype=1, tile=(64, 64), photometric="minisblack")
    elif kind == "imagej":
        tifffile.imwrite(path, np.stack([array] * 2, 1).astype(np.uint16), imagej=True, metadata={"axes": "ZCYX"})
    elif kind == "big endian":
        tifffile.imwrite(path, array.astype(">u2"), byteorder=">")
    elif kind == "rgb":
        tifffile.imwrite(path, array[:3].transpose(1, 2, 0), photometric="rgb", compression="zlib")
    else:
        rgba = np.concatenate([array[:3], np.full_like(array[:1], 255)])
        rgba[3, 299, 399] = 0 if kind == "alpha" else 255
        tifffile.imwrite(path, rgba.transpose(1, 2, 0), photometric="rgb", extrasamples=["unassalpha"])


@pytest.mark.parametrize("kind", ["tiles", "pyramid", "imagej", "big endian", "rgb", "alpha", "idle alpha"])
def test_tiffs_of_others_in_regions(kind, tmp_path):
    by_tifffile(tmp_path / "a.tif", kind)
    lazy = same_in_parts(tmp_path / "a.tif")
    assert lazy.chunks is None or kind not in ("tiles", "pyramid") or lazy.chunks == (1, 1, 64, 64)


def test_palettes_and_compressed_files_are_read_as_a_whole(tmp_path):
    table = RNG.integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack(60, 70, dtype=np.uint8), photometric="palette", colormap=table)
    same_in_parts(tmp_path / "a.tif", in_memory=True)
    io.write(tmp_path / "a.nii.gz", Volume(stack(1, 5, 6, 7), GRID))
    same_in_parts(tmp_path / "a.nii.gz", in_memory=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_scaled_nifti_in_regions(dtype, tmp_path):
    image = nib.Nifti1Image(stack(7, 6, 5, 2, dtype=dtype), np.diag((-1.0, 2, 3, 1)))
    image.header.set_slope_inter(0.5, -3)
    image.header.set_data_dtype(dtype)
    nib.save(image, tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii")
    raw.header["scl_slope"], raw.header["scl_inter"] = 0.25, -3
    with (tmp_path / "a.nii").open("r+b") as file:
        file.seek(112)
        file.write(np.array([0.25, -3], np.float32).tobytes())
    same_in_parts(tmp_path / "a.nii")


def test_a_region_costs_the_memory_of_a_region(tmp_path):
    like = Volume(np.broadcast_to(np.uint8(0), (1, 40, 1000, 1000)))
    for suffix in (".nii", ".tif", ".ome.zarr"):
        tracemalloc.start()
        with io.create_lazy(tmp_path / f"a{suffix}", like) as file:
            file[10:12, 100:200] = 3
        lazy = io.open_lazy(tmp_path / f"a{suffix}")
        assert lazy[0, 11, 150, 7] == 3
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6  # the whole is 40 MB


def test_regions_that_do_not_fit(tmp_path):
    lazy = io.open_lazy(io.write(tmp_path / "a.nii", Volume(stack(1, 5, 6, 7))))
    with pytest.raises(GeometryError, match="skip"):
        lazy[:, ::2]
    with pytest.raises(GeometryError, match="5 axes"):
        lazy[0, 0, 0, 0, 0]
    with pytest.raises(IndexError):
        lazy[0, 5]
    assert lazy[:, 4:99].shape == (1, 1, 6, 7)
    assert lazy[:, 3:1].shape == (1, 0, 6, 7)
    writer = io.create_lazy(tmp_path / "b.nii", lazy)
    with pytest.raises(GeometryError, match="not open"):
        writer[0] = 1
    with writer as file, pytest.raises(GeometryError, match="do not fit"):
        file[0] = np.ones((3, 3))


def test_raw_values_keep_the_channels_where_the_file_has_them(tmp_path):
    array = stack(3, 5, 6)
    raw = RawFile.make(tmp_path / "a.raw", 16, array.shape, ">u2", last=True)
    raw[(slice(0, 3), slice(0, 5), slice(0, 6))] = array
    stored = np.frombuffer((tmp_path / "a.raw").read_bytes()[16:], ">u2").reshape(5, 6, 3)
    assert np.array_equal(stored, np.moveaxis(array, 0, -1))


def test_masks_of_other_values_are_kept_as_they_are(tmp_path):
    like = LabelVolume(np.zeros((5, 6, 7), np.uint8), GRID)
    with io.create_lazy(tmp_path / "a.nii", like, np.int32) as file:
        file[0] = -70000
    assert io.read_labels(tmp_path / "a.nii").data.min() == -70000
