"""Pixels of DICOM files: decoded, in their real values, whole numbers kept whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.io.dicom.headers import Header, quiet
from napari_unetseg.io.dicom.planes import Plane, Stack
from napari_unetseg.io.formats import DEFLATED, check_size

__all__ = ["Decoder", "values_of"]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", _DEFLATED}
_KINDS = (np.uint8, np.int16, np.uint16, np.int32, np.uint32)


@dataclass
class Decoder:
    """Frames of files as ``(samples, Y, X)``; the file that was decoded last is kept, for the frames that follow."""

    indices: bool = False  # palette images give their indices, not their colours
    _path: Path | None = None
    _frames: np.ndarray | None = None

    def frame(self, plane: Plane) -> np.ndarray:
        """Stored values of a plane."""
        if plane.header.path != self._path or self._frames is None:
            self._frames, self._path = _decode(plane.header, self.indices), plane.header.path
        if plane.frame >= len(self._frames):
            raise ReadError(
                f"{plane.header.path.name} is cut short: it promises {plane.header.frames} frames and holds "
                f"{len(self._frames)}.",
                hint="Copy or export it again.",
            )
        return self._frames[plane.frame]

    def fingerprint(self, plane: Plane) -> bytes:
        """Hash of a plane's values."""
        return hashlib.sha256(np.ascontiguousarray(self.frame(plane)).tobytes()).digest()


def values_of(stack: Stack, decoder: Decoder) -> tuple[np.ndarray, list[str]]:
    """Real values of all planes, ``(C, [Z,] Y, X)``, and what is to be said about them."""
    planes = [plane for spot in stack.planes for plane in spot]
    first = planes[0]
    sample = decoder.frame(first)
    table = first.header.get("ModalityLUTSequence")
    dtype = sample.dtype if table is None else np.dtype(np.float64)
    rescales = {plane.rescale for plane in planes}
    plain = rescales == {(1.0, 0.0)}
    if not plain or table is not None:
        dtype = np.dtype(np.float32) if table is not None else _kind(planes, sample.dtype)
    notes: list[str] = []
    images = len(stack.planes[0])
    out = np.empty((images * len(sample), len(stack.planes), *first.shape), dtype)
    flip = _flip(first, plain and table is None, notes)
    padded = 0
    # a file's frames are decoded together: taken in the files' order, none is decoded twice
    places = [(i, j, plane) for i, spot in enumerate(stack.planes) for j, plane in enumerate(spot)]
    for i, j, plane in sorted(places, key=lambda one: (str(one[2].header.path), one[2].frame)):
        stored = decoder.frame(plane)
        if stored.shape != sample.shape:
            raise ReadError(
                f"{plane.header.path.name} has another size than the rest of its series.", hint="Export it again."
            )
        padded += _padding(plane, stored)
        out[j * len(sample) : (j + 1) * len(sample), i] = _real(plane, flip(stored), dtype, plain)
    if padded:
        value = first.header.number("PixelPaddingValue", 0) or 0
        notes.append(
            f"{100 * padded / out.size:.2g} % of its pixels are padding outside the scanned field (stored {value:g})."
        )
    return (out[:, 0] if stack.geometry.ndim == 2 else out), notes


