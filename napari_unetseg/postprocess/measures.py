"""What is measured of classes and objects: `measure` for arrays, `measure_volume` for what has a geometry.

Sums over runs give size, centre and axes exactly; intensities are summed run by run, a slab of the image at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unetseg.errors import GeometryError
from napari_unetseg.postprocess.runs import Runs, boxes
from napari_unetseg.volume import Geometry, LabelVolume, Volume, check_spacing

__all__ = ["features", "measure", "measure_volume"]

_SLAB = 4_000_000  # voxels of an image that are converted at a time

Row = dict[str, Any]


def measure(
    mask: np.ndarray,
    spacing: Sequence[float] | None = None,
    unit: str = "pixel",
    classes: Sequence[str] | None = None,
    image: np.ndarray | None = None,
    instances: np.ndarray | None = None,
) -> list[Row]:
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
        For the intensities.
    instances : ([Z,] Y, X) ndarray of integers, optional
        Numbers of the objects, as ``split-touching`` gives them; connected parts when omitted.

    Returns
    -------
    list of dict
        For each class a row for the whole (``object`` 0), then one for each object: ``class``, ``label`` (in the
        mask), ``object``, ``objects``, ``unit`` (of lengths), ``voxels``, ``area`` or ``volume``, ``centroid_z/y/x``
        (from the centre of the first voxel), ``start_z/y/x`` and ``stop_z/y/x`` (bounding box in voxels, stop
        excluded), ``axis_1 >= axis_2 [>= axis_3]`` (full lengths of the ellipse or ellipsoid of the same second
        moments), ``direction_z/y/x`` (of the longest axis, length 1), in 2D ``orientation`` (of the longest axis, in
        degrees from the y axis towards x, -90 to 90), and ``mean``, ``min``, ``max``, ``sd`` of the intensities
        (``mean_0`` and so on for several channels). None where there is nothing to measure.

    Raises
    ------
    GeometryError
        Spacing, image or instances do not fit the mask.
    """
    mask = np.asarray(mask)
    spacing = check_spacing(spacing, mask.ndim)
    image = None if image is None else np.asarray(image)
    _same_shape("image", mask, None if image is None else image[0])
    _same_shape("table of objects", mask, instances)
    found, number, whole = _objects(mask, instances)
    labels = found.labels()
    known = {label: name for label, name in enumerate(classes or ()) if label}
    names = known | {int(label): str(label) for label in np.unique(whole.labels()) if int(label) not in known}
    each = found.measured(spacing, image)
    by_label = dict(zip(whole.labels().tolist(), whole.measured(spacing, image), strict=True))
    rows: list[Row] = []
    order = np.argsort(labels, kind="stable")
    for label in sorted(names):
        own = order[slice(*np.searchsorted(labels[order], [label, label + 1]))]
        nothing = _nothing(mask.ndim, image)
        same = {"class": names[label], "label": label}
        rows.append({**same, "object": 0, "objects": len(own), "unit": unit, **by_label.get(label, nothing)})
        rows += [{**same, "object": int(number[i]), "objects": 1, "unit": unit, **each[i]} for i in own]
    if instances is None:
        for count, row in enumerate((row for row in rows if row["object"]), start=1):
            row["object"] = count
    return rows


def measure_volume(
    mask: LabelVolume,
    classes: Sequence[str] | None = None,
    image: Volume | None = None,
    instances: np.ndarray | None = None,
) -> list[Row]:
    """Measure a mask that knows where it lies; see `measure`.

    Returns
    -------
    list of dict
        As `measure` gives them, with ``world_x/y/z`` besides, the centroid in the world, for formats that have one.

    Raises
    ------
    GeometryError
        The image or the instances do not fit the mask.
    """
    geometry = mask.geometry
    data = None if image is None else image.data
    rows = measure(mask.data, geometry.spacing, geometry.unit, classes, data, instances)
    return [{**row, **_world(row, geometry)} for row in rows] if geometry.world else rows


