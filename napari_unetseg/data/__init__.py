"""From files and strokes to batches: cases, splits, normalisation, patches, augmentation, a simulated annotator.

Only `patches` and `augment` import torch; the names below load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Batch": "patches",
    "Case": "dataset",
    "Dataset": "dataset",
    "Part": "splits",
    "PatchSampler": "patches",
    "Prepared": "patches",
    "Sample": "dataset",
    "Split": "splits",
    "fit_normalisation": "normalise",
    "load_dataset": "dataset",
    "prepare": "patches",
    "said_of": "splits",
    "split": "splits",
}

__all__ = [
    "Batch",
    "Case",
    "Dataset",
    "Part",
    "PatchSampler",
    "Prepared",
    "Sample",
    "Split",
    "fit_normalisation",
    "load_dataset",
    "prepare",
    "said_of",
    "split",
]

if TYPE_CHECKING:
    from napari_unetseg.data.dataset import Case, Dataset, Sample, load_dataset
    from napari_unetseg.data.normalise import fit_normalisation
    from napari_unetseg.data.patches import Batch, PatchSampler, Prepared, prepare
    from napari_unetseg.data.splits import Part, Split, said_of, split


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"napari_unetseg.data.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
