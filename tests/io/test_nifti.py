"""NIfTI as nibabel and others write it: orientation, units, scaling, odd numbers of axes."""

import gzip

import nibabel as nib
import numpy as np
import pytest

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RNG = np.random.default_rng(4)
SHEARED = np.array([[-0.7, 0.1, 0.3, 12], [0.02, 0.8, -0.2, -40], [0.1, 0.15, 2.4, 7.5], [0, 0, 0, 1]])


def array(shape=(7, 6, 5), dtype=np.int16, most=400):
    return RNG.integers(0, most, shape).astype(dtype)


def save(tmp_path, data, affine=SHEARED, name="a.nii.gz", kind=nib.Nifti1Image, **codes):
    image = kind(data, affine)
    for form, code in codes.items():
        getattr(image, f"set_{form}")(affine, code)
    nib.save(image, tmp_path / name.lower())
    return (tmp_path / name.lower()).rename(tmp_path / name)


def test_values_and_world_are_nibabels(tmp_path):
    data = array()
    volume = io.read(save(tmp_path, data))
    assert np.array_equal(volume.data, data.T[None])
    assert volume.data.dtype == np.int16
    assert volume.data.flags.c_contiguous
    assert (volume.geometry.unit, volume.geometry.world) == ("mm", "RAS+")
    for x, y, z in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (3, 2, 1)]:
        assert volume.geometry.to_world((z, y, x)) == pytest.approx(
            nib.affines.apply_affine(SHEARED, (x, y, z)), abs=1e-4
        )
    assert volume.geometry.spacing == pytest.approx(nib.affines.voxel_sizes(SHEARED)[::-1], rel=1e-6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII", "A.Nii.GZ"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_plain_and_gzipped(kind, name, tmp_path):
    data = array()
    path = save(tmp_path, data, name=name, kind=kind)
    scan = io.read(path)
    assert np.array_equal(scan.data[0], data.T)
    mask = io.write(tmp_path / f"mask{name[1:]}", LabelVolume(data.T % 3), like=scan)
    assert np.array_equal(io.read_labels(mask).data, data.T % 3)
    assert isinstance(nib.load(mask.rename(mask.with_name(mask.name.lower()))), kind)


def test_the_mask_keeps_both_forms_and_codes_of_its_scan(tmp_path):
    sform, qform = np.diag((-2.0, 2, 3, 1)), np.diag((2.0, 2, 3, 1))
    image = nib.Nifti1Image(array(), None)
    image.set_sform(sform, 4)
    image.set_qform(qform, 1)
    image.header["descrip"] = b"scanner"
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "a.nii.gz")
    scan = io.read(tmp_path / "a.nii.gz")
    io.write(tmp_path / "m.nii.gz", LabelVolume(np.ones(scan.shape, np.int64)), like=scan)
    mask = nib.load(tmp_path / "m.nii.gz")
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (4, 1)
    assert np.array_equal(mask.get_sform(), sform)
    assert mask.get_qform() == pytest.approx(qform)
    assert mask.header["descrip"] == mask.header["db_name"] == b""  # free text may name the patient
    assert mask.get_data_dtype() == np.uint8
    assert mask.header.get_slope_inter() in [(1, 0), (None, None)]
    assert mask.header.get_xyzt_units() == ("mm", "sec")


def test_only_a_qform(tmp_path):
    affine = nib.affines.from_matvec(np.diag((-2.0, 2, 3)), (9, 8, 7))
    path = save(tmp_path, array(), affine, sform=0, qform=1)
    assert nib.load(path).header["sform_code"] == 0
    scan = io.read(path)
    assert scan.geometry.to_world((1, 1, 1)) == pytest.approx((7, 10, 10))
    back = nib.load(io.write(tmp_path / "m.nii.gz", LabelVolume(np.ones(scan.shape, int)), like=scan))
    assert (int(back.header["sform_code"]), int(back.header["qform_code"])) == (0, 1)
    assert back.affine == pytest.approx(affine)


