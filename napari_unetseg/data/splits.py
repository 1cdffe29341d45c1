"""What is trained on and what is held out: folds, whole groups, or blocks of one image with a margin."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_unetseg.data.annotation import count_known
from napari_unetseg.data.dataset import Case, Dataset, Sample
from napari_unetseg.errors import AnnotationError, PlanError
from napari_unetseg.plan import DataPlan

__all__ = ["Part", "Split", "describe_heldout", "said_of", "split", "was_learned"]

logger = logging.getLogger(__name__)

_HELD_OUT = ("held-out", "heldout", "held out")  # a group of this name is never trained on
_FEWEST_GROUPS = 3  # with fewer, holding one out would cost a third of the strokes or more: take blocks instead
_MARGIN = 16  # pixels between what is trained on and what is held out, within one plane
_LEFT = 0.4  # of each class's known voxels must remain for training when one image is divided
_TRIES = 50


@dataclass(frozen=True, eq=False)
class Part:
    """A case, or a region of it (slices along ``([Z,] Y, X)``)."""

    case: Case
    region: tuple[slice, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    def load(self) -> Sample:
        """Read the case and crop it to the region."""
        return self.case.load().crop(self.region)


@dataclass(frozen=True, eq=False)
class Split:
    """What is trained on, what is held out, and the rule in plain words (empty when nothing is held out)."""

    train: tuple[Part, ...]
    heldout: tuple[Part, ...]
    rule: str


def split(
    dataset: Dataset, plan: DataPlan = DataPlan(), seed: int = 0, before: Mapping[str, Any] | None = None
) -> Split:
    """Divide a dataset honestly: never by random patches, never through a group, every class stays in training.

    Parameters
    ----------
    dataset : Dataset
    plan : DataPlan
        With ``fold``, that fold is held out (the data's own, else one of ``folds`` made by group, or blocks of a
        single image). Without, the share ``heldout`` of the groups; of each image, where there are fewer than three
        groups. Cases in a group called ``held-out`` are always held out.
    seed : int
        Chooses the groups.
    before : mapping, optional
        Facts of the model that is gone on from. What was held out from it stays so, for it has learned from the rest;
        where that cannot be, the rule says that what is held out was seen before.

    Raises
    ------
    AnnotationError
        Nothing is annotated.
    PlanError
        There is no such fold, or training would lose every example of a class.
    """
    cases = [case for case in dataset.cases if not dataset.countable or dataset.counts(case).any()]
    if not cases:
        raise AnnotationError("Nothing is annotated.", hint="Paint at least one stroke of each class.")
    rng = np.random.default_rng(seed)
    marked = [case for case in cases if case.group.lower() in _HELD_OUT]
    if marked and len(marked) < len(cases) and plan.fold is None:
        return _whole(cases, marked, _held(marked, dataset))
    if plan.fold is not None:
        return _fold(dataset, cases, plan, rng)
    if plan.heldout == 0:
        return Split(tuple(map(Part, cases)), (), "")
    if before and (again := _as_before(dataset, cases, plan.heldout, before, rng)) is not None:
        return again
    groups = sorted({case.group for case in cases})
    if len(groups) >= _FEWEST_GROUPS:
        parts = _groups(dataset, cases, groups, plan.heldout, rng)
    else:
        parts = _blocks(dataset, cases, plan.heldout)
    if before and was_learned(parts, dataset, before):
        parts = replace(parts, rule=f"{parts.rule}, seen in an earlier round")
    return parts


def _fold(dataset: Dataset, cases: list[Case], plan: DataPlan, rng: np.random.Generator) -> Split:
    """Hold out one fold: the data's own, one made of groups, or a block of the only image."""
    fold = int(plan.fold or 0)
    own = sorted({case.fold for case in cases if case.fold is not None})
    groups = sorted({case.group for case in cases})
    if own:
        number = len(own)
        held = [case for case in cases if case.fold == fold]
        if not held:
            raise PlanError(f"There is no fold {fold}.", hint=f"The data has the folds {', '.join(map(str, own))}.")
    else:
        number = plan.folds
        if fold >= number:
            raise PlanError(f"There is no fold {fold} of {number}.", hint="Folds are counted from 0.")
        if len(groups) == 1:
            return _block_fold(dataset, cases, fold, number)
        if len(groups) < number:
            raise PlanError(f"{len(groups)} groups cannot make {number} folds.", hint=f"Take {len(groups)} folds.")
        order = rng.permutation(len(groups))
        chosen = {groups[i] for i in order[fold::number]}
        held = [case for case in cases if case.group in chosen]
    parts = _whole(cases, held, f"fold {fold} of {number} ({_images(len(held), dataset)})")
    _must_train(dataset, [part.case for part in parts.train])
    return parts


