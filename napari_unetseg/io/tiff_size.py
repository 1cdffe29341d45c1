"""The voxel size of a TIFF file: OME first, then ImageJ, then the resolution tags where they mean a microscope's."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

__all__ = ["UNITS", "distance_unsaid", "stage_position", "voxel_size"]

# spellings met in files; factors lead to a unit of ours
UNITS = {
    "µm": "um", "μm": "um", "um": "um", "micron": "um", "microns": "um", "micrometer": "um", "micrometre": "um",
    "nm": "nm", "nanometer": "nm", "nanometre": "nm",
    "mm": "mm", "millimeter": "mm", "millimetre": "mm",
    "pixel": "pixel", "pixels": "pixel",
}  # fmt: skip
_LARGER = {"cm": 10.0, "m": 1000.0, "inch": 25.4, "in": 25.4, "km": 1e6}  # to mm
_SMALLER = {"å": 0.1, "angstrom": 0.1, "pm": 1e-3}  # to nm
_NM = {"nm": 1.0, "um": 1e3, "mm": 1e6}

# 1270 dots per inch: print resolutions, 72 to 1200, say nothing about the object
_COARSEST_MM = 0.02


def voxel_size(tif: Any, page: Any, ndim: int) -> tuple[tuple[float, ...], str]:
    """Spacing in axis order ``([Z,] Y, X)`` and its unit, ``"pixel"`` when the file does not say.

    Parameters
    ----------
    tif : tifffile.TiffFile
        The open file.
    page : tifffile.TiffPage
        A page of the image.
    ndim : int
        2 or 3; a stack whose planes have no distance gets 1.
    """
    (z, y, x), unit = _found(tif, page)
    return ((1.0 if math.isnan(z) else z, y, x) if ndim == 3 else (y, x)), unit


def distance_unsaid(tif: Any, page: Any) -> str:
    """Unit of the pixel size of a file that does not say how far its planes are from each other; else empty."""
    (z, _, _), unit = _found(tif, page)
    return unit if math.isnan(z) else ""


Found = tuple[tuple[float, float, float], str]


def _found(tif: Any, page: Any) -> Found:
    """Lengths z, y, x and their unit; z is NaN where there is a pixel size, but no distance of planes."""
    return _ome(tif) or _imagej(tif, page) or _tags(page) or ((1.0, 1.0, 1.0), "pixel")


def _known(value: float, unit: str) -> tuple[float, str] | None:
    """Length in one of our units."""
    unit = unit.strip().lower()
    if not (math.isfinite(value) and value > 0):
        return None
    if unit in UNITS:
        return value, UNITS[unit]
    if unit in _LARGER:
        return value * _LARGER[unit], "mm"
    if unit in _SMALLER:
        return value * _SMALLER[unit], "nm"
    return None


def _together(z: tuple[float, str] | None, y: tuple[float, str] | None, x: tuple[float, str] | None) -> Found | None:
    """The three lengths in the unit of the last; None without a size in the plane."""
    y, x = y or x, x or y
    if x is None or y is None:
        return None
    unit = x[1]

    def convert(length: tuple[float, str] | None) -> float:
        if length is None or (length[1] != unit and "pixel" in (length[1], unit)):
            return 1.0
        return length[0] if length[1] == unit else length[0] * _NM[length[1]] / _NM[unit]

    known = unit == "pixel" or (z is not None and z[1] != "pixel")
    return (convert(z) if known else math.nan, convert(y), convert(x)), unit


def stage_position(tif: Any, unit: str) -> tuple[float, float, float]:
    """Position ``(z, y, x)`` of the first plane on the microscope's stage, in `unit`; 0 where the file does not say."""
    pixels = _pixels(tif)
    plane = next((e for e in pixels.iter() if e.tag.endswith("}Plane")), None) if pixels is not None else None
    if plane is None or unit not in _NM:
        return 0.0, 0.0, 0.0
    found = []
    for axis in "ZYX":
        # without a unit it is in a frame of the microscope's own
        one = _known(1.0, plane.get(f"Position{axis}Unit", "reference frame"))
        try:
            value = float(plane.get(f"Position{axis}", "nan"))
        except ValueError:
            value = math.nan
        usable = one is not None and one[1] in _NM and math.isfinite(value)
        found.append(value * one[0] * _NM[one[1]] / _NM[unit] if one and usable else 0.0)
    return found[0], found[1], found[2]


def _pixels(tif: Any) -> ElementTree.Element | None:
    """The first image's element ``Pixels`` of an OME-TIFF."""
    if not tif.is_ome:
        return None
    try:
        root = ElementTree.fromstring(tif.ome_metadata)
    except ElementTree.ParseError:
        return None
    return next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)


def _ome(tif: Any) -> Found | None:
    pixels = _pixels(tif)
    if pixels is None:
        return None
    sizes = []
    for axis in "ZYX":
        try:
            value = abs(float(pixels.get(f"PhysicalSize{axis}", "nan")))
        except ValueError:
            value = math.nan
        sizes.append(_known(value, pixels.get(f"PhysicalSize{axis}Unit", "µm")))
    return _together(*sizes)


def _imagej(tif: Any, page: Any) -> Found | None:
    if not tif.is_imagej:
        return None
    facts = tif.imagej_metadata or {}
    unit = str(facts.get("unit", "pixel")).replace("\\u00B5", "µ")
    x, y = _resolution(page, "XResolution"), _resolution(page, "YResolution")
    try:
        z = float(facts.get("spacing", math.nan))
    except (TypeError, ValueError):
        z = math.nan
    return _together(
        _known(abs(z), str(facts.get("zunit", unit))), _known(y, str(facts.get("yunit", unit))), _known(x, unit)
    )


def _tags(page: Any) -> Found | None:
    unit = page.tags.valueof("ResolutionUnit", default=0)
    name = {2: "inch", 3: "cm"}.get(int(unit), "")
    x, y = _known(_resolution(page, "XResolution"), name), _known(_resolution(page, "YResolution"), name)
    if x is None or y is None or max(x[0], y[0]) > _COARSEST_MM:
        return None
    return (math.nan, y[0] * 1e3, x[0] * 1e3), "um"


def _resolution(page: Any, tag: str) -> float:
    """Pixel size behind a resolution tag, NaN when there is none."""
    value = page.tags.valueof(tag, default=None)
    try:
        return value[1] / value[0]
    except (TypeError, IndexError, ZeroDivisionError):
        return math.nan
