"""TIFF as others write it: axes, voxel sizes, colours, compressions."""

import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError
from napari_unetseg.io import tiff
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RNG = np.random.default_rng(3)


def values(*shape, dtype=np.uint8, most=256):
    return RNG.integers(0, most, shape).astype(dtype)


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ("YX", (6, 7), (1, 6, 7)),
        ("ZYX", (5, 6, 7), (1, 5, 6, 7)),
        ("CYX", (2, 6, 7), (2, 6, 7)),
        ("ZCYX", (5, 2, 6, 7), (2, 5, 6, 7)),
        ("TYX", (5, 6, 7), (1, 5, 6, 7)),
        ("TCYX", (5, 2, 6, 7), (2, 5, 6, 7)),
        ("YXS", (6, 7, 3), (3, 6, 7)),
        ("ZYXS", (5, 6, 7, 3), (3, 5, 6, 7)),
    ],
)
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_axes_come_in_our_order(kind, axes, shape, expected, tmp_path):
    array = values(*shape)
    colour = {"photometric": "rgb"} if axes.endswith("S") else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", array, **{kind: True}, metadata={"axes": axes}, **colour)
    volume = io.read(tmp_path / "a.tif")
    assert volume.data.shape == expected
    channel = [i for i, axis in enumerate(axes) if axis in "CS"]
    assert np.array_equal(volume.data, np.moveaxis(array, channel[0], 0) if channel else array[None])


def test_ome_with_channels_outside_the_stack(tmp_path):
    array = values(2, 5, 6, 7)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, photometric="minisblack", metadata={"axes": "CZYX"})
    assert np.array_equal(io.read(tmp_path / "a.ome.tif").data, array)


def test_pages_without_a_word_are_a_stack(tmp_path):
    array = values(5, 6, 7, dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in array:
            tif.write(plane, metadata=None, contiguous=False)
    volume = io.read(tmp_path / "a.tif")
    assert np.array_equal(volume.data, array[None])
    assert (volume.geometry.spacing, volume.geometry.unit) == ((1, 1, 1), "pixel")


def test_planar_colours(tmp_path):
    array = values(3, 6, 7)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig="separate")
    assert np.array_equal(io.read(tmp_path / "a.tif").data, array)


def test_alpha_goes_where_it_is_the_same_everywhere(tmp_path):
    array = values(6, 7, 4)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    assert io.read(tmp_path / "a.tif").data.shape == (4, 6, 7)
    array[..., 3] = 255
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(io.read(tmp_path / "a.tif").data, np.moveaxis(array[..., :3], -1, 0))


def test_four_fluorescence_channels_have_no_alpha(tmp_path):
    array = values(4, 6, 7)
    array[3] = 9
    tifffile.imwrite(tmp_path / "a.ome.tif", array, photometric="minisblack", metadata={"axes": "CYX"})
    assert io.read(tmp_path / "a.ome.tif").data.shape == (4, 6, 7)


def test_a_series_of_stacks_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(3, 5, 6, 7), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(ReadError, match=r"a\.tif has the axes TZYX") as caught:
        io.read(tmp_path / "a.tif")
    assert "time point" in caught.value.hint


@pytest.mark.parametrize(
    ("unit", "size", "expected", "factors"),
    [
        ("micron", 0.25, (0.25, "um"), (3, 2, 1)),
        ("\\u00B5m", 0.25, (0.25, "um"), (3, 2, 1)),
        ("um", 0.25, (0.25, "um"), (3, 2, 1)),
        ("nm", 4.0, (4.0, "nm"), (3, 2, 1)),
        ("mm", 0.5, (0.5, "mm"), (3, 2, 1)),
        ("cm", 0.5, (5.0, "mm"), (3, 2, 1)),
        ("inch", 0.5, (12.7, "mm"), (3, 2, 1)),
        ("pixel", 1.0, (1.0, "pixel"), (3, 2, 1)),
        ("furlong", 0.5, (1.0, "pixel"), (1, 1, 1)),
    ],
)
def test_imagej_sizes(unit, size, expected, factors, tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        values(5, 6, 7),
        imagej=True,
        resolution=(1 / size, 0.5 / size),
        metadata={"axes": "ZYX", "unit": unit, "spacing": 3 * size},
    )
    geometry = io.read(tmp_path / "a.tif").geometry
    size, unit = expected
    assert geometry.unit == unit
    assert geometry.spacing == pytest.approx([size * factor for factor in factors])


