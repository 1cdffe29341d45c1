"""Models for other programs: re-loaded there and compared with torch before it is called done."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import napari_unetseg
from napari_unetseg.errors import ModelError, UnetSegError
from napari_unetseg.io import atomic_write
from napari_unetseg.losses import probabilities
from napari_unetseg.nets import Model
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.registry import Registry

__all__ = ["EXPORTS", "Exported", "export_onnx"]

_SCHEMA = 1
_TOLERANCE = 1e-3  # of a probability; float32 rounding through a hundred layers stays under a fifth of it
_LARGEST = 4096  # of an axis, in multiples of the divisor


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    file, description : Path
        The net, and the JSON beside it that says how to feed it.
    difference : float
        Largest difference of a probability from torch's, over all images compared.
    sizes : tuple of tuple of int
        Sizes of the images compared.
    """

    file: Path
    description: Path
    difference: float
    sizes: tuple[tuple[int, ...], ...]


EXPORTS: Registry[Callable[[Model, str | Path], Exported]] = Registry("export format")


@EXPORTS.register("onnx", title="ONNX")
def export_onnx(model: Model, out: str | Path) -> Exported:
    """Write a model as ONNX, for onnxruntime, ImageJ, QuPath, C++ and others.

    The net takes ``image`` (1, C, [Z,] Y, X) float32, normalised as the JSON beside it says, every size a multiple of
    the net's divisor, and gives ``probabilities`` (1, classes, [Z,] Y, X), background first.

    Parameters
    ----------
    model : Model
    out : path
        A file ``*.onnx``, or a folder for ``model.onnx`` and ``model.json``; the JSON has the name of the net's file.

    Raises
    ------
    UnetSegError
        When the packages for it are not installed.
    ModelError
        When what was written does not give torch's probabilities; then nothing is left behind.
    WriteError
        When the place cannot be written to.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _needed(package)
    out = Path(out)
    file = out if out.suffix.lower() == ".onnx" else out / "model.onnx"
    net, divisor = _probability_net(model)
    spec = model.plan.net
    # two blocks an axis at least: the exporter takes a size of one block for a constant
    sizes = tuple(tuple(divisor * n for n in blocks[: spec.dims]) for blocks in ((2, 3, 2), (3, 2, 2)))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, spec.in_channels, *size, generator=generator) for size in sizes]
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model.onnx"
        _to_onnx(net, images[-1], divisor, made)
        difference = _difference(net, images, made)
        content = made.read_bytes()
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"The ONNX net differs from the model by {difference:.2g} in a probability.",
            hint="Nothing was written; please report the architecture.",
        )
    atomic_write(file, lambda beside: beside.write_bytes(content))
    description = file.with_suffix(".json")
    facts = _describe(model, file, divisor) | {
        "checked": {"largest_difference": difference, "sizes": sizes, "torch": torch.__version__}
    }
    atomic_write(description, lambda beside: beside.write_text(json.dumps(facts, indent=1), encoding="utf-8"))
    return Exported(file, description, difference, sizes)


class _Probabilities(nn.Module):
    """A net that gives probabilities, background first."""

    def __init__(self, net: nn.Module, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = net, temperature

    def forward(self, image: Tensor) -> Tensor:
        return probabilities(self.net(image) / self.temperature)


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnetSegError(
            f"The model cannot be exported: {package} is not installed.",
            hint='Install what it needs with: pip install "napari-unetseg[export]".',
        ) from error


def _probability_net(model: Model) -> tuple[nn.Module, int]:
    """Copy of the net on the CPU, without the padding, which a graph of any size cannot hold; and its divisor."""
    net = copy.deepcopy(model.net).cpu().eval()
    divisor = int(net.divisor)  # type: ignore[arg-type]
    inner = net.net if isinstance(net, Padded) else net
    return _Probabilities(inner, model.plan.inference.temperature).eval(), divisor


def _to_onnx(net: nn.Module, image: Tensor, divisor: int, file: Path) -> None:
    axes = {}
    for axis in range(2, image.ndim):
        blocks = torch.export.Dim(f"blocks{axis - 2}", min=1, max=_LARGEST)
        axes[axis] = divisor * blocks if divisor > 1 else blocks
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own libraries
            torch.onnx.export(
                net,
                (image,),
                str(file),
                dynamo=True,
                dynamic_shapes=(axes,),
                input_names=["image"],
                output_names=["probabilities"],
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, ValueError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"The net cannot be written as ONNX: {first}", hint="Please report the architecture."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _difference(net: nn.Module, images: Sequence[Tensor], file: Path) -> float:
    """Largest difference of onnxruntime's probabilities from torch's."""
    session = _needed("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for image in images:
        found = session.run(None, {"image": image.numpy()})[0]
        with torch.no_grad():
            worst = max(worst, float(np.abs(found - net(image).numpy()).max()))
    return worst


def _describe(model: Model, file: Path, divisor: int) -> dict[str, Any]:
    """What a program must know to use the file."""
    spec, how = model.plan.net, model.plan.data.normalisation
    axes = "bczyx" if spec.dims == 3 else "bcyx"
    return {
        "schema": _SCHEMA,
        "file": file.name,
        "model": model.id,
        "written_by": f"napari-unetseg {napari_unetseg.__version__}",
        "classes": list(model.classes),
        "input": {
            "name": "image",
            "axes": axes,
            "channels": spec.in_channels,
            "dtype": "float32",
            "sizes_are_multiples_of": divisor,
            "normalisation": how.model_dump() if how else None,
            "normalisation_words": _WORDS[how.kind] if how else "",
        },
        "output": {"name": "probabilities", "axes": axes, "dtype": "float32", "channels_are": list(model.classes)},
        "threshold": model.plan.inference.threshold,
        "scores": model.scores.to_dict() if model.scores else None,
        "plan": json.loads(model.plan.to_json()),
    }


_WORDS = {
    "zscore": "Each image and channel: clip to its 0.1 and 99.9 percentiles, subtract mean, divide by deviation.",
    "percentile": "Each image and channel: clip to its 0.1 and 99.9 percentiles, scale these to 0 and 1.",
    "rgb": "Divide by the largest value of the image's data type (255).",
    "colour": "Divide by the largest value of the image's data type (255); where all channels of an image are the "
    "same, clip to its 0.1 and 99.9 percentiles, scale these to 0 and 1.",
    "ct": "Clip to low..high, subtract the middle, divide by a quarter of the width: -2..2.",
    "none": "As it is.",
}
