"""Pairs of classes that are mirror images of each other, which flips would take for one another."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from napari_unetseg.data import Sample
from napari_unetseg.events import Control, until_stopped

__all__ = ["mirrored_pair"]

_SIDES = (
    ("left", "right"), ("l", "r"), ("lt", "rt"), ("lh", "rh"), ("sin", "dex"), ("sinister", "dexter"),
    ("links", "rechts"), ("linke", "rechte"), ("linker", "rechter"), ("gauche", "droite"), ("gauche", "droit"),
    ("izquierdo", "derecho"), ("izquierda", "derecha"), ("esquerdo", "direito"), ("esquerda", "direita"),
    ("sinistra", "destra"), ("sinistro", "destro"),
)  # fmt: skip
_IMAGES = 12  # looked at
_FEWEST = 3  # images that must agree before places count
_NEAR = 0.08  # of the image's side: how exactly two places must mirror each other
_APART = 0.15


def mirrored_pair(
    classes: Sequence[str], samples: Sequence[Sample], control: Control | None = None
) -> tuple[str, str] | None:
    """Two classes that only their side tells apart: by their names, or by where they lie in every image.

    Parameters
    ----------
    classes : sequence of str
        Names, background first.
    samples : sequence of Sample
        Images with their labels.
    control : Control, optional
        To stop it between two images; `Stopped` is raised.
    """
    for one, other in itertools.combinations(classes[1:], 2):
        if _names_mirror(one, other):
            return one, other
    if len(classes) < 3 or len(samples) < _FEWEST:
        return None
    places = [_places(sample, len(classes)) for sample in until_stopped(samples[:_IMAGES], control)]
    for a, b in itertools.combinations(range(1, len(classes)), 2):
        if _places_mirror([(found[a], found[b]) for found in places]):
            return classes[a], classes[b]
    return None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()) if word]


def _names_mirror(one: str, other: str) -> bool:
    a, b = _words(one), _words(other)
    if len(a) != len(b):
        return False
    differing = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
    return len(differing) == 1 and (differing[0] in _SIDES or differing[0][::-1] in _SIDES)


def _places_mirror(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether, in image after image, two classes lie mirrored about one and the same axis, on the same sides."""
    places = np.array(pairs)  # (image, which, axis)
    if np.isnan(places).any():
        return False  # where one comes alone, it is not told apart by its side only
    gap = places[:, 0] - places[:, 1]
    middle = places.mean(axis=1)
    for axis in range(places.shape[2]):
        rest = [other for other in range(places.shape[2]) if other != axis]
        apart = (np.abs(gap[:, axis]) > _APART).all() and len(np.unique(np.sign(gap[:, axis]))) == 1
        if apart and (np.abs(middle[:, axis] - 0.5) < _NEAR).all() and (np.abs(gap[:, rest]) < _NEAR).all():
            return True
    return False


def _places(sample: Sample, classes: int) -> np.ndarray:
    """Middle of each class ``(classes, axes)``, as a share of each side of the image; NaN of one that is not there."""
    places = np.full((classes, sample.target.ndim), np.nan)
    for axis, side in enumerate(sample.target.shape):
        target, known = (np.moveaxis(part, axis, 0) for part in (sample.target, sample.known))
        counts = np.stack([np.bincount(t[k], minlength=classes)[:classes] for t, k in zip(target, known, strict=True)])
        total = counts.sum(axis=0)  # of (side, classes)
        there = total > 0
        places[there, axis] = ((np.arange(side) + 0.5) @ counts[:, there]) / total[there] / side
    return places
