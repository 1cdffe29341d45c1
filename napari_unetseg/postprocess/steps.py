"""The steps on classes, and `apply_steps`. Objects and holes are found on runs, outlines block by block."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from napari_unetseg.errors import PlanError
from napari_unetseg.postprocess.options import STEPS, Option, check_steps
from napari_unetseg.postprocess.runs import Runs, firsts
from napari_unetseg.volume import check_spacing

__all__ = ["CLASSES", "after_net", "apply_steps", "chosen", "parted"]

Spacing = Sequence[float]
Checked = list[tuple[str, dict[str, Any]]]

CLASSES = Option("Classes", "classes", "Classes it is done to; the others stay as they are. Usually all.")
_BLOCK = {2: 512, 3: 96}  # side of the blocks in which outlines are smoothed


def apply_steps(
    mask: np.ndarray, steps: Iterable[str | tuple[str, Mapping[str, Any]]], spacing: Spacing | None = None
) -> np.ndarray:
    """Run steps in order.

    Parameters
    ----------
    mask : ([Z,] Y, X) ndarray of integers
        0 background, 1.. classes. Not changed.
    steps : iterable of str or (str, mapping)
        Names in `STEPS`, with options, as `PostPlan.steps` has them.
    spacing : sequence of float, optional
        Voxel size, one number an axis; 1 when omitted.

    Returns
    -------
    ndarray
        Of the mask's shape and dtype; int32 instance labels after ``split-touching``.

    Raises
    ------
    UnknownName
        No step has that name.
    PlanError
        A step has no such option, or it cannot have that value.
    GeometryError
        The spacing does not fit the mask.
    """
    mask = np.asarray(mask)
    spacing = check_spacing(spacing, mask.ndim)
    for name, options in check_steps(steps):
        mask = STEPS[name](mask, spacing, **options)
    return mask


def after_net(
    mask: np.ndarray, steps: Iterable[str | tuple[str, Mapping[str, Any]]], spacing: Spacing | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run steps, and keep apart what has classes and what has numbers.

    Returns
    -------
    classes : ndarray
        The mask before any step that numbers the objects.
    objects : ndarray or None
        Numbers of the objects, 1, 2, .., unsigned and as small as they fit; None where no step gives them.
    """
    on_classes, on_objects = parted(steps)
    classes = apply_steps(mask, on_classes, spacing)
    if not on_objects:
        return classes, None
    objects = apply_steps(classes, on_objects, spacing)
    return classes, objects.astype(np.uint16 if objects.max(initial=0) < 2**16 else np.uint32)


def parted(steps: Iterable[str | tuple[str, Mapping[str, Any]]]) -> tuple[Checked, Checked]:
    """Steps that leave classes, and those from the first on that numbers the objects."""
    checked = check_steps(steps)
    before = next((i for i, (name, _) in enumerate(checked) if STEPS.facts(name)["instances"]), len(checked))
    return checked[:before], checked[before:]


def chosen(labels: np.ndarray, classes: Collection[int] | None) -> np.ndarray:
    """Which of the labels a step is for."""
    return labels > 0 if classes is None else np.isin(labels, list(classes)) & (labels > 0)


@STEPS.register(
    "smooth",
    title="Smooth outlines",
    idempotent=False,
    instances=False,
    options={
        "radius": Option("Radius", "length", "Bumps and threads thinner than this go. One or two pixels.", 1.5),
        "classes": CLASSES,
    },
)
def smooth(
    mask: np.ndarray, spacing: Spacing, radius: float | None = None, classes: Collection[int] | None = None
) -> np.ndarray:
    """Round the outlines: every voxel takes the class most of its neighbourhood has.

    The neighbourhood is a Gaussian whose standard deviation is `radius`, by default the finest voxel spacing; what is
    thinner disappears.
    """
    radius = min(spacing) if radius is None else radius
    extent = max((n * s for n, s in zip(mask.shape, spacing, strict=True)), default=0)
    if mask.size and radius > extent / 2:
        raise PlanError(
            f"The radius of 'smooth' is {radius:g}, more than half of the image, which is {extent:g} wide.",
            hint="Lengths are in the unit of the voxel spacing; one or two pixels are usual.",
        )
    sigma = [radius / s for s in spacing]
    margin = [int(4 * s + 0.5) + 1 for s in sigma]
    out = mask.copy()
    for inner, wide in _blocks(mask.shape, margin):
        around = mask[wide]
        if (around == around.flat[0]).all():
            continue
        back = tuple(slice(i.start - w.start, i.stop - w.start) for i, w in zip(inner, wide, strict=True))
        out[inner] = _vote(around, sigma, margin)[back]
    if classes is not None:
        named, changed = list(classes), out != mask
        out = np.where(changed & ~(np.isin(mask, [0, *named]) & np.isin(out, [0, *named])), mask, out)
    return out


