"""DICOM files, and what is kept of their headers: where planes lie, how values are stored, nothing about a patient."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_unetseg.errors import ReadError, UnetSegError

__all__ = ["SEGMENTATIONS", "SUFFIXES", "Header", "is_dicom", "maybe_dicom", "quiet", "read_header", "wordless"]

SUFFIXES = (".dcm", ".dicom", ".ima")
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_SCREENSHOTS = "1.2.840.10008.5.1.4.1.1.7"

# the only elements that are ever read here; none of them says whose image it is
_KEPT = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "SeriesNumber",
    "InstanceNumber", "AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "TriggerTime",
    "DiffusionBValue", "InversionTime", "FlipAngle", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "SpacingBetweenSlices", "SliceThickness", "SliceLocation", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SequenceOfUltrasoundRegions",
    "DetectorInformationSequence", "GridFrameOffsetVector", "SegmentSequence", "SegmentationType",
    "MaximumFractionalValue",
)  # fmt: skip
_MANY = 1000
_MODALITIES = (
    "AR AU BDUS BI BMD CR CT DG DOC DX ECG EEG EPS ES FID GM HC HD IO IVOCT IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP "
    "OPM OPT OPTENF OPV OSS OT PLAN PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SEG SM SMR SR "
    "SRF STAIN TEXTUREMAP TG US VA XA XC"
)
_IMPLICIT = {0x0000, 0x0001, 0x0005, 0x0008, 0x0016, 0x0018}


@dataclass(frozen=True, eq=False)
class Header:
    """What is kept of a file's header.

    Attributes
    ----------
    path : Path
        The file.
    elements : pydicom Dataset
        Elements of geometry and of the values' encoding.
    syntax : str
        UID of the transfer syntax.
    """

    path: Path
    elements: Any = field(repr=False)
    syntax: str = ""

    def get(self, keyword: str, default: Any = None) -> Any:
        """Value of an element, `default` where it is missing, empty or not to be understood."""
        try:
            value = self.elements.get(keyword)
        except Exception:  # damaged bytes make pydicom raise anything
            return default
        return default if value is None or (isinstance(value, str) and not value.strip()) else value

    def number(self, keyword: str, default: float | None = None) -> float | None:
        """Value of an element as a number."""
        try:
            return float(self.get(keyword))
        except (TypeError, ValueError):
            return default

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """The `count` values of an element; None where there are not so many."""
        return as_numbers(self.get(keyword), count)

    @property
    def uid(self) -> str:
        """UID of the object in this file."""
        return str(self.get("SOPInstanceUID", ""))

    @property
    def modality(self) -> str:
        """One of the standard's words for it; where a header is damaged, anything might stand there."""
        found = str(self.get("Modality", ""))
        return found if found in _MODALITIES.split() else "unknown modality"

    @property
    def is_segmentation(self) -> bool:
        """Whether the file is a DICOM-SEG."""
        return str(self.get("SOPClassUID", "")) in SEGMENTATIONS

    @property
    def is_screenshot(self) -> bool:
        """Whether the file is a secondary capture: a screen or a page, with no place in the patient."""
        placed = self.get("ImagePositionPatient") is not None or "PerFrameFunctionalGroupsSequence" in self.elements
        return str(self.get("SOPClassUID", "")).startswith(_SCREENSHOTS) and not placed

    @property
    def is_image(self) -> bool:
        """Whether the file claims to hold pixels of an image."""
        return not self.is_segmentation and bool(self.get("Rows")) and bool(self.get("Columns"))

    @property
    def frames(self) -> int:
        """Number of frames."""
        return max(int(self.number("NumberOfFrames", 1) or 1), 1)


def as_numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None."""
    try:
        found = tuple(float(one) for one in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(math.isfinite(one) for one in found) else None


def maybe_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a name can be a DICOM file's: its suffix says so, it has none, or ends in the digits of a UID."""
    name = Path(path).name.lower()
    end = name.rpartition(".")[2]
    return name.endswith(SUFFIXES) or "." not in name or end.isdigit()


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with its preamble or, as old ones do, without."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    if start[128:] == b"DICM":
        return True
    group, element = int.from_bytes(start[:2], "little"), int.from_bytes(start[2:4], "little")
    if group not in (0x0002, 0x0008) or element not in _IMPLICIT or len(start) < 16:
        return False
    return (start[4:6].isalpha() and start[4:6].isupper()) or int.from_bytes(start[4:8], "little") <= 256


@contextlib.contextmanager
def wordless(path: Path) -> Iterator[None]:
    """Turn what damaged bytes make a decoder raise into one sentence of ours: its own words may quote the header."""
    kind = ""
    try:
        with quiet():
            yield
    except (UnetSegError, OSError, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
    if kind:
        raise ReadError(f"{path.name} is damaged: it cannot be understood ({kind}).", hint="Copy or export it again.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings to itself: they quote what stands in the header, names of patients among it."""
    libraries = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    before = [library.level for library in libraries]
    try:
        for library in libraries:
            library.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in zip(libraries, before, strict=True):
            library.setLevel(level)


def read_header(path: Path) -> Header:
    """Header of a DICOM file.

    Raises
    ------
    ReadError
        If it is not one, or its header is damaged.
    """
    import pydicom

    if not is_dicom(path):
        raise ReadError(f"{path.name} is not a DICOM file.", hint="Check what it is, or export it as DICOM again.")
    try:
        with quiet():
            found = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_KEPT))
            syntax = str(found.file_meta.get("TransferSyntaxUID", "") or "1.2.840.10008.1.2")
            for element in found:  # values are understood when they are asked for: here, where that is quiet
                _ = element.value
    except PermissionError:
        raise
    except Exception:  # the decoder's words may quote the header: they go no further
        found = None
    if found is None or ("SOPClassUID" not in found and "Rows" not in found):
        raise ReadError(f"{path.name} is damaged: its DICOM header cannot be read.", hint="Export it again.")
    header = Header(path, found, syntax)
    # what a frame takes at least: a header that lies about their number must not fill the memory with planes
    if header.frames > _MANY and header.frames > path.stat().st_size:
        raise ReadError(
            f"{path.name} is cut short or damaged: its header promises {header.frames} frames.",
            hint="Copy or export it again.",
        )
    return header
