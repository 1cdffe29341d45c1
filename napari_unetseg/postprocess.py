"""What is done to a mask after the net: named steps, each ``(mask, spacing, **options) -> mask``; and what is measured.

Masks are whole numbers ``([Z,] Y, X)``, 0 background, 1.. classes; a step treats every class by itself, and a
volume as one thing, never plane by plane. Lengths, areas and volumes in options are physical: in the unit of
`spacing`, its square or its cube. Objects hold together over faces, edges and corners, the background over faces only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from napari_unetseg.errors import GeometryError, PlanError
from napari_unetseg.registry import Registry
from napari_unetseg.volume import check_spacing

__all__ = ["STEPS", "apply_steps", "check_steps", "measure"]

Step = Callable[..., np.ndarray]
Spacing = Sequence[float]

STEPS: Registry[Step] = Registry("post-processing step")


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
    for item in steps:
        name, options = (item, {}) if isinstance(item, str) else item
        step = STEPS[name]
        _check_options(name, step, options)
        mask = step(mask, spacing, **options)
    return mask


def check_steps(steps: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Raise what `apply_steps` would raise about names and options, before there is a mask."""
    for name, options in steps:
        _check_options(name, STEPS[name], options)


def _check_options(name: str, step: Step, options: Mapping[str, Any]) -> None:
    known = {n: p for n, p in inspect.signature(step).parameters.items() if n not in ("mask", "spacing")}
    for option in options:
        if option not in known:
            hint = f"It takes {', '.join(known)}." if known else "It takes none."
            raise PlanError(f"The step {name!r} has no option {option!r}.", hint=hint)
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise PlanError(f"The step {name!r} needs the option {option}.", hint="Add it to the step.")