def _blocks(shape: Sequence[int], margin: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Blocks that cover an image, each also with a margin around it."""
    side = [max(_BLOCK[len(shape)], 2 * m) for m in margin]
    for corner in itertools.product(*(range(0, n, s) for n, s in zip(shape, side, strict=True))):
        parts = list(zip(corner, side, shape, margin, strict=True))
        yield (
            tuple(slice(c, min(c + s, n)) for c, s, n, _ in parts),
            tuple(slice(max(0, c - m), min(c + s + m, n)) for c, s, n, m in parts),
        )


def _vote(mask: np.ndarray, sigma: Sequence[float], margin: Sequence[int]) -> np.ndarray:
    """Label with the largest Gaussian share at each voxel; the background's is what the others leave."""
    labels, number = np.unique(mask, return_inverse=True)
    number = number.reshape(mask.shape).astype(np.int32) + (labels[0] != 0)
    labels = labels if labels[0] == 0 else np.r_[labels.dtype.type(0), labels]
    out, best, rest = np.zeros_like(mask), np.zeros(mask.shape, np.float32), np.ones(mask.shape, np.float32)
    for label, box in zip(labels[1:], ndimage.find_objects(number), strict=True):
        near = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margin, strict=True))
        share = ndimage.gaussian_filter((mask[near] == label).astype(np.float32), sigma, mode="nearest")
        rest[near] -= share
        wins = share > best[near]
        best[near][wins] = share[wins]
        out[near][wins] = label
    out[rest >= best] = 0
    return out


@STEPS.register(
    "fill-holes",
    title="Fill holes",
    idempotent=True,
    instances=False,
    options={
        "size": Option("Only up to", "size", "Larger holes stay open. Leave it empty to fill every hole."),
        "classes": CLASSES,
    },
)
def fill_holes(
    mask: np.ndarray, spacing: Spacing, size: float | None = None, classes: Collection[int] | None = None
) -> np.ndarray:
    """Fill background that a class encloses on all sides.

    With `size`, only holes up to that area or volume. A hole inside two nested classes goes to the inner one; what
    lies in a hole and has a class keeps it.
    """
    if not mask.size:
        return mask.copy()
    runs = Runs.of(mask)
    part, one, other = _regions(runs)
    first = firsts(part)
    label = runs.label[first].astype(np.int64)
    voxels = np.bincount(part, runs.length).astype(np.int64)
    border = np.zeros(len(label), bool)
    border[part[runs.at_border]] = True
    found = []
    for own in _may_enclose(label, border, one, other, classes):
        rest = (label[one] != own) & (label[other] != own)
        graph = coo_matrix((np.ones(rest.sum(), bool), (one[rest], other[rest])), (len(label),) * 2)
        count, hole = connected_components(graph, directed=False)
        closed = np.ones(count, bool)
        closed[hole[border | (label == own)]] = False
        extent = np.bincount(hole, voxels, count)
        filled = voxels[label == own].sum() + extent[closed].sum()
        if size is not None:
            closed &= extent * np.prod(spacing) <= size
        if closed.any():
            found.append((filled, own, closed[hole]))
    values = label.astype(mask.dtype)
    # inner classes first: what they fill is no hole of the outer one any more
    for _, own, inside in sorted(found, key=lambda each: each[:2]):
        values[inside & (values == 0)] = own
    return runs.image(values[part])


def _regions(runs: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Region of each run (connected over faces), and which regions touch."""
    touching = list(runs.neighbours(corners=False))
    part = runs.parts(touching)
    count = int(part.max()) + 1
    beside = np.flatnonzero(np.diff(runs.row) == 0)
    pairs = [np.unique(part[beside].astype(np.int64) * count + part[beside + 1])]
    for one, other in touching:
        pairs.append(np.unique(part[one].astype(np.int64) * count + part[other]))
    one, other = np.divmod(np.unique(np.concatenate(pairs)), count)
    return part, one[one != other], other[one != other]


def _may_enclose(
    label: np.ndarray, border: np.ndarray, one: np.ndarray, other: np.ndarray, classes: Collection[int] | None
) -> list[int]:
    """Labels beside a region from which no open background is seen: all others enclose nothing."""
    open_air = border & (label == 0)
    safe = border.copy()
    safe[one[open_air[other]]] = True
    safe[other[open_air[one]]] = True
    near = np.concatenate([label[one[~safe[other]]], label[other[~safe[one]]]])
    return [int(own) for own in np.unique(near[chosen(near, classes)])]


@STEPS.register(
    "minimum-size",
    title="Remove small objects",
    idempotent=True,
    instances=False,
    options={
        "size": Option(
            "Smaller than", "size", "Objects below this area or volume go. Half of the smallest real one.", 20
        ),
        "classes": CLASSES,
    },
)
def minimum_size(mask: np.ndarray, spacing: Spacing, size: float, classes: Collection[int] | None = None) -> np.ndarray:
    """Remove objects smaller than an area or a volume in the unit of the spacing."""
    return _keep_objects(mask, classes, lambda _, voxels: voxels * np.prod(spacing) >= size)


def _keep_objects(
    mask: np.ndarray, classes: Collection[int] | None, keep: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Mask without the objects for whose labels and sizes `keep` says no."""
    if not mask.size:
        return mask.copy()
    runs = Runs.of(mask)
    objects, part = runs.objects()
    if not len(part):
        return mask.copy()
    size = np.bincount(part, objects.length).astype(np.int64)
    first = firsts(part)
    label = objects.label[first].astype(np.int64)
    stays = keep(label, size) | ~chosen(label, classes)
    values = runs.label.copy()
    values[runs.label > 0] = np.where(stays[part], objects.label, 0)
    return runs.image(values)


@STEPS.register(
    "largest-component", title="Keep the largest", idempotent=True, instances=False, options={"classes": CLASSES}
)
def largest_component(mask: np.ndarray, spacing: Spacing, classes: Collection[int] | None = None) -> np.ndarray:
    """Keep the largest connected object of each class, of the whole volume."""
    return _keep_objects(mask, classes, _is_largest)


def _is_largest(label: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which object is the first of the largest with its label."""
    order = np.lexsort((-size, label))
    largest = np.zeros(len(label), bool)
    largest[order[np.flatnonzero(np.diff(label[order], prepend=-1))]] = True
    return largest
