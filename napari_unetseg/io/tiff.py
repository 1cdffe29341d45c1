"""TIFF: plain pages, ImageJ and OME-TIFF, with the voxel size that they declare."""

from __future__ import annotations

import json
import logging
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.formats import FORMATS, Format, check_size, compact, hushed, labels_from, native
from napari_unetseg.io.lazy import Layout, LazyVolume, RawFile, Store, arrange
from napari_unetseg.io.tiff_size import UNITS, distance_unsaid, stage_position, voxel_size
from napari_unetseg.volume import Geometry, LabelVolume, Volume

logger = logging.getLogger(__name__)

# TIFF has no word for an affine: ours travels as one more key of the ImageJ or OME metadata
_KEY = "unetseg_geometry"

# bytes: offsets of plain TIFF end at 4 GiB, and tags need some room as well
BIG = 2**32 - 2**25

# bits, description, where the pixels are, resolution, palette, ImageJ's own: without them an image would be misread
_TELLING = {258, 270, 273, 279, 282, 283, 320, 324, 325, 50838, 50839}


class Tiff(Format):
    """TIFF: pages, stacks, ImageJ, OME, BigTIFF, compressed, palette."""

    suffixes = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".btf")
    mask_suffix = ".tif"

    def read(self, path: Path) -> Volume:
        """Image; a palette gives its colours, except in ImageJ, where it only tints the display."""
        return _read(path, colours=True)

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels; a palette gives its indices."""
        volume = _read(path, colours=False)
        return LabelVolume(labels_from(volume.data, path), volume.geometry, path, volume.header)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write as ImageJ where `like` is, else as OME-TIFF."""
        import tifffile

        array = compact(volume.data) if isinstance(volume, LabelVolume) else volume.data
        if array.dtype == np.float16:  # unknown to OME and ImageJ
            array = array.astype(np.float32)
        axes = ("" if isinstance(volume, LabelVolume) else "C") + volume.geometry.axes
        geometry = volume.geometry
        kept = (like if like is not None and "tiff" in like.header else volume).header.get("tiff", "ome")
        extra = _extra(geometry, volume.shape)
        large = array.nbytes > BIG
        if kept == "imagej" and array.dtype in (np.uint8, np.uint16, np.float32) and not large:
            if axes == "CZYX":
                array, axes = np.moveaxis(array, 0, 1), "ZCYX"
            metadata: dict[str, Any] = {"axes": axes, "unit": geometry.unit, **extra}
            if geometry.ndim == 3:
                metadata["spacing"] = geometry.spacing[0]
            tifffile.imwrite(
                path,
                array,
                imagej=True,
                resolution=(1 / geometry.spacing[-1], 1 / geometry.spacing[-2]),
                metadata=metadata,
            )
            return
        metadata = _ome_metadata(axes, geometry, array.shape)
        tifffile.imwrite(
            path, array, bigtiff=large, ome=True, photometric="minisblack", compression="zlib", metadata=metadata
        )

    def open_lazy(self, path: Path) -> LazyVolume:
        """Regions, tile by tile or strip by strip, of the finest level."""
        from napari_unetseg.io.tiff_lazy import open_tiff

        return open_tiff(path) or super().open_lazy(path)

    def create_lazy(self, path: Path, layout: Layout) -> Store | None:
        """Uncompressed OME-TIFF, a BigTIFF where it is larger than 4 GB."""
        import tifffile

        if layout.dtype == np.float16:
            raise WriteError("OME-TIFF has no half floats.", hint="Write float32.")
        axes = ("" if layout.labels else "C") + layout.geometry.axes
        place = tifffile.imwrite(
            path,
            shape=layout.shape,
            dtype=layout.dtype,
            bigtiff=math.prod(layout.shape) * layout.dtype.itemsize > BIG,
            ome=True,
            photometric="minisblack",
            metadata=_ome_metadata(axes, layout.geometry, layout.shape),
            returnoffset=True,
        )
        assert place is not None  # as asked for
        return Store(RawFile.make(path, place[0], layout.shape, layout.dtype))


