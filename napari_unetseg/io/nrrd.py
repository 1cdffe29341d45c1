"""NRRD, in one file or with a detached header (NHDR), as 3D Slicer and ITK write it; pynrrd reads the fields."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.encoded import MOST_HEADER, Encoded, sibling
from napari_unetseg.io.formats import FORMATS, Format, compact, labels_from
from napari_unetseg.io.itk import KEY, frame_of, geometry_in_frame, said, saying
from napari_unetseg.io.lazy import Layout, LazyVolume, RawFile, Store
from napari_unetseg.io.tiff_size import UNITS
from napari_unetseg.volume import Geometry, LabelVolume, Volume

logger = logging.getLogger(__name__)

_TYPES = {
    "i1": "signed char|int8|int8_t", "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t", "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float", "f8": "double",
}  # fmt: skip
_CODES = {name: code for code, names in _TYPES.items() for name in names.split("|")}
_NAMES = {
    "i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32", "i8": "int64",
    "u8": "uint64", "f4": "float", "f8": "double",
}  # fmt: skip
_ENCODINGS = {
    "raw": "raw", "gzip": "deflate", "gz": "deflate", "bzip2": "bzip2", "bz2": "bzip2", "txt": "text", "text": "text",
    "ascii": "text",
}  # fmt: skip
_SPACES = {
    "left-posterior-superior": "LPS", "lps": "LPS", "right-anterior-superior": "RAS", "ras": "RAS",
    "left-anterior-superior": "LAS", "las": "LAS",
}  # fmt: skip
_AXES = 6
_FEW = 4  # an axis of so few values, in a file that does not say what its axes are, is one of channels


class Nrrd(Format):
    """NRRD and NHDR."""

    suffixes = (".nrrd", ".nhdr")
    mask_suffix = ".nrrd"

    def read(self, path: Path) -> Volume:
        """Image in its space; vectors, colours, lists and time points are channels."""
        values, geometry = _open(path)
        return values.volume(geometry, {})

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels on the grid that the header gives."""
        volume = self.read(path)
        return LabelVolume(labels_from(volume.data, path), volume.geometry, path)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write one file, gzipped."""
        labels = isinstance(volume, LabelVolume)
        array = compact(volume.data) if labels else volume.data
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        stored = np.ascontiguousarray(array if labels else np.moveaxis(array, 0, -1))
        header = _header(path, Layout(array.shape, array.dtype, volume.geometry, {}, labels), "gzip")
        with path.open("wb") as raw:
            raw.write(header)
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
                file.write(stored.astype(stored.dtype.newbyteorder("<"), copy=False).data)

    def open_lazy(self, path: Path) -> LazyVolume:
        """Regions of uncompressed values."""
        values, geometry = _open(path)
        return values.lazy(geometry, {}) or super().open_lazy(path)

    def create_lazy(self, path: Path, layout: Layout) -> Store | None:
        """Uncompressed file."""
        header = _header(path, layout, "raw")
        path.write_bytes(header)
        dtype = layout.dtype.newbyteorder("<")
        return Store(RawFile.make(path, len(header), layout.shape, dtype, last=not layout.labels))


FORMATS.register("nrrd", keeps="affine")(Nrrd())


def _open(path: Path) -> tuple[Encoded, Geometry]:
    fields, end = _fields(path)
    sizes = [int(n) for n in fields["sizes"]]
    if int(fields["dimension"]) != len(sizes) or not 2 <= len(sizes) <= _AXES or min(sizes) < 1:
        raise ReadError(f"{path.name} has a damaged header (sizes {sizes}).", hint="Export it again.")
    kind = str(fields["type"])
    if kind not in _CODES:
        raise ReadError(f"{path.name} holds values of the type {kind}.", hint="Export it as short or float.")
    encoding = str(fields["encoding"]).lower()
    if encoding not in _ENCODINGS:
        raise ReadError(f"{path.name} is packed as {encoding}, which is not supported.", hint="Save it as gzip.")
    dtype = np.dtype(_CODES[kind]).newbyteorder(">" if fields.get("endian") == "big" else "<")
    space = _spatial(fields, sizes, path)
    last = len(sizes) - 1  # the file's axes begin with the fastest, ours with the slowest
    spatial = tuple(last - axis for axis in reversed(space))
    channels = tuple(last - axis for axis in reversed(range(len(sizes))) if axis not in space and sizes[axis] > 1)
    file, offset = (path, end) if end else (sibling(path, _one_file(fields, path)), 0)
    offset, skip = _skipped(fields, file, offset, _ENCODINGS[encoding])
    values = Encoded(path, file, offset, _ENCODINGS[encoding], dtype, tuple(sizes[::-1]), channels, spatial, skip)
    return values, _geometry(fields, space, path)


def _fields(path: Path) -> tuple[dict[str, Any], int]:
    """Fields of the header, and where it ends when the values follow it in the same file, else 0."""
    import nrrd

    with path.open("rb") as file:
        start = file.read(MOST_HEADER)
    refused = ReadError(
        f"{path.name} is not a NRRD file, or its header is damaged.", hint="Check what it is, or export it again."
    )
    if not start.startswith(b"NRRD000"):
        raise refused
    ends = [(at, len(blank)) for blank in (b"\n\n", b"\r\n\r\n") if (at := start.find(blank)) >= 0]
    at, blank = min(ends, default=(len(start), 0))
    lines = start[:at].decode("utf-8", "replace").replace("\r", "").split("\n")
    try:
        fields = dict(nrrd.read_header(lines))
    except Exception as error:  # pynrrd meets damage in many ways
        raise refused from error
    if any(name not in fields for name in ("sizes", "type", "encoding", "dimension")):
        raise refused
    detached = any(name in fields for name in ("data file", "datafile"))
    if not detached and not blank:
        raise refused
    return fields, 0 if detached else at + blank


def _one_file(fields: dict[str, Any], path: Path) -> str:
    name = str(fields.get("data file", fields.get("datafile")))
    if name.upper().startswith("LIST") or "%" in name:
        raise ReadError(
            f"{path.name} spreads its planes over several files, which is not supported.",
            hint="Save it as one .nrrd file.",
        )
    return name


def _skipped(fields: dict[str, Any], file: Path, offset: int, encoding: str) -> tuple[int, int]:
    """Where the values begin after the lines to skip, and the bytes to skip after unpacking."""
    lines = int(fields.get("line skip", fields.get("lineskip", 0)))
    bytes_ = int(fields.get("byte skip", fields.get("byteskip", 0)))
    if lines > 0:
        with file.open("rb") as stream:
            stream.seek(offset)
            for _ in range(min(lines, MOST_HEADER)):
                stream.readline(MOST_HEADER)
            offset = stream.tell()
    if bytes_ < 0:
        return (-1 if encoding == "raw" else offset), 0
    if encoding != "raw" and bytes_ > MOST_HEADER:  # all of it would have to be unpacked
        raise ReadError(f"{file.name} has a header that skips {bytes_} bytes.", hint="Export it again.")
    return offset, bytes_


def _spatial(fields: dict[str, Any], sizes: Sequence[int], path: Path) -> list[int]:
    """Numbers of the axes that are ``x, y[, z]``, as the file counts them."""
    kinds = [str(kind).lower() for kind in fields.get("kinds", ["???"] * len(sizes))]
    if any("complex" in kind for kind in kinds):
        raise ReadError(f"{path.name} holds complex numbers.", hint="Save its magnitude as an image of its own.")
    if (directions := _directions(fields)) is not None:
        if any(np.isnan(step).any() and not np.isnan(step).all() for step in directions):
            raise ReadError(
                f"{path.name} has a direction in space that is no number.", hint="Correct the file's header."
            )
        space = [axis for axis, step in enumerate(directions) if np.isfinite(step).all()]
    elif any(kind in ("domain", "space") for kind in kinds):
        space = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space")]
    else:
        unknown = [axis for axis, kind in enumerate(kinds) if kind in ("???", "none")]
        extra = len(unknown) - 3
        space = unknown if extra <= 0 else unknown[extra:] if sizes[unknown[0]] <= _FEW else unknown[:3]
    if len(space) not in (2, 3):
        raise ReadError(
            f"{path.name} has {len(space)} axes in space; an image here is a plane or one volume.",
            hint="Save each time point as a file of its own.",
        )
    return space


def _directions(fields: dict[str, Any]) -> list[np.ndarray] | None:
    found = fields.get("space directions")
    if found is None:
        return None
    return [np.full(1, np.nan) if step is None else np.atleast_1d(np.asarray(step, float)) for step in found]


def _geometry(fields: dict[str, Any], space: Sequence[int], path: Path) -> Geometry:
    if kept := said(fields.get(KEY), len(space)):
        return kept
    directions = _directions(fields)
    if directions is not None:
        frame = _SPACES.get(str(fields.get("space", "")).lower().removesuffix("-time"), "")
        steps = np.array([directions[axis] for axis in space])
        origin = np.asarray(fields.get("space origin", np.zeros(steps.shape[1])), dtype=float)
        unit, factor = _unit(fields.get("space units"), range(len(space)))
        if frame and not np.isfinite(origin).all():
            logger.warning("%s: its origin %s is no place; it is taken to lie in no patient", path.name, origin)
            frame, unit = "", unit if "space units" in fields else "mm"
        if frame and unit != "mm":
            factor *= {"um": 1e-3, "nm": 1e-6}.get(unit, 1.0)
            unit = "mm"
        return geometry_in_frame(steps * factor, np.nan_to_num(origin) * factor, frame, unit)
    spacings = np.asarray(fields.get("spacings", np.ones(len(fields["sizes"]))), dtype=float)[list(space)]
    spacings = np.where(np.isfinite(spacings) & (spacings != 0), np.abs(spacings), 1.0)
    starts = np.asarray(fields.get("axis mins", np.zeros(len(fields["sizes"]))), dtype=float)[list(space)]
    unit, factor = _unit(fields.get("units"), space)
    return geometry_in_frame(np.diag(spacings) * factor, np.nan_to_num(starts) * factor, "", unit)


def _unit(names: Any, axes: Sequence[int] | range) -> tuple[str, float]:
    """Our unit of a file's, and the factor that leads to it."""
    if names is None:
        return "pixel", 1.0
    found = {str(names[axis]).strip('"').lower() for axis in axes if axis < len(names)}
    name = found.pop() if len(found) == 1 else ""
    if name in ("cm", "m"):
        return "mm", {"cm": 10.0, "m": 1000.0}[name]
    return UNITS.get(name, "pixel"), 1.0


