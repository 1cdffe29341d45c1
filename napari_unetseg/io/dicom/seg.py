"""DICOM-SEG: masks that name the images they were made on, one binary frame for each class and plane.

More than 255 labels are numbered objects, and go out as the standard's newer label map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import napari_unetseg
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.dicom.headers import Header, quiet, read_header, wordless
from napari_unetseg.io.dicom.pixels import Decoder
from napari_unetseg.io.dicom.planes import Plane, place, planes_of
from napari_unetseg.io.formats import compact
from napari_unetseg.palette import PALETTE
from napari_unetseg.volume import Geometry, LabelVolume

__all__ = ["read_segmentation", "write_segmentation"]

BINARY = 255  # segments that get planes of their own, which every viewer shows; more are objects, in one label map
MOST = 65535

# what a segmentation has to repeat of its images (types 1 and 2 of the Patient, Study and Frame of Reference modules),
# and what places it; nothing else of their headers is handed on
_REQUIRED = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "NumberOfFrames",
)  # fmt: skip
_EMPTY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
          "ReferringPhysicianName", "AccessionNumber")  # fmt: skip

# SNOMED CT; every other class is a "Tissue", as in 3D Slicer
_TISSUE = ("85756007", "SCT", "Tissue")
_ORGAN = ("123037004", "SCT", "Anatomical Structure")
_ALTERED = ("49755003", "SCT", "Morphologically Altered Structure")
_CODES = {
    "liver": (_ORGAN, ("10200004", "SCT", "Liver")),
    "spleen": (_ORGAN, ("78961009", "SCT", "Spleen")),
    "kidney": (_ORGAN, ("64033007", "SCT", "Kidney")),
    "pancreas": (_ORGAN, ("15776009", "SCT", "Pancreas")),
    "lung": (_ORGAN, ("39607008", "SCT", "Lung")),
    "heart": (_ORGAN, ("80891009", "SCT", "Heart")),
    "brain": (_ORGAN, ("12738006", "SCT", "Brain")),
    "prostate": (_ORGAN, ("41216001", "SCT", "Prostate")),
    "lesion": (_ALTERED, ("52988006", "SCT", "Lesion")),
    "tumour": (_ALTERED, ("108369006", "SCT", "Neoplasm")),
    "tumor": (_ALTERED, ("108369006", "SCT", "Neoplasm")),
}


def write_segmentation(path: Path, mask: LabelVolume, source: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Write a mask beside its images.

    Parameters
    ----------
    path : Path
        File to write.
    mask : LabelVolume
        On the grid of the images.
    source : mapping
        Files and frames of the planes, as the reader left them.
    classes : sequence of str
        Names, the background first; the labels' numbers where there are none.

    Raises
    ------
    WriteError
        If the images are gone, have no place in a patient, or there are too many labels.
    """
    import highdicom as hd

    labels = mask.data if mask.ndim == 3 else mask.data[None]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > MOST:
        what = f"its classes are 0 to {MOST} here, not {high if low >= 0 else low}"
        raise WriteError(f"a DICOM-SEG cannot hold it: {what}.", hint="Choose .nii.gz for it.")
    if not source["placed"]:
        raise WriteError("its image has no place in a patient, which DICOM-SEG needs.", hint="Choose .nii.gz.")
    images = _images(source)
    count = max(high, len(classes) - 1, 1)
    positions, directions = _planes(source)
    spacing = mask.geometry.spacing
    between = spacing[0] if len(positions) > 1 and source["even"] else None
    thickness = images[0].get("SliceThickness") or spacing[0]
    try:
        with quiet():
            made = hd.seg.Segmentation(
                source_images=images,
                pixel_array=np.ascontiguousarray(labels).astype(np.uint8 if count <= BINARY else np.uint16),
                segmentation_type="BINARY" if count <= BINARY else "LABELMAP",
                segment_descriptions=[_segment(number, classes) for number in range(1, count + 1)],
                series_instance_uid=hd.UID(),
                series_number=1,
                series_description="Segmentation by napari-unetseg",  # what viewers list a series by
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="napari-unetseg",
                manufacturer_model_name="napari-unetseg",
                software_versions=napari_unetseg.__version__,
                device_serial_number="1",
                content_label="SEGMENTATION",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                # empty planes are kept: the grid of the images is then in the mask, and uneven gaps are
                omit_empty_frames=False,
                plane_positions=[hd.PlanePositionSequence("PATIENT", list(position)) for position in positions],
                plane_orientation=hd.PlaneOrientationSequence("PATIENT", list(directions)),
                pixel_measures=hd.PixelMeasuresSequence(list(spacing[-2:]), float(thickness), between),
            )
            made.save_as(path)
        failed = ""
    except OSError:
        raise
    except Exception as error:  # its words may quote the headers of the images
        failed = type(error).__name__
    if failed:
        raise WriteError(
            f"highdicom could not make a DICOM-SEG of these images ({failed}).", hint="Choose .nii.gz for the mask."
        ) from None


def read_segmentation(path: Path) -> LabelVolume:
    """Labels of a DICOM-SEG: numbers of its segments, the higher where two overlap, on the grid of its planes."""
    header = read_header(path)
    with wordless(path):
        return _labels(path, header)