def test_imagej_files_without_a_unit_have_no_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(6, 7), imagej=True)
    assert io.read(tmp_path / "a.tif").geometry.unit == "pixel"


def test_ome_sizes_may_come_in_several_units(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}
    metadata |= {"PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}
    tifffile.imwrite(tmp_path / "a.tif", values(5, 6, 7), ome=True, metadata=metadata)
    geometry = io.read(tmp_path / "a.tif").geometry
    assert geometry.unit == "nm"
    assert geometry.spacing == pytest.approx((2000, 250, 250))


@pytest.mark.parametrize("unit", ["Å", "pixel", "reference frame", "cm"])
def test_ome_units_seldom_met(unit, tmp_path):
    metadata = {"axes": "YX", "PhysicalSizeX": 2.0, "PhysicalSizeXUnit": unit}
    tifffile.imwrite(tmp_path / "a.tif", values(6, 7), ome=True, metadata=metadata)
    geometry = io.read(tmp_path / "a.tif").geometry
    expected = {"Å": (0.2, "nm"), "pixel": (2, "pixel"), "reference frame": (1, "pixel"), "cm": (20, "mm")}[unit]
    assert geometry.spacing == pytest.approx((expected[0],) * 2)
    assert geometry.unit == expected[1]


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [((72, 72), "inch", None), ((300, 300), "inch", None), ((20000, 20000), "centimeter", 0.5), ((2, 2), None, None)],
)
def test_plain_resolution_counts_only_where_it_is_a_microscopes(resolution, unit, expected, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(6, 7), resolution=resolution, resolutionunit=unit, metadata=None)
    geometry = io.read(tmp_path / "a.tif").geometry
    assert geometry.unit == ("um" if expected else "pixel")
    assert geometry.spacing == pytest.approx((expected or 1,) * 2)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "group4", "jpeg"])
def test_compressions(compression, mode, tmp_path):
    if (compression == "group4") != (mode == "1") or (compression == "jpeg" and mode == "I;16"):
        pytest.skip("no such TIFF")
    array = {"1": values(40, 50, most=2), "RGB": values(40, 50, 3)}.get(mode, values(40, 50))
    array = values(40, 50, dtype=np.uint16, most=60000) if mode == "I;16" else array
    picture = Image.fromarray(array.astype(bool)) if mode == "1" else Image.fromarray(array)
    options = {"quality": 95, "subsampling": 0} if compression == "jpeg" else {}
    try:
        picture.save(tmp_path / "a.tif", compression=compression, **options)
    except (OSError, KeyError):
        pytest.skip("Pillow was built without it")
    volume = io.read(tmp_path / "a.tif")
    expected = np.moveaxis(np.atleast_3d(array), -1, 0)
    assert volume.data.dtype == array.dtype
    if compression == "jpeg":
        assert np.abs(volume.data.astype(int) - expected).mean() < 12
    else:
        assert np.array_equal(volume.data, expected)


def test_a_compressed_stack(tmp_path):
    array = values(4, 40, 50)
    planes = [Image.fromarray(plane) for plane in array]
    planes[0].save(tmp_path / "a.tif", save_all=True, append_images=planes[1:], compression="tiff_lzw")
    assert np.array_equal(io.read(tmp_path / "a.tif").data, array[None])


def test_pixels_that_cannot_be_decoded_say_so(tmp_path):
    Image.fromarray(values(40, 50, 3)).save(tmp_path / "a.tif", compression="tiff_lzw")
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        tag = tif.pages[0].tags["Compression"]
    raw[tag.valueoffset : tag.valueoffset + 2] = (34712).to_bytes(2, "little")  # JPEG 2000
    (tmp_path / "a.tif").write_bytes(raw)
    with pytest.raises(ReadError, match=r"^a\.tif "):
        io.read(tmp_path / "a.tif")