def test_a_crop_written_like_itself_leaves_no_stale_form(tmp_path):
    scan = io.read(save(tmp_path, array(), np.diag((-2.0, 2, 3, 1)), sform=1, qform=1))
    part = scan.crop((slice(1, 3), slice(2, 5), slice(3, 6)))
    written = nib.load(io.write(tmp_path / "part.nii.gz", part))
    assert written.get_sform() == pytest.approx(written.get_qform())
    assert nib.affines.apply_affine(written.affine, (0, 0, 0)) == pytest.approx((-6, 4, 3))


def test_scaled_integers_are_scaled(tmp_path):
    data = array()
    image = nib.Nifti1Image(data, SHEARED)
    image.header.set_slope_inter(0.5, -10)
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        image.header["vox_offset"] = 352
        file.write(image.header.binaryblock + bytes(4) + data.tobytes(order="F"))
    volume = io.read(tmp_path / "a.nii.gz")
    assert volume.data.dtype == np.float32
    assert volume.data[0] == pytest.approx(data.T * 0.5 - 10)
    mask = nib.load(io.write(tmp_path / "m.nii.gz", LabelVolume(data.T % 3), like=volume))
    assert np.array_equal(np.asarray(mask.dataobj), data % 3)
    assert mask.get_data_dtype() == np.uint8


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
def test_the_world_is_in_millimetres(unit, factor, tmp_path):
    image = nib.Nifti1Image(array(), SHEARED)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = io.read(tmp_path / "a.nii.gz")
    assert scan.geometry.unit == "mm"
    assert scan.geometry.affine[:3, 3] == pytest.approx(SHEARED[:3, 3] * factor, rel=1e-5)
    back = nib.load(io.write(tmp_path / "m.nii.gz", LabelVolume(np.ones(scan.shape, int)), like=scan))
    assert back.header.get_xyzt_units()[0] == unit
    assert np.array_equal(back.affine, nib.load(tmp_path / "a.nii.gz").affine)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 6), (1, 6, 7)),
        ((7, 6, 1), (1, 1, 6, 7)),
        ((7, 6, 5), (1, 5, 6, 7)),
        ((7, 6, 5, 1), (1, 5, 6, 7)),
        ((7, 6, 5, 3), (3, 5, 6, 7)),
        ((7, 6, 1, 3), (3, 1, 6, 7)),
        ((7, 6, 5, 1, 3), (3, 5, 6, 7)),
    ],
)
def test_axes(shape, expected, tmp_path):
    data = array(shape)
    volume = io.read(save(tmp_path, data))
    assert volume.data.shape == expected
    assert volume.ndim == min(len(shape), 3)
    assert np.array_equal(volume.data.ravel(), data.ravel(order="F"))
    mask = LabelVolume(np.ones(volume.shape, np.uint8))
    assert nib.load(io.write(tmp_path / "m.nii.gz", mask, like=volume)).shape == shape[: min(len(shape), 3)]