def _labels(path: Path, header: Header) -> LabelVolume:
    planes = planes_of(header)
    kind = str(header.get("SegmentationType", "BINARY"))
    scale = header.number("MaximumFractionalValue", 1) if kind == "FRACTIONAL" else 1
    if not planes or planes[0].position is None or planes[0].directions is None:
        raise ReadError(
            f"{path.name} does not say where its frames lie.", hint="Export the segmentation as NIfTI instead."
        )
    heights = [plane.height for plane in planes]
    order = np.argsort(heights, kind="stable")
    # one plane for each position, whatever segments it is of
    firsts = [planes[i] for n, i in enumerate(order) if n == 0 or heights[i] - heights[order[n - 1]] > 0.01]
    stack = place(firsts, lambda plane: plane.frame)
    geometry, index = _filled(header, stack.geometry, firsts)
    labels = np.zeros((max(index.values()) + 1, *planes[0].shape), np.uint16)
    decoder, overlapping = Decoder(), False
    for plane in sorted(planes, key=lambda plane: plane.segment):
        known = np.array(list(index))
        target = labels[index[known[np.abs(known - plane.height).argmin()]]]
        values = decoder.frame(plane)[0]
        if kind == "LABELMAP":
            target[...] = values
            continue
        where = values > 0.5 * float(scale or 1)
        overlapping |= bool((target[where] > 0).any())
        target[where] = plane.segment
    notes = stack.notes if len(index) == len(labels) else ()
    if overlapping:
        notes = (*notes, "Its segments overlap; where they do, the one with the higher number is taken.")
    return LabelVolume(compact(labels), geometry, path, _names(header), notes)


def _names(header: Header) -> dict[str, Any]:
    """Names of the classes, the background first, where each segment has one of its own."""
    try:
        found = {int(one.SegmentNumber): str(one.SegmentLabel).strip() for one in header.get("SegmentSequence", ())}
    except Exception:  # damaged bytes make pydicom raise anything
        return {}
    count = max(found, default=0)
    if not 0 < count <= BINARY or len({*found.values(), ""}) <= len(found):
        return {}
    return {"classes": ("background", *(found.get(number, f"Class {number}") for number in range(1, count + 1)))}


def _filled(header: Header, geometry: Geometry, planes: Sequence[Plane]) -> tuple[Geometry, dict[float, int]]:
    """Grid with a place for the planes that were left out because they are empty, and the index of each height."""
    heights = np.array([plane.height for plane in planes])
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    measures = (shared[0].get("PixelMeasuresSequence") or [{}])[0]
    # an uneven stack gives no distance: what is missing there was never scanned
    step = abs(float(measures.get("SpacingBetweenSlices") or 0))
    times = (heights - heights[0]) / (step or 1)
    index = np.rint(times).astype(int)
    if not step or len(planes) < 2 or np.abs(times - index).max() > 0.1 or len(set(index)) < len(index):
        return geometry, {float(height): i for i, height in enumerate(heights)}
    affine = geometry.affine.copy()
    affine[:3, 0] *= (len(planes) - 1) / index[-1]
    whole = Geometry((geometry.spacing[0] * (len(planes) - 1) / index[-1], *geometry.spacing[1:]), "mm", affine, "RAS+")
    return whole, {float(height): int(i) for height, i in zip(heights, index, strict=True)}


def _images(source: Mapping[str, Any]) -> list[Any]:
    """The images' headers, cut down to what a segmentation has to repeat."""
    import pydicom

    made = []
    for name in dict.fromkeys(source["files"]):
        try:
            with quiet():
                full = pydicom.dcmread(name, stop_before_pixels=True, force=True)
        except Exception:  # a damaged header raises anything, and its words may name the patient
            full = None
        if full is None:
            raise WriteError(
                f"its image {Path(name).name} is no longer there, or cannot be read.",
                hint="Put it back, or choose .nii.gz for the mask.",
            )
        kept = pydicom.Dataset()
        kept.file_meta = full.file_meta
        for keyword in (*_REQUIRED, "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            if keyword in full:
                kept[keyword] = full[keyword]
        for keyword in _EMPTY:
            if keyword not in kept:
                setattr(kept, keyword, "")
        made.append(kept)
    return made


def _planes(source: Mapping[str, Any]) -> tuple[list[np.ndarray], np.ndarray]:
    """Position of each plane and their common directions, from the headers, to the last digit."""
    known: dict[str, list[Plane]] = {}
    found = []
    for name, frame in zip(source["files"], source["frames"], strict=True):
        if name not in known:
            known[name] = planes_of(read_header(Path(name)))
        found.append(known[name][frame])
    return [plane.position for plane in found], np.ravel(found[0].directions)


def _segment(number: int, classes: Sequence[str]) -> Any:
    import highdicom as hd

    name = str(classes[number])[:64] if number < len(classes) else f"Class {number}"
    category, kind = _CODES.get(name.strip().lower(), (_TISSUE, _TISSUE))
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=hd.sr.CodedConcept(*category),
        segmented_property_type=hd.sr.CodedConcept(*kind),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="napari-unetseg",
            version=napari_unetseg.__version__,
            family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        ),
        display_color=hd.color.CIELabColor.from_string(PALETTE[number % len(PALETTE)]),
    )
