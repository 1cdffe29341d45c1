"""Masks of DICOM images: DICOM-SEG that others read in the same place, or NIfTI by choice."""

from __future__ import annotations

import contextlib
import json
import sys

import dicoms
import nibabel as nib
import numpy as np
import pydicom
import pytest

import napari_unetseg.io as io
from napari_unetseg import cli
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.dicom import family
from napari_unetseg.palette import PALETTE
from napari_unetseg.validate import score_files
from napari_unetseg.volume import LabelVolume

hd = pytest.importorskip("highdicom")
get_iod_module_map, get_module_attribute_map = hd.base.get_iod_module_map, hd.base.get_module_attribute_map

CLASSES = ("background", "liver", "something odd")


@pytest.fixture
def scan(tmp_path):
    dicoms.series(tmp_path / "head", dicoms.values())
    return io.read(tmp_path / "head")


def mask_for(volume) -> LabelVolume:
    data = np.zeros(volume.shape, np.int64)
    data[2:4, 1:5, 2:8], data[3, 4:7, 3:6] = 1, 2
    return LabelVolume(data, header={"classes": CLASSES})


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"tilt": 0.3},
        {"heights": [0, 3, 6, 7, 12, 17]},
        {"heights": [0, 2, 4, 8, 10, 12]},
        {"RescaleSlope": 2, "RescaleIntercept": 3},
    ],
    ids=["even", "tilted", "uneven", "missing", "rescaled"],
)
def test_a_mask_comes_back_on_the_grid_of_its_images(how, tmp_path):
    dicoms.series(tmp_path / "head", dicoms.values(), **how)
    scan = io.read(tmp_path / "head")
    mask = mask_for(scan)
    path = io.write(tmp_path / f"mask{io.mask_suffix(tmp_path / 'head')}", mask, like=scan)
    assert path.suffix == ".dcm"
    back = io.read_labels(path)
    assert np.array_equal(back.data, mask.data)
    assert back.data.dtype == np.uint8
    assert back.geometry.matches(scan.geometry, 1e-4)


@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_each_frame_names_its_slice_and_lies_in_its_place(tilt, tmp_path):
    """The way a viewer goes: from the frame's own position and the shared measures to the world."""
    dicoms.series(tmp_path / "head", dicoms.values(), tilt=tilt)
    scan = io.read(tmp_path / "head")
    path = io.write(tmp_path / "mask.dcm", mask_for(scan), like=scan)
    made = pydicom.dcmread(path)
    shared = made.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    dy, dx = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    between = shared.PixelMeasuresSequence[0].get("SpacingBetweenSlices")
    assert between is None if tilt else between == pytest.approx(2.5)  # sheared planes make no plain stack
    sources = {str(ds.SOPInstanceUID): ds for f in (tmp_path / "head").iterdir() for ds in [pydicom.dcmread(f)]}
    frames = made.pixel_array
    assert len(frames) == 2 * 6
    seen = {1: [], 2: []}
    for frame, group in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        named = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert position == pytest.approx(np.array(sources[str(named)].ImagePositionPatient, float))
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        seen[segment] += [position + row * dx * x + column * dy * y for y, x in np.argwhere(frame)]
    for label, places in seen.items():
        expected = [scan.geometry.to_world(i) * (-1, -1, 1) for i in np.argwhere(mask_for(scan).data == label)]
        assert np.array(sorted(map(tuple, np.round(places, 3)))) == pytest.approx(
            np.array(sorted(map(tuple, np.round(expected, 3)))), abs=2e-3
        )


