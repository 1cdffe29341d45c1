"""Axes, units and transformations of OME-Zarr's ``multiscales``, to and from a Geometry."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.volume import Geometry

__all__ = ["Axes", "axes_of", "geometry_of", "to_multiscale"]

logger = logging.getLogger(__name__)

# lengths that the specification lists, in nanometres
_NM = {
    "angstrom": 0.1, "picometer": 1e-3, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6, "centimeter": 1e7,
    "decimeter": 1e8, "meter": 1e9, "inch": 2.54e7, "foot": 3.048e8, "yard": 9.144e8,
    "nm": 1.0, "um": 1e3, "µm": 1e3, "micron": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9,
}  # fmt: skip
_OURS = {1.0: "nm", 1e3: "um", 1e6: "mm"}
_THEIRS = {"nm": "nanometer", "um": "micrometer", "mm": "millimeter"}


@dataclass(frozen=True)
class Axes:
    """What each axis of an array is.

    Attributes
    ----------
    channels, spatial : tuple of int
        Numbers of the axes that are channels, and that are ``([Z,] Y, X)``.
    scale, start : tuple of float
        Step and position of the first voxel along the spatial axes.
    units : tuple of str
        Their units, empty where the file does not say.
    """

    channels: tuple[int, ...]
    spatial: tuple[int, ...]
    scale: tuple[float, ...]
    start: tuple[float, ...]
    units: tuple[str, ...]

    @classmethod
    def plain(cls, shape: Sequence[int], path: Path) -> Axes:
        """Axes of an array without metadata: ``([[C,] Z,] Y, X)``."""
        if not 2 <= len(shape) <= 4:
            raise ReadError(f"{path.name} has {len(shape)} axes without names.", hint="Save it as OME-Zarr.")
        channels = (0,) if len(shape) == 4 else ()
        spatial = tuple(range(len(channels), len(shape)))
        n = len(spatial)
        return cls(channels, spatial, (1.0,) * n, (0.0,) * n, ("",) * n)


def axes_of(multiscale: Mapping[str, Any], dataset: Mapping[str, Any], shape: Sequence[int], path: Path) -> Axes:
    """Axes of a level: the transformations of the dataset first, then those of all levels.

    Raises
    ------
    ReadError
        Several time points, or axes that are neither space nor channels.
    """
    said = multiscale.get("axes") or list("tczyx")[-len(shape) :]
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in said]
    if len(axes) != len(shape):
        raise ReadError(f"{path.name} names {len(axes)} axes, its array has {len(shape)}.", hint="Export it again.")
    kinds = [_kind(axis) for axis in axes]
    for axis, kind, size in zip(axes, kinds, shape, strict=True):
        if kind not in ("space", "channel") and size > 1:
            what = "time points" if kind == "time" else f"steps of the axis {axis.get('name')}"
            raise ReadError(
                f"{path.name} holds {size} {what}; an image here is one plane or volume.",
                hint="Save each of them as an image of its own.",
            )
    spatial = tuple(i for i, kind in enumerate(kinds) if kind == "space")
    if len(spatial) not in (2, 3):
        raise ReadError(f"{path.name} has {len(spatial)} axes in space.", hint="Images here have two or three.")
    names = [str(axes[i].get("name", "")).lower() for i in spatial]
    if set(names) <= set("zyx"):
        spatial = tuple(sorted(spatial, key=lambda i: "zyx".index(str(axes[i]["name"]).lower())))
    if len(spatial) == 3 and set(names) != set("zyx"):
        logger.warning("%s: its axes %s are taken as z, y, x", path.name, ", ".join(names))
    steps = (*(dataset.get("coordinateTransformations") or ()), *(multiscale.get("coordinateTransformations") or ()))
    scale, start = _applied(steps, len(shape), path)
    return Axes(
        tuple(i for i, kind in enumerate(kinds) if kind == "channel"),
        spatial,
        tuple(float(scale[i]) for i in spatial),
        tuple(float(start[i]) for i in spatial),
        tuple(str(axes[i].get("unit") or "") for i in spatial),
    )


def _kind(axis: Mapping[str, Any]) -> str:
    """The type of an axis, by its name where it is not given."""
    name = str(axis.get("name", "")).lower()
    return str(axis.get("type") or {"t": "time", "c": "channel"}.get(name, "space" if name in "zyx" else name))


def _applied(steps: Sequence[Mapping[str, Any]], ndim: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scale and translation of several transformations, one after the other."""
    scale, start = np.ones(ndim), np.zeros(ndim)
    for step in steps:
        kind = step.get("type")
        if kind == "identity":
            continue
        values = step.get(kind) if kind in ("scale", "translation") else None
        if values is None or len(values) != ndim:
            raise ReadError(
                f"{path.name} is placed by a transformation ({kind}) that is not supported.",
                hint="Save it with scale and translation, one number an axis.",
            )
        try:
            numbers = np.asarray(values, dtype=float)
        except (TypeError, ValueError) as error:
            raise ReadError(
                f"{path.name} has a {kind} that is no number: {values}.", hint="Correct it, or export it again."
            ) from error
        if kind == "scale":
            scale, start = scale * numbers, start * numbers
        else:
            start = start + numbers
    return scale, start


