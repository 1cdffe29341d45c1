"""The contract of every file format: what is written comes back, and others see it in the same place."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from PIL import Image

import napari_unetseg.io as io
from napari_unetseg.errors import UnetSegError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

SUFFIXES = [(name, suffix) for name in io.FORMATS for suffix in io.FORMATS[name].suffixes]
# DICOM holds masks only, of its own images: see test_dicom_seg.py
FAMILIES = [name for name in io.FORMATS if name != "dicom"]
DTYPES = ["uint8", "int16", "uint16", "int32", "float16", "float32", "float64"]


def turned(spacing=(2.5, 0.8, 0.7)) -> Geometry:
    """An oblique grid in patient space."""
    turn, _ = np.linalg.qr(np.array([[1, 0.2, -0.1], [0.1, 1, 0.3], [-0.2, 0.1, 1]]))
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * spacing
    affine[:3, 3] = (-91.5, 126.25, -72.125)
    return Geometry(spacing, "mm", affine, "RAS+")


GEOMETRIES = {
    "oblique": turned(),
    "micrometres": Geometry((0.29, 0.1032, 0.1032), "um"),
    "millimetres": Geometry((3.0, 0.9765625, 0.9765625), "mm"),
    "unknown": Geometry((1.0, 1.0, 1.0)),
}

STAGE = Geometry((0.29, 0.1032, 0.1032), "um").shifted((26, -11630, 3009))  # somewhere on the microscope's stage


def plane_of(geometry: Geometry) -> Geometry:
    return Geometry(geometry.spacing[1:], geometry.unit)


def image(shape, dtype="uint16", geometry=None) -> Volume:
    rng = np.random.default_rng(5)
    data = rng.integers(0, 120, shape).astype(dtype)
    return Volume(data + data.dtype.type(0.5) if data.dtype.kind == "f" else data, geometry)


def labels(shape, geometry=None, most=3) -> LabelVolume:
    return LabelVolume(np.random.default_rng(6).integers(0, most + 1, shape).astype(np.int64), geometry)


def same_grid(a: Geometry, b: Geometry) -> bool:
    return a.matches(b, 1e-4) and np.allclose(a.spacing, b.to_unit(a.unit).spacing, rtol=1e-5)


def keeps(name: str) -> str:
    return io.FORMATS.facts(name)["keeps"]


@pytest.mark.parametrize(("name", "suffix"), SUFFIXES)
def test_every_format_is_found_by_its_suffix_in_any_case(name, suffix):
    assert io.FORMATS.describe(name)
    for spelled in (suffix, suffix.upper(), suffix.title()):
        assert io.is_image("a/b.c" + spelled)
        assert io.stem("a/b.c" + spelled) == "b.c"
        assert io.mask_suffix("b" + spelled) == io.FORMATS[name].mask_suffix
    assert io.is_image("mask" + io.FORMATS[name].mask_suffix)
    assert not io.is_image(suffix)


def holds(name: str, volume: Volume) -> bool:
    """Whether a format has a place for such an image."""
    channels, dtype = len(volume.data), str(volume.data.dtype)
    if name == "raster":
        return volume.ndim == 2 and (channels, dtype) in [(1, "uint8"), (3, "uint8"), (1, "uint16")]
    return name != "nifti" or volume.ndim == 3 or channels == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 6, 7), (3, 6, 7), (1, 5, 6, 7), (2, 5, 6, 7), (1, 1, 6, 7)])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_comes_back_or_is_refused_in_a_sentence(name, shape, dtype, tmp_path):
    geometry = turned() if len(shape) == 4 else Geometry((0.5, 0.25), "um")
    volume = image(shape, dtype, geometry)
    path = tmp_path / f"image{io.FORMATS[name].mask_suffix}"
    if not holds(name, volume):
        with pytest.raises(UnetSegError) as caught:
            io.write(path, volume)
        assert path.name in caught.value.message
        assert caught.value.hint
        assert not list(tmp_path.iterdir())
        return
    io.write(path, volume)
    back = io.read(path)
    assert np.array_equal(back.data, volume.data)
    assert back.data.dtype == ("float32" if dtype == "float16" else dtype)
    assert keeps(name) == "nothing" or same_grid(volume.geometry, back.geometry)


@pytest.mark.parametrize("most", [3, 300, 70000])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("grid", list(GEOMETRIES))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_mask_lies_on_its_image(name, grid, ndim, most, tmp_path):
    if name == "raster" and (ndim == 3 or most > 65535):
        pytest.skip("PNG holds one plane of 16 bits")
    geometry = GEOMETRIES[grid] if ndim == 3 else plane_of(GEOMETRIES[grid])
    shape = (5, 60, 70)[-ndim:]
    suffix = io.FORMATS[name].mask_suffix
    scan = io.read(io.write(tmp_path / f"scan{suffix}", image((1, *shape), "uint8", geometry)))
    mask = labels(shape, most=most)
    path = io.write(tmp_path / "new" / f"mask{suffix}", mask, like=scan)
    back = io.read_labels(path)
    assert np.array_equal(back.data, mask.data)
    assert back.data.dtype == {3: np.uint8, 300: np.uint16, 70000: np.uint32}[most]
    assert back.path == path
    assert same_grid(scan.geometry, back.geometry)
    assert (back.geometry.unit, back.geometry.world) == (scan.geometry.unit, scan.geometry.world)
    if keeps(name) == "affine":
        assert same_grid(geometry, back.geometry)
        assert (back.geometry.unit, back.geometry.world) == (geometry.unit, geometry.world)


def seen_by_others(path) -> tuple[np.ndarray, np.ndarray]:
    """World position of the one marked voxel of a file, and the step of each array axis, without our reader."""
    if path.name.endswith(".nii.gz"):
        seen = nib.load(path)
        index = np.argwhere(np.asarray(seen.dataobj))[0]
        return nib.affines.apply_affine(seen.affine, index), np.array(seen.header.get_zooms()[::-1])
    if path.suffix in (".mha", ".nrrd"):
        seen = sitk.ReadImage(str(path))
        index = np.argwhere(sitk.GetArrayFromImage(seen))[0]
        left, posterior, superior = seen.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])
        return np.array([-left, -posterior, superior]), np.array(seen.GetSpacing()[::-1])
    if path.suffix == ".png":
        index = np.argwhere(np.asarray(Image.open(path)))[0]
        return np.array([0, *index]), np.ones(2)
    if path.suffix == ".zarr":
        attributes = dict(zarr.open_group(path, mode="r").attrs)
        level = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]
        scale, translation = (step[step["type"]] for step in level["coordinateTransformations"])
        index = np.argwhere(zarr.open_array(path / level["path"], mode="r")[...])[0]
        return index * scale + translation, np.array(scale)
    with tifffile.TiffFile(path) as tif:
        array = tif.asarray()
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    steps = np.array([pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"[-array.ndim :]])
    first = pixels["Plane"][0]
    start = np.array([first[f"Position{axis}"] for axis in "ZYX"])
    return start + np.argwhere(array)[0] * steps, steps


@pytest.mark.parametrize(("name", "header"), [*((name, {}) for name in FAMILIES), ("ome-zarr", {"ome-zarr": "0.5"})])
def test_another_library_sees_a_marked_voxel_at_the_same_place(name, header, tmp_path):
    geometry = {"tiff": STAGE, "ome-zarr": STAGE, "raster": Geometry((1, 1))}.get(name, turned())
    shape = (5, 6, 7)[-geometry.ndim :]
    index = (3, 1, 4)[-geometry.ndim :]
    mask = LabelVolume(np.zeros(shape, np.uint8), geometry, header=header)
    mask.data[index] = 2
    path = io.write(tmp_path / f"mask{io.FORMATS[name].mask_suffix}", mask)
    where, steps = seen_by_others(path)
    assert where == pytest.approx(geometry.to_world(index), abs=1e-4)
    assert steps == pytest.approx(geometry.spacing, rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_part_of_an_image_keeps_its_place(name, tmp_path):
    if keeps(name) != "affine":
        pytest.skip("holds no place")
    scan = image((1, 5, 6, 7), geometry=turned())
    part = scan.crop((slice(2, 4), slice(1, 5), slice(3, 6)))
    back = io.read(io.write(tmp_path / f"part{io.FORMATS[name].mask_suffix}", part, like=part))
    assert back.geometry.to_world((1, 1, 1)) == pytest.approx(scan.geometry.to_world((3, 2, 4)), abs=1e-4)


@pytest.mark.parametrize("name", list(io.FORMATS))
def test_a_mask_of_another_shape_or_place_is_refused(name, tmp_path):
    path = tmp_path / f"mask{io.FORMATS[name].mask_suffix}"
    scan = image((1, 6, 7), "uint8", Geometry((0.5, 0.5), "um"))
    with pytest.raises(UnetSegError, match=r"shape \(6, 8\) is not the shape \(6, 7\)"):
        io.write(path, labels((6, 8)), like=scan)
    with pytest.raises(UnetSegError, match="elsewhere"):
        io.write(path, labels((6, 7), Geometry((2, 2), "um")), like=scan)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_cut_short_is_never_read_as_if_it_were_whole(name, tmp_path):
    path = tmp_path / f"image{io.FORMATS[name].mask_suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), np.uint8)
    io.write(path, Volume(noise[:, 0] if name == "raster" else noise))
    if path.is_dir():
        file = max((one for one in path.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size)
    else:
        file = path
    whole = file.read_bytes()
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UnetSegError) as caught:
            io.read(path)
        assert path.name in caught.value.message
        assert "\n" not in str(caught.value)
        assert caught.value.hint