def test_highdicom_reads_it(scan, tmp_path):
    path = io.write(tmp_path / "mask.dcm", mask_for(scan), like=scan)
    seen = hd.seg.segread(path)
    assert [seen.get_segment_description(n).segment_label for n in (1, 2)] == list(CLASSES[1:])
    assert seen.get_segment_description(1).segmented_property_type.meaning == "Liver"
    volume = seen.get_volume(combine_segments=True)
    expected = mask_for(scan).data
    for index in ((2, 1, 2), (3, 4, 3), (0, 0, 0), (5, 7, 9)):
        lps = scan.geometry.to_world(index) * (-1, -1, 1)
        there = np.rint(volume.map_reference_to_indices(lps[None])[0]).astype(int)
        assert volume.array[tuple(there)] == expected[index]
    pixels = seen.get_pixels_by_source_instance(
        [pydicom.dcmread(f).SOPInstanceUID for f in scan.header["dicom"]["files"]], combine_segments=True
    )
    assert np.array_equal(pixels, expected)


def test_its_names_are_read_again_and_used_for_scores_and_measures(scan, tmp_path, monkeypatch, capsys):
    path = io.write(tmp_path / "mask.dcm", mask_for(scan), like=scan)
    assert io.read_labels(path).header["classes"] == CLASSES
    assert list(score_files(path, path)["mean"]) == list(CLASSES[1:])
    for words, names in ((("--json",), CLASSES[1:]), (("--json", "--numbered"), ("1",))):
        monkeypatch.setattr(sys, "argv", ["napari-unetseg", "measure", str(path), *words])
        with contextlib.suppress(SystemExit):
            cli.main()
        assert tuple(dict.fromkeys(row["class"] for row in json.loads(capsys.readouterr().out))) == names
    other = mask_for(scan)
    other = LabelVolume(other.data, other.geometry, header={"classes": (CLASSES[0], *CLASSES[:0:-1])})
    swapped = io.write(tmp_path / "swapped.dcm", other, like=scan)
    assert list(score_files(path, swapped)["mean"]) == ["1", "2"], "which of the two names would it be?"


def test_segments_without_names_of_their_own_have_none(scan, tmp_path):
    path = io.write(tmp_path / "mask.dcm", mask_for(scan), like=scan)
    made = pydicom.dcmread(path)
    for segment in made.SegmentSequence:
        segment.SegmentLabel = "Segment"
    made.save_as(path)
    assert io.read_labels(path).header == {}


def test_simpleitk_finds_a_marked_voxel_at_the_same_place(scan, tmp_path):
    """Through GDCM, which shares no code with what wrote it."""
    sitk = pytest.importorskip("SimpleITK")
    mask = np.zeros(scan.shape, np.uint8)
    mask[2, 5, 7] = 1
    labels = LabelVolume(mask, scan.geometry, header={**scan.header, "classes": ("background", "liver")})
    seen = sitk.ReadImage(str(io.write(tmp_path / "mask.dcm", labels, like=scan)))
    (index,) = np.argwhere(sitk.GetArrayFromImage(seen))
    place = seen.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])
    assert place == pytest.approx(scan.geometry.to_world((2, 5, 7)) * (-1, -1, 1), abs=1e-3)


def lacking(made: pydicom.Dataset, module: str) -> list[str]:
    """Attributes of types 1 and 2 that the standard's tables ask of a module, and that are not there."""
    found = []
    for attribute in get_module_attribute_map()[module]:
        if attribute["type"] not in ("1", "2"):
            continue
        places = [made]
        for keyword in attribute["path"]:
            places = [item for place in places for item in place.get(keyword, ())]
        if attribute["path"] in (["SharedFunctionalGroupsSequence"], ["PerFrameFunctionalGroupsSequence"]):
            shared, frames = made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence
            if "Slide" in attribute["keyword"]:  # of microscopes
                continue
            here = all(attribute["keyword"] in frame for frame in frames) or attribute["keyword"] in shared[0]
            found += [] if here else [f"{module}: {attribute['keyword']}"]
            continue
        empty = attribute["type"] == "1" and any(place.get(attribute["keyword"]) in (None, "") for place in places)
        if empty or any(attribute["keyword"] not in place for place in places):
            found.append(f"{module}: {'.'.join((*attribute['path'], attribute['keyword']))}")
    return found


