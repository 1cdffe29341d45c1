"""Between volumes and napari layers: where a layer lies, how it looks, and back. Nothing here keeps state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_unetseg.data.annotation import BACKGROUND
from napari_unetseg.errors import GeometryError
from napari_unetseg.io.formats import available_memory, size_text
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.workspace import Class

__all__ = [
    "GEOMETRY",
    "ROLE",
    "agree_on_units",
    "brush_for",
    "geometry_at",
    "geometry_of",
    "image_layers",
    "label_colours",
    "labels_of",
    "pictures",
    "placement",
    "role_of",
    "volume_of",
    "volume_of_channels",
]

ROLE = "unetseg"  # key in `layer.metadata`; layers are found by it, never by their names
GEOMETRY = "geometry"

_THIN = "8c"  # opacity of the background's strokes, in hexadecimal
_CHANNEL_COLOURS = ("green", "magenta", "cyan", "yellow", "red", "blue")
_UNITS = {"micrometer": "um", "millimeter": "mm", "nanometer": "nm", "pixel": "pixel"}


def role_of(layer: Any) -> dict[str, Any]:
    """What the workbench wrote into the layer: role, case and workbench; empty for layers that are not its own."""
    found = layer.metadata.get(ROLE) if isinstance(layer.metadata, dict) else None
    return found if isinstance(found, dict) else {}


def agree_on_units(layers: Any) -> None:
    """Count in pixels beside a layer of the user's that does: napari warns at every change while units differ."""
    if layers.extent.units is None:
        for layer in layers:
            if role_of(layer):
                layer.units = ("pixel",) * layer.ndim


def brush_for(shape: tuple[int, ...]) -> int:
    """A brush about a fortieth of the picture wide: a stroke one sees, that does not paint over borders."""
    return int(np.clip(round(min(shape[-2:]) / 40), 3, 30))


def placement(geometry: Geometry) -> dict[str, Any]:
    """Keyword arguments that put a layer in its place.

    An oblique volume is shown along its own axes, with its spacing and at its distance along them, for napari cannot
    slice a rotated one; the true affine stays in the layer's metadata.
    """
    directions = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    start = np.linalg.solve(directions, geometry.affine[:3, 3])
    return {
        "scale": geometry.spacing,
        "translate": tuple(float(v) for v in start[-geometry.ndim :]),
        "units": (geometry.unit,) * geometry.ndim,
        "axis_labels": tuple(geometry.axes.lower()),
    }


def image_layers(volume: Volume, name: str, metadata: dict[str, Any] | None = None) -> list[tuple[np.ndarray, dict]]:
    """Arrays and keyword arguments of the image layers that show a volume, from bottom to top.

    Three 8-bit channels are a colour picture; up to six others are one layer each, coloured and added up; more become
    one layer with a slider.
    """
    data, count = volume.data, volume.data.shape[0]
    common = {**placement(volume.geometry), "metadata": {**(metadata or {}), GEOMETRY: volume.geometry}}
    if count in (3, 4) and data.dtype == np.uint8 and not volume.geometry.world:
        return [(np.moveaxis(data, 0, -1), {**common, "name": name, "rgb": True})]
    if count > len(_CHANNEL_COLOURS):
        common["scale"] = (1.0, *common["scale"])
        common["translate"] = (0.0, *common["translate"])
        common["units"] = ("pixel", *common["units"])
        common["axis_labels"] = ("c", *common["axis_labels"])
        return [(data, {**common, "name": name, "contrast_limits": contrast(data)})]
    made = []
    for index, channel in enumerate(data):
        look = {"colormap": "gray"} if count == 1 else {"colormap": _CHANNEL_COLOURS[index], "blending": "additive"}
        title = name if count == 1 else f"{name} · channel {index + 1}"
        made.append((channel, {**common, **look, "name": title, "contrast_limits": contrast(channel), "rgb": False}))
    return made


def contrast(data: np.ndarray) -> tuple[float, float]:
    """Contrast limits that a few hot pixels do not spoil, from at most a million voxels."""
    step = max(1, int(np.ceil((data.size / 1e6) ** (1 / data.ndim))))
    sample = np.asarray(data[(slice(None, None, step),) * data.ndim], dtype=float)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, (0.2, 99.8))
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


def label_colours(classes: Sequence[Class], *, mask: bool) -> DirectLabelColormap:
    """Colours of the classes for an annotation layer or, with `mask`, for a mask, where the background is clear."""
    shift = 1 if mask else 0
    colours: dict[int | None, str] = {c.label - shift: c.colour for c in classes if c.label > shift}
    if not mask and BACKGROUND in colours:
        colours[BACKGROUND] += _THIN  # of an image that is done it covers most, and must let it through
    return DirectLabelColormap(color_dict={**colours, 0: "transparent", None: "transparent"})


