"""How often a net says each class, held to how often its teacher does.

Patches are drawn where strokes are, each class as often as the others, so that a net sees things more often than images
hold them and finds too many of them elsewhere. How often they are there the instant model estimates from whole images.
The logits of the net are shifted by what makes the two say each class equally often (``docs/benchmarks.md``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_unetseg.data import Prepared
from napari_unetseg.events import Control, until_stopped
from napari_unetseg.inference.sliding import Predictor

__all__ = ["Shares", "shift_to"]

_VOXELS, _IMAGES = 2**19, 8  # looked at: of all images together, and how many of them
_ROUNDS = 30
_MOST = 3.0  # by which a logit is shifted, and more would be an error in the shares


class Shares:
    """Shares of the classes in some images, by the instant model.

    Parameters
    ----------
    images : sequence of Prepared
        A part of each of the first few is looked at, or all of it where it is small.
    teacher : Predictor
        The instant model.
    seed : int
        Chooses the parts.
    control : Control
        To stop it, within an image.
    """

    def __init__(self, images: Sequence[Prepared], teacher: Predictor, seed: int, control: Control) -> None:
        rng, some = np.random.default_rng(seed), images[:_IMAGES]
        self._parts = [_part(image.image, _VOXELS // len(some), rng) for image in some]
        self._wanted = [_mean(teacher, part, control) for part in until_stopped(self._parts, control)]

    def offset(self, net: Predictor, control: Control) -> np.ndarray:
        """What is to be added to the logits of the net's classes, the first being 0, so that it says each as often."""
        shifts = [
            shift_to(_flat(net.probabilities(part, control)), wanted)
            for part, wanted in zip(until_stopped(self._parts, control), self._wanted, strict=True)
        ]
        return np.mean(shifts, axis=0)


def shift_to(probability: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Shift ``(K,)`` of logits, the first being 0, at which the mean of probabilities ``(K, N)`` is `shares`."""
    shift = np.zeros(len(shares))
    for _ in range(_ROUNDS):
        moved = probability * np.exp(shift)[:, None]
        mean = (moved / moved.sum(axis=0)).mean(axis=1)
        shift += np.log(np.maximum(shares, 1e-6) / np.maximum(mean, 1e-6))
        shift = np.clip(shift - shift[0], -_MOST, _MOST)
    return shift


def _mean(predictor: Predictor, image: np.ndarray, control: Control) -> np.ndarray:
    return _flat(predictor.probabilities(image, control)).mean(axis=1)


def _flat(probability: np.ndarray) -> np.ndarray:
    return probability.reshape(len(probability), -1).astype(np.float64)


def _part(image: np.ndarray, voxels: int, rng: np.random.Generator) -> np.ndarray:
    """Part of an image ``(C, ...)`` anywhere in it, of about so many voxels and its proportions."""
    scale = min(1.0, (voxels / np.prod(image.shape[1:], dtype=float)) ** (1 / (image.ndim - 1)))
    sides = [max(1, round(scale * side)) for side in image.shape[1:]]
    starts = [int(rng.integers(side - part + 1)) for side, part in zip(image.shape[1:], sides, strict=True)]
    return image[(slice(None), *(slice(a, a + part) for a, part in zip(starts, sides, strict=True)))]
