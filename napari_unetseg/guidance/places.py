"""Where in a project to annotate next: which image, which plane, where on it, already segmented.

Looked at are planes, or windows of large ones, a few of every image before more of any, until the time is over: an
answer after ten seconds is worth more than a better one after the user has gone. The classes take turns, each with what
is most doubtful about it; an image that was just proposed waits; and some are drawn at random, for a model is not in
doubt about what it has never seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from napari_unetseg.data.annotation import UNLABELLED
from napari_unetseg.errors import Stopped, UnetSegError
from napari_unetseg.events import Control, Event, Note, TileDone, verb
from napari_unetseg.guidance.squares import Proposal, best_squares, class_doubt, class_turns
from napari_unetseg.inference import Predictor, make_predictor
from napari_unetseg.inference.sliding import prepared_image
from napari_unetseg.inference.view import seen_of_plane
from napari_unetseg.nets import Model
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume

__all__ = ["Candidate", "Suggestion", "candidates_of", "suggest"]

_WHOLE = {2: 1024, 3: 256}  # by the net's dims: planes up to this side are looked at whole, of others some windows
_WINDOW = {2: 512, 3: 192}
_PLANES = 4  # of a volume that are looked at before the next image has its turn
_BESIDE = 2  # planes so near to one that was proposed wait
_AGAIN = 0.5  # what the doubt about an image counts for each time that it was proposed already


@dataclass(frozen=True)
class Candidate:
    """An image that may be annotated: its name, and how to read it with its annotation (None where there is none)."""

    name: str
    load: Callable[[], tuple[Volume, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class Suggestion:
    """A place that is worth annotating next.

    Attributes
    ----------
    case : str
    index : int or None
        Plane of a volume.
    point : tuple of int
        ``(y, x)`` of its most doubtful pixel.
    box : tuple of slice
        ``(Y, X)``: what to look at.
    label : int
        Class index that it is about.
    doubt : float
        Mean entropy in the box, 0 sure to 1 undecided.
    drawn : bool
        Whether it was drawn at random.
    reason : str
        A sentence for the user.
    window : tuple of slice
        ``(Y, X)``: part of the plane that `mask` covers; all of it, unless the plane is large.
    mask : (Y, X) uint8 ndarray
        What the model makes of the window: 0 background, 1.. classes.
    """

    case: str
    index: int | None
    point: tuple[int, int]
    box: tuple[slice, slice]
    label: int
    doubt: float
    drawn: bool
    reason: str
    window: tuple[slice, slice]
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class _Look:
    """A window of a plane that was looked at, with its most doubtful square for each class."""

    case: str
    index: int | None
    window: tuple[slice, slice]
    bare: bool  # the image has no stroke at all
    doubt: np.ndarray
    squares: list[Proposal]
    mask: np.ndarray
    free: np.ndarray  # where nothing is painted
    size: int


def candidates_of(project: Project, only: Sequence[str] | None = None) -> list[Candidate]:
    """All images of a project with their strokes, or those of `only`."""

    def of(case: str) -> Candidate:
        return Candidate(case, lambda: (project.image(case), project.annotation(case).data))

    return [of(case) for case in project.cases if only is None or case in only]


@verb
def suggest(
    candidates: Sequence[Candidate],
    model: Model,
    *,
    number: int = 5,
    seconds: float = 10.0,
    random_every: int = 3,
    seed: int = 0,
    control: Control | None = None,
) -> Generator[Event, None, list[Suggestion]]:
    """Propose what to annotate next.

    Parameters
    ----------
    candidates : sequence of Candidate
        Annotated or not: what is painted already is not proposed again.
    model : Model
        The latest; its probabilities should be calibrated.
    number : int
        Suggestions wanted; fewer come where there is nothing more.
    seconds : float
        Time for looking; at least one place is looked at.
    random_every : int
        One in so many is drawn at random, its class first, so that rare ones come up; 1 for all, 0 for none.
    seed : int
        Of what is random.
    control : Control, optional
        When stopped, what was seen so far is ranked.

    Returns
    -------
    list of Suggestion
        In the order in which to look at them.
    """
    rng, control, begin = np.random.default_rng(seed), control or Control(), time.monotonic()
    predictor, looks, visits = make_predictor(model), list[_Look](), 0

    def over() -> bool:
        return bool(looks) and (control.stopped or time.monotonic() - begin > seconds)

    queue = deque((candidates[i], 0) for i in rng.permutation(len(candidates)))
    while queue and not over():
        candidate, turn = queue.popleft()
        visits += 1
        try:
            image, annotation = candidate.load()
            prepared = prepared_image(model, image)
            strokes = np.full(image.shape, UNLABELLED, np.uint8) if annotation is None else annotation
            for index, window in _windows(image.shape, turn, model.plan.net.dims, rng):
                if over():
                    break
                looks.append(_look(candidate.name, (index, window), predictor, prepared, strokes))
            if image.ndim == 3 and image.shape[0] > (turn + 1) * _PLANES:
                queue.append((candidate, turn + 1))
        except Stopped:
            break
        except UnetSegError as error:  # an image that cannot be used is none that can be proposed
            yield Note(f"{candidate.name} was passed over: {error.message}", "warning")
        yield TileDone(visits, visits + len(queue), max(0.0, seconds - (time.monotonic() - begin)))
    return list(_ranked(looks, model.classes, (number, random_every), rng))


def _windows(
    shape: Sequence[int], turn: int, dims: int, rng: np.random.Generator
) -> Iterator[tuple[int | None, tuple[slice, slice]]]:
    """Planes of an image whose turn it is; of large ones four windows, one in each quarter."""
    planes: list[int | None] = [None]
    if len(shape) == 3:
        planes = list(_spread_out(shape[0])[turn * _PLANES : (turn + 1) * _PLANES])
    (height, width), side = shape[-2:], _WINDOW[dims]
    for index in planes:
        if max(height, width) <= _WHOLE[dims]:
            yield index, (slice(0, height), slice(0, width))
            continue
        for down, right in ((0, 0), (1, 1), (0, 1), (1, 0)):
            y, x = _within(height, side, down, rng), _within(width, side, right, rng)
            yield index, (slice(y, min(y + side, height)), slice(x, min(x + side, width)))


def _within(length: int, side: int, half: int, rng: np.random.Generator) -> int:
    """Where a window begins in the first or second half of an axis."""
    reach = max(0, length - side)
    return int(rng.integers(reach // 2 * half, reach // 2 * (half + 1) + 1))


def _spread_out(planes: int) -> list[int]:
    """All planes, each far from those before it: the middle, the ends' neighbours, the quarters, ..."""
    bits = max(1, (planes - 1).bit_length())
    order = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(2**bits)]
    return [(place + planes // 2) % planes for place in order if place < planes]


def _look(
    case: str,
    where: tuple[int | None, tuple[slice, slice]],
    predictor: Predictor,
    prepared: np.ndarray,
    strokes: np.ndarray,
) -> _Look:
    index, window = where
    seen, inner = seen_of_plane(predictor, prepared, index, window)
    probability = predictor.probabilities(seen)
    if inner is not None:
        probability = probability[:, inner]
    painted = strokes[window if index is None else (index, *window)]
    size = min(128, max(32, min(strokes.shape[-2:]) // 4))
    found = best_squares(probability, painted, size=size)
    doubt, mask = class_doubt(probability, painted), predictor.mask(probability)
    return _Look(case, index, window, not strokes.any(), doubt, found, mask, painted == UNLABELLED, size)


def _ranked(
    looks: Sequence[_Look], classes: Sequence[str], mix: tuple[int, int], rng: np.random.Generator
) -> Iterator[Suggestion]:
    """Choose among what was looked at: the classes in turn, an image or plane that was just proposed last."""
    number, random_every = mix
    turns, chosen = class_turns(len(classes)), 0
    options = [(look, square) for look in looks for square in look.squares]
    taken: list[_Look] = []
    for place in range(number):
        drawn = bool(random_every) and place % random_every == random_every - 1
        found = _drawn(looks, taken, len(classes), rng) if drawn else None
        if found is None and options:
            label = turns[chosen % len(turns)]
            chosen += 1
            some = [option for option in options if option[1].label == label] or options
            found = max(some, key=lambda option: option[0].doubt[option[1].label] * _patience(option[0], taken))
        if found is None:
            return
        taken.append(found[0])
        found[0].free[found[1].region] = False
        options = [(look, square) for look, square in options if look.free[square.centre]]
        yield _suggestion(*found, classes, drawn)


def _patience(look: _Look, taken: Sequence[_Look]) -> float:
    """What the doubt of a place still counts, after those taken before it."""
    same = [other for other in taken if other.case == look.case]
    beside = [other for other in same if look.index is None or abs(look.index - (other.index or 0)) <= _BESIDE]
    return _AGAIN ** (len(same) + len(beside))


def _drawn(
    looks: Sequence[_Look], taken: Sequence[_Look], classes: int, rng: np.random.Generator
) -> tuple[_Look, Proposal] | None:
    """Draw a class, then one of the images (those not taken yet first) that seem to have it, then a place there."""
    for label in rng.permutation(classes).tolist():
        able = [look for look in looks if ((look.mask == label) & look.free).any()]
        if able:
            first = max(_patience(look, taken) for look in able)
            able = [look for look in able if _patience(look, taken) == first]
            look = able[int(rng.integers(len(able)))]
            places = np.argwhere((look.mask == label) & look.free)
            y, x = places[int(rng.integers(len(places)))].tolist()
            sizes = zip((y, x), look.mask.shape, strict=True)
            corner = [max(0, min(at - look.size // 2, n - look.size)) for at, n in sizes]
            region = tuple(slice(start, start + look.size) for start in corner)
            return look, Proposal(region, (y, x), label, float(look.doubt[label]))
    return None


def _suggestion(look: _Look, square: Proposal, classes: Sequence[str], drawn: bool) -> Suggestion:
    down, right = (part.start for part in look.window)
    height, width = look.mask.shape
    y, x = square.region
    box = slice(y.start + down, min(y.stop, height) + down), slice(x.start + right, min(x.stop, width) + right)
    name = classes[square.label]
    if drawn:
        reason = f"Drawn at random among {name!r}, to find what the model is wrongly sure of."
    else:
        reason = f"The model is least sure of {name!r} here (doubt {square.doubt:.2f} of 1)."
    if look.bare:
        reason += " This image has no strokes yet."
    point = square.centre[0] + down, square.centre[1] + right
    return Suggestion(
        look.case, look.index, point, box, square.label, square.doubt, drawn, reason, look.window, look.mask
    )
