"""What training images looked like, in a few numbers kept with the model; and whether another image is unlike them.

The numbers describe images as the net sees them, normalised: quantiles of the intensities, and the grain, the mean step
from one voxel to the next along a row. Beside them stand voxel size and extent. A new image is unlike the others where
it leaves the range they span by more than a margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_unetseg.data.normalise import normalise
from napari_unetseg.plan import Normalisation
from napari_unetseg.volume import Geometry, Volume

__all__ = ["describe_seen", "unlike"]

_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_VALUES = 12_000  # voxels a channel that are looked at
_MARGIN = 0.35  # of the spread of the training intensities
_GRAIN, _VOXEL, _EXTENT = 2.0, 2.0, 8.0  # factors


def describe_seen(images: Iterable[tuple[np.ndarray, Geometry]]) -> dict[str, Any]:
    """Range of what a model was trained on: plain numbers, for its facts.

    Parameters
    ----------
    images : iterable of (array, Geometry)
        Normalised images ``(C, [Z,] Y, X)``, and where they lie.

    Returns
    -------
    dict
        Empty when there is no image; else ``images, quantiles, grain, voxel, unit, extent``, each range as
        ``[lowest, highest]``.
    """
    looks, voxels, extents, units = [], [], [], []
    for array, geometry in images:
        looks.append(_look(_rows(array)))
        voxels.append(geometry.spacing[-1])
        extents.append(max(array.shape[1:]))
        units.append(geometry.unit)
    if not looks:
        return {}
    quantiles = np.stack([quantiles for quantiles, _ in looks])
    return {
        "images": len(looks),
        "quantiles": [np.round(end, 4).tolist() for end in (quantiles.min(axis=0), quantiles.max(axis=0))],
        "grain": _range([grain for _, grain in looks]),
        "voxel": _range(voxels),
        "unit": units[0] if len(set(units)) == 1 else "pixel",
        "extent": _range(extents),
    }


def _range(values: Sequence[float]) -> list[float]:
    return [round(float(min(values)), 6), round(float(max(values)), 6)]


def unlike(seen: Mapping[str, Any], image: Volume, how: Normalisation) -> str:
    """Why an image is unlike those a model was trained on, in a few words; empty where it is not, or nothing is known.

    Parameters
    ----------
    seen : mapping
        As `describe_seen` made it.
    image : Volume
        As read.
    how : Normalisation
        Of the model.
    """
    if not seen:
        return ""
    quantiles, grain = _look(normalise(_rows(image.data), how))
    low, high = (np.asarray(end, float) for end in seen["quantiles"])
    if quantiles.shape != low.shape:
        return "other channels"
    spread = np.maximum(high[:, -2] - low[:, 1], 1e-6)[:, None]
    margin = _MARGIN * spread + 0.5 * (high - low)
    finest, coarsest = seen["voxel"]
    voxel = _voxel(image.geometry, seen["unit"])
    least, most = seen["grain"]
    reasons = {
        "other intensities": bool((np.maximum(low - quantiles, quantiles - high) > margin).any()),
        "finer or coarser texture": not least / _GRAIN <= grain <= most * _GRAIN,
        "other voxel size": voxel is not None and not finest / _VOXEL <= voxel <= coarsest * _VOXEL,
        "much smaller": max(image.shape) < seen["extent"][0] / _EXTENT,
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def _voxel(geometry: Geometry, unit: str) -> float | None:
    """Voxel size in a unit of length; None where one of the two is not known."""
    if "pixel" in (geometry.unit, unit):
        return None
    return geometry.to_unit(unit).spacing[-1]


def _rows(image: np.ndarray) -> np.ndarray:
    """Some whole rows of ``(C, [Z,] Y, X)``, evenly spread, as ``(C, rows, X)``."""
    flat = image.reshape(image.shape[0], -1, image.shape[-1])
    return flat[:, :: max(1, flat.shape[1] * flat.shape[2] // _VALUES) | 1]


def _look(rows: np.ndarray) -> tuple[np.ndarray, float]:
    values = np.asarray(rows, np.float32)
    quantiles = np.quantile(values.reshape(len(values), -1), _QUANTILES, axis=1).T
    return quantiles, float(np.abs(np.diff(values, axis=-1)).mean()) if values.shape[-1] > 1 else 0.0
