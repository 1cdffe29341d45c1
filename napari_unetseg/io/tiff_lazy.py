"""Regions of a TIFF: mapped where its pixels lie uncompressed in one piece, else decoded tile by tile."""

from __future__ import annotations

import math
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.io.formats import hushed
from napari_unetseg.io.lazy import LazyVolume, RawFile, arranged
from napari_unetseg.io.tiff import axis_order, check_whole, geometry_of, notes_of, open_file

__all__ = ["open_tiff"]

_SCANNED = 2**24  # values of an alpha channel looked at in one go


def open_tiff(path: Path) -> LazyVolume | None:
    """The file in regions, or None when only the whole can be decoded (palettes, rare codecs)."""
    with hushed("tifffile"):
        tif = open_file(path)
        try:
            lazy = _lazy(tif, path)
        except BaseException:
            tif.close()
            raise
    if lazy is None:
        tif.close()
    return lazy


def _lazy(tif: Any, path: Path) -> LazyVolume | None:
    if not tif.pages or not tif.series or len(tif.series) > 1:
        return None
    series = tif.series[0]
    check_whole(tif, series, path, memory=False)
    page = series.keyframe
    plain = tif.is_imagej or getattr(page.photometric, "name", "") not in ("MINISWHITE", "PALETTE")
    stored = np.dtype(series.dtype) if series.dtype is not None else None
    if not plain or stored is None or stored.kind not in "iuf" or stored.itemsize > 8:
        return None
    pixels = _pixels(tif, series, path)
    if pixels is None:
        return None
    channels, spatial = axis_order(series.shape, series.axes, path)
    shape, fetch = arranged(pixels, series.shape, channels, spatial)
    weakref.finalize(fetch, tif.close)
    blocks = None if isinstance(pixels, RawFile) else (1, *(pixels.chunks[i] for i in spatial))
    shape = (shape[0] - _idle_alpha(fetch, shape, page), *shape[1:])
    geometry = geometry_of(tif, page, len(spatial))
    header = {"tiff": "imagej" if tif.is_imagej else "ome"}
    dtype = stored.newbyteorder("=")
    notes = notes_of(tif, series, geometry)
    if geometry.ndim == len(shape):  # a stack of one plane
        return LazyVolume(
            (shape[0], 1, *shape[1:]),
            dtype,
            geometry,
            lambda region: fetch((region[0], *region[2:]))[:, None][:, region[1]],
            path,
            header,
            (1, *blocks) if blocks else None,
            notes=notes,
        )
    return LazyVolume(shape, dtype, geometry, fetch, path, header, blocks, notes=notes)


def _pixels(tif: Any, series: Any, path: Path) -> Any:
    """Array-like with the axes of the series; None when a codec is missing."""
    if series.dataoffset is not None:
        return RawFile(path, series.dataoffset, series.shape, np.dtype(series.dtype).newbyteorder(tif.byteorder))
    import zarr

    try:
        array = zarr.open_array(series.aszarr(level=0), mode="r")
        np.asarray(array[(0,) * array.ndim])
    except (ValueError, ImportError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        return None
    return array


def _idle_alpha(fetch: Any, shape: tuple[int, ...], page: Any) -> int:
    """1 when the last channel is an alpha channel with one value everywhere, which `read` drops."""
    if shape[0] not in (2, 4) or not any(int(kind) in (1, 2) for kind in page.extrasamples):
        return 0
    rows = max(1, _SCANNED // math.prod(shape[2:]))
    last, value = slice(shape[0] - 1, shape[0]), None
    rest = tuple(slice(0, size) for size in shape[2:])
    for start in range(0, shape[1], rows):
        part = fetch((last, slice(start, min(start + rows, shape[1])), *rest))
        value = part.flat[0] if value is None else value
        if (part != value).any():
            return 0
    return 1
