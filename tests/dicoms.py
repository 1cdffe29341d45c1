"""DICOM files made with pydicom, of a patient whose name must never be seen again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

NAME, ID, BIRTH = "Quasimodo^Zebulon", "PID-77-XYZZY", "19310417"
IDENTITY = {
    "PatientName": NAME,
    "PatientID": ID,
    "PatientBirthDate": BIRTH,
    "PatientAddress": "Rue de la Cathedrale 9",
    "OtherPatientNames": "Hunchback^The",
    "InstitutionName": "Hospital of Nowhere",
    "ReferringPhysicianName": "Frollo^Claude",
    "SeriesDescription": "head of Quasimodo",
    "StudyDescription": "Zebulon again",
    "PatientComments": "rings bells",
}
TRACES = (
    "quasimodo",
    "zebulon",
    "77-xyzzy",
    BIRTH,
    "1931-04-17",
    "cathedrale",
    "hunchback",
    "nowhere",
    "frollo",
    "bells",
)

CT, MR, SC, ENHANCED_MR = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.4.1",
)
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])  # a coronal plane, turned
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-20.0, 35.0, 60.0])
SPACING = (0.5, 0.75)  # (y, x)
STUDY, FRAME = generate_uid(), generate_uid()


def dataset(pixels: np.ndarray, sop_class=CT, **elements) -> pydicom.Dataset:
    """One object with `pixels` ``([frames,] Y, X[, samples])``."""
    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = sop_class
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.FrameOfReferenceUID = STUDY, FRAME
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber, made.PatientSex = (
        "20200102",
        "1200",
        "1",
        "",
        "O",
    )
    samples = pixels.shape[-1] if elements.get("SamplesPerPixel", 1) > 1 else 1
    made.Rows, made.Columns = pixels.shape[-3:-1] if samples > 1 else pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = samples, "RGB" if samples > 1 else "MONOCHROME2"
    if samples > 1:
        made.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit, made.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    made.Modality, made.SeriesNumber, made.InstanceNumber = "CT", 4, 1
    for keyword, value in {**IDENTITY, **elements}.items():
        if value is None:
            if keyword in made:
                del made[keyword]
        else:
            setattr(made, keyword, value)
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB" if bits == 8 else "OW"
    return made


def place(heights, tilt=0.0) -> list[np.ndarray]:
    """Positions of planes at `heights` along the normal, each shifted by `tilt` mm a mm along the columns."""
    return [ORIGIN + NORMAL * h + COLUMN * tilt * h for h in heights]


def series(
    folder, values: np.ndarray, heights=None, tilt=0.0, change=None, name="{:03d}.dcm", **elements
) -> list[Path]:
    """Files of a series with `values` ``(Z, Y, X)``, named in an order that is not theirs.

    `change(dataset, index)` may alter the object of a plane before it is written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    heights = np.arange(len(values)) * 2.5 if heights is None else heights
    uid = generate_uid()
    order = np.random.default_rng(len(values)).permutation(len(values))
    paths = []
    for index, position in enumerate(place(heights, tilt)):
        made = dataset(
            values[index],
            **{
                "SeriesInstanceUID": uid,
                "InstanceNumber": len(values) - index,
                "ImagePositionPatient": list(position),
                "ImageOrientationPatient": [*ROW, *COLUMN],
                "PixelSpacing": list(SPACING),
                "SliceThickness": 9.0,  # a lie: positions decide
                **elements,
            },
        )
        if change is not None:
            change(made, index)
        paths.append(folder / name.format(order[index]))
        made.save_as(paths[-1], enforce_file_format=True)
    return paths


def world(z: float, y: float, x: float, gap=2.5, tilt=0.0) -> np.ndarray:
    """RAS+ position of a voxel of `series`."""
    lps = ORIGIN + NORMAL * gap * z + COLUMN * (tilt * gap * z + SPACING[0] * y) + ROW * SPACING[1] * x
    return lps * (-1, -1, 1)


def values(shape=(6, 8, 10), dtype=np.int16, low=0, high=1000) -> np.ndarray:
    return np.random.default_rng(3).integers(low, high, shape).astype(dtype)


def enhanced(path, values: np.ndarray, positions, **elements) -> Path:
    """An enhanced MR object with `values` ``(frames, Y, X)`` at `positions`."""

    def item(**kept) -> pydicom.Dataset:
        made = pydicom.Dataset()
        for keyword, value in kept.items():
            setattr(made, keyword, value)
        return made

    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[*ROW, *COLUMN])],
        PixelMeasuresSequence=[item(PixelSpacing=list(SPACING), SliceThickness=9.0)],
    )
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=list(position))],
            FrameContentSequence=[item(TemporalPositionIndex=1 + index // max(len(positions) // 2, 1))],
            PixelValueTransformationSequence=[item(RescaleSlope=2.0, RescaleIntercept=-float(index), RescaleType="US")],
        )
        for index, position in enumerate(positions)
    ]
    made = dataset(
        values, ENHANCED_MR, SeriesInstanceUID=generate_uid(), Modality="MR", NumberOfFrames=len(values),
        SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=frames, **elements,
    )  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return Path(path)
