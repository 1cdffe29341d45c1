"""Scores of a net on known voxels of whole, prepared images."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unetseg.data.patches import Prepared
from napari_unetseg.events import Control
from napari_unetseg.inference.sliding import Predictor
from napari_unetseg.metrics import score_masks
from napari_unetseg.scores import Scores

__all__ = ["evaluate"]


def evaluate(
    predictor: Predictor, images: Sequence[Prepared], classes: Sequence[str], rule: str, control: Control | None = None
) -> Scores:
    """Jaccard and Dice per class on the known voxels of `images`, counted over all of them together.

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
    pairs = (
        (image.name, predictor.mask(predictor.probabilities(image.image, control)), image.target, image.known)
        for image in images
    )
    return score_masks(pairs, classes, rule=rule)