def test_the_standard_asks_for_what_is_in_it_and_no_more(scan, tmp_path):
    made = pydicom.dcmread(io.write(tmp_path / "mask.dcm", mask_for(scan), like=scan))
    modules = get_iod_module_map()["segmentation"]
    asked = [module["key"] for module in modules if module["usage"] == "M"] + ["frame-of-reference"]
    assert not [keyword for module in asked for keyword in lacking(made, module)]
    for element in made.iterall():
        if isinstance(element.value, str) and element.VR in ("CS", "DA", "LO", "SH", "TM", "UI", "DS", "IS"):
            pydicom.valuerep.validate_value(element.VR, element.value, pydicom.config.RAISE)
    source = pydicom.dcmread(scan.header["dicom"]["files"][0])
    assert "napari-unetseg" in made.SeriesDescription
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert made[keyword].value == source[keyword].value, "a viewer files it with its study"
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    instances = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {one.ReferencedSOPInstanceUID for one in instances} == {
        pydicom.dcmread(file).SOPInstanceUID for file in scan.header["dicom"]["files"]
    }
    for number, segment in enumerate(made.SegmentSequence, start=1):  # viewers paint it as our window does
        seen = hd.color.CIELabColor.from_dicom_value(tuple(segment.RecommendedDisplayCIELabValue)).to_rgb()
        assert "#{:02x}{:02x}{:02x}".format(*seen) == PALETTE[number]
    optional = {
        attribute["keyword"]
        for module in modules
        if module["ie"] in ("Patient", "Study")
        for attribute in get_module_attribute_map()[module["key"]]
        if not attribute["path"] and (attribute["type"] not in ("1", "2") or module["usage"] != "M")
    }
    assert not [element.keyword for element in made if element.keyword in optional]
    # what is neither asked for nor ours has not come along from the images
    assert not [
        trace for trace in ("cathedrale", "hunchback", "nowhere", "bells", "head of") if trace in str(made).lower()
    ]


def test_an_enhanced_image_has_its_frames_named(tmp_path):
    order = [3, 0, 5, 1, 4, 2]
    values = dicoms.values(dtype=np.uint16)
    scan = io.read(dicoms.enhanced(tmp_path / "mr.dcm", values, dicoms.place(np.array(order) * 2.5)))
    mask = mask_for(scan)
    back = io.read_labels(io.write(tmp_path / "mask.dcm", mask, like=scan))
    assert np.array_equal(back.data, mask.data)
    assert back.geometry.matches(scan.geometry, 1e-4)
    made = pydicom.dcmread(tmp_path / "mask.dcm")
    groups = [
        g
        for g in made.PerFrameFunctionalGroupsSequence
        if g.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    ]
    named = [g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber for g in groups]
    heights = [np.array(g.PlanePositionSequence[0].ImagePositionPatient, float) @ dicoms.NORMAL for g in groups]
    assert [order[n - 1] for n in named] == pytest.approx((np.array(heights) - dicoms.ORIGIN @ dicoms.NORMAL) / 2.5)


def test_segments_of_others_leave_planes_out_and_overlap(scan, tmp_path):
    """As 3D Slicer writes: empty planes omitted, segments that share voxels."""
    sources = [pydicom.dcmread(f) for f in scan.header["dicom"]["files"]]
    pixels = np.zeros((6, 8, 10, 2), np.uint8)
    pixels[1, 2:5, 2:5, 0] = pixels[4, 2:5, 2:5, 0] = pixels[4, 4, 4, 1] = 1
    path = tmp_path / "theirs.dcm"
    hd.seg.Segmentation(
        sources, pixels, "BINARY", [description(1), description(2)], hd.UID(), 9, hd.UID(), 1, "x", "x", "1", "1",
        omit_empty_frames=True,
        pixel_measures=hd.PixelMeasuresSequence(list(dicoms.SPACING), 2.5, 2.5),
    ).save_as(path)  # fmt: skip
    labels = io.read_labels(path)
    assert labels.shape == (4, 8, 10)
    assert any("overlap" in note for note in labels.notes)
    whole = labels.on(scan.geometry, scan.shape)
    assert np.array_equal(whole.data, np.where(pixels[..., 1], 2, pixels[..., 0]))


