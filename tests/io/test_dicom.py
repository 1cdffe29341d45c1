"""DICOM as it comes: shuffled, tilted, uneven, doubled, compressed, in one file or in a study of many."""

from __future__ import annotations

import logging
import shutil
import warnings

import dicoms
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError


def said(volume, words: str) -> bool:
    return any(words in note for note in volume.notes)


def refused(path, words: str, read=io.read) -> ReadError:
    with pytest.raises(ReadError, match=words) as caught:
        read(path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_series_is_sorted_by_position_and_lies_in_its_place(tmp_path):
    values = dicoms.values()
    paths = dicoms.series(tmp_path / "head", values)
    scan = io.read(tmp_path / "head")
    assert np.array_equal(scan.data[0], values)
    assert scan.data.dtype == np.int16
    assert scan.geometry.spacing == pytest.approx((2.5, *dicoms.SPACING))
    assert (scan.geometry.unit, scan.geometry.world, scan.geometry.oblique) == ("mm", "RAS+", True)
    for index in ((0, 0, 0), (5, 0, 0), (0, 7, 0), (0, 0, 9), (2, 3, 4)):
        assert scan.geometry.to_world(index) == pytest.approx(dicoms.world(*index), abs=1e-6)
    assert scan.notes == ()
    one = io.read(paths[3])
    assert np.array_equal(one.data, scan.data)
    assert one.path == paths[3]


def test_simpleitk_sees_the_same_values_at_the_same_place(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    values = dicoms.values()
    dicoms.series(tmp_path, values, RescaleSlope=2, RescaleIntercept=-1000)
    scan = io.read(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    seen = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(seen), scan.data[0])
    for z, y, x in ((0, 0, 0), (5, 7, 9), (2, 3, 4)):
        theirs = np.array(seen.TransformIndexToPhysicalPoint((x, y, z))) * (-1, -1, 1)
        assert scan.geometry.to_world((z, y, x)) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("slopes", "intercept", "bits", "dtype"),
    [
        ([1], -1024, 12, "int16"),
        ([1], -1024, 16, "int32"),
        ([2], 0, 16, "int32"),
        ([0.5], 3, 12, "float32"),
        ([1.5, 2.5], 0, 12, "float32"),
        ([1, 3], -7, 12, "int16"),
    ],
)
def test_rescale_is_applied_slice_by_slice_and_whole_numbers_stay_whole(slopes, intercept, bits, dtype, tmp_path):
    values = dicoms.values(dtype=np.uint16, high=4000)

    def change(made, index):
        made.BitsStored, made.HighBit = bits, bits - 1
        made.RescaleSlope, made.RescaleIntercept = slopes[index % len(slopes)], intercept

    dicoms.series(tmp_path, values, change=change)
    slope = np.array([slopes[i % len(slopes)] for i in range(len(values))])[:, None, None]
    scan = io.read(tmp_path)
    assert scan.data.dtype == dtype
    assert scan.data[0] == pytest.approx(values * slope + intercept)


def test_gantry_tilt_is_in_the_affine_and_said(tmp_path):
    values = dicoms.values()
    dicoms.series(tmp_path, values, tilt=np.tan(np.radians(12)))
    scan = io.read(tmp_path)
    assert np.array_equal(scan.data[0], values)
    assert scan.geometry.to_world((4, 2, 3)) == pytest.approx(dicoms.world(4, 2, 3, tilt=np.tan(np.radians(12))))
    assert said(scan, "12.0 degrees")
    assert np.prod(scan.geometry.spacing) == pytest.approx(abs(np.linalg.det(scan.geometry.affine[:3, :3])))


@pytest.mark.parametrize(
    ("heights", "words"),
    [
        ([0, 2, 4, 8, 10, 12], "1 slice is missing, between 3 and 4"),
        ([0, 2, 4, 10, 12, 16], "3 slices are missing, between 3 and 4, 5 and 6"),
        ([0, 3, 6, 7, 12, 17], "unevenly spaced, 1 to 5 mm apart"),
    ],
)
def test_gaps_are_said_and_no_slice_is_touched(heights, words, tmp_path):
    values = dicoms.values()
    dicoms.series(tmp_path, values, heights)
    scan = io.read(tmp_path)
    assert np.array_equal(scan.data[0], values)
    assert said(scan, words)
    mean = heights[-1] / 5
    assert scan.geometry.to_world((5, 0, 0)) == pytest.approx(dicoms.world(1, 0, 0, gap=heights[-1]))
    off = max(abs(h - mean * k) for k, h in enumerate(heights))
    assert said(scan, f"off by up to {off:.2g} mm")


def test_rounded_positions_are_no_gaps(tmp_path):
    dicoms.series(tmp_path, dicoms.values(), heights=[0, 2.5001, 4.9999, 7.5, 10.0002, 12.5])
    assert io.read(tmp_path).notes == ()


def test_files_that_are_there_twice_count_once(tmp_path):
    values = dicoms.values()
    paths = dicoms.series(tmp_path, values)
    shutil.copy(paths[2], tmp_path / "copy of it.dcm")
    scan = io.read(tmp_path)
    assert np.array_equal(scan.data[0], values)
    assert said(scan, "1 image is there twice")
    again = pydicom.dcmread(paths[4])
    again.SOPInstanceUID = generate_uid()
    again.save_as(tmp_path / "sent again.dcm")
    assert np.array_equal(io.read(tmp_path).data[0], values)
    assert said(io.read(tmp_path), "1 slice repeats another")
    again.PixelData = bytes(len(again.PixelData))
    again.SOPInstanceUID = generate_uid()
    again.save_as(tmp_path / "another.dcm")
    refused(tmp_path, "1 to 2 different images at a position")


def test_several_images_at_each_position_are_channels(tmp_path):
    values = dicoms.values((12, 8, 10))
    heights = np.repeat(np.arange(6) * 2.5, 2)
    dicoms.series(tmp_path, values, heights, change=lambda made, i: setattr(made, "EchoTime", 80.0 - 60 * (i % 2)))
    scan = io.read(tmp_path)
    assert np.array_equal(scan.data, [values[1::2], values[::2]])
    assert said(scan, "2 images at each position, by echo time")


def test_a_study_is_listed_and_each_series_is_an_image(tmp_path):
    a, b, c = dicoms.values(), dicoms.values((4, 8, 10)), dicoms.values((5, 8, 10))
    dicoms.series(tmp_path / "one", a, SeriesNumber=7)
    mixed = dicoms.series(tmp_path / "mixed", b, SeriesNumber=2, name="IM{:04d}")
    dicoms.series(tmp_path / "mixed", c, SeriesNumber=3, Modality="MR", name="1.2.840.{:d}")
    error = refused(tmp_path, "holds 3 series")
    assert "one: number 7, CT, 6 slices of 8 x 10" in error.message
    assert not any(trace in str(error).lower() for trace in dicoms.TRACES)
    found = io.find_images(tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["mixed/1.2.840.0", "mixed/IM0000", "one"]
    shapes = [io.read(path).shape for path in found]
    assert shapes == [(5, 8, 10), (4, 8, 10), (6, 8, 10)]
    assert [io.stem(path) for path in found] == ["1.2.840.0", "IM0000", "one"]
    assert [(s.number, s.modality, s.slices, s.path) for s in io.list_series(tmp_path)] == [
        (2, "CT", 4, found[1]),
        (3, "MR", 5, found[0]),
        (7, "CT", 6, found[2]),
    ]
    assert io.read(mixed[-1]).shape == (4, 8, 10)
    assert io.find_images(mixed) == [found[1]]
    assert io.find_images(str(tmp_path / "mixed" / "*")) == found[:2]


def test_an_orientation_is_an_image_of_its_own(tmp_path):
    def turn(made, index):
        if index < 2:
            made.ImageOrientationPatient = [*dicoms.COLUMN, *dicoms.ROW]

    values = dicoms.values()
    dicoms.series(tmp_path, values, change=turn)
    assert {io.read(path).shape for path in io.find_images(tmp_path)} == {(2, 8, 10), (4, 8, 10)}


@pytest.mark.parametrize(
    ("keyword", "value"), [("PixelSpacing", [1, 1]), ("PixelSpacing", None), ("FrameOfReferenceUID", "1.2.3")]
)
def test_slices_of_another_pixel_size_or_frame_are_no_part_of_the_image(keyword, value, tmp_path):
    def change(made, index):
        if index < 2:
            setattr(made, keyword, value)

    dicoms.series(tmp_path, dicoms.values(), change=change)
    with pytest.raises(ReadError, match="holds 2 series"):
        io.read(tmp_path)
    assert sorted(io.read(path).shape[0] for path in io.find_images(tmp_path)) == [2, 4]


def test_a_directory_file_gives_what_it_lists(tmp_path):
    from pydicom.fileset import FileSet

    listed = FileSet()
    for path in [
        *dicoms.series(tmp_path / "raw", dicoms.values()),
        *dicoms.series(tmp_path / "raw2", dicoms.values((3, 8, 10))),
    ]:
        listed.add(path)
    listed.write(tmp_path / "disc")
    directory = tmp_path / "disc" / "DICOMDIR"
    assert sorted(s.slices for s in io.list_series(directory)) == [3, 6]
    assert sorted(io.read(path).shape[0] for path in io.find_images(directory)) == [3, 6]
    assert io.find_images(tmp_path / "disc") == io.find_images(directory)
    refused(directory, "holds 2 series")


def test_old_files_without_a_preamble_or_a_suffix(tmp_path):
    values = dicoms.values()
    for path in dicoms.series(tmp_path, values, name="slice{:d}"):
        made = pydicom.dcmread(path)
        del made.file_meta
        made.preamble = None
        with path.open("wb") as file:
            pydicom.dcmwrite(file, made, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(io.read(tmp_path).data[0], values)
    assert io.find_images(tmp_path) == [tmp_path]


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless", "DeflatedExplicitVRLittleEndian"]
)
def test_compressed_slices(syntax, tmp_path):
    values = dicoms.values(dtype=np.uint16)
    for path in dicoms.series(tmp_path, values):
        compress(path, getattr(pydicom.uid, syntax))
    assert np.array_equal(io.read(tmp_path).data[0], values)


def compress(path, syntax):
    if syntax == pydicom.uid.JPEGLosslessSV1:
        gdcm = pytest.importorskip("gdcm")
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        return
    made = pydicom.dcmread(path)
    if syntax in (pydicom.uid.JPEGLSLossless, pydicom.uid.JPEG2000Lossless):
        pytest.importorskip("gdcm")
        gdcm_encode(path, syntax)
        return
    if syntax == pydicom.uid.RLELossless:
        made.compress(syntax)
    else:
        made.file_meta.TransferSyntaxUID = syntax
    made.save_as(path)


def gdcm_encode(path, syntax):
    import gdcm

    kinds = {
        pydicom.uid.JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
        pydicom.uid.JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    }
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


@pytest.mark.parametrize(("installed", "words"), [(True, "Save it uncompressed"), (False, r"napari-unetseg\[dicom\]")])
def test_a_compression_that_nothing_decodes_is_named(installed, words, tmp_path, monkeypatch):
    if installed:
        pytest.importorskip("gdcm")
    else:
        monkeypatch.setitem(__import__("sys").modules, "gdcm", None)
    (path,) = dicoms.series(tmp_path, dicoms.values((1, 8, 10)))
    made = pydicom.dcmread(path)
    made.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    made.PixelData = pydicom.encaps.encapsulate([b"\0" * 20])
    made["PixelData"].is_undefined_length = True
    made.save_as(path)
    assert words.replace("\\", "") in refused(path, "compressed as High-Throughput JPEG 2000").hint


def test_an_enhanced_object_has_its_frames_sorted_and_rescaled(tmp_path):
    values = dicoms.values(dtype=np.uint16)
    order = [3, 0, 5, 1, 4, 2]
    positions = dicoms.place(np.array(order) * 2.5)
    path = dicoms.enhanced(tmp_path / "enhanced.dcm", values, positions)
    scan = io.read(path)
    expected = (values.astype(int) * 2 - np.arange(6)[:, None, None])[np.argsort(order)]
    assert np.array_equal(scan.data[0], expected)
    assert scan.geometry.to_world((5, 2, 3)) == pytest.approx(dicoms.world(5, 2, 3))
    assert io.read(tmp_path).shape == scan.shape


def test_an_enhanced_object_with_two_times(tmp_path):
    values = dicoms.values(dtype=np.uint16)
    path = dicoms.enhanced(tmp_path / "times.dcm", values, dicoms.place([0, 2, 4, 0, 2, 4]))
    scan = io.read(path)
    assert scan.data.shape == (2, 3, 8, 10)
    assert said(scan, "2 images at each position, by time")
    assert np.array_equal(scan.data[1, 2], values[5].astype(int) * 2 - 5)


def single(path, pixels, **elements):
    made = dicoms.dataset(pixels, **{"SeriesInstanceUID": generate_uid(), **elements})
    made.save_as(path, enforce_file_format=True)
    return path


def test_a_radiograph_is_a_picture_with_its_pixel_size(tmp_path):
    pixels = dicoms.values((8, 10), np.uint16, high=4096)
    path = single(
        tmp_path / "x.dcm", pixels, sop_class="1.2.840.10008.5.1.4.1.1.1.1", Modality="DX", BitsStored=12, HighBit=11,
        ImagerPixelSpacing=[0.14, 0.15], PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    scan = io.read(path)
    assert scan.geometry.spacing == (0.14, 0.15)
    assert (scan.geometry.unit, scan.geometry.world) == ("mm", "")
    assert np.array_equal(scan.data[0], 4095 - pixels)
    assert said(scan, "MONOCHROME1")
    assert io.mask_suffix(path) == ".nii.gz"


def test_values_with_a_unit_are_not_inverted(tmp_path):
    pixels = dicoms.values((8, 10), np.int16)
    path = single(
        tmp_path / "x.dcm", pixels, PhotometricInterpretation="MONOCHROME1", RescaleSlope=1, RescaleIntercept=-9
    )
    assert np.array_equal(io.read(path).data[0], pixels - 9)


def test_colours(tmp_path):
    rgb = dicoms.values((8, 10, 3), np.uint8, high=256)
    path = single(tmp_path / "rgb.dcm", rgb, sop_class=dicoms.SC, SamplesPerPixel=3, Modality="OT")
    scan = io.read(path)
    assert np.array_equal(scan.data, np.moveaxis(rgb, -1, 0))
    assert said(scan, "secondary capture")
    from pydicom.pixels import convert_color_space

    ybr = convert_color_space(rgb, "RGB", "YBR_FULL")
    path = single(tmp_path / "ybr.dcm", ybr, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", Modality="US",
                  sop_class="1.2.840.10008.5.1.4.1.1.6.1")  # fmt: skip
    assert np.abs(io.read(path).data.astype(int) - np.moveaxis(rgb, -1, 0)).max() <= 2


def test_a_palette_gives_colours_and_as_labels_its_indices(tmp_path):
    indices = dicoms.values((8, 10), np.uint8, high=4)
    table = np.array([0, 65535, 32768, 256], np.uint16)
    tables = {
        f"{c}PaletteColorLookupTableData": np.roll(table, i).tobytes() for i, c in enumerate(("Red", "Green", "Blue"))
    }
    described = {f"{c}PaletteColorLookupTableDescriptor": [4, 0, 16] for c in ("Red", "Green", "Blue")}
    path = single(tmp_path / "p.dcm", indices, PhotometricInterpretation="PALETTE COLOR", Modality="US",
                  sop_class="1.2.840.10008.5.1.4.1.1.6.1", **tables, **described)  # fmt: skip
    assert np.array_equal(io.read(path).data, [(np.roll(table, i) >> 8)[indices] for i in range(3)])
    assert np.array_equal(io.read_labels(path).data, indices)


def test_padding_is_kept_and_said(tmp_path):
    values = dicoms.values()
    values[:, :2] = -2000
    dicoms.series(tmp_path, values, PixelPaddingValue=-2000)
    scan = io.read(tmp_path)
    assert np.array_equal(scan.data[0], values)
    assert said(scan, "25 % of its pixels are padding")


def test_screenshots_beside_a_scan_are_left_out(tmp_path):
    dicoms.series(tmp_path, dicoms.values())
    single(tmp_path / "report.dcm", dicoms.values((8, 10), np.uint8, high=256), sop_class=dicoms.SC)
    assert io.read(tmp_path).shape == (6, 8, 10)
    assert len(io.find_images(tmp_path)) == 1
    assert {s.kind for s in io.list_series(tmp_path)} == {"image", "screenshot"}
    assert io.read(tmp_path / "report.dcm").shape == (8, 10)


def test_ultrasound_in_time_is_a_stack_of_planes(tmp_path):
    region = pydicom.Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    frames = dicoms.values((5, 8, 10), np.uint8, high=256)
    path = single(tmp_path / "us.dcm", frames, sop_class="1.2.840.10008.5.1.4.1.1.3.1", Modality="US", NumberOfFrames=5,
                  SequenceOfUltrasoundRegions=[region])  # fmt: skip
    scan = io.read(path)
    assert np.array_equal(scan.data[0], frames)
    assert scan.geometry.spacing == pytest.approx((1, 0.3, 0.2))
    assert said(scan, "frames do not say where they lie")


def test_slices_without_positions_are_stacked_by_number(tmp_path):
    values = dicoms.values()
    dicoms.series(tmp_path, values, ImagePositionPatient=None, ImageOrientationPatient=None)
    scan = io.read(tmp_path)
    assert np.array_equal(scan.data[0], values[::-1])
    assert scan.geometry.spacing == (9.0, *dicoms.SPACING)
    assert scan.geometry.world == ""
    assert said(scan, "stacked by instance number")


def test_one_slice_keeps_its_place(tmp_path):
    (path,) = dicoms.series(tmp_path, dicoms.values((1, 8, 10)))
    scan = io.read(path)
    assert scan.data.shape == (1, 1, 8, 10)
    assert scan.geometry.spacing == (9.0, *dicoms.SPACING)
    assert scan.geometry.to_world((0, 2, 3)) == pytest.approx(dicoms.world(0, 2, 3))


def test_what_holds_no_pixels_is_said(tmp_path):
    def strip(made, index):
        del made.PixelData

    paths = dicoms.series(tmp_path / "stripped", dicoms.values(), change=strip)
    refused(tmp_path / "stripped", "holds no pixels")
    made = pydicom.dcmread(paths[0])
    for keyword in ("Rows", "Columns", "BitsAllocated"):
        delattr(made, keyword)
    made.Modality = "SR"
    made.save_as(tmp_path / "report.dcm")
    refused(tmp_path / "report.dcm", r"no image \(SR\)")


def test_what_is_cut_short_is_refused_and_a_broken_neighbour_is_named(tmp_path):
    paths = dicoms.series(tmp_path, dicoms.values((6, 64, 64)))
    whole = paths[2].read_bytes()
    for share in (0.5, 0.9, 0.99):
        paths[2].write_bytes(whole[: int(len(whole) * share)])
        error = refused(tmp_path, "cut short")
        assert paths[2].name in error.message
        assert not any(trace in str(error).lower() for trace in dicoms.TRACES)
    paths[2].write_bytes(b"")
    scan = io.read(tmp_path)
    assert said(scan, f"left out: 1 ({paths[2].name})")
    assert said(scan, "1 slice is missing")
    assert set(io.find_images(tmp_path)) == {tmp_path, paths[2]}


def test_headers_that_lie(tmp_path):
    pixels = dicoms.values((8, 10))
    path = single(tmp_path / "huge.dcm", pixels, Rows=60000, Columns=60000)
    refused(path, "cut short or damaged")
    path = single(tmp_path / "frames.dcm", pixels, NumberOfFrames=2000000000)
    refused(path, "cut short or damaged")


def test_nothing_of_the_patient_is_in_the_volume_or_the_log(tmp_path, caplog):
    dicoms.series(tmp_path / "head", dicoms.values(), [0, 3, 6, 7, 12, 17], PixelPaddingValue=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = dicoms.series(tmp_path / "bad", dicoms.values(), PatientBirthDate="19310417x", PatientSex=dicoms.NAME)
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        scan = io.read(tmp_path / "head")
        error = refused(tmp_path / "bad", "cut short")
    everything = f"{scan!r} {vars(scan)} {io.list_series(tmp_path)} {error} {caplog.text}".lower()
    assert not [trace for trace in dicoms.TRACES if trace in everything]


def test_a_damaged_header_spills_no_name(tmp_path, caplog):
    """A length that is wrong makes one element of all that follows it, the name of the patient among it."""
    paths = dicoms.series(tmp_path, dicoms.values())
    whole = paths[2].read_bytes()
    for found, damaged in (
        (b"CS\x02\x00CT", b"CS\x00\x02CT"),  # the modality is 512 bytes long
        (b"UI\x14\x001.2.840.10008.1.2.1", b"UI\xff\x011.2.840.10008.1.2.1"),  # the transfer syntax is 511
        (b"DS\x08\x000.5\\0.75", b"SZ\x08\x000.5\\0.75"),  # a kind of element that there is not
    ):
        assert found in whole
        paths[2].write_bytes(whole.replace(found, damaged))
        for ask in (io.read, io.list_series, io.find_images, io.mask_suffix):
            for path in (tmp_path, paths[2]):
                try:
                    answer = str(ask(path))
                except ReadError as error:
                    answer = str(error)
                assert not [trace for trace in dicoms.TRACES if trace in (answer + caplog.text).lower()]
