"""A simulated annotator: strokes as a user would paint them, from a truth that the user knows.

For the demo, for tests and for benchmarks. Strokes are curved lines of the brush's width that keep a little away from
the edges of what they mark; in a volume they lie on a few planes. The same generator state gives the same strokes.
An `Annotator` also counts what the strokes would have cost a hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_unetseg.data.annotation import BACKGROUND, UNLABELLED

__all__ = ["Annotator", "Hand", "correct", "scribble"]

_TURNS = (0.0, 0.35, -0.35, 0.8, -0.8, 1.4, -1.4, 2.2, -2.2)  # radians tried, in this order, where a line hits an edge
_PLANES = 4  # of a volume that are painted on, at least where there are so many


@dataclass(frozen=True)
class Hand:
    """How long a hand takes. Assumptions, meant to be of the right size; change them to see what depends on them.

    Attributes
    ----------
    speed : float
        Of a stroke, in shorter sides of the image a second: at a zoom that shows the whole image, a careful line.
    pause : float
        Seconds before each stroke, to look and to aim.
    change : float
        Seconds to take another class.
    look : float
        Seconds to take in an image just opened, or a plane of it.
    """

    speed: float = 0.25
    pause: float = 1.0
    change: float = 1.0
    look: float = 3.0


class Annotator:
    """A simulated user.

    Parameters
    ----------
    n_classes : int
        Classes, the background among them.
    rng : numpy.random.Generator
    width : int, optional
        Of the brush, in pixels; one ninetieth of the shorter side when omitted.
    hand : Hand
        How long it takes.

    Attributes
    ----------
    seconds : float
        Simulated seconds of work so far.
    strokes : int
        Strokes painted so far.
    """

    def __init__(self, n_classes: int, rng: np.random.Generator, width: int | None = None, hand: Hand = Hand()) -> None:
        self._classes, self._rng, self._width, self._hand = n_classes, rng, width, hand
        self._label: int | None = None
        self.seconds, self.strokes = 0.0, 0

    def scribble(self, truth: np.ndarray, fraction: float = 0.01) -> np.ndarray:
        """Paint strokes into every class that is there; see `scribble`."""
        annotation = np.full(truth.shape, UNLABELLED, np.uint8)
        planes = _planes(truth, self._classes, self._rng)
        width = self._width or _brush(truth.shape)
        self.seconds += self._hand.look * len(planes)
        places = {label: [z for z in planes if (truth[z] == label).any()] for label in range(self._classes)}
        present = sum(1 for there in places.values() if there)
        for label, there in places.items():
            budget = fraction * truth.size / present
            for count, z in enumerate(there):
                share = budget / (len(there) - count)
                budget -= self._fill(annotation[z], truth[z] == label, label, (max(1, round(share)), width))
        return annotation

    def correct(
        self,
        annotation: np.ndarray,
        prediction: np.ndarray,
        truth: np.ndarray,
        strokes: int = 10,
        seconds: float = math.inf,
    ) -> np.ndarray:
        """Add strokes where the prediction is wrong, until `seconds` are used up; see `correct`."""
        annotation, end = annotation.copy(), self.seconds + seconds
        width = self._width or _brush(truth.shape)
        mistakes, planes = [], _worst(prediction != truth)
        for z in planes:
            for label in range(self._classes):
                parts, n = ndimage.label((truth[z] == label) & (prediction[z] != label))
                sizes = np.bincount(parts.ravel(), minlength=n + 1)
                mistakes += [
                    (int(sizes[i]), z, label, parts == i) for i in np.argsort(-sizes[1:], kind="stable")[:strokes] + 1
                ]
        mistakes.sort(key=lambda mistake: -mistake[0])
        seen: set[tuple[int, ...]] = set()
        for size, z, label, where in mistakes[:strokes]:
            if self.seconds >= end:
                break
            self.seconds += self._hand.look * (z not in seen)
            seen.add(z)
            length = max(width, round(1.5 * math.sqrt(size)))
            self._fill(annotation[z], where, label, (length * width, width), strokes=1)
        return annotation

    def _fill(
        self, plane: np.ndarray, where: np.ndarray, label: int, amount: tuple[int, int], strokes: int = 200
    ) -> int:
        """Paint at most `strokes` lines inside `where`; `amount` is pixels to paint and width of the brush."""
        budget, width = amount
        free = _core(where, width // 2 + 1)
        parts, n = ndimage.label(free)
        sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
        chances = np.sqrt(sizes) / np.sqrt(sizes).sum()  # small objects get their strokes too
        brush = _disk(width)
        painted, before = 0, int((plane == label + BACKGROUND).sum())
        for _ in range(strokes):
            if painted >= budget:
                break
            starts = np.flatnonzero(parts.ravel() == 1 + self._rng.choice(n, p=chances))
            start = np.unravel_index(starts[int(self._rng.integers(len(starts)))], plane.shape)
            length = min(self._rng.uniform(0.08, 0.35) * max(plane.shape), (budget - painted) / width)
            line = _line(free, (float(start[0]), float(start[1])), max(1, round(length)), self._rng)
            dots = (line[:, None] + brush).reshape(-1, 2)
            inside = ((dots >= 0) & (dots < plane.shape)).all(axis=1)
            dots = dots[inside]
            dots = dots[where[dots[:, 0], dots[:, 1]]]
            plane[dots[:, 0], dots[:, 1]] = label + BACKGROUND
            last, painted = painted, int((plane == label + BACKGROUND).sum()) - before
            if painted > last:  # nobody paints over what is painted
                self._count(label, len(line), plane.shape)
        return painted

    def _count(self, label: int, length: int, shape: tuple[int, ...]) -> None:
        hand = self._hand
        self.seconds += hand.pause + hand.change * (label != self._label) + length / (hand.speed * min(shape))
        self.strokes += 1
        self._label = label


def scribble(
    truth: np.ndarray, n_classes: int, rng: np.random.Generator, fraction: float = 0.01, width: int | None = None
) -> np.ndarray:
    """Paint strokes into every class that is there, the background among them.

    Parameters
    ----------
    truth : ([Z,] Y, X) integer ndarray
        Mask: 0 background, 1.. classes.
    n_classes : int
        Classes, the background among them.
    rng : numpy.random.Generator
    fraction : float
        Share of the voxels to paint, about evenly divided over the classes; less where a class has no more.
    width : int, optional
        Of the brush, in pixels; one ninetieth of the shorter side when omitted.

    Returns
    -------
    ([Z,] Y, X) uint8 ndarray
        0 unlabelled, 1 background, 2.. the classes; never wrong.
    """
    return Annotator(n_classes, rng, width).scribble(truth, fraction)


def correct(
    annotation: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    n_classes: int,
    rng: np.random.Generator,
    strokes: int = 10,
    width: int | None = None,
) -> np.ndarray:
    """Add strokes where the prediction is wrong, the largest mistake first, each of the class that is true there.

    Parameters
    ----------
    annotation : ([Z,] Y, X) uint8 ndarray
        What is painted so far; not changed.
    prediction, truth : ([Z,] Y, X) integer ndarray
        Masks.
    n_classes : int
    rng : numpy.random.Generator
    strokes : int
        How many to paint; in a volume, on the planes that look worst.
    width : int, optional
        As for `scribble`.

    Returns
    -------
    ([Z,] Y, X) uint8 ndarray
    """
    return Annotator(n_classes, rng, width).correct(annotation, prediction, truth, strokes)


def _core(where: np.ndarray, depth: int) -> np.ndarray:
    """Pixels at least `depth` from an edge; of thin things, whatever depth leaves a third of them."""
    for iterations in range(depth, 0, -1):
        # the border of the image is no edge of an object
        core = ndimage.binary_erosion(where, iterations=iterations, border_value=1)
        if core.sum() >= where.sum() / 3:
            return core
    return where


def _line(free: np.ndarray, start: tuple[float, float], length: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels ``(n, 2)`` of a curved line inside `free`; it turns at edges and ends where it cannot go on."""
    y, x = start
    angle, bend = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.05)
    points = [(round(y), round(x))]
    for _ in range(length):
        bend = 0.9 * bend + rng.normal(0, 0.03)
        angle += bend
        for turn in _TURNS:
            ny, nx = y + math.sin(angle + turn), x + math.cos(angle + turn)
            iy, ix = round(ny), round(nx)
            if 0 <= iy < free.shape[0] and 0 <= ix < free.shape[1] and free[iy, ix]:
                y, x, angle = ny, nx, angle + turn
                points.append((iy, ix))
                break
        else:
            break
    return np.unique(np.array(points), axis=0)


