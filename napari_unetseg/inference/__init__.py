"""Whole images through a net: tiles (`sliding`), disk to disk (`disk`), averages (`ensemble`), scores (`evaluate`)."""

from __future__ import annotations

from napari_unetseg.inference.disk import predict_file
from napari_unetseg.inference.ensemble import Belief, Ensemble, entropy, predict_doubt
from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.inference.sliding import Predictor, make_predictor, predict, predict_probabilities

__all__ = [
    "Belief",
    "Ensemble",
    "Predictor",
    "entropy",
    "evaluate",
    "make_predictor",
    "predict",
    "predict_doubt",
    "predict_file",
    "predict_probabilities",
]