def geometry_of(axes: Axes) -> Geometry:
    """Geometry with the unit of the last axis; pixels where that is no length."""
    lengths = [_NM.get(unit.lower()) for unit in axes.units]
    scale, start = np.array(axes.scale), np.array(axes.start)
    unit = "pixel"
    last = lengths[-1]
    if last is not None:
        # the unit of ours that needs the smallest factor: a centimetre becomes ten millimetres
        target = max((n for n in _OURS if n <= last), default=1.0)
        factors = np.array([(length or last) / target for length in lengths])
        scale, start, unit = scale * factors, start * factors, _OURS[target]
    n = len(scale)
    affine = np.diag((*(1.0,) * (3 - n), *scale, 1.0))
    affine[3 - n : 3, 3] = start
    return Geometry(tuple(np.abs(scale)), unit, affine)


def to_multiscale(
    geometry: Geometry, labels: bool, factors: Sequence[Sequence[int]] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Entry of ``multiscales``, and the names of its axes.

    The translation is written where the array axes point along the world's; elsewhere it would mislead, and coarser
    levels are placed against the finest only.

    Parameters
    ----------
    geometry : Geometry
        Of the finest level.
    labels : bool
        Without channels, and every so many voxels are kept; in an image the mean of them lies in their middle.
    factors : sequence of sequence of int, optional
        By what the axes of each level are divided; one level when omitted.
    """
    names = ([] if labels else ["c"]) + list(geometry.axes.lower())
    axes: list[dict[str, Any]] = [] if labels else [{"name": "c", "type": "channel"}]
    for name in geometry.axes.lower():
        unit = {"unit": _THEIRS[geometry.unit]} if geometry.unit in _THEIRS else {}
        axes.append({"name": name, "type": "space", **unit})
    one, zero = ([], []) if labels else ([1.0], [0.0])
    ndim, spacing = geometry.ndim, np.array(geometry.spacing)
    # a patient's world counts x, y, z
    matrix = geometry.affine[2::-1] if geometry.world else geometry.affine[:3]
    inner, start = matrix[3 - ndim :, 3 - ndim : 3], matrix[3 - ndim :, 3]
    if not np.allclose(inner, np.diag(spacing), atol=1e-6 * min(spacing)):
        start = np.zeros(ndim)
    datasets = []
    for number, factor in enumerate(factors or [(1,) * ndim]):
        by = np.array(factor)
        begin = start + (0 if labels else (by - 1) / 2 * spacing)
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": one + (spacing * by).tolist()}]
        if begin.any():
            steps.append({"type": "translation", "translation": zero + begin.tolist()})
        datasets.append({"path": str(number), "coordinateTransformations": steps})
    return {"axes": axes, "datasets": datasets}, names
