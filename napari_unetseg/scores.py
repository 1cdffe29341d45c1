"""`Scores`: numbers that know on which voxels, which images and which model they were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Scores"]


@dataclass(frozen=True)
class Scores:
    """Jaccard and Dice per class, and what they were measured on.

    Attributes
    ----------
    jaccard, dice : mapping of str to float
        One number in [0, 1] for each class but the background.
    rule : str
        How the voxels were held out, in plain words ("4 held-out images", "fold 0 of 5 (5 planes)"); empty when
        nothing was held out, and then the numbers describe the training data.
    images : tuple of str
        Names of the images measured.
    voxels : int
        Known voxels counted.
    model : str
        Identifier of the model measured.
    per_image : mapping of str to mapping
        Dice per class of each image.
    calibration : mapping or None
        Temperature that fits the voxels held out, and how far probabilities were off: see `inference.calibration`.
    """

    jaccard: Mapping[str, float]
    dice: Mapping[str, float]
    rule: str = ""
    images: tuple[str, ...] = ()
    voxels: int = 0
    model: str = ""
    per_image: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes (not a number when there is none)."""
        return _mean(self.dice)

    @property
    def mean_jaccard(self) -> float:
        """Mean Jaccard over the classes (not a number when there is none)."""
        return _mean(self.jaccard)

    @property
    def uncertainty(self) -> float:
        """Standard error of the mean Dice, neighbouring voxels of a stroke counting as one in fifty."""
        d = self.mean_dice
        return math.sqrt(max(d * (1 - d), 0.01) * 50 / self.voxels) if self.voxels else 1.0

    @property
    def on_strokes(self) -> bool:
        """Whether only strokes were measured, not whole masks: a net errs least where people paint."""
        return "strokes" in self.rule

    def sentence(self) -> str:
        """Say the scores with what they were measured on, as every part of the product shows them."""
        if not self.voxels:
            return "No score yet: nothing was held out to measure on."
        where = self.rule or f"{len(self.images)} training image{'s' * (len(self.images) != 1)}, nothing held out"
        return f"Dice {self.mean_dice:.2f}, Jaccard {self.mean_jaccard:.2f} on {where} ({self.voxels:,} voxels)"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scores:
        """Undo `to_dict`."""
        return cls(**{**values, "images": tuple(values.get("images", ()))})


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else float("nan")