def description(number):
    tissue = hd.sr.CodedConcept("85756007", "SCT", "Tissue")
    return hd.seg.SegmentDescription(number, f"s{number}", tissue, tissue, "MANUAL")


def test_nifti_by_choice_lies_in_the_same_place(scan, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    mask = mask_for(scan)
    path = io.write(tmp_path / "mask.nii.gz", mask, like=scan)
    seen = sitk.ReadImage(str(path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "head")))
    image = reader.Execute()
    for index in ((2, 1, 2), (5, 7, 9)):
        assert seen.TransformIndexToPhysicalPoint(index[::-1]) == pytest.approx(
            image.TransformIndexToPhysicalPoint(index[::-1]), abs=1e-3
        )
    assert np.array_equal(np.asarray(nib.load(path).dataobj).T, mask.data)


def test_without_highdicom_masks_are_nifti(scan, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    family._say_what_is_missing.cache_clear()
    assert io.mask_suffix(tmp_path / "head") == io.mask_suffix(tmp_path / "head") == ".nii.gz"
    assert caplog.text.count("because highdicom is not installed") == 1
    with pytest.raises(WriteError, match="needs highdicom") as caught:
        io.write(tmp_path / "mask.dcm", mask_for(scan), like=scan)
    assert "napari-unetseg[dicom]" in caught.value.hint


def test_a_project_and_whatever_has_no_place_get_nifti(tmp_path):
    dicoms.series(tmp_path / "head", dicoms.values())
    assert io.mask_suffix(tmp_path / "head") == ".dcm"
    assert io.mask_suffix(tmp_path / "head", nameless=True) == ".nii.gz"
    assert io.mask_suffix(tmp_path / "gone", nameless=True) == ".nii.gz"
    dicoms.series(tmp_path / "lost", dicoms.values(), FrameOfReferenceUID=None)
    assert io.mask_suffix(tmp_path / "lost") == ".nii.gz"


@pytest.mark.parametrize("most", [300, 20])
def test_many_objects(most, scan, tmp_path):
    mask = LabelVolume((np.arange(np.prod(scan.shape)) % (most + 1)).reshape(scan.shape))
    assert np.array_equal(io.read_labels(io.write(tmp_path / "m.dcm", mask, like=scan)).data, mask.data)


def test_what_cannot_be_written_is_refused_in_a_sentence(scan, tmp_path):
    mask = mask_for(scan)
    for volume, like, words in (
        (scan, scan, "masks only"),
        (mask, None, "not made on any"),
        (LabelVolume(mask.data - 1), scan, "not -1"),
        (LabelVolume(mask.data * 50000), scan, "not 100000"),
    ):
        with pytest.raises(WriteError, match=words) as caught:
            io.write(tmp_path / "m.dcm", volume, like=like)
        assert "m.dcm" in caught.value.message
        assert ".nii.gz" in caught.value.hint
    for path in (tmp_path / "head").iterdir():
        path.unlink()
    with pytest.raises(WriteError, match="no longer there"):
        io.write(tmp_path / "m.dcm", mask, like=scan)
    assert [path.name for path in tmp_path.iterdir()] == ["head"]


def test_a_segmentation_is_no_image(scan, tmp_path):
    path = io.write(tmp_path / "head" / "mask.dcm", mask_for(scan), like=scan)
    with pytest.raises(ReadError, match="is a segmentation"):
        io.read(path)
    assert [s.kind for s in io.list_series(tmp_path / "head")] == ["segmentation", "image"]
    assert [io.read(found).shape for found in io.find_images(tmp_path / "head")] == [scan.shape]
    (tmp_path / "masks").mkdir()
    path.rename(tmp_path / "masks" / "a.dcm")
    assert io.find_images(tmp_path / "masks") == [tmp_path / "masks" / "a.dcm"]