def geometry_at(attributes: Mapping[str, Any], ndim: int) -> Geometry:
    """Geometry from what napari knows of a layer: the one our readers left in its metadata, else scale and units."""
    spacing = np.abs(np.asarray(attributes.get("scale", (1.0,) * ndim), dtype=float))[-ndim:]
    kept = (attributes.get("metadata") or {}).get(GEOMETRY)
    if isinstance(kept, Geometry) and kept.ndim == ndim and np.allclose(kept.spacing, spacing):
        return kept
    units = attributes.get("units") or ("pixel",)
    affine = np.eye(4)
    affine[range(3 - ndim, 3), range(3 - ndim, 3)] = spacing
    affine[3 - ndim : 3, 3] = np.asarray(attributes.get("translate", (0.0,) * ndim), dtype=float)[-ndim:]
    return Geometry(tuple(float(s) for s in spacing), _UNITS.get(str(units[-1]), "pixel"), affine)


def geometry_of(layer: Any, ndim: int) -> Geometry:
    """Geometry of a layer; see `geometry_at`."""
    names = ("metadata", "scale", "units", "translate")
    found = geometry_at({name: getattr(layer, name) for name in names}, ndim)
    turned = _turned(layer, ndim)
    if turned is None or found is (layer.metadata or {}).get(GEOMETRY):
        return found
    spacing = tuple(float(length) for length in np.linalg.norm(turned[3 - ndim : 3, 3 - ndim : 3], axis=0))
    return Geometry(spacing, found.unit, turned)


def _turned(layer: Any, ndim: int) -> np.ndarray | None:
    """Affine of a layer that is rotated or sheared in the viewer; None when it is only scaled and moved."""
    start = np.asarray(layer.data_to_world((0.0,) * layer.ndim))
    steps = np.array([np.asarray(layer.data_to_world(one)) - start for one in np.eye(layer.ndim)[-ndim:]]).T[-ndim:]
    if np.allclose(steps, np.diag(np.abs(np.diag(steps))), atol=1e-9 * np.abs(steps).max()):
        return None
    affine = np.eye(4)
    affine[3 - ndim : 3, 3 - ndim : 3] = steps
    affine[3 - ndim : 3, 3] = start[-ndim:]
    return affine


def volume_of(layer: Image, step: Sequence[int] = ()) -> Volume:
    """Volume of an image layer that is open in napari.

    Parameters
    ----------
    layer : Image
        Of any plugin: grey or colour, in memory, lazy or multiscale (its finest level is taken).
    step : sequence of int
        Position of the viewer's sliders; axes beyond ``([Z,] Y, X)``, such as time, are taken there.

    Returns
    -------
    Volume
        ``(C, [Z,] Y, X)``.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    spatial = data.ndim - (1 if layer.rgb else 0)
    if spatial < 2:
        raise GeometryError(f"The layer {layer.name} has one axis only.", hint="Choose an image with two or three.")
    extra = spatial - 3 if spatial > 3 else 0
    here = tuple(step)[-spatial:][:extra] if len(step) >= spatial else (0,) * extra
    part = data[here] if extra else data
    size, memory = int(np.prod(part.shape)) * np.dtype(part.dtype).itemsize, available_memory()
    if not isinstance(part, np.ndarray) and size > memory / 2:
        raise GeometryError(
            f"The layer {layer.name} is too large to be loaded: {size_text(size)}; there are {size_text(memory)}.",
            hint="Add a crop of it, or a coarser level.",
        )
    array = np.asarray(part)
    ndim = min(spatial, 3)
    channels = np.moveaxis(array, -1, 0) if layer.rgb else array[None]
    if ndim == 3 and channels.shape[1] == 1:  # one plane in a stack is a plane
        channels, ndim = channels[:, 0], 2
    return Volume(np.ascontiguousarray(channels), geometry_of(layer, ndim))


def volume_of_channels(layers: Sequence[Image], step: Sequence[int] = ()) -> Volume:
    """One volume of layers that are the channels of one picture; see `volume_of`."""
    parts = [volume_of(layer, step) for layer in layers]
    kind = np.result_type(*(part.data for part in parts))
    return Volume(np.concatenate([part.data.astype(kind, copy=False) for part in parts]), parts[0].geometry)


def pictures(layers: Sequence[Image]) -> list[list[Image]]:
    """Layers grouped by picture: the channels that napari or a reader split are together, whatever they are called.

    They lie in the same place, have the same shape and a colour each, and all but the lowest are added to it.
    """
    found: list[list[Image]] = []
    last: dict[Any, list[Image]] = {}
    for layer in layers:
        shape = tuple((layer.data[0] if layer.multiscale else layer.data).shape)
        place = (shape, layer.rgb, layer.source.path, tuple(layer.scale), tuple(layer.translate))
        mates = last.get(place, [])
        colours = {"gray", *(mate.colormap.name for mate in mates)} if not layer.rgb else set()
        added = not layer.rgb and str(layer.blending) == "additive" and layer.colormap.name not in colours
        if added and mates and mates[0].colormap.name != "gray":
            mates.append(layer)
        else:
            last[place] = [layer]
            found.append(last[place])
    return found


def labels_of(layer: Labels) -> LabelVolume:
    """Labels of a napari layer with their geometry."""
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if data.ndim not in (2, 3):
        raise GeometryError(f"The layer {layer.name} has {data.ndim} axes.", hint="Masks have two or three.")
    return LabelVolume(data, geometry_of(layer, data.ndim))