def test_bigtiff_and_big_endian(tmp_path):
    array = values(5, 6, 7, dtype=np.uint16, most=60000)
    tifffile.imwrite(tmp_path / "a.tif", array, bigtiff=True, byteorder=">", photometric="minisblack")
    volume = io.read(tmp_path / "a.tif")
    assert np.array_equal(volume.data, array[None])
    assert volume.data.dtype.isnative


def test_a_palette_is_colours_in_an_image_and_numbers_in_labels(tmp_path):
    index = values(6, 7, most=3)
    table = np.zeros((3, 256), np.uint16)
    table[:, 1], table[:, 2] = (65535, 0, 0), (0, 257 * 128, 0)
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=table, metadata=None)
    image = io.read(tmp_path / "a.tif").data
    assert np.array_equal(image[0], (index == 1) * np.uint8(255))
    assert np.array_equal(image[1], (index == 2) * np.uint8(128))
    assert np.array_equal(io.read_labels(tmp_path / "a.tif").data, index)


def test_an_imagej_lut_is_for_display_only(tmp_path):
    index = values(6, 7)
    table = values(3, 256)
    tifffile.imwrite(tmp_path / "a.tif", index, imagej=True, metadata={"axes": "YX", "LUTs": [table]})
    assert np.array_equal(io.read(tmp_path / "a.tif").data[0], index)


def test_white_may_be_zero(tmp_path):
    array = values(6, 7)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite", metadata=None)
    assert np.array_equal(io.read(tmp_path / "a.tif").data[0], 255 - array)


@pytest.mark.parametrize("writer", ["tifffile", "fax", "pillow"])
def test_one_bit_labels_are_zero_and_one(writer, tmp_path):
    array = values(16, 16, most=2).astype(bool)
    if writer == "tifffile":
        tifffile.imwrite(tmp_path / "a.tif", array, metadata=None)
    else:
        Image.fromarray(array).save(tmp_path / "a.tif", compression="group4" if writer == "fax" else "raw")
    labels = io.read_labels(tmp_path / "a.tif").data
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, array)


def test_several_images_in_one_file_are_told(tmp_path, caplog):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(values(6, 7), metadata=None)
        tif.write(values(9, 9), metadata=None)
    assert io.read(tmp_path / "a.tif").shape == (6, 7)
    assert "2 images" in caplog.text


def test_one_file_of_several_is_refused(tmp_path):
    array = values(2, 6, 7)
    tifffile.imwrite(tmp_path / "a.ome.tif", array, photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        xml = tif.ome_metadata
    block = '<TiffData FirstZ="{0}" IFD="0" PlaneCount="1"><UUID FileName="{1}.ome.tif">urn:uuid:{2}</UUID></TiffData>'
    first, second = ("0" * 36, "1" * 36)
    start, end = xml.index("<TiffData"), xml.index("</Pixels>")
    xml = xml[:start] + block.format(0, "a", first) + block.format(1, "b", second) + xml[end:]
    xml = re.sub('UUID="[^"]+"', f'UUID="urn:uuid:{first}"', xml, count=1)
    tifffile.imwrite(tmp_path / "a.ome.tif", array[0], description=xml.encode(), metadata=None)
    with pytest.raises(ReadError, match="one file of several"):
        io.read(tmp_path / "a.ome.tif")


def test_a_mask_is_imagejs_where_its_image_is(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif",
        values(5, 6, 7),
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "ZYX", "unit": "um", "spacing": 1.5},
    )
    scan = io.read(tmp_path / "a.tif")
    io.write(tmp_path / "mask.tif", LabelVolume(values(5, 6, 7, most=3)), like=scan)
    with tifffile.TiffFile(tmp_path / "mask.tif") as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == "ZYX"
        assert tif.imagej_metadata["spacing"] == 1.5
        assert tif.imagej_metadata["unit"] == "um"
        x = tif.pages[0].tags["XResolution"].value
        assert x[0] / x[1] == 4
    assert io.read_labels(tmp_path / "mask.tif").geometry.matches(scan.geometry)


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_with_channels_are_written_so_that_others_know_them(kind, channels, tmp_path):
    image = Volume(values(channels, 5, 6, 7), Geometry((2, 0.5, 0.5), "um"), header={"tiff": kind})
    io.write(tmp_path / "a.tif", image)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        series = tif.series[0]
        assert getattr(tif, f"is_{kind}")
        assert dict(zip(series.axes, series.shape, strict=True)).get("C", 1) == channels
    assert np.array_equal(io.read(tmp_path / "a.tif").data, image.data)