@STEPS.register("largest-component", idempotent=True, instances=False)
def largest_component(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Keep the largest connected object of each class."""
    out = mask.copy()
    for label, box in _classes(mask):
        parts, n = _parts(mask[box] == label)
        if n > 1:
            sizes = np.bincount(parts.ravel())
            out[box][(parts > 0) & (parts != 1 + sizes[1:].argmax())] = 0
    return out


@STEPS.register("fill-holes", idempotent=True, instances=False)
def fill_holes(mask: np.ndarray, spacing: Spacing, size: float | None = None) -> np.ndarray:
    """Fill background that a class encloses on all sides.

    With `size`, only holes up to that area or volume. A hole inside two nested classes goes to the inner one; what
    lies in a hole and has a class keeps it.
    """
    size = None if size is None else _positive("fill-holes", "size", size)
    out = mask.copy()
    found = []
    for label, box in _classes(mask):
        own = mask[box] == label
        filled = ndimage.binary_fill_holes(own)
        holes = filled & ~own
        if holes.any():
            found.append((np.count_nonzero(filled), label, box, holes))
    # inner classes first: what they fill is no hole of the outer one any more
    for _, label, box, holes in sorted(found, key=lambda each: each[:2]):
        if size is not None:
            parts, n = ndimage.label(holes)
            small = np.bincount(parts.ravel(), minlength=n + 1) * np.prod(spacing) <= size
            holes = small[parts] & holes
        out[box][holes & (out[box] == 0)] = label
    return out


@STEPS.register("minimum-size", idempotent=True, instances=False)
def minimum_size(mask: np.ndarray, spacing: Spacing, size: float) -> np.ndarray:
    """Remove objects smaller than `size`, an area or a volume in the unit of the spacing."""
    size = _positive("minimum-size", "size", size)
    out = mask.copy()
    for label, box in _classes(mask):
        parts, n = _parts(mask[box] == label)
        small = np.bincount(parts.ravel(), minlength=n + 1) * np.prod(spacing) < size
        small[0] = False
        out[box][small[parts]] = 0
    return out


@STEPS.register("smooth", idempotent=False, instances=False)
def smooth(mask: np.ndarray, spacing: Spacing, radius: float | None = None) -> np.ndarray:
    """Round the outlines: every voxel takes the class most of its neighbourhood has.

    The neighbourhood is a Gaussian whose standard deviation is `radius`, by default the finest voxel spacing; what is
    thinner disappears.
    """
    radius = min(spacing) if radius is None else _positive("smooth", "radius", radius)
    sigma = [radius / s for s in spacing]
    margin = [int(4 * s + 0.5) + 1 for s in sigma]
    out, best, rest = np.zeros_like(mask), np.zeros(mask.shape, np.float32), np.ones(mask.shape, np.float32)
    for label, box in _classes(mask):
        wide = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margin, strict=True))
        share = ndimage.gaussian_filter((mask[wide] == label).astype(np.float32), sigma, mode="nearest")
        rest[wide] -= share
        wins = share > best[wide]
        best[wide][wins] = share[wins]
        out[wide][wins] = label
    out[rest >= best] = 0
    return out


@STEPS.register("split-touching", idempotent=False, instances=True)
def split_touching(mask: np.ndarray, spacing: Spacing, neck: float = 0.75) -> np.ndarray:
    """Give every object a number of its own (int32 instances, no longer classes), cutting at narrow necks.

    Two bulges are two objects where the neck between them is narrower than `neck` times the thinner bulge. Cuts follow
    the watershed of the distance to the background; no voxel is lost. Numbers run through the classes in order.
    """
    neck = _positive("split-touching", "neck", neck)
    if neck >= 1:
        raise PlanError(f"The option neck of 'split-touching' is {neck}.", hint="It lies between 0 and 1.")
    out, last = np.zeros(mask.shape, np.int32), 0
    for label, box in _classes(mask):
        own = mask[box] == label
        parts = _split(own, spacing, neck)
        out[box][own] = parts[own] + last
        last += int(parts.max())
    return out


def _split(own: np.ndarray, spacing: Spacing, neck: float) -> np.ndarray:
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    # a frame of background: objects end at the image's edge
    framed = np.pad(own, 1)
    depth = ndimage.distance_transform_edt(framed, sampling=spacing)
    # in logarithms "narrower by a share" is "lower by a step", the same for small and large objects
    height = np.log(np.maximum(depth, min(spacing)) / min(spacing)) + 1 - np.log(neck)
    height[~framed] = 0
    lowered = np.where(framed, height + np.log(neck), 0)
    tops = local_maxima(reconstruction(lowered, height)) & framed
    labels = watershed(-depth, _parts(tops)[0], mask=framed, connectivity=framed.ndim)
    return labels[(slice(1, -1),) * own.ndim]


def measure(
    mask: np.ndarray,
    spacing: Spacing | None = None,
    unit: str = "pixel",
    classes: Sequence[str] | None = None,
    image: np.ndarray | None = None,
    instances: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Measure every class and every object in it, ready for a table.

    Parameters
    ----------
    mask : ([Z,] Y, X) ndarray of integers
        0 background, 1.. classes.
    spacing : sequence of float, optional
        Voxel size in `unit`, one number an axis; 1 when omitted.
    unit : str
        Unit of the spacing.
    classes : sequence of str, optional
        Class names, background first; each gets a row, be it empty. By default the labels found.
    image : (C, [Z,] Y, X) ndarray, optional
        For the mean, least and largest intensity.
    instances : ([Z,] Y, X) ndarray of integers, optional
        Numbers of the objects, as ``split-touching`` gives them; connected parts when omitted.

    Returns
    -------
    list of dict
        For each class a row for the whole (``object`` 0), then one for each object: ``class``, ``label`` (in the
        mask), ``object``, ``objects``, ``voxels``, ``area`` or ``volume``, ``unit`` (of lengths), ``centroid_z/y/x``
        (from the centre of the first voxel), ``start_z/y/x`` and ``stop_z/y/x`` (bounding box in voxels, stop
        excluded), ``axis_1 >= axis_2 [>= axis_3]`` (full lengths of the ellipse or ellipsoid of the same second
        moments), and ``mean``, ``min``, ``max`` (``mean_0`` and so on for several channels). None where there is
        nothing to measure.

    Raises
    ------
    GeometryError
        Spacing, image or instances do not fit the mask.
    """
    mask = np.asarray(mask)
    spacing = check_spacing(spacing, mask.ndim)
    _same_shape("image", mask, None if image is None else np.asarray(image)[0])
    _same_shape("table of objects", mask, instances)
    boxes = dict(_classes(mask))
    names = {label: name for label, name in enumerate(classes or ()) if label} | {
        label: str(label) for label in boxes if classes is None or label >= len(classes)
    }
    rows, last = [], 0
    for label in sorted(names):
        box = boxes.get(label, (slice(0, 0),) * mask.ndim)
        own = mask[box] == label
        if instances is None:
            parts, _ = _parts(own)
            parts[own] += last
        else:
            parts = np.where(own, np.asarray(instances)[box], 0)
        values = None if image is None else np.asarray(image)[(slice(None), *box)]
        offset = [s.start for s in box]
        each = _measured(parts, values, offset, spacing)
        last += len(each)
        whole = _measured(own.astype(np.uint8), values, offset, spacing) or [(1, _nothing(mask.ndim, image))]
        same = {"class": names[label], "label": label}
        for number, objects, found in [(0, len(each), whole[0][1]), *((number, 1, found) for number, found in each)]:
            rows.append({**same, "object": number, "objects": objects, "unit": unit, **found})
    return rows


def _measured(
    parts: np.ndarray, values: np.ndarray | None, offset: Sequence[int], spacing: Spacing
) -> list[tuple[int, dict[str, Any]]]:
    """Number and measures of each object of a label image, in order of the numbers."""
    where = np.nonzero(parts)
    if not where[0].size:
        return []
    number = parts[where]
    order = np.argsort(number, kind="stable")
    number = number[order]
    start = np.flatnonzero(np.r_[True, number[1:] != number[:-1]])
    count = np.diff(np.r_[start, number.size])
    index = np.stack([axis[order] + o for axis, o in zip(where, offset, strict=True)])
    centre = np.add.reduceat(index, start, axis=1) / count
    apart = (index - np.repeat(centre, count, axis=1)) * np.reshape(spacing, (-1, 1))
    moments = np.stack([[np.add.reduceat(a * b, start) / count for b in apart] for a in apart])
    spread = np.linalg.eigvalsh(moments.transpose(2, 0, 1))[:, ::-1].clip(0)
    # full axes of an ellipse are 4, of an ellipsoid 2 sqrt(5) standard deviations
    ndim = parts.ndim
    lengths = np.sqrt((16 if ndim == 2 else 20) * spread).T
    columns = [("voxels", count), (_extent(ndim), count * np.prod(spacing))]
    columns += _by_axis("centroid", centre * np.reshape(spacing, (-1, 1)))
    columns += _by_axis("start", np.minimum.reduceat(index, start, axis=1))
    columns += _by_axis("stop", np.maximum.reduceat(index, start, axis=1) + 1)
    columns += [(f"axis_{i}", length) for i, length in enumerate(lengths, start=1)]
    for name, channel in zip(_channels(values), values if values is not None else (), strict=True):
        inside = channel[where][order]
        columns.append((f"mean{name}", np.add.reduceat(inside.astype(float), start) / count))
        columns.append((f"min{name}", np.minimum.reduceat(inside, start)))
        columns.append((f"max{name}", np.maximum.reduceat(inside, start)))
    table = [(name, column.tolist()) for name, column in columns]
    return [(int(number[s]), {name: column[i] for name, column in table}) for i, s in enumerate(start)]


def _nothing(ndim: int, image: np.ndarray | None) -> dict[str, Any]:
    """The row of a class without voxels: the columns of `_measured`."""
    values = None if image is None else np.zeros((len(image), *(1,) * ndim))
    (_, row), *_ = _measured(np.ones((1,) * ndim, np.uint8), values, (0,) * ndim, (1.0,) * ndim)
    return {**dict.fromkeys(row), "voxels": 0, _extent(ndim): 0.0}


def _extent(ndim: int) -> str:
    return "area" if ndim == 2 else "volume"


def _by_axis(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(f"{name}_{axis}", row) for axis, row in zip("zyx"[-len(values) :], values, strict=True)]


def _channels(values: np.ndarray | None) -> list[str]:
    if values is None:
        return []
    return [""] if len(values) == 1 else [f"_{c}" for c in range(len(values))]


def _classes(mask: np.ndarray) -> list[tuple[int, tuple[slice, ...]]]:
    """Labels above 0 in order, each with its bounding box."""
    boxes = ndimage.find_objects(mask.astype(np.uint8) if mask.dtype == bool else mask) if mask.size else []
    return [(label, box) for label, box in enumerate(boxes, start=1) if box is not None]


def _parts(own: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected objects, over faces, edges and corners."""
    return ndimage.label(own, np.ones((3,) * own.ndim))


def _positive(step: str, option: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not np.isfinite(value) or value <= 0:
        raise PlanError(f"The option {option} of {step!r} is {value!r}.", hint="Give a number above 0.")
    return float(value)


def _same_shape(what: str, mask: np.ndarray, other: np.ndarray | None) -> None:
    if other is not None and np.shape(other) != mask.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape, np.shape(other))]
        raise GeometryError(
            f"The mask is {sizes[0]} but its {what} is {sizes[1]}.",
            hint="Measure a mask on the image that it was made for.",
        )
