"""The instant answer: a mask of what is on screen, learned from the strokes so far, before anything is trained.

What costs time is kept between strokes: the images, the features of the tiles that were looked at, and the net while
the strokes stay the same. Volumes are answered plane by plane, and large planes tile by tile around the last stroke.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from napari_unetseg.data import Sample, fit_normalisation
from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.normalise import Intensities, about, measure
from napari_unetseg.data.patches import Prepared
from napari_unetseg.errors import ReadError, Stopped
from napari_unetseg.events import Control, Event, TileDone
from napari_unetseg.instant import Lesson, instant_plan, learn_lesson, mix_channels
from napari_unetseg.losses import class_logits
from napari_unetseg.nets import build
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.plan import Normalisation, Plan
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Run, need, open_project

__all__ = ["instant_answer", "warm_instant"]

_TILE, _HALO = 1024, 48  # pixels; the halo is three of the widest Gaussian
_LEARNED, _ANSWERED = 16, 4  # tiles at most; nearest first
_KNOWN, _OTHER = 6_000, 6_000  # pixels learned from: fewer than in training, for it is done at every stroke
_KEPT_BYTES = 600_000_000
_OTHERS, _READING = 6, 0.4  # other images at most, and the seconds that may go into reading those not yet here

Tile = tuple[str, int, int, int]  # case, plane, row and column of tiles


@dataclass
class _Picture:
    """An image with its strokes ``([Z,] Y, X)``."""

    volume: Volume
    strokes: np.ndarray
    how: Intensities

    @property
    def planes(self) -> np.ndarray:
        """Strokes as ``(Z, Y, X)``."""
        return self.strokes if self.strokes.ndim == 3 else self.strokes[None]

    @property
    def painted(self) -> list[int]:
        """Classes that have strokes, the background 1."""
        rows = self.strokes[self.strokes.any(axis=-1)]
        return np.unique(rows[rows > 0]).tolist()

    def pixels(self, plane: int, window: tuple[slice, slice]) -> np.ndarray:
        """Normalised ``(C, Y, X)`` of a window."""
        data = self.volume.data if self.strokes.ndim == 2 else self.volume.data[:, plane]
        return self.how.apply(np.ascontiguousarray(data[(slice(None), *window)]))


@dataclass
class _Live:
    """What stays between strokes of one project."""

    project: str
    classes: tuple[str, ...]
    channels: int
    how: Normalisation
    plan: Plan
    net: Any
    fitted: set[tuple[str, int]] = field(default_factory=set)  # images and classes whose strokes `how` was fitted to
    pictures: dict[str, _Picture] = field(default_factory=dict)
    features: OrderedDict[Tile, torch.Tensor] = field(default_factory=OrderedDict)
    refused: set[str] = field(default_factory=set)  # images that cannot be used
    learned: Any = None  # the strokes that the net knows
    case: str = ""  # whose strokes may have changed since they were read

    def keep(self, tile: Tile, found: torch.Tensor) -> torch.Tensor:
        """Keep features, and let go of those used longest ago."""
        self.features[tile] = found
        total = sum(one.nbytes for one in self.features.values())
        while total > _KEPT_BYTES and len(self.features) > 1:
            total -= self.features.popitem(last=False)[1].nbytes
        return found


@VERBS.register("instant")
def instant_answer(args: Args, control: Control, bench: Bench) -> Run:
    """Learn from the strokes so far and segment what is on screen; nothing is written into the project.

    ``{project, case, index, near, annotated, strokes}`` to ``{mask, index, images, seconds}``: `near` is the pixel
    ``(y, x)`` in the middle of a large plane's answer, `annotated` the images with strokes, `strokes` any value that
    changes with them. `mask` is the path of an array ``(Y, X)`` of plane `index`; None until two classes have strokes
    (images and features are then made ready).
    """
    begin, case = time.monotonic(), need(args, "case")
    index = args.get("index") or 0
    live = _take(args, bench, case)
    names = _read_others(live, args, case, begin)
    _fit_to(live, names)
    picture = live.pictures[case]
    index = min(max(int(index), 0), len(picture.planes) - 1)
    shown = _tiles(picture.planes.shape[1:], args.get("near"))[:_ANSWERED]
    for number, tile in enumerate(shown):
        _features(live, (case, index, *tile), control)
        yield TileDone(number + 1, len(shown))
    strokes = (args.get("strokes"), *names)
    if live.learned != strokes or args.get("strokes") is None:
        live.learned = None
        if not (yield from _learn(live, names, index, control)):
            return {"mask": None, "index": args.get("index"), "images": 0, "seconds": time.monotonic() - begin}
        live.learned = strokes
    mask = np.zeros(picture.planes.shape[1:], np.uint8)
    for tile in shown:
        found = _features(live, (case, index, *tile), control)
        with torch.no_grad():
            logits = class_logits(live.net.classify(found[None].float()))[0]
        mask[_window(tile, mask.shape)[0]] = logits.argmax(dim=0).numpy()
    return {
        "mask": bench.put("instant", mask),
        "index": args.get("index"),
        "images": len(names),
        "seconds": time.monotonic() - begin,
    }


def warm_instant() -> None:
    """Do now what would make the first answer wait: load the forest, and run everything once."""
    plan = instant_plan(Plan(), 2, 1, (1.0, 1.0), 1)
    inner: Any = build(plan.net).net
    with torch.no_grad():
        found = Padded(inner.features, inner.divisor)(torch.rand(1, 1, 16, 16))[0].flatten(1).T
    labels = torch.arange(len(found)) % 2
    next(learn_lesson(inner, Lesson([found], [labels], [found]), plan, Control()))


# -- what is kept -------------------------------------------------------------------------------------------------


def _take(args: Args, bench: Bench, case: str) -> _Live:
    """What is kept of the project, with the strokes of `case` as they are now."""
    project = open_project(args)
    live: _Live | None = bench.live
    fits = live is not None and live.project == str(project.path) and live.classes == project.classes
    if live is None or not fits or (case not in live.pictures and not _alike(live, project.image(case))):
        live = bench.live = _begin(project, case)
    _read(live, project, case)
    if live.case not in ("", case) and live.case in project.cases:
        _read(live, project, live.case)  # painted on until a moment ago
    live.case = case
    for gone in set(live.pictures) - set(project.cases):
        del live.pictures[gone]
        for tile in [tile for tile in live.features if tile[0] == gone]:
            del live.features[tile]
    return live


def _alike(live: _Live, image: Volume) -> bool:
    return image.data.shape[0] == live.channels


def _begin(project: Project, case: str) -> _Live:
    image = project.image(case)
    target, known = to_mask(project.annotation(case).data)
    how = fit_normalisation([Sample(case, image, target, known)])
    outputs = 1 if len(project.classes) == 2 else len(project.classes)
    plan = instant_plan(Plan(), 2, image.data.shape[0], (1.0, 1.0), outputs)
    torch.manual_seed(0)
    net: Any = build(plan.net).net
    live = _Live(str(project.path), project.classes, image.data.shape[0], how, plan, net)
    _read(live, project, case)
    picture = live.pictures[case]
    middle = len(picture.planes) // 2
    pixels = picture.pixels(middle, (slice(None), slice(None)))
    blank = np.zeros(pixels.shape[1:], np.uint8)
    net.features.mix.copy_(mix_channels(net.features.mix, [Prepared(case, pixels, blank, blank > 0)]))
    return live


def _read(live: _Live, project: Project, case: str) -> None:
    """Have the image of a case, and its strokes as they are now."""
    strokes = project.annotation(case).data
    if case in live.pictures:
        live.pictures[case].strokes = strokes
    else:
        image = project.image(case)
        with about(case):
            live.pictures[case] = _Picture(image, strokes, measure(image.data, live.how))


def _read_others(live: _Live, args: Args, case: str, begin: float) -> list[str]:
    """Names of the images to learn from, the one in hand first; those that would take long come with a later stroke."""
    project, names = None, [case]
    for other in args.get("annotated") or ():
        if other == case or other in live.refused or len(names) > _OTHERS:
            continue
        if other not in live.pictures:
            if time.monotonic() - begin > _READING:
                continue
            project = project or open_project(args)
            try:
                if other not in project.cases or not _alike(live, project.image(other)):
                    continue
                _read(live, project, other)
            except ReadError:  # said when that image is opened, or trained on; this answer does without it
                live.refused.add(other)
                continue
        names.append(other)
    return names


def _fit_to(live: _Live, names: Sequence[str]) -> None:
    """Fit the normalisation again when more images have strokes of more classes: several tell what makes them alike."""
    painted = {(name, number) for name in names for number in live.pictures[name].painted}
    images = dict.fromkeys(name for name, _ in sorted(painted))
    if len(images) < 2 or painted <= live.fitted:
        return
    live.fitted |= painted
    shown = ((name, live.pictures[name]) for name in images)
    how = fit_normalisation(Sample(name, one.volume, *to_mask(one.strokes)) for name, one in shown)
    if how.kind != live.how.kind:
        live.how, live.learned = how, None
        live.features.clear()
        for one in live.pictures.values():
            one.how = measure(one.volume.data, how)


# -- tiles and features -------------------------------------------------------------------------------------------


def _tiles(shape: Sequence[int], near: Sequence[float] | None) -> list[tuple[int, int]]:
    """Rows and columns of a plane's tiles, nearest first."""
    middle = [side / 2 for side in shape] if near is None else near
    every = [(row, column) for row in range(-(-shape[0] // _TILE)) for column in range(-(-shape[1] // _TILE))]
    return sorted(every, key=lambda t: sum(((at + 0.5) * _TILE - m) ** 2 for at, m in zip(t, middle, strict=True)))


def _window(
    tile: tuple[int, int], shape: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]:
    """A tile in its plane, the same with its halo, and the tile within its halo."""
    own, wide, inner = [], [], []
    for at, side in zip(tile, shape, strict=True):
        start, stop = at * _TILE, min((at + 1) * _TILE, side)
        first, last = max(0, start - _HALO), min(side, stop + _HALO)
        own.append(slice(start, stop))
        wide.append(slice(first, last))
        inner.append(slice(start - first, stop - first))
    return (own[0], own[1]), (wide[0], wide[1]), (inner[0], inner[1])


def _features(live: _Live, tile: Tile, control: Control) -> torch.Tensor:
    """Features ``(F, Y, X)`` of a tile, from memory where it was looked at before."""
    if tile in live.features:
        live.features.move_to_end(tile)
        return live.features[tile]
    if control.stopped:
        raise Stopped("There are newer strokes.")
    case, plane, *place = tile
    picture = live.pictures[case]
    _, wide, inner = _window((place[0], place[1]), picture.planes.shape[1:])
    pixels = torch.from_numpy(picture.pixels(plane, wide))
    with torch.no_grad():
        found = Padded(live.net.features, live.net.divisor)(pixels[None])[0]
    return live.keep(tile, found[(slice(None), *inner)].contiguous())


# -- learning -----------------------------------------------------------------------------------------------------


def _learn(live: _Live, names: Sequence[str], index: int, control: Control) -> Generator[Event, None, bool]:
    """Fit the net to the strokes; False where fewer than two classes have any."""
    rng = np.random.default_rng(0)
    n_classes = len(live.classes)
    jobs = list(_painted(live, names, index))
    totals = np.zeros(n_classes, np.int64)
    for _, labels in jobs:
        totals += np.bincount(labels, minlength=n_classes + 1)[1:]
    if np.count_nonzero(totals) < 2:
        return False
    share = np.minimum(1.0, _KNOWN / n_classes / np.maximum(totals, 1))
    known, targets, others = [], [], []
    for tile, labels in jobs:
        there = _features(live, tile, control).flatten(1)
        chosen = np.flatnonzero(labels)
        chosen = chosen[rng.random(len(chosen)) < share[labels[chosen] - 1]]
        known.append(there[:, chosen].T)
        targets.append(torch.from_numpy(labels[chosen].astype(np.int64) - 1))
        others.append(there[:, rng.integers(labels.size, size=-(-_OTHER // len(jobs)))].T)
        yield TileDone(len(known), len(jobs))
    torch.manual_seed(0)
    fresh: Any = build(live.plan.net).net  # from the beginning, that the same strokes say the same
    live.net.perceptron = fresh.perceptron
    for _ in learn_lesson(live.net, Lesson(known, targets, others), live.plan, control):
        pass
    return True


def _painted(live: _Live, names: Sequence[str], index: int) -> Iterator[tuple[Tile, np.ndarray]]:
    """Tiles with strokes and their flat labels: the image in hand first, nearest planes first."""
    left = _LEARNED
    for case in names:
        planes = live.pictures[case].planes
        painted = np.flatnonzero(planes.any(axis=(1, 2)))
        for plane in sorted(painted, key=lambda z: abs(int(z) - index) if case == names[0] else int(z)):
            for tile in _tiles(planes.shape[1:], None):
                labels = planes[plane][_window(tile, planes.shape[1:])[0]]
                if left and labels.any():
                    left -= 1
                    yield (case, int(plane), *tile), labels.ravel()
