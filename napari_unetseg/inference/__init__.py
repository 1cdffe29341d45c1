"""Whole images through a net: tiles and blending (`sliding`), and scores of a net on held-out parts (`evaluate`)."""

from __future__ import annotations

from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.inference.sliding import Predictor, predict, predict_probabilities

__all__ = ["Predictor", "evaluate", "predict", "predict_probabilities"]
