"""Scores of a net on known voxels of whole, prepared images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from napari_unetseg.data.patches import Prepared
from napari_unetseg.events import Control
from napari_unetseg.inference.calibration import Evidence
from napari_unetseg.inference.sliding import Predictor
from napari_unetseg.metrics import score_masks
from napari_unetseg.scores import Scores

__all__ = ["evaluate"]


def evaluate(
    predictor: Predictor, images: Sequence[Prepared], classes: Sequence[str], rule: str, control: Control | None = None
) -> Scores:
    """Jaccard and Dice per class on the known voxels of `images`, counted over all of them together.

    Where the images were held out (`rule`), their voxels also tell the temperature at which probabilities are honest.

    Parameters
    ----------
    predictor : Predictor
    images : sequence of Prepared
    classes : sequence of str
        Names, background first.
    rule : str
        In plain words, what the images were to the net ("4 held-out images"); empty when it was trained on them.
    control : Control, optional
        Polled after every tile; `Stopped` is raised.
    """
    evidence = Evidence()

    def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        for image in images:
            probability = predictor.probabilities(image.image, control)
            if rule:
                evidence.add(probability, image.target, image.known)
            yield image.name, predictor.mask(probability), image.target, image.known

    scores = score_masks(pairs(), classes, rule=rule)
    found = evidence.calibration(predictor.plan.inference.temperature, sharpen=not scores.on_strokes)
    return replace(scores, calibration=found)
