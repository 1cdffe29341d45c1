"""Strokes checked by models that have not seen them: what a model was trained on, it may have come to believe.

The strokes are dealt out into three parts; the instant model learns from two of them and judges the third, in turn. A
stroke is judged as a whole: the edge of a good stroke is easily a little wrong.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from napari_unetseg.data.annotation import UNLABELLED, to_mask
from napari_unetseg.data.dataset import Case, Dataset, Sample
from napari_unetseg.errors import AnnotationError, Stopped
from napari_unetseg.events import Control, Event, Note, verb
from napari_unetseg.guidance import Candidate, SuspiciousStroke, contradictions, find_slips
from napari_unetseg.instant import fit_instant
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Volume

__all__ = ["cross_check"]

_PARTS = 3
_PLAN = Plan(data={"heldout": 0.0})


@dataclass(frozen=True, eq=False)
class _Dealt:
    """An image whose strokes (connected, of one class) are numbered and dealt out."""

    name: str
    image: Volume
    strokes: np.ndarray
    part: np.ndarray  # of each voxel the part that its stroke is in, -1 where there is none

    def only(self, part: int) -> tuple[Volume, np.ndarray]:
        return self.image, np.where(self.part == part, self.strokes, UNLABELLED)


@dataclass(frozen=True)
class _Reader:
    name: str
    image: Volume
    strokes: np.ndarray

    def sample(self) -> Sample:
        return Sample(self.name, self.image, *self.target())

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        return to_mask(self.strokes)


@verb
def cross_check(
    candidates: Sequence[Candidate],
    classes: Sequence[str],
    *,
    confidence: float = 0.8,
    seed: int = 0,
    control: Control | None = None,
) -> Generator[Event, None, list[SuspiciousStroke]]:
    """Find strokes that a model which has not seen them contradicts, and planes that contradict each other.

    Parameters
    ----------
    candidates : sequence of Candidate
        Images of one kind; those without strokes are left out.
    classes : sequence of str
        Names, background first.
    confidence : float
        Mean probability of another class, over the stroke, from which it is named.
    seed : int
        Of the dealing out.
    control : Control, optional
        When stopped, what was found so far is returned.

    Returns
    -------
    list of SuspiciousStroke
        The largest first.

    Raises
    ------
    AnnotationError
        When there are not two strokes of two classes.
    """
    control = control or Control()
    dealt = list(_deal(candidates, np.random.default_rng(seed)))
    found: list[SuspiciousStroke] = []
    for part in range(_PARTS if dealt else 0):
        if control.stopped:
            break
        try:
            model = yield from fit_instant.events(_others(dealt, part, classes), _PLAN, control=control)
        except Stopped:
            break
        except AnnotationError as error:
            yield Note(f"A third of the strokes could not be checked. {error.message}")
            continue
        asked = [Candidate(one.name, partial(one.only, part)) for one in dealt if (one.part == part).any()]
        found += yield from find_slips.events(asked, model, confidence=confidence, control=control)
    named = [one for one in found if one.by == "model"]
    between = [replace(one, case=d.name) for d in dealt for one in contradictions(d.strokes)]
    return sorted(named + [one for one in between if not _named(one, named)], key=lambda stroke: -stroke.voxels)


def _deal(candidates: Sequence[Candidate], rng: np.random.Generator) -> Iterator[_Dealt]:
    """Number the strokes of each image and class, and deal them out evenly."""
    for candidate in candidates:
        image, strokes = candidate.load()
        if strokes is None or not strokes.any():
            continue
        part = np.full(strokes.shape, -1, np.int8)
        for value in np.unique(strokes[strokes != UNLABELLED]).tolist():
            numbers, count = ndimage.label(strokes == value, np.ones((3,) * strokes.ndim))
            hands = np.concatenate([[-1], (np.arange(count) + rng.integers(_PARTS)) % _PARTS])
            hands[1:] = rng.permutation(hands[1:])
            part = np.where(numbers > 0, hands[numbers], part).astype(np.int8)
        yield _Dealt(candidate.name, image, strokes, part)


def _others(dealt: Sequence[_Dealt], part: int, classes: Sequence[str]) -> Dataset:
    """What is learned from while one part is judged."""
    readers = [_Reader(one.name, one.image, np.where(one.part == part, UNLABELLED, one.strokes)) for one in dealt]
    cases = tuple(Case(one.name, one.name, None, None, one) for one in readers if one.strokes.any())
    first = dealt[0].image
    return Dataset(cases, tuple(classes), "annotation", (), first.data.shape[0], first.ndim)


def _named(one: SuspiciousStroke, others: Sequence[SuspiciousStroke]) -> bool:
    for other in others:
        pairs = zip(one.region, other.region, strict=True)
        if one.case == other.case and all(a.start < b.stop and b.start < a.stop for a, b in pairs):
            return True
    return False