def describe_heldout(parts: Split) -> dict[str, Any]:
    """What is held out, in plain values for the facts of a model: region or None for the whole, by name of the case."""
    return {
        part.name: None if part.region is None else [[axis.start, axis.stop] for axis in part.region]
        for part in parts.heldout
    }


def was_learned(parts: Split, dataset: Dataset, before: Mapping[str, Any]) -> bool:
    """Whether the model with these facts has learned from any of what is held out."""
    learned, kept = set(before.get("images") or ()), _regions(before.get("held_out"), dataset.ndim)
    return any(part.name in learned and kept.get(part.name, ...) != part.region for part in parts.heldout)


def _as_before(
    dataset: Dataset, cases: list[Case], share: float, before: Mapping[str, Any], rng: np.random.Generator
) -> Split | None:
    """Hold out what was held out before, and more of what is new; None where that leaves too little on one side."""
    regions = _regions(before.get("held_out"), dataset.ndim)
    learned = set(before.get("images") or ())
    whole = frozenset(case.group for case in cases if case.name in regions and regions[case.name] is None)
    more: frozenset[str] = frozenset()
    blocks = {case.name: region for case in cases if (region := regions.get(case.name)) is not None}
    if whole and not blocks:
        groups = sorted({case.group for case in cases})
        new = [group for group in groups if not any(case.name in learned for case in cases if case.group == group)]
        new = [new[i] for i in rng.permutation(len(new)) if new[i] not in whole]
        more = frozenset(new[: max(0, min(round(share * len(groups)), len(groups) - 1) - len(whole))])
    tries = (_held_again(dataset, cases, groups, blocks) for groups in dict.fromkeys((whole | more, whole)))
    return next((parts for parts in tries if parts is not None), None)


def _held_again(
    dataset: Dataset, cases: list[Case], whole: Collection[str], blocks: Mapping[str, tuple[slice, ...]]
) -> Split | None:
    """Hold out whole groups, and blocks of single cases; None where that leaves too little on one side."""
    train, held = [], []
    for case in cases:
        if case.group in whole:
            held.append(Part(case))
        elif (region := blocks.get(case.name)) is not None:
            held.append(Part(case, region))
            train.append(Part(case, _beside(region, case.load().target.shape)))
        else:
            train.append(Part(case))
    if not train or not held:
        return None
    if dataset.countable:
        outside, inside = (np.sum([_counted(part, dataset) for part in some], axis=0) for some in (train, held))
        least = _LEFT * (outside + inside) if blocks else 1 * (inside > 0)
        if (outside < least).any() or (inside > 0).sum() < (2 if blocks else 1):
            return None
    if not blocks:
        return Split(tuple(train), tuple(held), _held([part.case for part in held], dataset))
    where = f"of {held[0].name}" if len(held) == 1 else f"of each of {len(held)} images"
    return Split(tuple(train), tuple(held), f"a held-out part {where}")


def _counted(part: Part, dataset: Dataset) -> np.ndarray:
    if part.region is None:
        return dataset.counts(part.case)
    sample = part.load()
    return count_known(sample.target, sample.known, len(dataset.classes))


