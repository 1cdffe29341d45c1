"""DICOM as a family among `FORMATS`."""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path

from napari_unetseg.errors import UnetSegError, WriteError
from napari_unetseg.io.dicom.headers import SUFFIXES, read_header, wordless
from napari_unetseg.io.dicom.pixels import Decoder, values_of
from napari_unetseg.io.dicom.planes import Stack, place
from napari_unetseg.io.dicom.series import Series, series_of, sniffed
from napari_unetseg.io.formats import FORMATS, Format, labels_from, native
from napari_unetseg.volume import LabelVolume, Volume

__all__ = ["Dicom"]

logger = logging.getLogger(__name__)

KEY = "dicom"  # in the header of a volume: the files of its planes, for the DICOM-SEG that will name them


class Dicom(Format):
    """DICOM series and single objects; masks go out as DICOM-SEG, or as NIfTI where that cannot be written."""

    suffixes = SUFFIXES
    names_patients = True

    @property
    def mask_suffix(self) -> str:  # type: ignore[override]
        """``.dcm`` where highdicom is installed."""
        return ".dcm" if importlib.util.find_spec("highdicom") else ".nii.gz"

    def mask_suffix_of(self, path: Path) -> str:
        """As `mask_suffix`, but ``.nii.gz`` for pictures that have no place in a patient, which DICOM-SEG needs."""
        if self.mask_suffix != ".dcm":
            _say_what_is_missing()
        elif path.exists():
            try:
                first = series_of(path).planes[0]
            except (UnetSegError, OSError):
                return self.mask_suffix
            if first.position is None or first.header.get("FrameOfReferenceUID") is None:
                return ".nii.gz"
        return self.mask_suffix

    def recognises(self, path: Path) -> bool:
        """Files without a telling name that begin as DICOM does, and folders that hold any."""
        return sniffed(path)

    def read(self, path: Path) -> Volume:
        """The series that `path` stands for, in its real values (rescaled), colours as three channels."""
        return self._read(path, Decoder())

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels of a DICOM-SEG on the grid of its own planes, or of an image whose values are labels."""
        if path.is_file() and read_header(path).is_segmentation:
            from napari_unetseg.io.dicom.seg import read_segmentation

            return read_segmentation(path)
        volume = self._read(path, Decoder(indices=True))
        return LabelVolume(labels_from(volume.data, path), volume.geometry, path, volume.header, volume.notes)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write labels as DICOM-SEG, with `like` read from DICOM; images are not written."""
        if not isinstance(volume, LabelVolume):
            raise WriteError("images are not written as DICOM, masks only.", hint="Choose .nii.gz or .tif for it.")
        source = (like if like is not None else volume).header.get(KEY)
        if not source:
            raise WriteError(
                "DICOM-SEG has to name the DICOM images it belongs to, and this mask was not made on any.",
                hint="Choose .nii.gz for it.",
            )
        if self.mask_suffix != ".dcm":
            raise WriteError(
                "writing DICOM-SEG needs highdicom, which is not installed.",
                hint='Install it with: pip install "napari-unetseg[dicom]", or choose .nii.gz.',
            )
        from napari_unetseg.io.dicom.seg import write_segmentation

        write_segmentation(path, volume, source, volume.header.get("classes", ()))

    def _read(self, path: Path, decoder: Decoder) -> Volume:
        series = series_of(path)
        with wordless(path):
            stack = place(series.planes, decoder.fingerprint)
            data, more = values_of(stack, decoder)
        notes = (*_about(series), *stack.notes, *more)
        for note in notes:
            logger.warning("%s: %s", path.name, note)
        return Volume(native(data, path), stack.geometry, path, {KEY: _source(stack)}, notes)


FORMATS.register("dicom", keeps="affine")(Dicom())


@functools.cache
def _say_what_is_missing() -> None:
    """Once is enough."""
    logger.warning(
        "Masks of DICOM images are written as NIfTI, because highdicom is not installed; for DICOM-SEG: pip install "
        '"napari-unetseg[dicom]"'
    )


def _about(series: Series) -> list[str]:
    notes = []
    if series.kind == "screenshot":
        notes.append("This is a screenshot or a scanned page (secondary capture): writing in it may name the patient.")
    if series.unread:
        names = ", ".join(path.name for path in series.unread[:3])
        notes.append(f"Files beside it that could not be read as DICOM are left out: {len(series.unread)} ({names}).")
    return notes


def _source(stack: Stack) -> dict[str, object]:
    """Files and frames of the planes, the first image of each position: no word of a header."""
    first = [spot[0] for spot in stack.planes]
    return {
        "files": tuple(str(plane.header.path.resolve()) for plane in first),
        "frames": tuple(plane.frame for plane in first),
        "placed": first[0].position is not None,
        "even": stack.even,
    }
