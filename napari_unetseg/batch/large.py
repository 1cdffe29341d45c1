"""A file of a folder that is larger than memory: segmented from disk to disk, and measured slab by slab."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.batch.outputs import Job, Outputs
from napari_unetseg.errors import OutOfMemory
from napari_unetseg.events import Control, Event
from napari_unetseg.inference import Ensemble
from napari_unetseg.inference.disk import fits_in_memory, predict_file
from napari_unetseg.inference.memory import free_memory, used_memory
from napari_unetseg.io import open_lazy
from napari_unetseg.io.lazy import LazyVolume

__all__ = ["segment_large", "too_large"]

_PACKED = 64  # no image grows by more than this from its file to its probabilities
_SLAB = 2**25  # voxels measured at once


def too_large(file: Path, ensemble: Ensemble) -> LazyVolume | None:
    """The image, left on disk, where it does not fit the memory allowed and its format can be read in parts."""
    plan = ensemble.models[0].plan
    allowed = min(free_memory(), (plan.inference.memory or np.inf) * 2**30 - (used_memory() or 0))
    if not file.exists() or (file.is_file() and os.path.getsize(file) * _PACKED < allowed):
        return None
    image = open_lazy(file)
    return None if image.in_memory or fits_in_memory(image, plan) else image


def segment_large(
    job: Job, image: LazyVolume, ensemble: Ensemble, outputs: Outputs, control: Control
) -> Generator[Event, None, dict[str, Any]]:
    """Segment an image that stays on disk; returns what its row says of the mask.

    Raises
    ------
    OutOfMemory
        What was asked for needs the whole image in memory.
    """
    averaged = len(ensemble.models) > 1 or ensemble.passes(image.geometry.spacing) > 1
    if averaged or outputs.probabilities or outputs.uncertainty:
        raise OutOfMemory(
            f"{job.file.name} does not fit the memory allowed: it can be segmented, but averages, probabilities and "
            "doubt need all of it at once.",
            hint="Segment it by one model and without these, or allow more memory (inference.memory).",
        )
    written = yield from predict_file.events(ensemble.models[0], image, job.target, control=control)
    return {
        "status": "done",
        "error": "",
        "mask": str(written),
        "classes": _measured(written, image, ensemble),
        "objects": False,
        "doubt": None,
        "flags": [],
        "why": "Larger than memory: doubt and components were not measured.",
    }


def _measured(written: Path, image: LazyVolume, ensemble: Ensemble) -> list[dict[str, Any]]:
    """Voxels and physical size of every class."""
    mask = open_lazy(written)
    counts = np.zeros(len(ensemble.classes), np.int64)
    step = max(1, _SLAB // max(1, int(np.prod(mask.spatial[1:]))))
    for start in range(0, mask.spatial[0], step):
        found = np.bincount(mask[0, start : start + step].ravel(), minlength=len(counts))
        counts += found[: len(counts)]
    geometry = image.geometry
    unit = geometry.unit + ("2" if geometry.ndim == 2 else "3")
    size = float(np.prod(geometry.spacing))
    return [
        {"class": name, "voxels": int(n), "size": int(n) * size, "unit": unit, "components": None}
        for name, n in zip(ensemble.classes[1:], counts[1:], strict=True)
    ]
