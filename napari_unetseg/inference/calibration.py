"""Probabilities that mean what they say: a temperature fitted on held-out voxels, and how far off they are.

The logits are divided by one number T, which changes no mask of the usual threshold (Guo et al. 2017). It is fitted by
the likelihood of the true classes; on strokes it is held near 1 by the number of pieces they are in. How well 0.8 means
0.8 is told by the expected calibration error (ECE): voxels are sorted by the probability of a class, foreground classes
pooled, and the mean probability of each tenth compared with how often the class was true there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores

__all__ = ["Evidence", "calibrated_plan", "expected_error", "fit_temperature", "reliability", "tempered"]

_PER_IMAGE, _IN_ALL = 5_000, 40_000  # voxels looked at; more change the second decimal of the temperature
_FEWEST = 200
_BINS = 10
_COLDEST, _HOTTEST = 0.2, 10.0
_USUAL = 0.5  # spread of the logarithm of temperatures from model to model, as far as measured
_PIECE = 32  # voxels a side within which voxels of a class say much the same


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities ``(K, ...)`` as the same net would give them at another temperature, float32."""
    logits = np.log(np.clip(probability.astype(np.float64), 1e-7, 1)) / temperature
    grown = np.exp(logits - logits.max(axis=0))
    return (grown / grown.sum(axis=0)).astype(np.float32)


def fit_temperature(
    probability: np.ndarray, target: np.ndarray, *, sharpen: bool = True, pieces: float = np.inf
) -> float:
    """Temperature that makes the true classes most likely.

    Parameters
    ----------
    probability : (K, N) float ndarray
    target : (N,) integer ndarray
        True class of each voxel.
    sharpen : bool
        Whether it may be below 1, which makes probabilities more extreme.
    pieces : float
        How many independent voxels the evidence is worth. The fewer, the nearer to 1 the temperature stays.

    Returns
    -------
    float
        Between 0.2 and 10; 1 changes nothing.
    """
    logits = np.log(np.clip(probability.astype(np.float64), 1e-7, 1))
    logits -= logits.max(axis=0)
    true = np.take_along_axis(logits, target[None].astype(np.int64), axis=0)[0]

    def surprise(log_temperature: float) -> float:
        cold = np.exp(-log_temperature)
        doubt = 0.5 * (log_temperature / _USUAL) ** 2 / pieces
        return float((np.log(np.exp(cold * logits).sum(axis=0)) - cold * true).mean() + doubt)

    low = np.log(_COLDEST) if sharpen else 0.0
    found = minimize_scalar(surprise, bounds=(low, np.log(_HOTTEST)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x)) if found.fun < surprise(0.0) else 1.0


def reliability(probability: np.ndarray, target: np.ndarray) -> list[list[float]]:
    """Rows ``[mean probability, share that was true, count]`` of each tenth that holds anything, foreground pooled.

    Parameters
    ----------
    probability : (K, N) float ndarray
    target : (N,) integer ndarray
    """
    said = probability[1:].ravel().astype(np.float64)
    was = np.concatenate([target == label for label in range(1, len(probability))])
    place = np.minimum((said * _BINS).astype(int), _BINS - 1)
    count = np.bincount(place, minlength=_BINS)
    sums, hits = np.bincount(place, said, _BINS), np.bincount(place, was, _BINS)
    return [[float(sums[i] / count[i]), float(hits[i] / count[i]), int(count[i])] for i in np.flatnonzero(count)]


def expected_error(rows: list[list[float]]) -> float:
    """ECE of the rows of `reliability`: mean distance of what was said from what was, in [0, 1]."""
    total = sum(count for _, _, count in rows)
    return sum(abs(said - was) * count for said, was, count in rows) / total


class Evidence:
    """Known voxels of some images with what a net said of them, a random few of each image."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._said: list[np.ndarray] = []
        self._true: list[np.ndarray] = []
        self.pieces = 0  # blocks of the images that hold known voxels of a class, counted for each class

    def add(self, probability: np.ndarray, target: np.ndarray, known: np.ndarray) -> None:
        """Take in an image: probabilities ``(K, ...)``, mask and known voxels ``(...)``."""
        places = np.flatnonzero(known)
        if places.size > _PER_IMAGE:
            places = self._rng.choice(places, _PER_IMAGE, replace=False)
        blocks = [along // _PIECE for along in np.unravel_index(places, known.shape)]
        self.pieces += np.unique(np.stack([*blocks, target.ravel()[places]]), axis=1).shape[1]
        self._said.append(probability.reshape(len(probability), -1)[:, places])
        self._true.append(target.ravel()[places])

    def voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """What was said of the voxels ``(K, N)``, and their true classes ``(N,)``; a random few of very many."""
        said, true = np.concatenate(self._said, axis=1), np.concatenate(self._true)
        if len(true) > _IN_ALL:
            some = self._rng.choice(len(true), _IN_ALL, replace=False)
            said, true = said[:, some], true[some]
        return said, true

    def calibration(self, temperature: float = 1.0, *, sharpen: bool = True) -> dict[str, Any] | None:
        """Fit the temperature, and measure the ECE without and with it; None where there is too little to go by.

        Parameters
        ----------
        temperature : float
            At which the probabilities were made; the one returned stands in its place.
        sharpen : bool
            As for `fit_temperature`; False for strokes. Painted where things are clear, they would make any net look
            too modest, and being few, and each of one mind, they say less than their voxels are many.

        Returns
        -------
        dict or None
            ``temperature``, ``ece_before``, ``ece_after``, ``before`` and ``after`` (rows of `reliability`), and
            ``voxels``.
        """
        if not self._said:
            return None
        said, true = self.voxels()
        if len(true) < _FEWEST or len(np.unique(true)) < 2:
            return None
        factor = fit_temperature(said, true, sharpen=sharpen, pieces=np.inf if sharpen else self.pieces)
        before, after = reliability(said, true), reliability(tempered(said, factor), true)
        return {
            "temperature": temperature * factor,
            "ece_before": expected_error(before),
            "ece_after": expected_error(after),
            "before": before,
            "after": after,
            "voxels": len(true),
        }


def calibrated_plan(plan: Plan, scores: Scores | None) -> Plan:
    """Plan with the temperature that was fitted where the scores were measured; unchanged where none was."""
    found: Mapping[str, Any] | None = scores.calibration if scores else None
    return plan.change(inference={"temperature": found["temperature"]}) if found else plan
