"""napari-unetseg: minutes to a trustworthy mask.

Scribble, fine-tune a U-Net, correct, and segment folders of 2D and 3D medical images: inside napari, from Python and
from the command line. The names below load on first use, so that importing the package (and opening the plugin) imports
neither torch nor Qt.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Control": "events",
    "Geometry": "volume",
    "LabelVolume": "volume",
    "Model": "nets",
    "Plan": "plan",
    "Project": "project",
    "UnetSegError": "errors",
    "Volume": "volume",
    "fine_tune": "training",
    "plan_for": "planning",
    "predict": "inference",
    "predict_file": "inference",
    "read": "io",
    "read_labels": "io",
    "segment_folder": "batch",
    "write": "io",
}

__all__ = [
    "Control",
    "Geometry",
    "LabelVolume",
    "Model",
    "Plan",
    "Project",
    "UnetSegError",
    "Volume",
    "__version__",
    "fine_tune",
    "plan_for",
    "predict",
    "predict_file",
    "read",
    "read_labels",
    "segment_folder",
    "write",
]

if TYPE_CHECKING:
    from napari_unetseg.batch import segment_folder
    from napari_unetseg.errors import UnetSegError
    from napari_unetseg.events import Control
    from napari_unetseg.inference import predict, predict_file
    from napari_unetseg.io import read, read_labels, write
    from napari_unetseg.nets import Model
    from napari_unetseg.plan import Plan
    from napari_unetseg.planning import plan_for
    from napari_unetseg.project import Project
    from napari_unetseg.training import fine_tune
    from napari_unetseg.volume import Geometry, LabelVolume, Volume


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"napari_unetseg.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
