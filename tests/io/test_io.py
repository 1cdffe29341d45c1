"""Bad input gets one line about it; lists come in the order people expect."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

SUFFIXES = [suffix for name in io.FORMATS for suffix in io.FORMATS[name].suffixes]


def refused(path, read=io.read) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read(path)
    assert Path(path).name in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_nothing_heavy_is_imported():
    code = "import sys, json, napari_unetseg.io; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert not loaded & {"torch", "scipy", "nibabel", "tifffile", "PIL", "imageio", "skimage", "qtpy", "napari"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_no_images(suffix, tmp_path):
    assert "does not exist" in refused(tmp_path / f"missing{suffix}").message
    (tmp_path / f"empty{suffix}").touch()
    assert "empty" in refused(tmp_path / f"empty{suffix}").message
    (tmp_path / f"text{suffix}").write_text("<html>404 not found</html>" * 30)
    assert "is not a" in refused(tmp_path / f"text{suffix}").message
    (tmp_path / f"folder{suffix}").mkdir()
    assert "is a folder" in refused(tmp_path / f"folder{suffix}").message
    for size in (1, 3, 8, 100, 400, 5000):
        (tmp_path / f"noise{suffix}").write_bytes(np.random.default_rng(size).bytes(size))
        refused(tmp_path / f"noise{suffix}")


@pytest.mark.parametrize("name", ["scan.docx", "scan", "scan.tif.bak"])
def test_an_unknown_suffix_lists_the_known(name, tmp_path):
    (tmp_path / name).write_text("something")
    error = refused(tmp_path / name)
    assert all(suffix in error.hint for suffix in (".nii.gz", ".tif", ".png"))
    with pytest.raises(WriteError, match=name) as caught:
        io.write(tmp_path / name, LabelVolume(np.ones((6, 7), np.uint8)))
    assert ".nii.gz" in caught.value.hint
    assert (tmp_path / name).read_text() == "something"


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_labels_are_whole_numbers(suffix, tmp_path):
    for values, words in (([0.0, 1.0, 0.5], "not whole"), ([0.0, np.nan, 1.0], "not whole"), ([0, 1, 1e30], "large")):
        path = io.write(tmp_path / f"a{suffix}", Volume(np.array([[values]], np.float32)))
        assert words in refused(path, io.read_labels).message
    path = io.write(tmp_path / f"a{suffix}", Volume(np.array([[[0.0, 300.0, 2.0]]], np.float32)))
    labels = io.read_labels(path)
    assert labels.data.dtype == np.uint16
    assert labels.data.tolist() == [[0, 300, 2]]


def test_a_colour_picture_is_not_labels(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)).save(tmp_path / "a.png")
    assert "3 channels that differ" in refused(tmp_path / "a.png", io.read_labels).message


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".png"])
def test_nothing_to_write(suffix, tmp_path):
    with pytest.raises(WriteError, match="no voxels"):
        io.write(tmp_path / f"a{suffix}", LabelVolume(np.zeros((0, 7), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_a_single_pixel_and_a_hundred_channels(tmp_path):
    for shape in ((1, 1, 1), (100, 6, 7), (1, 1, 1, 1)):
        data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert np.array_equal(io.read(io.write(tmp_path / "a.tif", Volume(data))).data, data)


def test_not_a_number_survives(tmp_path):
    data = np.full((1, 6, 7), np.nan, np.float32)
    for suffix in (".tif", ".nii.gz"):
        assert np.isnan(io.read(io.write(tmp_path / f"a{suffix}", Volume(data))).data).all()


@pytest.mark.parametrize("made", [".tif", ".nii.gz"])
@pytest.mark.parametrize("wanted", [".tif", ".nii.gz"])
def test_a_mask_may_go_out_in_another_family(made, wanted, tmp_path):
    affine = np.diag((0.0, 0.0, 0.0, 1.0))
    affine[[0, 1, 2], [2, 1, 0]] = (-0.5, 0.75, 2)
    scan = io.read(
        io.write(tmp_path / f"a{made}", Volume(np.zeros((1, 5, 6, 7)), Geometry((2, 0.75, 0.5), "mm", affine, "RAS+")))
    )
    mask = io.read_labels(io.write(tmp_path / f"m{wanted}", LabelVolume(np.ones((5, 6, 7), int)), like=scan))
    assert mask.geometry.matches(scan.geometry)
    assert mask.geometry.world == "RAS+"


@pytest.fixture
def folder(tmp_path):
    for name in ("scan10.tif", "scan2.TIF", "Scan1.nii.gz", "notes.txt", ".hidden.tif", "sub/a.png", "sub/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "c.png").touch()
    return tmp_path


def test_images_are_found_in_natural_order(folder):
    def found(*source, **how):
        return [p.relative_to(folder).as_posix() for p in io.find_images(*source, **how)]

    assert found(folder) == ["Scan1.nii.gz", "scan2.TIF", "scan10.tif", "sub/a.png"]
    assert found(folder, recursive=False) == ["Scan1.nii.gz", "scan2.TIF", "scan10.tif"]
    assert found(str(folder / "*.[tT][iI][fF]")) == ["scan2.TIF", "scan10.tif"]
    assert found(str(folder / "**" / "*.png")) == ["sub/a.png"]
    assert found(folder / "notes.txt") == ["notes.txt"]
    assert found([folder / "scan10.tif", folder / "sub", folder / "scan10.tif"]) == ["scan10.tif", "sub/a.png"]


def test_brackets_in_a_name_are_no_pattern(tmp_path):
    (tmp_path / "scan [1].tif").touch()
    assert io.find_images(tmp_path / "scan [1].tif") == [tmp_path / "scan [1].tif"]


def test_links_that_lead_back_up_are_followed_once(folder):
    (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    assert len(io.find_images(folder)) == 4


def test_nothing_found(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "*.tif", [], [tmp_path / "empty"]):
        with pytest.raises(ReadError, match=r"no image") as caught:
            io.find_images(source)
        assert ".nii.gz" in caught.value.hint
    with pytest.raises(ReadError, match=r"nowhere.* does not exist"):
        io.find_images(tmp_path / "nowhere")


def test_stems():
    pairs = {"scan.nii.gz": "scan", "a.ome.tif": "a", "a.OME.TIFF": "a", "b.2.png": "b.2", "c.dat": "c", "d/e.bmp": "e"}
    assert {name: io.stem(name) for name in pairs} == pairs
