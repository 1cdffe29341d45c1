"""Where on an image the next strokes are worth most.

Doubt is the entropy of the probabilities. Taken as it is, it sends the user to the longest border of the commonest
class again and again, and is known to lose to random choice; so it is weighted with the probability of a class and
ranked class by class, each in its turn, only what is not annotated yet counts, and every few proposals one is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_unetseg.data.annotation import UNLABELLED
from napari_unetseg.inference import entropy

__all__ = ["Proposal", "best_squares", "class_doubt", "class_turns", "propose", "rank"]


@dataclass(frozen=True)
class Proposal:
    """A part of an image that is worth annotating.

    Attributes
    ----------
    region : tuple of slice
        ``([Z,] Y, X)``; of a volume, one plane.
    centre : tuple of int
        Its most doubtful voxel.
    label : int
        Class index that the doubt is about; -1 for one drawn at random.
    doubt : float
        Mean entropy of its unlabelled voxels, 0 sure to 1 undecided.
    """

    region: tuple[slice, ...]
    centre: tuple[int, ...]
    label: int
    doubt: float


def class_doubt(probability: np.ndarray, annotation: np.ndarray | None = None) -> np.ndarray:
    """Doubt about each class in an image or a plane of one.

    Parameters
    ----------
    probability : (K, [Z,] Y, X) float ndarray
        Background first.
    annotation : ([Z,] Y, X) integer ndarray, optional
        Strokes; what is annotated is not doubted.

    Returns
    -------
    (K,) float ndarray
        Mean entropy of what is probably that class, 0 sure to 1 undecided: a large clear background does not dilute
        the doubt about a few small objects.
    """
    about = _about(probability, annotation).reshape(len(probability), -1).sum(axis=1)
    return about / np.maximum(probability.reshape(len(probability), -1).sum(axis=1), 1e-6)


def rank(doubts: Mapping[str, np.ndarray], *, seed: int = 0, random_every: int = 4) -> list[str]:
    """Order images (or planes) by what annotating them is worth.

    Parameters
    ----------
    doubts : mapping of str to (K,) ndarray
        `class_doubt` of each.
    seed : int
        Of the random ones.
    random_every : int
        One in so many is drawn at random; 0 for none.

    Returns
    -------
    list of str
        All names. The classes take turns, those in the foreground first, each with what is most doubtful for it.
    """
    rng = np.random.default_rng(seed)
    left = dict(doubts)
    turns = class_turns(len(next(iter(left.values())))) if left else []
    order: list[str] = []
    chosen = 0
    while left:
        if random_every and len(order) % random_every == random_every - 1:
            name = str(rng.choice(sorted(left)))
        else:
            label = turns[chosen % len(turns)]
            name = max(left, key=lambda one: left[one][label])
            chosen += 1
        del left[name]
        order.append(name)
    return order


def propose(
    probability: np.ndarray,
    annotation: np.ndarray | None = None,
    *,
    number: int = 3,
    size: int = 64,
    seed: int = 0,
    random_every: int = 4,
) -> list[Proposal]:
    """Propose where on an image to annotate next.

    Parameters
    ----------
    probability : (K, [Z,] Y, X) float ndarray
        Of a model (or, better, of several averaged), background first.
    annotation : ([Z,] Y, X) integer ndarray, optional
        What is painted so far.
    number : int
        Proposals wanted; fewer come where there is no room for more.
    size : int
        Side of a proposed square in pixels.
    seed, random_every : int
        As for `rank`.

    Returns
    -------
    list of Proposal
        Squares that do not overlap, in the order in which to look at them: the classes take turns, those in the
        foreground first, each with the square where it is most doubted.
    """
    about, doubt, free, sides = _doubts(probability, annotation, size)
    rng, turns = np.random.default_rng(seed), class_turns(len(probability))
    found: list[Proposal] = []
    chosen = misses = 0
    while len(found) < number and free.any() and misses < len(turns):
        label = -1
        if random_every and len(found) % random_every == random_every - 1:
            flat = int(rng.choice(np.flatnonzero(free)))
        else:
            label = turns[chosen % len(turns)]
            chosen += 1
            flat = int(np.where(free, about[label], -1).argmax())
        place = [int(i) for i in np.unravel_index(flat, free.shape)]
        if doubt[_window(place, sides)].max() <= 0:
            misses += 1
            continue
        misses = 0
        found.append(_proposal(doubt, _window(place, sides), label))
        free[_window(place, [2 * side - 1 for side in sides])] = False
    return found


def best_squares(
    probability: np.ndarray, annotation: np.ndarray | None = None, *, number: int = 3, size: int = 64
) -> list[Proposal]:
    """For each class the squares where it is most doubted, apart from one another; parameters as for `propose`."""
    about, doubt, free, sides = _doubts(probability, annotation, size)
    found = []
    for label in class_turns(len(probability)):
        left = free.copy()
        for _ in range(number):
            place = [int(i) for i in np.unravel_index(int(np.where(left, about[label], -1).argmax()), free.shape)]
            window = _window(place, sides)
            if not left[tuple(place)] or doubt[window].max() <= 0:
                break
            found.append(_proposal(doubt, window, label))
            left[_window(place, [2 * side - 1 for side in sides])] = False
    return found


def _doubts(
    probability: np.ndarray, annotation: np.ndarray | None, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """Doubt about each class in a square around each voxel, doubt of the voxels, where squares fit, their sides."""
    about = _about(probability, annotation)
    doubt = about.sum(axis=0)  # the probabilities that it is weighted with sum to 1
    sides = (1,) * (doubt.ndim - 2) + tuple(min(size, n) for n in doubt.shape[-2:])
    about = np.stack([ndimage.uniform_filter(one, sides, mode="constant") for one in about])
    free = np.zeros(doubt.shape, bool)  # places for centres whose square lies inside the image and touches no other
    free[tuple(slice(s // 2, n - s + s // 2 + 1) for s, n in zip(sides, doubt.shape, strict=True))] = True
    return about, doubt, free, sides


def _proposal(doubt: np.ndarray, region: tuple[slice, ...], label: int) -> Proposal:
    inside = doubt[region]
    centre = np.unravel_index(int(inside.argmax()), inside.shape)
    place = tuple(part.start + int(c) for part, c in zip(region, centre, strict=True))
    unlabelled = inside[inside > 0]
    return Proposal(region, place, label, float(unlabelled.mean()) if unlabelled.size else 0.0)


def _about(probability: np.ndarray, annotation: np.ndarray | None) -> np.ndarray:
    """Doubt about each class ``(K, ...)``: entropy times the class's probability, 0 where annotated."""
    doubt = entropy(probability)
    if annotation is not None:
        doubt[annotation != UNLABELLED] = 0
    return doubt * probability


def class_turns(classes: int) -> list[int]:
    """Order in which classes have their say: the foreground, then the background."""
    return [*range(1, classes), 0]


def _window(place: Sequence[int], sides: Sequence[int]) -> tuple[slice, ...]:
    """Box of `sides` around a voxel, cut where the image begins."""
    starts = [middle - side // 2 for middle, side in zip(place, sides, strict=True)]
    return tuple(slice(max(0, start), start + side) for start, side in zip(starts, sides, strict=True))
