"""MetaImage (MHA, MHD with its raw file): the header that ITK writes, read and written without ITK."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.encoded import MOST_HEADER, Encoded, sibling
from napari_unetseg.io.formats import FORMATS, Format, compact, labels_from
from napari_unetseg.io.itk import KEY, frame_of, geometry_in_frame, said, saying
from napari_unetseg.io.lazy import Layout, LazyVolume, RawFile, Store
from napari_unetseg.volume import Geometry, LabelVolume, Volume

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_NAMES = {code: name for name, code in _TYPES.items() if not name.endswith("LONG") or "LONG_LONG" in name}
_AXES = 6  # more dimensions than any image has


class MetaImage(Format):
    """MHA and MHD."""

    suffixes = (".mha", ".mhd")
    mask_suffix = ".mha"

    def read(self, path: Path) -> Volume:
        """Image in patient space; channels and time points are channels."""
        values, geometry = _open(path)
        return values.volume(geometry, {})

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels on the grid that the header gives."""
        volume = self.read(path)
        return LabelVolume(labels_from(volume.data, path), volume.geometry, path)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write an MHA, compressed."""
        array = compact(volume.data) if isinstance(volume, LabelVolume) else volume.data
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        labels = isinstance(volume, LabelVolume)
        stored = np.ascontiguousarray(array if labels else np.moveaxis(array, 0, -1))
        packed = zlib.compress(stored.astype(stored.dtype.newbyteorder("<"), copy=False).data, 6)
        header = _header(path, Layout(array.shape, array.dtype, volume.geometry, {}, labels), len(packed))
        with path.open("wb") as file:
            file.write(header)
            file.write(packed)

    def open_lazy(self, path: Path) -> LazyVolume:
        """Regions of uncompressed values."""
        values, geometry = _open(path)
        return values.lazy(geometry, {}) or super().open_lazy(path)

    def create_lazy(self, path: Path, layout: Layout) -> Store | None:
        """Uncompressed MHA."""
        header = _header(path, layout, 0)
        path.write_bytes(header)
        dtype = layout.dtype.newbyteorder("<")
        return Store(RawFile.make(path, len(header), layout.shape, dtype, last=not layout.labels))


FORMATS.register("metaimage", keeps="affine")(MetaImage())


def _open(path: Path) -> tuple[Encoded, Geometry]:
    fields, end = _fields(path)
    try:
        return _understood(path, fields, end)
    except ValueError as error:  # words, or too few numbers
        raise ReadError(
            f"{path.name} has a damaged header: its numbers cannot be understood.",
            hint="Correct it, or export it again.",
        ) from error


def _understood(path: Path, fields: dict[str, str], end: int) -> tuple[Encoded, Geometry]:
    sizes = tuple(int(n) for n in fields["dimsize"].split())
    ndims = int(fields.get("ndims", len(sizes)))
    if ndims != len(sizes) or not 2 <= ndims <= _AXES or min(sizes) < 1:
        raise ReadError(f"{path.name} has a damaged header (DimSize {fields['dimsize']}).", hint="Export it again.")
    kind = fields.get("elementtype", "").upper().removesuffix("_ARRAY")
    if kind not in _TYPES:
        raise ReadError(f"{path.name} holds values of the type {kind or 'nothing'}.", hint="Export it as MET_SHORT.")
    swapped = _true(fields, "binarydatabyteordermsb") or _true(fields, "elementbyteordermsb")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if swapped else "<")
    channels = int(fields.get("elementnumberofchannels", 1))
    shape = (*sizes[::-1], *((channels,) if channels != 1 else ()))
    spatial = tuple(range(max(0, ndims - 3), ndims))
    others = tuple(axis for axis in range(len(shape)) if axis not in spatial and shape[axis] > 1)
    file, offset = _place_of_values(path, fields, end)
    packed = _true(fields, "compresseddata")
    text = not _true(fields, "binarydata", default=True)
    values = Encoded(
        path, file, offset, "deflate" if packed else "text" if text else "raw", dtype, shape, others, spatial
    )
    return values, _geometry(fields, len(spatial), ndims)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Fields by name in lower case, and where the header ends."""
    with path.open("rb") as file:
        start = file.read(MOST_HEADER)
    fields: dict[str, str] = {}
    end = 0
    while end < len(start):
        line_end = start.find(b"\n", end)
        line_end = len(start) if line_end < 0 else line_end
        name, equals, value = start[end:line_end].decode("latin-1").partition("=")
        end = line_end + 1
        if not equals:
            if name.strip():
                break
            continue
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == "elementdatafile":
            break
    if "elementdatafile" not in fields or "dimsize" not in fields:
        raise ReadError(
            f"{path.name} is not a MetaImage, or its header is cut short.", hint="Check what it is, or export it again."
        )
    return fields, end


