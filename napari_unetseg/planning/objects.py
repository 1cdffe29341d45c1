"""How large the objects are that a user is after: from masks, or from strokes and what looks like them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_unetseg.data import Sample
from napari_unetseg.events import Control, until_stopped

__all__ = ["ObjectSize", "object_size"]

_IMAGES, _PLANES = 8, 3  # looked at
_DENSE = 0.5  # share of a plane that is known from which it counts as a mask
_LARGEST = 1024  # pixels a side; larger planes are looked at in a coarser copy
_TOLD_APART = 0.8  # balanced accuracy on the strokes from which intensities are believed
_SMALLEST = 9  # pixels: smaller components are noise


@dataclass(frozen=True)
class ObjectSize:
    """Typical width of an object.

    Attributes
    ----------
    width : float
        Diameter of the largest circle inside a typical object, within the plane, in pixels.
    seen_in : str
        What it was estimated from, for the user: ``masks`` or ``strokes``.
    """

    width: float
    seen_in: str


def object_size(samples: Sequence[Sample], control: Control | None = None) -> ObjectSize | None:
    """Estimate how wide the objects of the classes are.

    Where a plane is labelled densely its components tell. Among sparse strokes, pixels are called object or background
    by a linear discriminant of smoothed intensities, if that agrees with the strokes; components that hold a stroke
    then tell. Touching objects count one by one, for what is measured is the widest circle inside.

    Returns
    -------
    ObjectSize or None
        None where neither masks nor strokes tell.
    """
    widths: list[float] = []
    seen_in = "masks"
    for plane in until_stopped(_planes(samples), control):
        coarse = -(-max(plane[1].shape) // _LARGEST)
        image, target, known = (part[..., ::coarse, ::coarse] for part in plane)
        if known.mean() >= _DENSE:
            found = _widths((target > 0) & known, None)
        elif (guess := _looks_like(image, target, known)) is not None:
            found, seen_in = _widths(guess, known & (target > 0)), "strokes"
        else:
            continue
        widths += [coarse * width for width in found]
    return ObjectSize(float(np.median(widths)), seen_in) if widths else None


def _planes(samples: Sequence[Sample]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Planes with the most labels, of a few samples: image ``(C, Y, X)``, target and known ``(Y, X)``."""
    step = max(1, len(samples) // _IMAGES)
    for sample in list(samples)[::step][:_IMAGES]:
        image, target, known = sample.image.data, sample.target, sample.known
        if target.ndim == 2:
            yield image, target, known
            continue
        inside = ((target > 0) & known).sum(axis=(1, 2))
        for index in np.argsort(inside)[::-1][:_PLANES]:
            if inside[index]:
                yield image[:, index], target[index], known[index]


def _looks_like(image: np.ndarray, target: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """Pixels that look like the strokes of the classes; None where intensities do not tell."""
    inside, outside = known & (target > 0), known & (target == 0)
    if inside.sum() < _SMALLEST or outside.sum() < _SMALLEST:
        return None
    image = np.nan_to_num(image.astype(np.float32))
    features = np.stack([ndimage.gaussian_filter(channel, sigma) for channel in image for sigma in (1.0, 3.0)])
    a, b = features[:, inside].astype(np.float64), features[:, outside].astype(np.float64)
    within = np.atleast_2d(np.cov(a)) + np.atleast_2d(np.cov(b))
    within += 1e-6 * np.trace(within) / len(within) * np.eye(len(within)) + 1e-12 * np.eye(len(within))
    direction = np.linalg.solve(within, a.mean(axis=1) - b.mean(axis=1))
    score = np.tensordot(direction, features, 1)
    middle = (score[inside].mean() + score[outside].mean()) / 2
    if ((score[inside] > middle).mean() + (score[outside] <= middle).mean()) / 2 < _TOLD_APART:
        return None
    return ndimage.binary_opening((score > middle) & ~outside | inside)


def _widths(mask: np.ndarray, marked: np.ndarray | None) -> list[float]:
    """Widest circle inside every component, of those that hold a marked pixel where `marked` is given."""
    labels, count = ndimage.label(mask)
    if not count:
        return []
    # a border of the image is no border of an object
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    index = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(mask, labels, index)
    widest = ndimage.maximum(depth, labels, index)
    wanted = sizes >= _SMALLEST
    if marked is not None:
        wanted &= ndimage.maximum(marked, labels, index) > 0
    return (2 * widest[wanted] - 1).tolist()
