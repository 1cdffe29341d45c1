"""A file of a folder that is larger than memory: segmented from disk to disk, and measured slab by slab."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.batch.outputs import FLOATS, Job, Outputs, beside
from napari_unetseg.events import Control, Event
from napari_unetseg.inference import Ensemble
from napari_unetseg.inference.disk import fits_in_memory, predict_file
from napari_unetseg.inference.looks import LAYERS
from napari_unetseg.inference.memory import free_memory, used_memory
from napari_unetseg.io import open_lazy, read
from napari_unetseg.io.lazy import LazyVolume
from napari_unetseg.volume import Volume

__all__ = ["opened", "segment_large"]

_PACKED = 2**14  # no image grows by more than this from its file, which may be packed, to its probabilities
_SLAB = 2**25  # voxels measured at once


def opened(file: Path, ensemble: Ensemble, memory: int | None = None) -> Volume | LazyVolume:
    """The image; left on disk where it does not fit the memory allowed and its format can be read in parts."""
    plan = ensemble.models[0].plan
    most = memory or (plan.inference.memory or np.inf) * 2**30
    allowed = min(free_memory(), most - (used_memory() or 0))
    if not file.exists() or (file.is_file() and os.path.getsize(file) * _PACKED < allowed):
        return read(file)
    image = open_lazy(file)
    if image.in_memory:  # decoded as a whole
        return image.volume()
    return read(file) if fits_in_memory(image, plan, memory) else image


def segment_large(
    job: Job, image: LazyVolume, ensemble: Ensemble, outputs: Outputs, control: Control
) -> Generator[Event, None, dict[str, Any]]:
    """Segment an image that stays on disk; returns what its row says of the mask."""
    asked = (outputs.probabilities, outputs.uncertainty, outputs.uncertainty)
    wanted = {layer: beside(job.target, end) for layer, end, yes in zip(LAYERS, FLOATS, asked, strict=True) if yes}
    run = predict_file.events(ensemble, image, job.target, layers=wanted, memory=outputs.memory, control=control)
    written = yield from run
    return {
        "status": "done",
        "error": "",
        "mask": str(written),
        "classes": _measured(written, image, ensemble),
        "objects": False,
        "doubt": None,
        "flags": [],
        "why": "Larger than memory: mean doubt and components were not measured.",
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