FORMATS.register("tiff", keeps="affine")(Tiff())


def _ome_metadata(axes: str, geometry: Geometry, shape: tuple[int, ...]) -> dict[str, Any]:
    """What tifffile writes into the OME-XML."""
    metadata: dict[str, Any] = {"axes": axes}
    unit = {"um": "µm"}.get(geometry.unit, geometry.unit)
    for axis, step in zip(geometry.axes, geometry.spacing, strict=True):
        metadata[f"PhysicalSize{axis}"] = step
        metadata[f"PhysicalSize{axis}Unit"] = unit
    if not geometry.world and any(geometry.origin):
        count = math.prod(shape[:-2])  # planes of all channels, one channel after the other
        _, y, x = geometry.origin
        metadata["Plane"] = {"PositionY": [y] * count, "PositionX": [x] * count}
        if geometry.ndim == 3:
            planes = [geometry.origin[0] + z * geometry.spacing[0] for z in range(shape[-3])]
            metadata["Plane"]["PositionZ"] = planes * (count // shape[-3])
        metadata["Plane"].update({f"Position{axis}Unit": [unit] * count for axis in geometry.axes})
    if extra := _extra(geometry, shape[-geometry.ndim :]):
        metadata["MapAnnotation"] = extra
    return metadata


def _read(path: Path, colours: bool) -> Volume:
    with hushed("tifffile"), open_file(path) as tif:
        if not tif.pages or not tif.series:
            raise ReadError(f"{path.name} holds no image.", hint="Copy or export it again.")
        series = main_series(tif)
        check_whole(tif, series, path)
        page = series.keyframe
        array, axes = _pixels(tif, series, path), series.axes
        array, axes = _photometric(array, axes, page, colours, bool(tif.is_imagej))
        array = arrange(array, *axis_order(array.shape, axes, path))
        array = native(_without_alpha(array, page), path)
        geometry = geometry_of(tif, page, array.ndim - 1)
        if geometry.ndim == array.ndim:  # a stack of one plane
            array = array[:, None]
        header = {"tiff": "imagej" if tif.is_imagej else "ome"}
        notes = notes_of(tif, series, geometry)
    for note in notes:
        logger.warning("%s: %s", path.name, note)
    return Volume(array, geometry, path, header, notes)


def main_series(tif: Any) -> Any:
    """The first image of a file that is not the small picture of another."""
    return next((series for series in tif.series if not series.keyframe.is_reduced), tif.series[0])


def notes_of(tif: Any, series: Any, geometry: Geometry) -> tuple[str, ...]:
    """What the user should know about how a file was understood."""
    notes = []
    images = [one for one in tif.series if not one.keyframe.is_reduced]
    if len(images) > 1:
        notes.append(f"The file holds {len(images)} images; the first, {series.shape}, is used.")
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("T", 1) > 1:
        notes.append(f"Its {sizes['T']} time points are taken as the planes of a stack.")
    elif geometry.ndim == 3 and not _said(tif) and (unit := distance_unsaid(tif, series.keyframe)):
        notes.append(f"It does not say how far apart its planes are: 1 {unit} is taken, and volumes depend on it.")
    return tuple(notes)


def open_file(path: Path) -> Any:
    """The handle of this file alone, whatever others its OME-XML names."""
    import tifffile

    try:
        tif = tifffile.TiffFile(path, _multifile=False)
    except (tifffile.TiffFileError, struct.error) as error:
        raise ReadError(f"{path.name} is not a TIFF file.", hint="Check what it is, or export it again.") from error
    if _runs_in_a_circle(tif):
        tif.close()
        raise ReadError(f"{path.name} is damaged: its pages run in a circle.", hint="Copy or export it again.")
    return tif


def _runs_in_a_circle(tif: Any) -> bool:
    """Whether a page names an earlier one as the next; tifffile would go round and round."""
    tiff, file = tif.tiff, tif.filehandle
    seen: set[int] = set()
    file.seek(4 if tiff.offsetsize == 4 else 8)
    while len(raw := file.read(tiff.offsetsize)) == tiff.offsetsize:
        (offset,) = struct.unpack(tiff.offsetformat, raw)
        if not offset or offset >= file.size:
            return False
        if offset in seen:
            return True
        seen.add(offset)
        file.seek(offset)
        head = file.read(tiff.tagnosize)
        if len(head) < tiff.tagnosize:
            return False
        file.seek(offset + tiff.tagnosize + struct.unpack(tiff.tagnoformat, head)[0] * tiff.tagsize)
    return False


def check_whole(tif: Any, series: Any, path: Path, memory: bool = True) -> None:
    """Refuse a file that ends before its pixels do; tifffile would fill the hole with zeros."""
    first = series.keyframe
    check_size(path, series.shape, first.bitspersample, most=2**16, memory=memory)
    end = tif.filehandle.size
    short = ReadError(f"{path.name} is cut short: part of its pixels is missing.", hint="Copy or export it again.")
    files = set(re.findall(r'FileName="([^"]+)"', tif.ome_metadata or "")) if series.kind != "ome" else set()
    if len(files) > 1 or None in series.pages:
        raise ReadError(
            f"{path.name} is one file of several, and some of its planes lie in the others.",
            hint="Export the image as a single file.",
        )
    for page in series.pages:
        starts, counts = page.dataoffsets, page.databytecounts
        if not starts or len(starts) != len(counts) or any(o + n > end for o, n in zip(starts, counts, strict=True)):
            raise short
        if first.compression == 1 and all(counts) and 8 * sum(counts) < first.size * first.bitspersample:
            raise short
    if series.dataoffset is not None and series.dataoffset + series.nbytes > end:
        raise short
    # a page whose shape is lost makes a series of its own
    pages = [first] if len(tif.series) == 1 else [page for page in tif.pages if hasattr(page, "tags")]
    if any(_lost_tags(tif, page) & _TELLING for page in pages):
        raise short
    # the chain of pages ends with a zero; anything else leads beyond the end of the file
    tif.filehandle.seek(tif.pages.next_page_offset)
    if any(tif.filehandle.read(tif.tiff.offsetsize)):
        raise short


def _lost_tags(tif: Any, page: Any) -> set[int]:
    """Codes of the tags that the page lists but whose values could not be read."""
    tiff, file = tif.tiff, tif.filehandle
    file.seek(page.offset)
    (count,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
    entries = file.read(count * tiff.tagsize)
    codes = {struct.unpack_from(f"{tiff.byteorder}H", entries, i)[0] for i in range(0, len(entries), tiff.tagsize)}
    return codes - {tag.code for tag in page.tags}


def _pixels(tif: Any, series: Any, path: Path) -> np.ndarray:
    from tifffile import COMPRESSION

    compression = series.keyframe.compression
    try:
        return series.asarray()
    except (ValueError, ImportError) as error:  # tifffile alone knows few codecs
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        name = COMPRESSION(compression).name if compression != 1 else f"{series.keyframe.bitspersample}-bit"
        logger.debug("%s: %s pixels are decoded by Pillow", path.name, name)
        return _pillow_pixels(series, path, name)


def _pillow_pixels(series: Any, path: Path, name: str) -> np.ndarray:
    """Pixels of a compression that only a library of codecs knows, through Pillow's copy of libtiff."""
    from PIL import TiffImagePlugin

    refused = ReadError(
        f"{path.name} holds {name} pixels, which cannot be decoded here.",
        hint="Save it uncompressed, or `pip install imagecodecs`.",
    )
    page = series.keyframe
    if page.bitspersample not in (1, 8) and not (page.bitspersample == 16 and page.samplesperpixel == 1):
        raise refused  # Pillow would squeeze it into 8 bits
    planes = []
    with TiffImagePlugin.TiffImageFile(path) as image:
        for one in series.pages:
            image.seek(one.index if isinstance(one.index, int) else one.index[0])
            planes.append(np.asarray(image))
    if planes[0].dtype.itemsize * 8 < page.bitspersample or planes[0].size * len(planes) != np.prod(series.shape):
        raise refused
    array = np.stack(planes)
    if page.samplesperpixel > 1 and page.planarconfig == 2:
        array = np.moveaxis(array, -1, 1)
    return array.reshape(series.shape)


def _photometric(array: np.ndarray, axes: str, page: Any, colours: bool, imagej: bool) -> tuple[np.ndarray, str]:
    """Apply what the file says about the meaning of its values; ImageJ counts a palette as display only."""
    if imagej:
        return array, axes
    name = getattr(page.photometric, "name", "")
    if name == "MINISWHITE" and array.dtype == bool:
        # tifffile marks boolean arrays so by default, without turning them over
        return (array if str(page.software).startswith("tifffile") else ~array), axes
    if name == "MINISWHITE" and colours and array.dtype.kind == "u":
        return np.iinfo(array.dtype).max - array, axes
    if name == "PALETTE" and colours and page.colormap is not None:
        table = page.colormap.T  # (values, 3) uint16
        table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        return table[array], axes + "S"
    return array, axes


def axis_order(shape: Sequence[int], axes: str, path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which axes of the file are channels, and which are ``([Z,] Y, X)``; the others have the size 1."""
    kept = [i for i, (axis, size) in enumerate(zip(axes, shape, strict=True)) if size > 1 or axis in "YX"]
    names = "".join(axes[i] for i in kept)
    planes = [i for i in kept if axes[i] not in "CSYX"]
    if names.count("Y") != 1 or names.count("X") != 1 or len(planes) > 1:
        raise ReadError(
            f"{path.name} has the axes {names} of size {tuple(shape[i] for i in kept)}; an image here is a plane or "
            "one stack.",
            hint="Save each time point or position as a file of its own, with its axes named.",
        )
    return tuple(i for i in kept if axes[i] in "CS"), (*planes, axes.index("Y"), axes.index("X"))


def _without_alpha(array: np.ndarray, page: Any) -> np.ndarray:
    """Drop an alpha channel that is the same everywhere."""
    alpha = len(array) in (2, 4) and any(int(kind) in (1, 2) for kind in page.extrasamples)
    return array[:-1] if alpha and (array[-1] == array[-1].flat[0]).all() else array


def geometry_of(tif: Any, page: Any, ndim: int) -> Geometry:
    """Geometry of an image of `ndim` axes; it has one more where the file says that its plane is a stack of one."""
    said = _said(tif)
    if said:
        geometry = Geometry.from_dict(said)
        if geometry.ndim in (ndim, ndim + 1):
            return geometry
    spacing, unit = voxel_size(tif, page, ndim)
    start = stage_position(tif, unit)[-ndim:]
    affine = np.diag((*(1.0,) * (3 - ndim), *spacing, 1.0))
    affine[3 - ndim : 3, 3] = start
    return Geometry(spacing, unit, affine)


def _said(tif: Any) -> dict[str, Any] | None:
    """What `_extra` wrote, if this is one of our files."""
    if tif.is_imagej:
        text = (tif.imagej_metadata or {}).get(_KEY)
    else:
        xml = tif.ome_metadata or ""
        start = xml.find(f'<M K="{_KEY}">')
        text = xml[start:].partition(">")[2].partition("<")[0].replace("&quot;", '"') if start >= 0 else None
    return json.loads(text) if text else None


def _extra(geometry: Geometry, shape: tuple[int, ...]) -> dict[str, str]:
    """The geometry as text, where the tags of TIFF cannot say it."""
    plain = not geometry.world and geometry.matches(Geometry(geometry.spacing, geometry.unit), 1e-9)
    if plain and (len(shape) == 2 or shape[0] > 1) and geometry.unit in UNITS.values():
        return {}
    return {_KEY: json.dumps(geometry.to_dict(), separators=(",", ":"))}