def _kind(planes: Iterable[Plane], stored: np.dtype) -> np.dtype:
    """Type for rescaled values: the smallest integer that holds whatever the bits can say, or float32."""
    low, high = np.inf, -np.inf
    for plane in planes:
        slope, intercept = plane.rescale
        if slope != int(slope) or intercept != int(intercept) or stored.kind == "f":
            return np.dtype(np.float32)
        bits = int(plane.header.number("BitsStored", 8 * stored.itemsize) or 8 * stored.itemsize)
        signed = stored.kind == "i"
        ends = (-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)
        both = [slope * end + intercept for end in ends]
        low, high = min(low, *both), max(high, *both)
    fitting = [kind for kind in _KINDS if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    return np.dtype(fitting[0]) if fitting else np.dtype(np.float64)


def _real(plane: Plane, stored: np.ndarray, dtype: np.dtype, plain: bool) -> np.ndarray:
    table = plane.header.get("ModalityLUTSequence")
    if table is not None:
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(stored, plane.header.elements)
    if plain:
        return stored
    slope, intercept = plane.rescale
    exact = stored.astype(np.float64 if dtype.kind == "f" else np.int64)
    return exact * (slope if dtype.kind == "f" else int(slope)) + (intercept if dtype.kind == "f" else int(intercept))


def _flip(plane: Plane, plain: bool, notes: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """What turns pictures where low is white the usual way round; values with a unit stay what they are."""
    if plane.header.get("PhotometricInterpretation") != "MONOCHROME1":
        return lambda stored: stored
    if not plain:
        notes.append("It is meant to be shown with low values white (MONOCHROME1); its values are kept.")
        return lambda stored: stored
    notes.append("It was stored with low values white (MONOCHROME1), and is inverted: high is bright.")
    bits = int(plane.header.number("BitsStored", 16) or 16)

    def inverted(stored: np.ndarray) -> np.ndarray:
        top = -1 if stored.dtype.kind == "i" else 2**bits - 1
        return (top - stored.astype(np.int64)).astype(stored.dtype)

    return inverted


def _padding(plane: Plane, stored: np.ndarray) -> int:
    value = plane.header.number("PixelPaddingValue")
    if value is None:
        return 0
    other = plane.header.number("PixelPaddingRangeLimit", value) or value
    return int(((stored >= min(value, other)) & (stored <= max(value, other))).sum())


def _decode(header: Header, indices: bool) -> np.ndarray:
    """All frames of a file, ``(frames, samples, Y, X)``."""
    import pydicom
    from pydicom.pixels import apply_color_lut, pixel_array

    path = header.path
    _check_syntax(header)
    bits = int(header.number("BitsAllocated", 16) or 16) * int(header.number("SamplesPerPixel", 1) or 1)
    native = header.syntax in _NATIVE
    rows, columns = int(header.number("Rows", 0) or 0), int(header.number("Columns", 0) or 0)
    # how much a codec can make of one byte is not known: such a file is only held against the memory
    most = 10**6 if not native else DEFLATED if header.syntax == _DEFLATED else 1
    check_size(path, (header.frames, rows, columns), bits, most)
    failed = ""
    with quiet():
        try:
            dataset = pydicom.dcmread(path, force=True)
        except PermissionError:
            raise
        except Exception:  # whatever a decoder says may quote the header, and goes no further
            failed = "its header cannot be read"
        if not failed and not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise ReadError(
                f"{path.name} holds no pixels: it is a DICOM object of another kind, or was stripped of them.",
                hint="Export the images themselves.",
            )
        if not failed:
            try:
                array = _pixels(dataset, header, pixel_array)
                if header.get("PhotometricInterpretation") == "PALETTE COLOR" and not indices:
                    array = _eight_bits(apply_color_lut(array, dataset))
            except MemoryError:
                raise
            except Exception:  # decoders raise anything, and their words may quote the header
                failed = "its pixels cannot be decoded"
    if failed:
        raise ReadError(f"{path.name} is cut short or damaged: {failed}.", hint="Copy or export it again.") from None
    return _in_order(array, header, indices)


def _pixels(dataset: Any, header: Header, pixel_array: Callable[..., np.ndarray]) -> np.ndarray:
    if "TransferSyntaxUID" not in dataset.file_meta:  # files without a preamble
        dataset.file_meta.TransferSyntaxUID = header.syntax
    return pixel_array(dataset)


def _in_order(array: np.ndarray, header: Header, indices: bool) -> np.ndarray:
    palette = header.get("PhotometricInterpretation") == "PALETTE COLOR" and not indices
    samples = 3 if palette else int(header.number("SamplesPerPixel", 1) or 1)
    if header.frames == 1:
        array = array[None]
    array = np.moveaxis(array, -1, 1) if samples > 1 else array[:, None]
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _eight_bits(colours: np.ndarray) -> np.ndarray:
    """Colours of a palette; those of 16 bits fill them, and lose nothing that is seen."""
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)


def _check_syntax(header: Header) -> None:
    """Refuse compressions that nothing installed can decode."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    if header.syntax in _NATIVE:
        return
    uid = UID(header.syntax)
    name = uid.name if uid.name != uid else "an unknown transfer syntax"
    try:
        available = get_decoder(header.syntax).is_available
    except NotImplementedError:
        available = False
    if available:
        return
    try:
        import gdcm  # noqa: F401
    except ImportError:
        hint = 'Install what decodes it: pip install "napari-unetseg[dicom]".'
    else:
        hint = "Save it uncompressed, or as JPEG 2000, in the program that made it."
    raise ReadError(f"{header.path.name} is compressed as {name}, which cannot be decoded here.", hint=hint)
