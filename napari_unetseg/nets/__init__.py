"""Nets: every architecture as a choice of parts, with the exact parameters of its paper.

``build(NetSpec(name="unet"))`` gives a `torch.nn.Module`; `NETS` says what there is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_unetseg.nets import skips  # noqa: F401 - registers its skips
from napari_unetseg.nets.assembly import BLOCKS, DOWNS, NETS, SKIPS, UPS
from napari_unetseg.nets.making import build, count_parameters, describe_net

for _family in (
    "unet",
    "multires",
    "sharp",
    "encoders",
    "modular",
    "nas",
    "nested",
    "residual",
    "mild",
    "fcn",
    "fcresnet",
    "chain",
    "instant",
):  # in the order in which nets are listed
    importlib.import_module(f"{__name__}.{_family}")

if TYPE_CHECKING:
    from napari_unetseg.nets.checkpoint import Model

__all__ = ["BLOCKS", "DOWNS", "NETS", "SKIPS", "UPS", "Model", "build", "count_parameters", "describe_net"]


def __getattr__(name: str) -> Any:
    if name == "Model":
        from napari_unetseg.nets.checkpoint import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