def _header(path: Path, layout: Layout, encoding: str) -> bytes:
    code = layout.dtype.str[1:]
    if path.name.lower().endswith(".nhdr"):
        raise WriteError("a detached header and its values are two files.", hint="Choose .nrrd.")
    if code not in _NAMES:
        raise WriteError(f"NRRD does not hold {layout.dtype}.", hint="Write float32.")
    geometry = layout.geometry
    ndim = geometry.ndim
    steps, origin = frame_of(geometry)
    sizes = layout.shape[-ndim:][::-1]
    many = not layout.labels and layout.shape[0] > 1
    vectors = ["(" + ",".join(_text(n) for n in step) + ")" for step in steps]
    patient = bool(geometry.world) and ndim == 3
    fields = {
        "type": _NAMES[code],
        "dimension": str(ndim + many),
        **({"space": "left-posterior-superior"} if patient else {"space dimension": str(ndim)}),
        "sizes": " ".join(str(n) for n in ((layout.shape[0], *sizes) if many else sizes)),
        "space directions": " ".join((["none"] if many else []) + vectors),
        "kinds": " ".join((["vector"] if many else []) + ["domain"] * ndim),
        "endian": "little",
        "encoding": encoding,
        **({} if geometry.unit == "pixel" else {"space units": " ".join([f'"{geometry.unit}"'] * ndim)}),
        "space origin": "(" + ",".join(_text(n) for n in origin) + ")",
    }
    back = geometry_in_frame(steps, origin, "LPS" if patient else "", geometry.unit)
    lines = ["NRRD0005", *(f"{name}: {value}" for name, value in fields.items())]
    if text := saying(geometry, back):
        lines.append(f"{KEY}:={text}")
    return ("\n".join(lines) + "\n\n").encode()


def _text(number: float) -> str:
    return repr(float(number)) if math.isfinite(number) else "0"
