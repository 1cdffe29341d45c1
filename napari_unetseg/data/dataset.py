"""Cases from wherever they lie: a project, a folder in one of the usual layouts, or pairs of files."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from napari_unetseg.data.annotation import check_counts, count_known, to_mask
from napari_unetseg.data.folders import Entry, Listing, list_folder, list_pairs
from napari_unetseg.data.grid import on_grid
from napari_unetseg.data.labels import LabelRule, class_names, count_values, look, rule_from_names, rule_from_values
from napari_unetseg.errors import AnnotationError, ReadError
from napari_unetseg.events import Control
from napari_unetseg.io import read, read_labels
from napari_unetseg.plan import DataPlan
from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, LabelVolume, Volume

__all__ = ["Case", "Dataset", "Sample", "load_dataset"]

logger = logging.getLogger(__name__)

CACHE_BYTES = 2 * 2**30
_LOOKED_AT = 500  # files whose values or channels are looked at before training; the rest is checked when read


@dataclass(frozen=True, eq=False)
class Sample:
    """A case in memory.

    Attributes
    ----------
    name : str
    image : Volume
        ``(C, [Z,] Y, X)`` as read.
    target : ([Z,] Y, X) integer ndarray
        Mask: 0 background, 1.. classes; 0 where unknown.
    known : ([Z,] Y, X) bool ndarray
    """

    name: str
    image: Volume
    target: np.ndarray
    known: np.ndarray

    def crop(self, region: tuple[slice, ...] | None) -> Sample:
        """Part of the sample; a view."""
        if region is None:
            return self
        return Sample(self.name, self.image.crop(region), self.target[region], self.known[region])


class _Reader(Protocol):
    def sample(self) -> Sample: ...
    def target(self) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Case:
    """One image with its labels, read when asked.

    Attributes
    ----------
    name : str
        Unique in its dataset.
    group : str
        What a split must not divide: a patient, a sequence.
    fold : int, optional
        Where the data brings its own folds.
    image : Path, optional
    """

    name: str
    group: str
    fold: int | None
    image: Path | None
    reader: _Reader = field(repr=False)

    def load(self) -> Sample:
        """Read image and labels (from memory, when read lately)."""
        return self.reader.sample()

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        """Mask and known voxels alone, on the grid of the label file."""
        return self.reader.target()


@dataclass(eq=False)
class Dataset:
    """Cases that one net can learn from.

    Attributes
    ----------
    cases : tuple of Case
    classes : tuple of str
        Background first.
    labels : str
        ``mask`` or ``annotation``, as the files have it; samples always hold masks.
    notes : tuple of str
        Sentences on what was decided or left out.
    in_channels : int
    ndim : int
        Spatial axes, 2 or 3.
    """

    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    labels: Literal["mask", "annotation"]
    notes: tuple[str, ...]
    in_channels: int
    ndim: int
    _counts: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def counts(self, case: Case) -> np.ndarray:
        """Known voxels of each class in a case, ``(n_classes,)``."""
        if case.name not in self._counts:
            self._counts[case.name] = count_known(*case.target(), len(self.classes))
        return self._counts[case.name]

    def total(self, cases: Iterable[Case] | None = None) -> np.ndarray:
        """Known voxels of each class in some cases, in all when omitted, ``(n_classes,)``."""
        each = [self.counts(case) for case in (self.cases if cases is None else cases)]
        return np.sum(each, axis=0) if each else np.zeros(len(self.classes), np.int64)

    @property
    def countable(self) -> bool:
        """Whether there are few enough cases to count the labels of all before training."""
        return len(self) <= _LOOKED_AT

    def __len__(self) -> int:
        return len(self.cases)


def load_dataset(
    data: Project | str | os.PathLike[str] | None,
    plan: DataPlan = DataPlan(),
    pairs: Sequence[tuple[Any, Any]] = (),
    control: Control | None = None,
) -> Dataset:
    """Find cases and agree on what their labels mean.

    Parameters
    ----------
    data : Project, path or None
        A project or its folder; a folder with ``images/`` and ``labels/`` (or ``masks/``) paired by name; an MSD or
        nnU-Net folder; a folder with ``split.json``; None with `pairs`.
    plan : DataPlan
        ``labels`` says what 0 means in label files, ``values`` which values belong to which class. A project always
        holds annotations.
    pairs : sequence of (path, path)
        Image and label files; stacks stay volumes.
    control : Control, optional
        To stop it between two files, here and whenever the dataset reads later; `Stopped` is raised.

    Raises
    ------
    ReadError
        No such folder, no images, or images that do not go together.
    AnnotationError
        No labels, labels of one class only, or on another grid than their image.
    """
    files = _Files(control=control)
    if isinstance(data, Project):
        return _from_project(data, files)
    if data is None:
        if not pairs:
            raise ReadError("No data was given.", hint="Give a project, a folder, or image and label files.")
        return _from_listing(list_pairs(pairs), plan, files)
    folder = Path(data)
    if (folder / "project.json").is_file():
        return _from_project(Project.open(folder, read_only=True), files)
    return _from_listing(list_folder(folder), plan, files)


class _Files:
    """Files read lately, up to a bound of memory; `control` may stop the reading."""

    def __init__(self, limit: int = CACHE_BYTES, control: Control | None = None) -> None:
        self.limit, self.control = limit, control
        self.held = 0
        self._kept: OrderedDict[tuple[str, Any], Volume | LabelVolume] = OrderedDict()

    def image(self, path: Path) -> Volume:
        return self._get(("image", path), lambda: read(path))

    def labels(self, path: Path) -> LabelVolume:
        return self._get(("labels", path), lambda: read_labels(path))

    def poll(self) -> None:
        """Raise `Stopped` when told to stop."""
        if self.control is not None:
            self.control.poll()

    def _get(self, key: tuple[str, Any], make: Any) -> Any:
        self.poll()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = make()
        self._kept[key] = made
        self.held += made.data.nbytes
        while self.held > self.limit and len(self._kept) > 1:
            self.held -= self._kept.popitem(last=False)[1].data.nbytes
        return made


@dataclass
class _Kind:
    """Channels and axes that all images of a dataset share, and the file that set them."""

    channels: int = 0
    ndim: int = 0
    example: str = ""

    def fit(self, image: Volume, name: str) -> Volume:
        """Image as the dataset has them: grey becomes RGB among RGB; anything else that differs is refused."""
        channels = image.data.shape[0]
        if image.ndim != self.ndim:
            raise ReadError(
                f"{name} is {image.ndim}D, but {self.example} is {self.ndim}D.", hint="Train on one kind at a time."
            )
        if channels == self.channels:
            return image
        if (channels, self.channels) == (1, 3):
            return replace(image, data=np.repeat(image.data, 3, axis=0))
        raise ReadError(
            f"{name} has {channels} channel{'s' * (channels != 1)}, but {self.example} has {self.channels}.",
            hint="Give images with the same channels.",
        )


@dataclass(frozen=True)
class _FromFiles:
    entry: Entry
    rule: LabelRule
    kind: _Kind
    files: _Files = field(repr=False)

    def image(self) -> Volume:
        parts = [self.files.image(path) for path in self.entry.images]
        image = parts[0]
        if len(parts) > 1:
            for path, part in zip(self.entry.images, parts, strict=True):
                if part.shape != image.shape:
                    raise ReadError(
                        f"{path.name} has shape {part.shape}, {self.entry.images[0].name} {image.shape}.",
                        hint="Channels of one case must have one shape.",
                    )
            image = replace(image, data=np.concatenate([part.data for part in parts]))
        return _page(image, self.entry.page, self.entry.images[0])

    def labels(self) -> LabelVolume:
        return _page(self.files.labels(self.entry.label), self.entry.page, self.entry.label)

    def sample(self) -> Sample:
        image = self.kind.fit(self.image(), self.entry.images[0].name)
        labels, _ = on_grid(self.labels(), image, self.entry.label.name, self.entry.images[0].name)
        target, known = self.rule.apply(labels.data, self.entry.label.name)
        return Sample(self.entry.name, image, target, known)

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rule.apply(self.labels().data, self.entry.label.name)


@dataclass(frozen=True)
class _FromProject:
    project: Project = field(repr=False)
    name: str
    kind: _Kind
    files: _Files = field(repr=False)

    def image(self) -> Volume:
        return self.files._get(("project", self.name), lambda: self.project.image(self.name))

    def sample(self) -> Sample:
        return Sample(self.name, self.kind.fit(self.image(), self.name), *self.target())

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        self.files.poll()
        return to_mask(self.project.annotation(self.name).data)


def _from_project(project: Project, files: _Files) -> Dataset:
    names = tuple(project.annotated())
    if not names:
        raise AnnotationError(
            f"Nothing is annotated yet in the project {project.name}.", hint="Paint at least one stroke of each class."
        )
    kind = _Kind()
    readers = [_FromProject(project, name, kind, files) for name in names]
    notes = _agree(kind, ((reader.name, reader) for reader in readers))
    cases = tuple(
        Case(name, project.group(name) or name, None, project.image_path(name), reader)
        for name, reader in zip(names, readers, strict=True)
    )
    dataset = Dataset(cases, tuple(project.classes), "annotation", notes, kind.channels, kind.ndim)
    check_counts(dataset.total(), dataset.classes)
    return dataset


def _from_listing(listing: Listing, plan: DataPlan, files: _Files) -> Dataset:
    kind = _Kind()
    rule, classes, notes = _meaning(listing, plan, files)
    readers = [_FromFiles(entry, rule, kind, files) for entry in listing.entries]
    notes += _agree(kind, ((reader.entry.images[0].name, reader) for reader in readers))
    moved = []
    for reader in _spread(readers):
        names = reader.entry.label.name, reader.entry.images[0].name
        if on_grid(reader.labels(), reader.image(), *names)[1]:
            moved.append(reader.entry.name)
    if moved:
        notes += (f"Labels of {len(moved)} images lie on another grid and are resampled ({moved[0]} for one).",)
    cases = tuple(
        Case(entry.name, entry.group or entry.name, entry.fold, entry.images[0], reader)
        for entry, reader in zip(listing.entries, readers, strict=True)
    )
    dataset = Dataset(cases, classes, plan.labels, listing.notes + notes, kind.channels, kind.ndim)
    if dataset.countable:
        check_counts(dataset.total(), classes)
    return dataset


def _meaning(listing: Listing, plan: DataPlan, files: _Files) -> tuple[LabelRule, tuple[str, ...], tuple[str, ...]]:
    """Rule, class names and notes for the label files."""
    if plan.labels == "mask" and plan.values is not None:
        rule, note = rule_from_values(plan.values)
        return rule, class_names(len(rule.groups)), (note,)
    if plan.labels == "mask" and len(listing.names) > 1:
        return rule_from_names(listing.names, listing.unknown), tuple(listing.names.values()), ()
    counts: dict[int, int] = {}
    for path in _spread(list(dict.fromkeys(entry.label for entry in listing.entries))):
        for value, n in count_values(files.labels(path).data).items():
            counts[value] = counts.get(value, 0) + n
    if plan.labels == "mask":
        for value in listing.unknown:
            counts.pop(value, None)
        rule, note = look(counts)
        rule = replace(rule, unknown=rule.unknown + listing.unknown)
        return rule, class_names(len(rule.groups) or 2), (note,)
    top = max(counts, default=0)
    if top > 255 or min(counts, default=0) < 0:
        raise AnnotationError(
            f"The annotations hold labels from {min(counts)} to {top}.",
            hint="0 is unlabelled, 1 background, 2 and more the classes; dense masks need --labels mask.",
        )
    note = f"Labels: 0 is unlabelled, 1 background, 2 to {top} the classes." if top > 2 else ""
    return LabelRule("annotation"), class_names(max(top, 2)), (note,) if note else ()


def _agree(kind: _Kind, readers: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """Look at images, set what they share, and say if some will be promoted."""
    seen: dict[int, str] = {}
    for name, reader in _spread(list(readers)):
        image = reader.image()
        channels = image.data.shape[0]
        if not kind.ndim:
            kind.channels, kind.ndim, kind.example = channels, image.ndim, name
        if channels == 3 and kind.channels == 1:
            kind.channels, kind.example = 3, name
        kind.fit(image, name)
        seen.setdefault(channels, name)
    return ("Grey images among RGB ones are taken as RGB.",) if len(seen) > 1 else ()


def _spread(things: list[Any]) -> list[Any]:
    """At most `_LOOKED_AT` of the things, evenly spaced."""
    step = max(1, -(-len(things) // _LOOKED_AT))
    return things[::step]


def _page(volume: Any, page: int | None, path: Path) -> Any:
    """Plane `page` of a stack, as a 2D image; the whole when `page` is None."""
    if page is None:
        return volume
    planes = volume.shape[0] if volume.ndim == 3 else 1
    if not 0 <= page < planes:
        raise ReadError(f"{path.name} has {planes} planes, so no page {page}.", hint="Pages are counted from 0.")
    if volume.ndim == 2:
        return volume
    data = volume.data[..., page, :, :]
    return type(volume)(data, Geometry(volume.geometry.spacing[1:], volume.geometry.unit), volume.path)
