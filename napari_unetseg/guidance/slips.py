"""Strokes that look like slips of the hand: a confident model, or the strokes on the next plane, say something else."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

from napari_unetseg.data.annotation import to_mask
from napari_unetseg.errors import AnnotationError, UnetSegError
from napari_unetseg.events import Control, Event, Note, TileDone, verb
from napari_unetseg.guidance.places import Candidate
from napari_unetseg.inference import Predictor, make_predictor
from napari_unetseg.inference.sliding import prepared_image
from napari_unetseg.inference.view import seen_of_plane
from napari_unetseg.nets import Model

__all__ = ["SuspiciousStroke", "contradictions", "doubted_strokes", "find_slips", "suspicious_strokes"]

_MARGIN = 48  # voxels around strokes that the net sees when they are checked
_PART = 20  # contradicted voxels from which part of a stroke is named


@dataclass(frozen=True)
class SuspiciousStroke:
    """A stroke that a confident model contradicts.

    Attributes
    ----------
    region : tuple of slice
        ``([Z,] Y, X)`` box around it.
    painted, predicted : int
        Class indices.
    voxels : int
        How many voxels of the stroke are contradicted.
    confidence : float
        Mean probability of `predicted` on them; of planes that contradict each other, the share that does.
    by : str
        Who says otherwise: ``model`` or ``plane``.
    case : str
        Image that it is on, where several were searched.
    """

    region: tuple[slice, ...]
    painted: int
    predicted: int
    voxels: int
    confidence: float
    by: Literal["model", "plane"] = "model"
    case: str = ""

    def reason(self, classes: Sequence[str]) -> str:
        """Say to the user what is odd about it."""
        painted, instead = classes[self.painted], classes[self.predicted]
        if self.by == "plane":
            return f"Painted as {painted!r} here, and as {instead!r} at the same place on the next plane."
        return f"Painted as {painted!r}, but the model takes it for {instead!r} ({self.confidence:.0%})."


def suspicious_strokes(
    probability: np.ndarray, annotation: np.ndarray, *, confidence: float = 0.95, fewest: int = 5
) -> list[SuspiciousStroke]:
    """Strokes where a confident model says something else.

    Parameters
    ----------
    probability : (K, [Z,] Y, X) float ndarray
        Of a model that was not trained on these strokes, or that could not make itself believe them.
    annotation : ([Z,] Y, X) integer ndarray
    confidence : float
        Probability from which a contradiction counts.
    fewest : int
        Contradicted voxels from which a stroke is named; rims of strokes are always a little wrong.

    Returns
    -------
    list of SuspiciousStroke
        The largest first.
    """
    if annotation.shape != probability.shape[1:]:
        raise AnnotationError(
            f"The annotation has shape {annotation.shape}, the probabilities {probability.shape[1:]}.",
            hint="Give the annotation of the same image.",
        )
    mask, known = to_mask(annotation)
    predicted, sure = probability.argmax(axis=0), probability.max(axis=0)
    wrong = known & (predicted != mask) & (sure >= confidence)
    found: list[SuspiciousStroke] = []
    for painted in np.unique(mask[wrong]).tolist():
        for instead in np.unique(predicted[wrong & (mask == painted)]).tolist():
            parts, _ = ndimage.label(wrong & (mask == painted) & (predicted == instead), np.ones((3,) * mask.ndim))
            for number, region in enumerate(ndimage.find_objects(parts), 1):
                inside = parts[region] == number
                if inside.sum() >= fewest:
                    mean = float(sure[region][inside].mean())
                    found.append(SuspiciousStroke(region, painted, instead, int(inside.sum()), mean))
    return sorted(found, key=lambda stroke: -stroke.voxels)


def doubted_strokes(
    probability: np.ndarray, annotation: np.ndarray, *, confidence: float = 0.6, fewest: int = 5
) -> list[SuspiciousStroke]:
    """Strokes that a model takes, as a whole, for another class.

    Parameters
    ----------
    probability : (K, [Z,] Y, X) float ndarray
    annotation : ([Z,] Y, X) integer ndarray
    confidence : float
        Mean probability of the other class over the stroke from which it is named. The mean is a gentler judge than
        each voxel, and a model that has learned wrong strokes has come half their way (``benchmarks/guidance.py``).
    fewest : int
        Voxels that a stroke has at least.

    Returns
    -------
    list of SuspiciousStroke
        The largest first.
    """
    mask, _ = to_mask(annotation)
    found: list[SuspiciousStroke] = []
    for value, around in enumerate(ndimage.find_objects(annotation), start=1):
        if around is None:
            continue
        parts, _ = ndimage.label(annotation[around] == value, np.ones((3,) * annotation.ndim))
        for number, box in enumerate(ndimage.find_objects(parts), 1):
            region = _shifted(box, around)
            inside = parts[box] == number
            means = probability[(slice(None), *region)][:, inside].mean(axis=1)
            painted, instead = int(mask[region][inside][0]), int(means.argmax())
            if inside.sum() >= fewest and instead != painted and means[instead] >= confidence:
                found.append(SuspiciousStroke(region, painted, instead, int(inside.sum()), float(means[instead])))
    return sorted(found, key=lambda stroke: -stroke.voxels)


def contradictions(annotation: np.ndarray, *, fewest: int = 20, share: float = 0.5) -> list[SuspiciousStroke]:
    """Strokes on neighbouring planes that say different things of the same places.

    Parameters
    ----------
    annotation : (Z, Y, X) integer ndarray
        Of an image without planes nothing is found.
    fewest : int
        Contradicting voxels from which a pair is named.
    share : float
        Of what both planes have painted there; where they agree on most, it is but the edge of an object that moves.

    Returns
    -------
    list of SuspiciousStroke
        The largest first; each is on the plane where fewer voxels are painted, the likelier slip.
    """
    mask, known = to_mask(annotation)
    found: list[SuspiciousStroke] = []
    planes: list[int] = np.flatnonzero(known.any(axis=(1, 2))).tolist() if annotation.ndim == 3 else []
    for below, above in itertools.pairwise(planes):
        if above - below != 1:
            continue
        both = known[below] & known[above]
        odd = both & (mask[below] != mask[above])
        less, other = (below, above) if known[below].sum() <= known[above].sum() else (above, below)
        parts, _ = ndimage.label(both, np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(parts), 1):
            inside = (parts[box] == number) & odd[box]
            count, of = int(inside.sum()), int((parts[box] == number).sum())
            if count >= fewest and count >= share * of:
                painted, instead = (int(np.bincount(mask[z][box][inside]).argmax()) for z in (less, other))
                region = (slice(less, less + 1), *box)
                found.append(SuspiciousStroke(region, painted, instead, count, count / of, "plane"))
    return sorted(found, key=lambda stroke: -stroke.voxels)


@verb
def find_slips(
    candidates: Sequence[Candidate],
    model: Model,
    *,
    confidence: float = 0.6,
    seconds: float = 60.0,
    control: Control | None = None,
) -> Generator[Event, None, list[SuspiciousStroke]]:
    """Search the strokes of some images for slips; only what lies around strokes is segmented.

    Parameters
    ----------
    candidates : sequence of Candidate
    model : Model
        One that has not learned these strokes finds more of them; see `validate.cross_check`.
    confidence : float
        As for `doubted_strokes`; of parts of strokes it must be surer, as for `suspicious_strokes`.
    seconds : float
        Time after which no further image is begun.
    control : Control, optional
        When stopped, what was found so far is returned.

    Returns
    -------
    list of SuspiciousStroke
        With `case`; those that planes contradict and the model too are named once. The largest first.
    """
    predictor, control, begin = make_predictor(model), control or Control(), time.monotonic()
    found: list[SuspiciousStroke] = []
    for done, candidate in enumerate(candidates):
        if control.stopped or time.monotonic() - begin > seconds:
            yield Note(f"{len(candidates) - done} images were not searched for slips.")
            break
        try:
            found += [replace(one, case=candidate.name) for one in _of_case(candidate, model, predictor, confidence)]
        except UnetSegError as error:
            yield Note(f"{candidate.name} was passed over: {error.message}", "warning")
        spent = time.monotonic() - begin
        yield TileDone(done + 1, len(candidates), spent / (done + 1) * (len(candidates) - done - 1))
    return sorted(found, key=lambda stroke: -stroke.voxels)


def _of_case(candidate: Candidate, model: Model, predictor: Predictor, confidence: float) -> list[SuspiciousStroke]:
    image, annotation = candidate.load()
    if annotation is None or not annotation.any():
        return []
    prepared = prepared_image(model, image)
    found: list[SuspiciousStroke] = []
    for box in _boxes(annotation, model.plan.net.dims):
        if annotation.ndim > model.plan.net.dims:
            seen, _ = seen_of_plane(predictor, prepared, box[0].start, box[1:])
            probability = predictor.probabilities(seen)[:, None]
        else:
            probability = predictor.probabilities(prepared[(slice(None), *box)])
        whole = doubted_strokes(probability, annotation[box], confidence=confidence)
        parts = suspicious_strokes(probability, annotation[box], fewest=_PART)
        parts = [part for part in parts if not any(_overlap(part, stroke) for stroke in whole)]
        found += [replace(stroke, region=_shifted(stroke.region, box)) for stroke in whole + parts]
    between = [stroke for stroke in contradictions(annotation) if not any(_overlap(stroke, other) for other in found)]
    return found + between


def _boxes(annotation: np.ndarray, dims: int) -> Iterator[tuple[slice, ...]]:
    """What a net must see to judge the strokes: a box around them with a margin, plane by plane for a 2D net."""
    planes: list[tuple[slice, ...]] = [()]
    if annotation.ndim > dims:
        planes = [(slice(int(z), int(z) + 1),) for z in np.flatnonzero(annotation.any(axis=(1, 2)))]
    for first in planes:
        around = []
        for where, size in zip(np.nonzero(annotation[first]), annotation.shape, strict=True):
            around.append(slice(max(0, int(where.min()) - _MARGIN), min(size, int(where.max()) + 1 + _MARGIN)))
        yield (*first, *around[len(first) :])


def _shifted(region: Sequence[slice], box: Sequence[slice]) -> tuple[slice, ...]:
    """A region of a box, in the coordinates of what the box is part of."""
    return tuple(slice(a.start + b.start, a.stop + b.start) for a, b in zip(region, box, strict=True))


def _overlap(one: SuspiciousStroke, other: SuspiciousStroke) -> bool:
    pairs = zip(one.region, other.region, strict=True)
    return all(a.start < b.stop and b.start < a.stop for a, b in pairs)
