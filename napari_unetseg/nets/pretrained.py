"""Start weights: torchvision's public ImageNet state dictionaries, read without torchvision.

They are read from a file that the user names, or from torch's hub cache, and never run code. Nothing is downloaded
here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_unetseg.errors import ModelError, PlanError

__all__ = ["WEIGHTS", "adapt_first", "read_weights"]

# The eight digits are the start of the file's SHA-256, as torch's hub has it.
WEIGHTS = {"vgg16": "vgg16-397923af.pth", "resnet50": "resnet50-0676ba61.pth"}
_SITE = "https://download.pytorch.org/models/"


def read_weights(backbone: str, where: str) -> dict[str, Tensor]:
    """Read a state dictionary.

    Parameters
    ----------
    backbone : str
        ``vgg16`` or ``resnet50``.
    where : str
        A file; or the backbone's name, or ``imagenet``, for torch's hub cache.

    Returns
    -------
    dict of str to Tensor
        The weights, on the processor.

    Raises
    ------
    PlanError
        When the file is not there; the hint says where to get it.
    ModelError
        When the file is damaged: its hash is not that of its name, or it holds no weights.
    """
    path = find_weights(backbone, where)
    _check_hash(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything for a file that is none of its own
        raise ModelError(
            f"The start weights {path.name} could not be read: {str(error).splitlines()[0]}",
            hint="Download the file again.",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path.name} is not a state dictionary.", hint=f"Use {_SITE}{WEIGHTS[backbone]}.")
    return dict(state)


def find_weights(backbone: str, where: str) -> Path:
    """Find the file that `read_weights` would read; a `PlanError` when it is not there."""
    name = WEIGHTS[backbone]
    cache = Path(torch.hub.get_dir()) / "checkpoints" / name
    path = cache if where in (backbone, "imagenet") else Path(where).expanduser()
    if not path.is_file():
        raise PlanError(
            f"The start weights {path.name} are not on this computer.",
            hint=f"Download {_SITE}{name} and name the file, or put it into {cache.parent}.",
        )
    return path


def adapt_first(state: Mapping[str, Tensor], key: str, channels: int) -> dict[str, Tensor]:
    """Make the first kernel take `channels` in place of red, green and blue.

    One channel: the three planes summed, which is the same as showing the grey image three times. More: repeated in
    turn and scaled by 3 / channels, so that the sum stays of the same size.
    """
    adapted = dict(state)
    kernel = adapted.get(key)
    if kernel is None or kernel.shape[1] == channels:
        return adapted
    if channels == 1:
        adapted[key] = kernel.sum(dim=1, keepdim=True)
    else:
        order = torch.arange(channels) % kernel.shape[1]
        adapted[key] = kernel[:, order] * (kernel.shape[1] / channels)
    return adapted


def _check_hash(path: Path) -> None:
    expected = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if expected is None:
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if not digest.hexdigest().startswith(expected.group(1)):
        raise ModelError(f"The start weights {path.name} are damaged: their hash differs.", hint="Download them again.")