def _planes(truth: np.ndarray, n_classes: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Indices of the planes to paint on: ``[()]`` for an image; of a volume a few that together show all classes."""
    if truth.ndim == 2:
        return [()]
    counts = np.stack([(truth == label).sum(axis=(1, 2)) for label in range(n_classes)], axis=1)
    chosen: list[int] = []
    for label in np.argsort(counts.sum(axis=0), kind="stable"):  # the rarest class chooses first
        if counts[:, label].any() and not counts[chosen, label].any():
            rich = np.flatnonzero(counts[:, label] >= 0.7 * counts[:, label].max())
            chosen.append(int(rng.choice(rich)))
    busy = np.flatnonzero((counts[:, 1:] > 0).any(axis=1))
    others = [int(z) for z in rng.permutation(busy if busy.size else len(truth)) if z not in chosen]
    wanted = max(_PLANES, len(truth) // 12)
    while others and len(chosen) < wanted:  # far from those chosen already
        far = max(others, key=lambda z: min((abs(z - c) for c in chosen), default=0))
        others.remove(far)
        chosen.append(far)
    return [(z,) for z in sorted(chosen)]


def _worst(wrong: np.ndarray) -> list[tuple[int, ...]]:
    """Planes with the most mistakes."""
    if wrong.ndim == 2:
        return [()]
    counts = wrong.sum(axis=(1, 2))
    return [(int(z),) for z in np.argsort(-counts, kind="stable")[:_PLANES] if counts[z]]


def _brush(shape: tuple[int, ...]) -> int:
    return max(1, round(min(shape[-2:]) / 90))


def _disk(width: int) -> np.ndarray:
    """Offsets ``(n, 2)`` of a round brush."""
    reach = np.arange(width) - (width - 1) // 2
    y, x = (axis.ravel() for axis in np.meshgrid(reach, reach, indexing="ij"))
    middle = reach.mean()
    inside = np.hypot(y - middle, x - middle) <= width / 2
    return np.stack([y[inside], x[inside]], axis=1)
