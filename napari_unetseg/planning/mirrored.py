"""Pairs of classes that are mirror images of each other, which flips would take for one another."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from napari_unetseg.data import Sample

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


def mirrored_pair(classes: Sequence[str], samples: Sequence[Sample]) -> tuple[str, str] | None:
    """Two classes that only their side tells apart: by their names, or by where they lie in every image.

    Parameters
    ----------
    classes : sequence of str
        Names, background first.
    samples : sequence of Sample
        Images with their labels.
    """
    for one, other in itertools.combinations(classes[1:], 2):
        if _names_mirror(one, other):
            return one, other
    for a, b in itertools.combinations(range(1, len(classes)), 2):
        if _places_mirror(a, b, samples):
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


def _places_mirror(a: int, b: int, samples: Sequence[Sample]) -> bool:
    """Whether, in image after image, two classes lie mirrored about one and the same axis, on the same sides."""
    differences = []
    for sample in list(samples)[:_IMAGES]:
        one, other = (_place(sample, label) for label in (a, b))
        if one is None or other is None:
            return False  # where one comes alone, it is not told apart by its side only
        differences.append((one, other))
    if len(differences) < _FEWEST:
        return False
    places = np.array(differences)  # (image, which, axis)
    gap = places[:, 0] - places[:, 1]
    middle = places.mean(axis=1)
    for axis in range(places.shape[2]):
        rest = [other for other in range(places.shape[2]) if other != axis]
        apart = (np.abs(gap[:, axis]) > _APART).all() and len(np.unique(np.sign(gap[:, axis]))) == 1
        if apart and (np.abs(middle[:, axis] - 0.5) < _NEAR).all() and (np.abs(gap[:, rest]) < _NEAR).all():
            return True
    return False


def _place(sample: Sample, label: int) -> np.ndarray | None:
    """Middle of a class, as a share of each side of the image."""
    where = np.nonzero((sample.target == label) & sample.known)
    if not len(where[0]):
        return None
    return np.array([(axis.mean() + 0.5) / side for axis, side in zip(where, sample.target.shape, strict=True)])
