"""Readers and writers that napari lacks: medical volumes and OME-Zarr, in their place and with their units."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Layer
from napari.utils.notifications import show_error, show_info, show_warning

from napari_unetseg.errors import ReadError, UnetSegError
from napari_unetseg.io import LazyVolume, is_image, list_series, open_lazy, read_labels, stem, write
from napari_unetseg.io.dicom import is_segmentation, sniffed
from napari_unetseg.io.ome_zarr import kinds_of_zarr
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.widgets.layers import GEOMETRY, geometry_at, image_layers, placement

__all__ = ["LazyChannel", "get_reader", "tilt", "write_image", "write_labels"]

logger = logging.getLogger(__name__)

LayerData = tuple[Any, dict[str, Any], str]
_SLICES = "slices"  # key in `layer.metadata`
_LARGE = 2**29  # bytes; larger images are shown plane by plane from the disk, where their format allows


class LazyChannel:
    """One channel of an image on disk, as napari wants an array: it is asked for the plane in view."""

    def __init__(self, lazy: LazyVolume, channel: int) -> None:
        self._lazy, self._channel = lazy, channel
        self.shape, self.dtype, self.ndim = lazy.spatial, lazy.dtype, len(lazy.spatial)
        self.size = int(np.prod(self.shape, dtype=object))

    def __getitem__(self, index: Any) -> np.ndarray:
        """Part of the channel; steps are taken in what was read."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            index = (*index[:at], *(slice(None),) * (self.ndim - len(index) + 1), *index[at + 1 :])
        index = (*index, *(slice(None),) * (self.ndim - len(index)))
        regions: list[Any] = []
        steps = []
        for part, size in zip(index, self.shape, strict=True):
            if not isinstance(part, slice):
                regions.append(int(part))
                continue
            taken = range(size)[part]
            low, high = (min(taken[0], taken[-1]), max(taken[0], taken[-1]) + 1) if len(taken) else (0, 0)
            regions.append(slice(low, high))
            steps.append(slice(None, None, taken.step if len(taken) else 1))
        return self._lazy[(self._channel, *regions)][tuple(steps)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole channel in memory."""
        return np.asarray(self._lazy[self._channel], dtype=dtype)


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Reader for `path`, or None when its suffix is of no format we know and it is no folder of DICOM files."""
    paths = [path] if isinstance(path, str) else list(path)
    return _read if paths and all(is_image(one) or sniffed(Path(one)) for one in paths) else None


def tilt(geometry: Geometry) -> float:
    """Largest angle between an array axis and the world axis nearest to it, in degrees."""
    directions = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0), 0, 1))).max())


def _read(path: str | Sequence[str]) -> list[LayerData]:
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    wanted = [one for one in map(Path, paths) if not _asked(one) and not _is_open(one)]
    made = [layer for one in wanted for layer in _layers(one)]
    return made or [(None,)]  # type: ignore[list-item]  # napari's way to say: nothing to add


def _is_open(path: Path) -> bool:
    """Whether `path` is a slice of a series that is open: napari hands dropped files over one by one."""
    viewer = napari.current_viewer()
    if viewer is None or path.is_dir():
        return False
    return any(str(path.resolve()) in layer.metadata.get(_SLICES, ()) for layer in viewer.layers)


def _asked(path: Path) -> bool:
    """Whether `path` is a study of several series, and the user is being asked which; they are added later."""
    if not (path.is_dir() or path.name.upper() == "DICOMDIR") or is_image(path):
        return False
    found = list_series(path)
    images = [series for series in found if series.kind == "image"] or found
    viewer = napari.current_viewer()
    if len(images) < 2 or viewer is None:  # without a window, reading says what there is to choose from
        return False
    from napari_unetseg.widgets.series_dialog import ask_series

    def add(paths: list[Path]) -> None:
        for one in paths:
            try:
                layers = _layers(one)
            except UnetSegError as error:
                show_error(str(error))
                continue
            for layer in layers:
                viewer.add_layer(Layer.create(*layer))

    return ask_series(path.name, images, add) is not None


def _layers(path: Path) -> list[LayerData]:
    """Layers of one file: its image, and the labels that lie inside it."""
    is_labels, inside = kinds_of_zarr(path)
    if is_labels or is_segmentation(path):
        return [_labels_layer(path, stem(path))]
    lazy = open_lazy(path)
    name = stem(path)
    made = [(*layer, "image") for layer in _image_layers(lazy, name)]
    slices = lazy.header.get("dicom", {}).get("files", ())
    if len(set(slices)) > 1:
        for _, options, _ in made:
            options["metadata"][_SLICES] = slices
    for note in lazy.notes:
        show_warning(f"{path.name}: {note}")
    for one in inside:
        try:
            made.append(_labels_layer(path / "labels" / one, f"{name} · {one}"))
        except ReadError as error:  # the image is worth showing without them
            logger.warning("%s", error)
    if lazy.geometry.oblique:
        angle = tilt(lazy.geometry)
        show_info(
            f"{path.name} is oblique: it was scanned {angle:.1f}° away from the axes of the world. It is shown along "
            "its own axes; masks keep its true place."
        )
        for _, options, _ in made:
            options["metadata"]["oblique"] = angle
    return made


def _image_layers(lazy: LazyVolume, name: str) -> list[tuple[Any, dict[str, Any]]]:
    if lazy.nbytes <= _LARGE or lazy.in_memory:
        return image_layers(lazy.volume(), name)
    middle = [slice(size // 2, size // 2 + 512) for size in lazy.spatial]
    middle[: len(middle) - 2] = [slice(size // 2, size // 2 + 1) for size in lazy.spatial[:-2]]
    place = {**placement(lazy.geometry), "metadata": {GEOMETRY: lazy.geometry}, "rgb": False}
    made = []
    for index in range(lazy.shape[0]):
        # the look of a channel comes from the middle of it, which is all that is read now
        sample = Volume(lazy.crop(middle).data[index : index + 1], lazy.geometry)
        ((_, look),) = image_layers(sample, name if lazy.shape[0] == 1 else f"{name} · channel {index + 1}")
        blending = {"blending": "additive"} if index else {}
        made.append((LazyChannel(lazy, index), {**look, **place, **blending}))
    return made


def _labels_layer(path: Path, name: str) -> LayerData:
    labels = read_labels(path)
    data = labels.data if labels.data.dtype.itemsize <= 4 else labels.data.astype(np.int64)
    return data, {**placement(labels.geometry), "name": name, "metadata": {GEOMETRY: labels.geometry}}, "labels"


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer, its geometry with it."""
    array = np.asarray(data[0] if isinstance(data, (list, tuple)) else data)
    channels = np.moveaxis(array, -1, 0) if attributes.get("rgb") else array[None]
    return [str(write(path, Volume(channels, geometry_at(attributes, channels.ndim - 1))))]


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one labels layer, its geometry with it."""
    array = np.asarray(data[0] if isinstance(data, (list, tuple)) else data)
    return [str(write(path, LabelVolume(array, geometry_at(attributes, array.ndim))))]
