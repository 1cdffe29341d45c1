"""How long a training step of each net takes beside U-Net's, as ``benchmarks/nets.py`` measured it (``speed.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["measured_on", "step_time"]


def step_time(name: str, dims: int) -> float | None:
    """Time of a training step of a net at its own width, relative to the plain U-Net's of the same dims.

    Parameters
    ----------
    name : str
        Name of the net.
    dims : {2, 3}
        256x256 and batch 2, or 64x64x64 and batch 1.

    Returns
    -------
    float or None
        Processor time over that of ``unet``; None where it was not measured.
    """
    return _measured()["step_time"].get(str(dims), {}).get(name)


def measured_on() -> str:
    """Say on what the times were measured."""
    return _measured()["machine"]


@cache
def _measured() -> Mapping[str, Any]:
    return json.loads(files("napari_unetseg.nets").joinpath("speed.json").read_text(encoding="utf-8"))
