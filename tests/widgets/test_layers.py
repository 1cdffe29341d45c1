"""Volumes to layers and back: no window is needed."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unetseg.errors import GeometryError
from napari_unetseg.volume import Geometry, Volume
from napari_unetseg.widgets.layers import (
    geometry_of,
    image_layers,
    label_colours,
    labels_of,
    placement,
    role_of,
    volume_of,
)
from napari_unetseg.workspace import Class

CLASSES = (Class("background", "#0072b2", 1), Class("organ", "#e69f00", 2))


def test_an_oblique_volume_is_shown_along_its_own_axes(oblique):
    volume = Volume(np.zeros((1, 4, 5, 6), np.int16), oblique)
    ((data, options),) = image_layers(volume, "scan")
    layer = Image(data, **options)
    assert layer.scale == pytest.approx([3.0, 0.8, 0.8])
    assert [str(u) for u in layer.units] == ["millimeter"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    assert np.allclose(layer.affine.linear_matrix, np.eye(3)), "napari cannot slice a rotated volume"
    assert geometry_of(layer, 3).matches(oblique), "the true affine is kept"


def test_the_parts_of_one_scan_lie_side_by_side(oblique):
    whole = Volume(np.zeros((1, 8, 5, 6), np.int16), oblique)
    part = whole.crop((slice(4, 8), slice(0, 5), slice(0, 6)))
    shift = np.subtract(placement(part.geometry)["translate"], placement(whole.geometry)["translate"])
    assert shift == pytest.approx([12.0, 0, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "dtype", "layers"),
    [((1, 8, 9), np.uint16, 1), ((3, 8, 9), np.uint8, 1), ((2, 8, 9), np.uint16, 2), ((9, 8, 9), np.uint8, 1)],
)
def test_every_number_of_channels_has_a_picture(shape, dtype, layers):
    volume = Volume(np.arange(np.prod(shape)).reshape(shape).astype(dtype), Geometry((1.0, 1.0)))
    made = [Image(data, **options) for data, options in image_layers(volume, "picture")]
    assert len(made) == layers
    assert made[0].rgb == (shape[0] == 3)
    assert made[-1].data.shape[-2 if made[0].rgb is False else 0] == 8


def test_a_constant_or_unknown_image_has_contrast_limits():
    for value in (7.0, np.nan):
        ((_, options),) = image_layers(Volume(np.full((1, 4, 4), value, np.float32)), "flat")
        low, high = options["contrast_limits"]
        assert low < high


def test_the_background_has_a_colour_as_stroke_and_none_as_mask():
    strokes, mask = label_colours(CLASSES, mask=False), label_colours(CLASSES, mask=True)
    assert np.allclose(strokes.map(np.array([0]))[0][-1], 0)
    assert np.allclose(strokes.map(np.array([2]))[0], mask.map(np.array([1]))[0])
    assert np.allclose(mask.map(np.array([0]))[0][-1], 0)


def test_a_layer_of_any_plugin_becomes_a_volume():
    rgb = Image(np.zeros((8, 9, 3), np.uint8), rgb=True)
    assert volume_of(rgb).data.shape == (3, 8, 9)
    series = Image(np.stack([np.full((5, 8, 9), t) for t in range(3)]).astype(np.uint8), rgb=False)
    assert volume_of(series, (2, 0, 0, 0)).data.shape == (1, 5, 8, 9)
    assert (volume_of(series, (2, 0, 0, 0)).data == 2).all(), "the time point on screen is taken"
    pyramid = Image([np.zeros((64, 64)), np.zeros((32, 32))], multiscale=True)
    assert volume_of(pyramid).data.shape == (1, 64, 64)
    placed = Image(np.zeros((5, 8, 9)), scale=(2, 0.5, 0.5), units=("um", "um", "um"), translate=(1, 2, 3))
    geometry = volume_of(placed).geometry
    assert (geometry.spacing, geometry.unit) == ((2.0, 0.5, 0.5), "um")
    assert geometry.to_world((0, 0, 0)) == pytest.approx([1, 2, 3])
    with pytest.raises(GeometryError):
        volume_of(_line())


def _line():
    class Line:  # napari itself makes no image of one axis
        data, multiscale, rgb, name = np.zeros(5), False, False, "line"

    return Line()


def test_labels_of_five_axes_are_refused():
    with pytest.raises(GeometryError):
        labels_of(Labels(np.zeros((2, 2, 2, 4, 4), np.uint8)))


def test_foreign_layers_have_no_role():
    assert role_of(Image(np.zeros((4, 4)))) == {}
    assert role_of(Image(np.zeros((4, 4)), metadata={"unetseg": "something else"})) == {}
