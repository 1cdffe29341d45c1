"""Files as they arrive: each gives the right place, or one sentence; read whole and in regions alike."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr

from napari_unetseg import io
from napari_unetseg.errors import ReadError

VALUES = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)


def patched(path, offset, data):
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(bytes(content))
    return path


def scan(path, array=VALUES):
    nib.save(nib.Nifti1Image(array.astype(np.int16), np.diag([2.0, 3, 4, 1])), path)
    return path


def refused(path, words):
    for opened in (io.read, io.open_lazy):
        with pytest.raises(ReadError, match=words) as caught:
            opened(path)
        assert path.name in caught.value.message


def test_a_scan_without_its_end_is_refused_in_regions_too(tmp_path):
    path = scan(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "cut short|Expected")


def test_a_packed_scan_with_other_bytes_than_were_packed_is_refused(tmp_path):
    path = scan(tmp_path / "a.nii.gz")
    patched(path, path.stat().st_size - 8, b"\0\0\0\0")  # its checksum
    refused(path, "damaged")


def test_a_scan_in_an_unknown_unit_is_in_millimetres(tmp_path):
    volume = io.read(patched(scan(tmp_path / "a.nii"), 123, b"\x07"))
    assert (volume.geometry.unit, volume.geometry.spacing) == ("mm", (4, 3, 2))
    io.write(tmp_path / "m.nii.gz", io.read_labels(tmp_path / "a.nii"), like=volume)
    assert io.read(tmp_path / "m.nii.gz").geometry.matches(volume.geometry)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_none(slope, tmp_path):
    path = patched(scan(tmp_path / "a.nii"), 112, struct.pack("<ff", slope, 5))
    np.testing.assert_array_equal(io.read(path).data[0], VALUES.T)
    np.testing.assert_array_equal(io.open_lazy(path)[0], VALUES.T)


def test_a_line_is_no_image(tmp_path):
    refused(scan(tmp_path / "a.nii", VALUES[0, 0]), "line of values")


def test_a_small_picture_before_the_image_is_not_the_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(VALUES[0, ::2, ::2], subfiletype=1)
        file.write(VALUES[0])
    for volume in (io.read(tmp_path / "a.tif"), io.open_lazy(tmp_path / "a.tif").volume()):
        np.testing.assert_array_equal(volume.data[0], VALUES[0])
        assert volume.notes == ()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, "how far apart its planes are"),
        ({"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, "4 time points"),
        ({"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": -2.0}, ""),
        ({"axes": "ZYX"}, ""),
    ],
)
def test_what_a_stack_does_not_say_is_said(metadata, words, tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", VALUES, metadata=metadata)
    volume = io.read(tmp_path / "a.ome.tif")
    assert volume.notes == io.open_lazy(tmp_path / "a.ome.tif").notes
    assert words in " ".join(volume.notes)
    assert bool(volume.notes) == bool(words)
    assert volume.geometry.spacing[0] == abs(metadata.get("PhysicalSizeZ", 1.0))


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="8" SizeY="6" SizeZ="{}" SizeC="1" SizeT="1" '
    'PhysicalSizeX="{}"><TiffData/></Pixels></Image></OME>'
)


@pytest.mark.parametrize("xml", ["no xml", OME[:150], OME.format(4, "wide"), OME.format(4, "NaN"), OME.format(4, "-0")])
def test_ome_xml_that_cannot_be_understood_costs_the_size_only(xml, tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.ome.tif", VALUES, description=xml, metadata=None, photometric="minisblack")
    for volume in (io.read(tmp_path / "a.ome.tif"), io.open_lazy(tmp_path / "a.ome.tif").volume()):
        np.testing.assert_array_equal(volume.data[0], VALUES)
        assert (volume.geometry.spacing, volume.geometry.unit) == ((1, 1, 1), "pixel")
    assert "tifffile" not in {record.name for record in caplog.records if record.levelname == "WARNING"}


def test_ome_xml_that_promises_more_planes_than_there_are(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.ome.tif", VALUES, description=OME.format(9, 1), metadata=None, photometric="minisblack"
    )
    refused(tmp_path / "a.ome.tif", "lie in the others")


def test_the_first_bytes_of_a_tiff(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0")
    refused(tmp_path / "a.tif", "not a TIFF")


def zarr_with(path, entry, values=VALUES):
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", shape=values.shape, dtype=values.dtype, chunks=values.shape)[...] = values
    group.attrs.update({"multiscales": entry})
    return path


AXES = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([], "nothing about its axes"),
        ("many", "nothing about its axes"),
        ([{"axes": AXES, "datasets": []}], "nothing about its axes"),
        ([{"axes": AXES, "datasets": [{}]}], "nothing about its axes"),
        ([{"axes": AXES, "datasets": [{"path": "../0"}]}], "outside its folder"),
        ([{"axes": AXES, "datasets": [{"path": "1"}]}], "lacks its part 1"),
        ([{"axes": AXES[1:], "datasets": [{"path": "0"}]}], "names 2 axes"),
        *(
            ([{"axes": AXES, "datasets": [{"path": "0", "coordinateTransformations": [step]}]}], words)
            for step, words in (
                ({"type": "scale", "scale": ["a", 1, 1]}, "no number"),
                ({"type": "scale", "scale": [0.0, 1, 1]}, "voxel spacing"),
                ({"type": "scale", "scale": [1.0, 1]}, "not supported"),
                ({"type": "affine", "affine": [[1, 0, 0, 0]]}, "not supported"),
            )
        ),
    ],
)
def test_zarr_metadata_that_lie(entry, words, tmp_path):
    refused(zarr_with(tmp_path / "a.zarr", entry), words)


@pytest.mark.parametrize("order", ["xyz", "yzx", "zxy"])
def test_zarr_axes_in_an_odd_order_come_in_ours(order, tmp_path):
    values = VALUES.transpose(["zyx".index(name) for name in order])
    sizes = dict(zip("zyx", (4.0, 3.0, 2.0), strict=True))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in order]
    steps = [{"type": "scale", "scale": [sizes[name] for name in order]}]
    entry = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    volume = io.read(zarr_with(tmp_path / "a.zarr", entry, values))
    np.testing.assert_array_equal(volume.data[0], VALUES)
    assert volume.geometry.spacing == (4, 3, 2)


HEAD = "NRRD0004\ntype: uint16\ndimension: 3\nsizes: 8 6 4\nendian: little\nencoding: raw\nspace: LPS\n"


def test_a_direction_that_is_no_number_is_not_an_axis_of_channels(tmp_path):
    head = HEAD + "space directions: (nan,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + VALUES.tobytes())
    refused(tmp_path / "a.nrrd", "no number")


def test_an_origin_that_is_no_number_is_nowhere_in_a_patient(tmp_path, caplog):
    head = HEAD + "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (nan,0,0)\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + VALUES.tobytes())
    geometry = io.read(tmp_path / "a.nrrd").geometry
    assert (geometry.world, geometry.unit, geometry.spacing) == ("", "mm", (2, 1, 1))
    assert "in no patient" in caplog.text


@pytest.mark.parametrize("line", ["DimSize = a b c", "ElementSpacing = 1 2", "TransformMatrix = 1 0 0 1", "Offset = x"])
def test_metaimages_whose_numbers_are_none(line, tmp_path):
    lines = ["NDims = 3", "DimSize = 8 6 4", "ElementType = MET_USHORT", line, "ElementDataFile = LOCAL", ""]
    (tmp_path / "a.mha").write_bytes("\n".join(lines).encode() + VALUES.tobytes())
    refused(tmp_path / "a.mha", "numbers cannot be understood")


@pytest.mark.parametrize(
    "name", ["文件 ünïcödé 🧠.tif", " .tif", "a\nb.tif", "-rf.tif", "[a-z]*.tif", "x" * 240 + ".tif"]
)
def test_names_are_only_names(name, tmp_path):
    tifffile.imwrite(tmp_path / name, VALUES[0])
    assert io.find_images(tmp_path) == [tmp_path / name]
    mask = io.write(tmp_path / "out" / name, io.read_labels(tmp_path / name), like=io.read(tmp_path / name))
    assert mask.name == name


@pytest.mark.parametrize("target", ["nowhere.tif", "a.tif"])
def test_links_that_lead_nowhere(target, tmp_path):
    (tmp_path / "a.tif").symlink_to(tmp_path / target)
    refused(tmp_path / "a.tif", "does not exist")


def test_a_bomb_in_a_scan_is_not_unpacked(tmp_path):
    whole = gzip.decompress(scan(tmp_path / "a.nii.gz").read_bytes())
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(whole[:42] + struct.pack("<3h", 30000, 30000, 30000) + whole[48:] + bytes(2**20)))
    refused(path, "promises")
