"""NRRD and MetaImage as ITK and 3D Slicer write them, and as nobody should."""

import bz2
import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RNG = np.random.default_rng(4)
STEPS = "(1,0,0) (0,2,0) (0,0,3)"
VALUES = RNG.integers(-500, 500, (5, 6, 7)).astype(np.int16)


def by_itk(path, array=VALUES, compressed=False, vector=False):
    """A turned scan, written by ITK itself; gives the world position (RAS) of a voxel ``(z, y, x)``."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if array.ndim - vector == 3:
        turn, _ = np.linalg.qr(np.array([[1, 0.3, 0.1], [-0.2, 1, 0.2], [0.1, -0.1, 1]]))
        image.SetDirection(turn.ravel())
        image.SetSpacing((0.7, 0.8, 2.5))
        image.SetOrigin((-90.5, 12.25, 301.125))
    sitk.WriteImage(image, str(path), compressed)
    return lambda z, y, x: np.array(image.TransformIndexToPhysicalPoint((x, y, z))) * (-1, -1, 1)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_what_itk_writes(suffix, compressed, tmp_path):
    path = tmp_path / f"scan{suffix}"
    where = by_itk(path, compressed=compressed)
    volume = io.read(path)
    assert np.array_equal(volume.data, VALUES[None])
    assert volume.data.dtype == np.int16
    assert volume.geometry.spacing == pytest.approx((2.5, 0.8, 0.7))
    assert (volume.geometry.unit, volume.geometry.world, volume.geometry.oblique) == ("mm", "RAS+", True)
    assert volume.geometry.to_world((3, 1, 4)) == pytest.approx(where(3, 1, 4), abs=1e-6)
    lazy = io.open_lazy(path)
    assert lazy.in_memory == compressed
    assert np.array_equal(lazy[0, 1:3, 2], VALUES[1:3, 2])
    assert lazy.geometry.matches(volume.geometry, 1e-9)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_vectors_are_channels(suffix, tmp_path):
    array = RNG.normal(size=(5, 6, 7, 3)).astype(np.float32)
    where = by_itk(tmp_path / f"scan{suffix}", array, vector=True)
    volume = io.read(tmp_path / f"scan{suffix}")
    assert np.array_equal(volume.data, np.moveaxis(array, -1, 0))
    assert volume.geometry.to_world((3, 1, 4)) == pytest.approx(where(3, 1, 4), abs=1e-6)
    back = sitk.ReadImage(str(io.write(tmp_path / f"back{suffix}", volume, like=volume)))
    assert np.array_equal(sitk.GetArrayFromImage(back), array)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_plane(suffix, tmp_path):
    by_itk(tmp_path / f"plane{suffix}", VALUES[0])
    volume = io.read(tmp_path / f"plane{suffix}")
    assert np.array_equal(volume.data, VALUES[:1])
    geometry = Geometry((0.5, 0.25), "mm").shifted((3, 4))
    path = io.write(tmp_path / f"back{suffix}", Volume(VALUES[:1], geometry))
    seen = sitk.ReadImage(str(path))
    assert seen.GetSpacing() == (0.25, 0.5)
    assert seen.TransformIndexToPhysicalPoint((2, 1)) == pytest.approx(geometry.to_world((1, 2))[:0:-1])


def write_nrrd(path, lines, data):
    path.write_bytes(("NRRD0004\n" + "\n".join(lines) + "\n\n").encode() + data)
    return path


def nrrd_lines(**changed):
    fields = {"type": "short", "dimension": "3", "sizes": "7 6 5", "endian": "little", "encoding": "raw", **changed}
    return [f"{name.replace('_', ' ')}: {value}" for name, value in fields.items() if value is not None]


@pytest.mark.parametrize(
    ("changed", "data"),
    [
        ({}, VALUES.tobytes()),
        ({"endian": "big"}, VALUES.astype(">i2").tobytes()),
        ({"encoding": "gzip"}, gzip.compress(VALUES.tobytes())),
        ({"encoding": "bzip2"}, bz2.compress(VALUES.tobytes())),
        ({"encoding": "ascii"}, " ".join(map(str, VALUES.ravel())).encode()),
        ({"byte skip": "-1"}, b"rubbish" + VALUES.tobytes()),
        ({"byte skip": "5"}, b"12345" + VALUES.tobytes()),
        ({"line skip": "2"}, b"one\ntwo\n" + VALUES.tobytes()),
        ({"encoding": "gz", "byte skip": "3"}, gzip.compress(b"123" + VALUES.tobytes())),
        ({"dimension": "4", "sizes": "1 7 6 5", "kinds": "list domain domain domain"}, VALUES.tobytes()),
    ],
)
def test_nrrd_in_all_its_encodings(changed, data, tmp_path):
    assert np.array_equal(io.read(write_nrrd(tmp_path / "a.nrrd", nrrd_lines(**changed), data)).data, VALUES[None])


@pytest.mark.parametrize(
    ("changed", "spacing", "unit", "corner"),
    [
        ({"spacings": "0.1 0.2 0.3", "units": '"um" "um" "um"'}, (0.3, 0.2, 0.1), "um", (0, 0, 0)),
        ({"spacings": "1 2 nan"}, (1, 2, 1), "pixel", (0, 0, 0)),
        ({"spacings": "1 2 3", "axis mins": "1 2 3", "units": '"cm" "cm" "cm"'}, (30, 20, 10), "mm", (30, 20, 10)),
        ({"space": "RAS", "space directions": STEPS, "space origin": "(5,6,7)"}, (3, 2, 1), "mm", (5, 6, 7)),
        ({"space": "LPS", "space directions": STEPS, "space origin": "(5,6,7)"}, (3, 2, 1), "mm", (-5, -6, 7)),
        ({"space": "LAS", "space directions": STEPS, "space origin": "(5,6,7)",
          "space units": '"um" "um" "um"'}, (0.003, 0.002, 0.001), "mm", (-0.005, 0.006, 0.007)),
        ({"space dimension": "3", "space directions": STEPS, "space units": '"nm" "nm" "nm"'},
         (3, 2, 1), "nm", (0, 0, 0)),
    ],
)  # fmt: skip
def test_nrrd_places_and_units(changed, spacing, unit, corner, tmp_path):
    geometry = io.read(write_nrrd(tmp_path / "a.nrrd", nrrd_lines(**changed), VALUES.tobytes())).geometry
    assert geometry.spacing == pytest.approx(spacing)
    assert geometry.unit == unit
    assert geometry.origin == pytest.approx(corner)


def mha(path, data, **changed):
    fields = {"NDims": "3", "DimSize": "7 6 5", "ElementType": "MET_SHORT", **changed}
    last = fields.pop("ElementDataFile", "LOCAL")
    lines = [f"{name} = {value}" for name, value in fields.items()] + [f"ElementDataFile = {last}"]
    path.write_bytes(("\n".join(lines) + "\n").encode() + data)
    return path


@pytest.mark.parametrize(
    ("changed", "data"),
    [
        ({"BinaryDataByteOrderMSB": "True"}, VALUES.astype(">i2").tobytes()),
        ({"ElementByteOrderMSB": "False"}, VALUES.tobytes()),
        ({"CompressedData": "True"}, zlib.compress(VALUES.tobytes())),
        ({"CompressedData": "True"}, gzip.compress(VALUES.tobytes())),
        ({"BinaryData": "False"}, " ".join(map(str, VALUES.ravel())).encode()),
        ({"NDims": "4", "DimSize": "7 6 5 1"}, VALUES.tobytes()),
    ],
)
def test_metaimage_in_all_its_encodings(changed, data, tmp_path):
    volume = io.read(mha(tmp_path / "a.mha", data, **changed))
    assert np.array_equal(volume.data, VALUES[None])
    assert volume.geometry.unit == "pixel"


def test_metaimage_with_a_header_inside_the_detached_file(tmp_path):
    (tmp_path / "a.img").write_bytes(b"x" * 512 + VALUES.tobytes())
    for size in ("512", "-1"):
        path = mha(tmp_path / "a.mhd", b"", ElementDataFile="a.img", HeaderSize=size, ElementSpacing="1 2 3")
        assert np.array_equal(io.read(path).data, VALUES[None])
        assert io.read(path).geometry.spacing == (3, 2, 1)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "sub/../../secret.raw", "link.raw"])
def test_values_outside_the_folder_are_not_read(name, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    made = [
        mha(folder / "a.mhd", b"", ElementDataFile=name),
        write_nrrd(folder / "a.nhdr", nrrd_lines(data_file=name), b""),
    ]
    for path in made:
        with pytest.raises(ReadError, match="outside its folder"):
            io.read(path)


def bomb() -> bytes:
    squeeze = zlib.compressobj(9)
    return squeeze.compress(bytes(2**24)) + squeeze.flush()


@pytest.mark.parametrize(
    ("changed", "data", "message"),
    [
        ({}, VALUES.tobytes()[:-1], "cut short"),
        ({"DimSize": "70000 60000 50000"}, VALUES.tobytes(), "cut short or damaged"),
        ({"DimSize": "-7 6 5"}, VALUES.tobytes(), "damaged header"),
        ({"DimSize": "7 6"}, VALUES.tobytes(), "damaged header"),
        ({"ElementType": "MET_OTHER"}, VALUES.tobytes(), "type MET_OTHER"),
        ({"CompressedData": "True"}, zlib.compress(VALUES.tobytes())[:-20], "cut short|cannot be unpacked"),
        ({"CompressedData": "True"}, b"x" * 400, "cannot be unpacked"),
        ({"CompressedData": "True"}, zlib.compress(VALUES.tobytes() + b"xy"), "unpacks to more"),
        ({"CompressedData": "True"}, bomb(), "unpacks to more"),
        ({"CompressedData": "True", "DimSize": "4000 4000 4000"}, zlib.compress(bytes(2**20)), "damaged: its header"),
        ({"ElementDataFile": "gone.raw"}, b"", "missing"),
        ({"ElementDataFile": "slice%03d.raw 1 5 1"}, b"", "several files"),
        ({"ElementDataFile": "LIST"}, b"", "several files"),
        ({"ElementSpacing": "0 1 1"}, VALUES.tobytes(), "voxel size"),
        ({"Offset": "nan 1 1"}, VALUES.tobytes(), "position"),
        ({"NDims": "4", "DimSize": "7 6 5 2"}, VALUES.tobytes(), "cut short"),
    ],
)
def test_metaimages_that_lie(changed, data, message, tmp_path):
    path = mha(tmp_path / "a.mha", data, **changed)
    for read in (io.read, io.open_lazy):
        with pytest.raises(ReadError, match=message) as caught:
            read(path)
        assert "a.mha" in caught.value.message or ".raw" in caught.value.message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": "70000 60000 50000"}, "cut short or damaged"),
        ({"sizes": "7 6"}, "header"),
        ({"type": "block"}, "type block"),
        ({"encoding": "hex"}, "packed as hex"),
        ({"encoding": "gzip", "byte skip": str(2**40)}, "skips"),
        ({"data file": "LIST"}, "several files"),
        ({"kinds": "complex domain domain"}, "complex"),
        ({"space": "LPS", "space directions": "(1,0,0) (0,0,0) (0,0,3)"}, "voxel size"),
        ({"dimension": None}, "damaged"),
    ],
)
def test_nrrds_that_lie(changed, message, tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", nrrd_lines(**changed), VALUES.tobytes())
    with pytest.raises(ReadError, match=message) as caught:
        io.read(path)
    assert "a.nrrd" in caught.value.message


@pytest.mark.parametrize(("suffix", "other"), [(".nhdr", ".nrrd")])
def test_detached_headers_are_not_written(suffix, other, tmp_path):
    with pytest.raises(WriteError, match="two files") as caught:
        io.write(tmp_path / f"a{suffix}", LabelVolume(np.ones((3, 4, 5), np.uint8)))
    assert other in caught.value.hint
    assert not list(tmp_path.iterdir())