def features(rows: Sequence[Mapping[str, Any]], *, objects: bool) -> dict[str, list[Any]]:
    """Columns for the ``features`` of a napari labels layer: of its objects, or else of its classes.

    The column ``index`` holds the labels of the layer, the background among them.
    """
    wanted = [row for row in rows if bool(row["object"]) == objects]
    if not wanted:
        return {}
    skipped = {"label", "object", *(() if not objects else ("objects",))}
    columns: dict[str, list[Any]] = {"index": [0, *(row["object" if objects else "label"] for row in wanted)]}
    return columns | {name: [None, *(row[name] for row in wanted)] for name in wanted[0] if name not in skipped}


def _world(row: Mapping[str, Any], geometry: Geometry) -> Row:
    centre = [row[f"centroid_{axis}"] for axis in geometry.axes.lower()]
    if None in centre:
        return dict.fromkeys(("world_x", "world_y", "world_z"))
    index = [c / s for c, s in zip(centre, geometry.spacing, strict=True)]
    return dict(zip(("world_x", "world_y", "world_z"), geometry.to_world(index).tolist(), strict=True))


def _objects(mask: np.ndarray, instances: np.ndarray | None) -> tuple[_Found, np.ndarray, _Found]:
    """Objects, their numbers, and the classes as a whole."""
    runs = Runs.of(mask, instances)
    at = np.cumsum(runs.length) - runs.length
    inside = runs.label > 0
    _, part = np.unique(runs.label[inside], return_inverse=True)
    kept = runs.take(inside)
    whole = _Found(kept, part, at[inside])
    if instances is None:
        part = kept.parts(kept.neighbours(corners=True))
        return _Found(kept, part, at[inside]), np.arange(1, int(part.max(initial=-1)) + 2), whole
    number = np.ascontiguousarray(instances).reshape(-1)[at]
    inside &= number > 0
    # a number that two classes have is two objects
    pairs = np.stack([runs.label[inside].astype(np.int64), number[inside].astype(np.int64)])
    most = int(pairs[1].max(initial=0)) + 1
    found, part = np.unique(pairs[0] * most + pairs[1], return_inverse=True)
    return _Found(runs.take(inside), part, at[inside]), found % most, whole