def _place_of_values(path: Path, fields: dict[str, str], end: int) -> tuple[Path, int]:
    name = fields["elementdatafile"]
    if name.upper() == "LOCAL":
        return path, end
    if name.upper().startswith("LIST") or "%" in name:
        raise ReadError(
            f"{path.name} spreads its planes over several files, which is not supported.",
            hint="Save it as one .mha file.",
        )
    return sibling(path, name), int(fields.get("headersize", 0))


def _true(fields: dict[str, str], name: str, default: bool = False) -> bool:
    return fields[name].lower() in ("true", "1", "yes", "t") if name in fields else default


def _numbers(fields: dict[str, str], *names: str) -> np.ndarray | None:
    found = next((fields[name] for name in names if name in fields), None)
    return np.array(found.split(), dtype=float) if found else None


def _geometry(fields: dict[str, str], ndim: int, ndims: int) -> Geometry:
    """Geometry of the first `ndim` axes."""
    if kept := said(fields.get(KEY), ndim):
        return kept
    spacing = _numbers(fields, "elementspacing", "elementsize")
    matrix = _numbers(fields, "transformmatrix", "rotation", "orientation")
    origin = _numbers(fields, "offset", "position", "origin")
    if spacing is None and matrix is None and origin is None:
        return Geometry((1.0,) * ndim)
    steps = np.eye(ndims) if matrix is None else matrix.reshape(ndims, ndims)
    steps = steps[:ndim, :ndim] * np.abs((np.ones(ndims) if spacing is None else spacing)[:ndim, None])
    return geometry_in_frame(steps, (np.zeros(ndims) if origin is None else origin)[:ndim])


def _header(path: Path, layout: Layout, packed: int) -> bytes:
    code = layout.dtype.str[1:]
    if code not in _NAMES:
        raise WriteError(f"MetaImage does not hold {layout.dtype}.", hint="Write float32.")
    geometry = layout.geometry
    ndim = geometry.ndim
    # the format knows millimetres only
    seen = geometry.to_unit("mm") if geometry.unit != "pixel" else geometry
    steps, origin = frame_of(seen)
    sizes = layout.shape[-ndim:][::-1]
    fields = {
        "ObjectType": "Image",
        "NDims": str(ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(bool(packed)),
        **({"CompressedDataSize": str(packed)} if packed else {}),
        "TransformMatrix": _line((steps / np.linalg.norm(steps, axis=1, keepdims=True)).ravel()),
        "Offset": _line(origin),
        "CenterOfRotation": _line(np.zeros(ndim)),
        "ElementSpacing": _line(np.linalg.norm(steps, axis=1)),
        "DimSize": " ".join(map(str, sizes)),
        **({} if layout.labels or layout.shape[0] == 1 else {"ElementNumberOfChannels": str(layout.shape[0])}),
        "ElementType": _NAMES[code],
    }
    back = _geometry({name.lower(): value for name, value in fields.items()}, ndim, ndim)
    if text := saying(geometry, back):
        fields[KEY] = text
    fields["ElementDataFile"] = "LOCAL"
    return "".join(f"{name} = {value}\n" for name, value in fields.items()).encode()


def _line(numbers: np.ndarray) -> str:
    return " ".join(repr(float(number)) if math.isfinite(number) else "0" for number in numbers)
