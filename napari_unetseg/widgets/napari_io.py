"""Readers and writers that napari lacks: medical volumes, in their place and with their units. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.io import is_image, read, stem, write
from napari_unetseg.volume import LabelVolume, Volume
from napari_unetseg.widgets.layers import geometry_at, image_layers

__all__ = ["get_reader", "write_image", "write_labels"]

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Reader for `path`, or None when its suffix is of no format we know."""
    paths = [path] if isinstance(path, str) else list(path)
    return _read if paths and all(is_image(one) for one in paths) else None


def _read(path: str | Sequence[str]) -> list[LayerData]:
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    return [(*layer, "image") for one in paths for layer in image_layers(read(one), stem(one))]


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one image layer, its geometry with it."""
    array = np.asarray(data[0] if isinstance(data, (list, tuple)) else data)
    channels = np.moveaxis(array, -1, 0) if attributes.get("rgb") else array[None]
    return [str(write(path, Volume(channels, geometry_at(attributes, channels.ndim - 1))))]


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save one labels layer, its geometry with it."""
    array = np.asarray(data[0] if isinstance(data, (list, tuple)) else data)
    return [str(write(path, LabelVolume(array, geometry_at(attributes, array.ndim))))]