@dataclass(frozen=True, eq=False)
class _Found:
    """Runs that belong to numbered things: part of each, and where it begins in the flat image."""

    runs: Runs
    part: np.ndarray
    at: np.ndarray

    @property
    def count(self) -> int:
        return int(self.part.max(initial=-1)) + 1

    def labels(self) -> np.ndarray:
        """Label of each thing."""
        labels = np.zeros(self.count, np.int64)
        labels[self.part] = self.runs.label
        return labels

    def measured(self, spacing: Sequence[float], image: np.ndarray | None) -> list[Row]:
        """Measures of each thing."""
        if not self.count:
            return []
        columns = self._form(spacing)
        for name, channel in zip(_channels(image), image if image is not None else (), strict=True):
            columns += [(f"{what}{name}", values) for what, values in self._intensity(channel).items()]
        table = [(name, column.tolist()) for name, column in columns]
        return [{name: column[i] for name, column in table} for i in range(self.count)]

    def _form(self, spacing: Sequence[float]) -> list[tuple[str, np.ndarray]]:
        ndim, step = len(self.runs.shape), np.asarray(spacing).reshape(-1, 1)
        box = boxes(self.runs, self.part)
        start = np.array([[side.start for side in one] for one in box]).T
        stop = np.array([[side.stop for side in one] for one in box]).T
        length = self.runs.length.astype(float)
        # from the box's corner, where numbers are small and sums exact; a run's own mean and spread are known
        index = (self.runs.index() - start[:, self.part]).astype(float)
        index[-1] += (length - 1) / 2
        count = self._sum(length)
        centre = np.stack([self._sum(length * axis) for axis in index]) / count
        apart = (index - centre[:, self.part]) * step
        moments = np.stack([[self._sum(length * a * b) for b in apart] for a in apart])
        moments[-1, -1] += self._sum(length * (length**2 - 1) / 12) * spacing[-1] ** 2
        values, vectors = np.linalg.eigh(moments.transpose(2, 0, 1) / count[:, None, None])
        # full axes of an ellipse are 4, of an ellipsoid 2 sqrt(5) standard deviations
        axes = np.sqrt((16 if ndim == 2 else 20) * values[:, ::-1].clip(0)).T
        direction = vectors[:, :, -1].T
        direction = direction * np.where(direction[np.abs(direction).argmax(0), range(self.count)] < 0, -1.0, 1.0)
        columns = [("voxels", count.astype(np.int64)), (_extent(ndim), count * np.prod(spacing))]
        columns += _by_axis("centroid", (centre + start) * step)
        columns += _by_axis("start", start) + _by_axis("stop", stop)
        columns += [(f"axis_{i}", axis) for i, axis in enumerate(axes, start=1)]
        columns += _by_axis("direction", direction)
        if ndim == 2:
            angle = np.degrees(np.arctan2(direction[1], direction[0]))
            columns.append(("orientation", (angle + 90) % 180 - 90))
        return columns

    def _intensity(self, channel: np.ndarray) -> dict[str, np.ndarray]:
        """Mean, least, largest and standard deviation of an image in each thing."""
        flat, length = np.ascontiguousarray(channel).reshape(-1), self.runs.length
        low, high, mean, spread = (np.empty(len(length)) for _ in range(4))
        ends = np.cumsum(length)
        cuts = np.searchsorted(ends, np.arange(_SLAB, ends[-1] + _SLAB, _SLAB), side="right")
        for begin, end in itertools.pairwise([0, *cuts.tolist(), len(length)]):
            if begin == end:
                continue
            some = slice(begin, end)
            first = np.cumsum(length[some]) - length[some]
            where = np.arange(length[some].sum()) + np.repeat(self.at[some] - first, length[some])
            values = flat[where].astype(float)
            low[some], high[some] = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
            mean[some] = np.add.reduceat(values, first) / length[some]
            values -= np.repeat(mean[some], length[some])
            spread[some] = np.add.reduceat(values**2, first)
        count = self._sum(length.astype(float))
        middle = self._sum(mean * length) / count
        between = self._sum(spread + length * (mean - middle[self.part]) ** 2)
        order = np.argsort(self.part, kind="stable")
        begin = np.flatnonzero(np.diff(self.part[order], prepend=-1))
        least, most = np.minimum.reduceat(low[order], begin), np.maximum.reduceat(high[order], begin)
        return {"mean": middle, "min": least, "max": most, "sd": np.sqrt(between / count)}

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.part, values, self.count)


def _nothing(ndim: int, image: np.ndarray | None) -> Row:
    """The row of a class without voxels: the columns of one that has some."""
    shape = (1,) * ndim
    one = _objects(np.ones(shape, np.uint8), None)[0]
    (row,) = one.measured((1.0,) * ndim, None if image is None else np.zeros((len(image), *shape)))
    return {**dict.fromkeys(row), "voxels": 0, _extent(ndim): 0.0}


def _extent(ndim: int) -> str:
    return "area" if ndim == 2 else "volume"


def _by_axis(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [(f"{name}_{axis}", row) for axis, row in zip("zyx"[-len(values) :], values, strict=True)]


def _channels(image: np.ndarray | None) -> list[str]:
    if image is None:
        return []
    return [""] if len(image) == 1 else [f"_{c}" for c in range(len(image))]


def _same_shape(what: str, mask: np.ndarray, other: np.ndarray | None) -> None:
    if other is not None and np.shape(other) != mask.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape, np.shape(other))]
        raise GeometryError(
            f"The mask is {sizes[0]} but its {what} is {sizes[1]}.",
            hint="Measure a mask on the image that it was made for.",
        )
