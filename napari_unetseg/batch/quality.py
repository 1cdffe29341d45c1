"""Which masks deserve a look: flags on a file's row, and the order that puts the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from napari_unetseg.data.seen import unlike
from napari_unetseg.inference import entropy
from napari_unetseg.nets import Model
from napari_unetseg.volume import Volume

__all__ = ["look_at", "worst_first"]

UNCERTAIN = 0.5  # mean doubt, of at most 1, where something is or nearly is
_LOOKED_AT = 60_000  # voxels


def look_at(probability: np.ndarray, mask: np.ndarray, image: Volume, model: Model) -> dict[str, Any]:
    """What a file's row says about the quality of its mask.

    Returns
    -------
    dict
        ``doubt``, the mean entropy over the voxels that are of a class or come near it (0 sure, 1 undecided);
        ``flags``, of ``empty``, ``uncertain`` and ``unlike``; and ``why``, in words, for the last.
    """
    doubt = _doubt(probability, model.plan.inference.threshold)
    why = unlike(model.facts.get("seen") or {}, image, model.plan.normalisation)
    found = {"empty": not mask.any(), "uncertain": doubt > UNCERTAIN, "unlike": bool(why)}
    return {"doubt": round(doubt, 4), "flags": [flag for flag, holds in found.items() if holds], "why": why}


def _doubt(probability: np.ndarray, threshold: float) -> float:
    flat = probability.reshape(len(probability), -1)
    some = flat[:, :: max(1, flat.shape[1] // _LOOKED_AT) | 1]
    near = some[:, 1 - some[0] > threshold / 2]
    return float(entropy(near).mean()) if near.size else 0.0


def worst_first(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Failed files, then those with most flags, then those with most doubt."""
    return sorted(entries, key=_badness, reverse=True)


def _badness(entry: Mapping[str, Any]) -> float:
    if entry["status"] == "failed":
        return 10.0
    return len(entry.get("flags") or ()) + float(entry.get("doubt") or 0.0)