def test_colours(tmp_path):
    rgb = np.zeros((7, 6, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = array(most=200).astype(np.uint8)
    nib.save(nib.Nifti1Image(rgb, SHEARED), tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    assert volume.data.shape == (3, 5, 6, 7)
    assert np.array_equal(volume.data[1], rgb["G"].T)


def test_big_endian(tmp_path):
    data = array()
    image = nib.Nifti1Image(data, SHEARED, nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "a.nii.gz")
    scan = io.read(tmp_path / "a.nii.gz")
    assert scan.data.dtype.isnative
    assert np.array_equal(scan.data[0], data.T)
    back = io.read_labels(io.write(tmp_path / "m.nii.gz", LabelVolume(data.T % 3), like=scan))
    assert np.array_equal(back.data, data.T % 3)
    assert back.geometry.matches(scan.geometry)


def damaged(tmp_path, **fields):
    """A file whose header fields were overwritten."""
    path = save(tmp_path, array(), np.diag((2.0, 3, 4, 1)), sform=1, qform=1)
    image = nib.load(path)
    pixels, header = np.asarray(image.dataobj), image.header.copy()
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    with gzip.open(path, "wb") as file:
        file.write(header.binaryblock + bytes(4) + pixels.tobytes(order="F"))
    return path


ZERO, NAN = np.zeros(4), np.full(4, np.nan)


@pytest.mark.parametrize("row", [ZERO, NAN])
def test_a_damaged_sform_gives_way_to_the_qform(row, tmp_path):
    geometry = io.read(damaged(tmp_path, srow_x=row, srow_y=row, srow_z=row)).geometry
    assert geometry.to_world((1, 1, 1)) == pytest.approx((2, 3, 4))
    assert geometry.world == "RAS+"


@pytest.mark.parametrize("row", [ZERO, NAN])
def test_without_any_usable_form_the_voxel_size_is_left(row, tmp_path, caplog):
    scan = io.read(damaged(tmp_path, srow_x=row, srow_y=row, srow_z=row, quatern_b=np.nan))
    assert scan.geometry.spacing == (4, 3, 2)
    assert (scan.geometry.unit, scan.geometry.world) == ("mm", "")
    assert "orientation is damaged" in caplog.text
    mask = io.write(tmp_path / "m.nii.gz", LabelVolume(np.ones(scan.shape, int)), like=scan)
    assert np.isfinite(nib.load(mask).affine).all()
    assert io.read_labels(mask).geometry.matches(scan.geometry)


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_no_voxel_size_either(size, tmp_path, caplog):
    pixdim = [1, size, size, size, 0, 0, 0, 0]
    geometry = io.read(damaged(tmp_path, sform_code=0, qform_code=0, pixdim=pixdim)).geometry
    assert (geometry.spacing, geometry.unit) == ((1, 1, 1), "pixel")
    assert "no size" in caplog.text


def test_a_header_that_promises_too_much(tmp_path):
    path = damaged(tmp_path, dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with pytest.raises(ReadError, match=r"a\.nii\.gz is cut short or damaged: its header promises 49\.\d+ TiB"):
        io.read(path)


@pytest.mark.parametrize("content", [b"no image at all" * 99, gzip.compress(b"no image at all" * 99)])
def test_not_a_nifti(content, tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadError, match=rf"^{name} is not a (gzipped )?NIfTI file"):
            io.read(tmp_path / name)


def test_float_labels_of_whole_numbers(tmp_path):
    data = array(most=3).astype(np.float64)
    labels = io.read_labels(save(tmp_path, data))
    assert labels.data.dtype == np.uint8
    assert np.array_equal(labels.data, data.T)


def test_a_plane_with_channels_has_no_place_here(tmp_path):
    with pytest.raises(WriteError, match="no 2D images with 3 channels"):
        io.write(tmp_path / "a.nii.gz", Volume(np.zeros((3, 6, 7), np.uint8)))


@pytest.mark.parametrize("unit", ["um", "nm"])
def test_a_microscopes_stack_is_in_place_for_others(unit, tmp_path):
    geometry = Geometry((2.0, 0.5, 0.25), unit)
    path = io.write(tmp_path / "a.nii.gz", LabelVolume(np.ones((5, 6, 7), np.uint8), geometry))
    header = nib.load(path).header
    assert header.get_xyzt_units()[0] == "micron"
    assert header.get_zooms() == pytest.approx([s * (1 if unit == "um" else 1e-3) for s in (0.25, 0.5, 2.0)])
    assert io.read_labels(path).geometry.matches(geometry)


@pytest.mark.parametrize("unit", ["um", "mm", "pixel"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_place_that_is_in_no_patient_stays_so_and_is_seen_by_others(ndim, unit, tmp_path):
    geometry = Geometry((2.0, 0.5, 0.25)[-ndim:], unit).shifted((10, 200, 3000)[-ndim:])
    path = io.write(tmp_path / "a.nii.gz", LabelVolume(np.ones((5, 6, 7)[-ndim:], np.uint8), geometry))
    index = (1, 2, 3)[-ndim:]
    seen = nib.affines.apply_affine(nib.load(path).affine, [*index[::-1], 0][:3])
    assert seen[::-1] == pytest.approx(geometry.to_world(index))
    back = io.read_labels(path)
    assert (back.geometry.unit, back.geometry.world) == (unit, "")
    assert back.geometry.matches(geometry)
    part = back.crop([slice(1, 4)] * ndim)
    again = io.read_labels(io.write(tmp_path / "part.nii.gz", part, like=part))
    assert again.geometry.matches(part.geometry)
