"""Maps in [0, 1] over the image: colours that begin clear, a plane of a volume in its place, areas or outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import Colormap, DirectLabelColormap
from napari.utils.colormaps.standardize_color import transform_color

from napari_unetseg.volume import Geometry
from napari_unetseg.widgets.layers import placement

__all__ = ["MAP_COLOURS", "OPAQUE", "map_layer", "outline_layer", "placed"]

# of matplotlib's plasma, told apart by colour-blind people and as grey; the first is drawn clear
MAP_COLOURS = ("#0d0887", "#7e03a8", "#cc4778", "#f89540", "#f0f921")
OPAQUE = 0.75  # at 1, so that the image is seen even there


def placed(data: np.ndarray, geometry: Geometry, index: int | None) -> tuple[np.ndarray, dict[str, Any]]:
    """Array and keyword arguments that put a map of the whole image, or of plane `index`, in its place."""
    options = placement(geometry)
    if index is not None and geometry.ndim == 3:
        start = options["translate"]
        options["translate"] = (start[0] + index * options["scale"][0], *start[1:])
        data = data[None]
    return data, options


def map_layer(data: np.ndarray, geometry: Geometry, index: int | None, name: str) -> Image:
    """A layer that lets the image through where the map is 0."""
    colours = np.array([transform_color(colour)[0] for colour in MAP_COLOURS])
    colours[:, 3] = np.linspace(0, OPAQUE, len(colours))
    array, options = placed(data, geometry, index)
    look = Colormap(colours, name="unetseg-map", interpolation="linear")
    return Image(array, name=name, colormap=look, contrast_limits=(0.0, 1.0), blending="translucent", **options)


def outline_layer(data: np.ndarray, geometry: Geometry, index: int | None, name: str) -> Labels:
    """The outline of where a map is 0.5 or more."""
    array, options = placed((data >= 0.5).astype(np.uint8), geometry, index)
    look = DirectLabelColormap(color_dict={0: "transparent", None: "transparent", 1: MAP_COLOURS[-1]})
    layer = Labels(array, name=name, colormap=look, opacity=0.95, **options)
    layer.contour = 2
    return layer