def _regions(said: Any, ndim: int) -> dict[str, tuple[slice, ...] | None]:
    """Regions from the facts of a model; of a file that somebody else may have written, so that nothing is believed."""
    found: dict[str, tuple[slice, ...] | None] = {}
    for name, pairs in said.items() if isinstance(said, Mapping) else ():
        if pairs is None:
            found[name] = None
        elif isinstance(pairs, list) and len(pairs) == ndim and all(map(_is_range, pairs)):
            found[name] = tuple(slice(*pair) for pair in pairs)
    return found


def _is_range(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(end is None or isinstance(end, int) for end in pair)


def _beside(region: tuple[slice, ...], shape: Sequence[int]) -> tuple[slice, ...]:
    """What is left of an image beside a block at one of its ends, without the margin."""
    ends = [axis.indices(size)[:2] for axis, size in zip(region, shape, strict=True)]
    cut = next((axis for axis, end in enumerate(ends) if end != (0, shape[axis])), 0)
    margin = _margin(shape[cut], planes=len(shape) == 3 and cut == 0)
    start, stop = ends[cut]
    left = slice(stop + margin, shape[cut]) if start == 0 else slice(0, max(0, start - margin))
    return tuple(left if axis == cut else slice(None) for axis in range(len(shape)))


def _groups(dataset: Dataset, cases: list[Case], groups: list[str], share: float, rng: np.random.Generator) -> Split:
    """Hold out whole groups; of several draws, the one that shows every class on both sides."""
    number = min(max(1, round(share * len(groups))), len(groups) - 1)
    best, most = None, -1
    for _ in range(_TRIES):
        chosen = {groups[i] for i in rng.permutation(len(groups))[:number]}
        held = [case for case in cases if case.group in chosen]
        if not dataset.countable:  # too many to read first, and then no class is rare
            best = held
            break
        inside = dataset.total(held) > 0
        outside = dataset.total(case for case in cases if case.group not in chosen) > 0
        if (inside & ~outside).any():
            continue
        if inside.sum() > most:
            best, most = held, int(inside.sum())
        if most == len(dataset.classes):
            break
    if best is None or most == 0:
        return _blocks(dataset, cases, share)
    rule = _held(best, dataset)
    if len(best) != number:
        rule += f" of {number} group{'s' * (number != 1)}"
    return _whole(cases, best, rule)


def _blocks(dataset: Dataset, cases: list[Case], share: float) -> Split:
    """Hold out a strip or some planes of each image, where every class stays in training."""
    train: list[Part] = []
    held: list[Part] = []
    said = ""
    for case in cases:
        sample = case.load()
        cut = _best_cut(sample.target, sample.known, len(dataset.classes), share)
        if cut is None:
            train.append(Part(case))
            continue
        kept, block, words = cut
        train.append(Part(case, kept))
        held.append(Part(case, block))
        said = words
    if not held:
        return Split(tuple(train), (), "")
    where = f"of {held[0].name}" if len(held) == 1 else f"of each of {len(held)} images"
    return Split(tuple(train), tuple(held), f"{said} {where}")


def _best_cut(
    target: np.ndarray, known: np.ndarray, n_classes: int, share: float
) -> tuple[tuple[slice, ...], tuple[slice, ...], str] | None:
    """Cut one end off, along the axis where both sides keep the classes and the known voxels divide as wished."""
    all_known = count_known(target, known, n_classes)
    present = all_known > 0
    best, best_score = None, -np.inf
    for axis in range(target.ndim):
        along = _per_plane(target, known, n_classes, axis)
        planes = target.ndim == 3 and axis == 0
        margin = _margin(target.shape[axis], planes)
        total = along.sum()
        for end in (1, -1):
            heap = np.cumsum(along[::end].sum(axis=1))
            size = int(np.searchsorted(heap, share * total)) + 1
            rest = target.shape[axis] - size - margin
            if rest < 1:
                continue
            inside, outside = along[::end][:size].sum(axis=0), along[::end][size + margin :].sum(axis=0)
            if (outside < _LEFT * all_known).any() or (present.sum() > 1 and (inside > 0).sum() < 2):
                continue
            got = inside.sum() / max(1, inside.sum() + outside.sum())
            # all classes on the held-out side come first, then whole planes, then the share that was wished
            score = 10 * (inside > 0).sum() + 2 * planes - 10 * abs(got - share)
            if got <= max(0.5, share) and score > best_score:
                kept, block = slice(size + margin, None), slice(0, size)
                if end == -1:
                    kept, block = slice(0, rest), slice(rest + margin, None)
                region = [slice(None)] * target.ndim
                pair = [(*region[:axis], part, *region[axis + 1 :]) for part in (kept, block)]
                words = f"{size} held-out plane{'s' * (size != 1)}" if planes else "a held-out strip"
                best, best_score = (pair[0], pair[1], words), score
    return best


def _block_fold(dataset: Dataset, cases: list[Case], fold: int, number: int) -> Split:
    """Fold `fold` of `number` contiguous blocks of each image: of planes in a stack, else along the longer side."""
    train: list[Part] = []
    held: list[Part] = []
    for case in cases:
        shape = case.load().target.shape
        axis = 0 if len(shape) == 3 and shape[0] >= number else int(np.argmax(shape))
        size = shape[axis]
        if size < 2 * number:
            axis, size = int(np.argmax(shape)), max(shape)
        start, stop = size * fold // number, size * (fold + 1) // number
        margin = _margin(size, planes=len(shape) == 3 and axis == 0)
        whole = (slice(None),) * len(shape)
        for a, b, parts in ((0, start - margin, train), (start, stop, held), (stop + margin, size, train)):
            if b > a:
                parts.append(Part(case, (*whole[:axis], slice(a, b), *whole[axis + 1 :])))
    of = cases[0].name if len(cases) == 1 else f"each of {len(cases)} images"
    left = [count_known(sample.target, sample.known, len(dataset.classes)) for sample in map(Part.load, train)]
    _check_left(dataset, dataset.total(cases), np.sum(left, axis=0))
    return Split(tuple(train), tuple(held), f"fold {fold} of {number} (a block of {of})")


def _per_plane(target: np.ndarray, known: np.ndarray, n_classes: int, axis: int) -> np.ndarray:
    """Known voxels of each class in each plane across `axis`, ``(size, n_classes)``."""
    rest = tuple(i for i in range(target.ndim) if i != axis)
    return np.stack([((target == label) & known).sum(axis=rest) for label in range(n_classes)], axis=1)


def _margin(size: int, planes: bool) -> int:
    """Voxels left out between training and held-out, at most a twentieth of the axis."""
    return max(1, min(1 if planes else _MARGIN, size // 20))


def _whole(cases: Sequence[Case], held: Sequence[Case], rule: str) -> Split:
    names = {case.name for case in held}
    return Split(
        tuple(Part(case) for case in cases if case.name not in names), tuple(Part(case) for case in held), rule
    )


def _must_train(dataset: Dataset, train: list[Case]) -> None:
    if not train:
        raise PlanError("Every image is in the held-out fold.", hint="Take another fold.")
    if dataset.countable:
        _check_left(dataset, dataset.total(), dataset.total(train))


def said_of(rule: str, known: Sequence[np.ndarray]) -> str:
    """Rule of a split as a score says it: strokes are called strokes, for they lie where a net errs least.

    Parameters
    ----------
    rule : str
        As `Split` has it.
    known : sequence of bool ndarray
        Where each held-out part is known.
    """
    share = sum(int(k.sum()) for k in known) / max(1, sum(k.size for k in known))
    return f"strokes of {rule}" if rule and share < 0.5 else rule


def _check_left(dataset: Dataset, before: np.ndarray, after: np.ndarray) -> None:
    lost = [name for name, b, a in zip(dataset.classes, before, after, strict=True) if b and not a]
    if lost:
        raise PlanError(
            f"All of {lost[0]!r} lies in the held-out fold.", hint="Take another fold, or label it in more images."
        )


def _held(cases: Sequence[Case], dataset: Dataset) -> str:
    return _images(len(cases), dataset).replace(" ", " held-out ")


def _images(number: int, dataset: Dataset) -> str:
    things = "image" if dataset.ndim == 2 else "volume"
    return f"{number} {things}{'s' * (number != 1)}"