def test_a_plain_size_needs_no_key_of_ours(tmp_path):
    io.write(tmp_path / "a.tif", LabelVolume(values(5, 6, 7), Geometry((2, 0.5, 0.5), "um")))
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert "unetseg" not in tif.ome_metadata


def test_a_key_of_ours_that_was_tampered_with_is_an_error_and_not_a_crash(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", values(6, 7), imagej=True, metadata={"unetseg_geometry": json.dumps({"spacing": [0, 1]})}
    )
    with pytest.raises(ReadError, match=r"^a\.tif "):
        io.read(tmp_path / "a.tif")


def test_the_hole_of_a_short_file_is_never_filled_with_zeros(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in values(4, 20, 24, 3):
            tif.write(plane, metadata=None, contiguous=False, photometric="rgb", rowsperstrip=4)
    whole = (tmp_path / "a.tif").read_bytes()
    for size in range(8, len(whole), 37):
        (tmp_path / "a.tif").write_bytes(whole[:size])
        with pytest.raises(ReadError, match=r"^a\.tif "):
            io.read(tmp_path / "a.tif")


def test_a_stack_that_ends_between_two_pages_is_not_a_shorter_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in values(4, 20, 24):
            tif.write(plane, metadata=None, contiguous=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        end = tif.pages[2].offset
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:end])
    with pytest.raises(ReadError, match=r"^a\.tif is cut short"):
        io.read(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_what_is_too_large_for_tiff_is_a_bigtiff(kind, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "scan.tif", values(5, 6, 7), **{kind: True}, metadata={"axes": "ZYX"})
    scan = io.read(tmp_path / "scan.tif")
    monkeypatch.setattr(tiff, "BIG", 200)
    io.write(tmp_path / "a.tif", scan, like=scan)
    with io.create_lazy(tmp_path / "b.tif", scan) as file:
        file[1] = 1
    for name in "ab":
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tif:
            assert tif.is_bigtiff
            assert tif.is_ome
    assert np.array_equal(io.read(tmp_path / "a.tif").data, scan.data)
    assert io.read_labels(tmp_path / "b.tif").data.sum() == 42


@pytest.mark.parametrize(
    ("unit", "position"), [("mm", (1.5, 2.5)), ("µm", (0.0015, 0.0025)), ("reference frame", (0, 0)), (None, (0, 0))]
)
def test_the_position_on_the_stage_is_kept(unit, position, tmp_path):
    plane = {"PositionY": [1.5], "PositionX": [2.5]}
    units = {f"Position{axis}Unit": [unit] for axis in "YX"} if unit else {}
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "mm", "PhysicalSizeYUnit": "mm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", values(6, 7), metadata={"axes": "YX", **size, "Plane": {**plane, **units}})
    scan = io.read(tmp_path / "a.ome.tif")
    assert scan.geometry.unit == "mm"
    assert scan.geometry.to_world((0, 0)) == pytest.approx((0, *position))
    mask = LabelVolume(scan.data[0] % 2, Geometry((1, 1)))
    path = io.write(tmp_path / "mask.tif", mask, like=scan)
    assert io.read_labels(path).geometry.matches(scan.geometry, 1e-6)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_that_run_in_a_circle_are_not_followed(bigtiff, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=bigtiff) as tif:
        for plane in values(3, 6, 7):
            tif.write(plane, metadata=None, contiguous=False)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages) == 3
        first, last = tif.pages.first.offset, tif.pages[2].offset
        size, count = tif.tiff.offsetsize, len(tif.pages[2].tags)
        end = last + tif.tiff.tagnosize + count * tif.tiff.tagsize
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(end)
        assert not any(file.read(size))
        file.seek(end)
        file.write(first.to_bytes(size, "little"))
    for read in (io.read, io.open_lazy):
        with pytest.raises(ReadError, match="in a circle"):
            read(tmp_path / "a.tif")
