"""Tiles: every voxel comes back, without seams, at any size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from napari_unetseg.devices import Compute
from napari_unetseg.errors import ModelError, ReadError, Stopped
from napari_unetseg.events import Control, TileDone
from napari_unetseg.inference import Predictor, predict
from napari_unetseg.inference.sliding import tile_slices, tile_weights
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Geometry, Volume


class Echo(nn.Module):
    """The image as the logit, so that whatever tiling does to it can be seen."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1]


def predictor(dims: int, tile: tuple[int, ...], overlap: float = 0.25) -> Predictor:
    plan = Plan(net={"name": "unet", "dims": dims}, inference={"tile": tile, "overlap": overlap})
    return Predictor(Echo().eval(), plan, Compute(torch.device("cpu")))


@pytest.mark.parametrize(
    ("dims", "patch", "tile"),
    [
        (2, None, (512, 512)),
        (2, (128, 128), (256, 256)),
        (2, (256, 384), (512, 512)),
        (2, (640, 128), (640, 256)),
        (3, (32, 64, 128), (96, 96, 128)),
    ],
)
def test_a_tile_is_about_twice_the_patch(dims, patch, tile):
    plan = Plan(net={"name": "unet", "dims": dims}, training={"patch": patch})
    found = Predictor(Echo().eval(), plan, Compute(torch.device("cpu")))
    assert found.tile == tile


@pytest.mark.parametrize(
    ("patch", "size", "side", "tiles"),
    [
        (128, 256, 288, 1),  # an image of two patches is one tile, its margin with it
        (256, 512, 544, 1),
        (128, 512, 320, 2),
        (128, 100, 132, 1),
        (128, 2048, 304, 9),
        (128, 600, 368, 2),
        (96, 256, 288, 1),
    ],
)
def test_tiles_divide_the_image_well(patch, size, side, tiles):
    plan = Plan(net={"name": "unet"}, training={"patch": (patch, patch)})
    axis = Predictor(Echo().eval(), plan, Compute(torch.device("cpu"))).grid((size, size)).axes[0]
    assert (axis.side, len(axis.starts)) == (side, tiles)
    assert all(b - a <= 0.76 * axis.side for a, b in itertools.pairwise(axis.starts))
    given = plan.change(inference={"tile": (288, 288)})
    assert Predictor(Echo().eval(), given, Compute(torch.device("cpu"))).grid((1000, 1000)).side == (288, 288)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 64), (65, 31), (100, 129)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_every_voxel_comes_back_in_2d(shape, overlap):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    out = predictor(2, (32, 32), overlap).probabilities(image)
    np.testing.assert_allclose(out[1], 1 / (1 + np.exp(-image[0])), atol=1e-5)
    np.testing.assert_allclose(out.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 9, 9), (17, 40, 33), (5, 16, 70)])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_voxel_comes_back_in_3d_by_volume_and_by_plane(shape, dims):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    out = predictor(dims, (8, 16, 16)[-dims:]).probabilities(image)
    np.testing.assert_allclose(out[1], 1 / (1 + np.exp(-image[0])), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "side", "overlap"), [(10, 6, 0.25), (512, 512, 0.5), (513, 512, 0.0), (3, 8, 0.9), (97, 16, 0.99)]
)
def test_tiles_cover_evenly_and_overlap_as_asked(size, side, overlap):
    parts = [s[0] for s in tile_slices((size,), (side,), overlap)]
    covered = np.zeros(size, int)
    for part in parts:
        covered[part] += 1
    assert covered.min() == 1 or len(parts) > 1
    assert (covered > 0).all()
    assert all(part.stop - part.start == min(side, size) for part in parts)
    steps = np.diff([part.start for part in parts])
    assert (steps <= max(1, int(min(side, size) * (1 - overlap)))).all()


def test_weights_fall_from_the_middle_and_stay_positive():
    weights = tile_weights((9, 9))
    assert weights[4, 4] == weights.max() == 1
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1, ::-1])


def test_the_tile_under_the_eye_comes_first():
    image = np.zeros((1, 64, 64), np.float32)
    seen = []

    class Watch(Echo):
        def forward(self, x):
            seen.append(float(x.max()))
            return super().forward(x)

    image[0, 60, 60] = 9.0
    plan = Plan(net={"dims": 2}, inference={"tile": (16, 16), "overlap": 0.0})
    ready = Predictor(Watch().eval(), plan, Compute(torch.device("cpu")))
    next(ready.tiles(image, focus=(60, 60)))
    assert seen == [9.0]


def test_stops_between_tiles():
    control = Control()
    run = predictor(2, (16, 16)).tiles(np.zeros((1, 600, 600), np.float32), control=control)
    assert isinstance(next(run), TileDone)
    control.stop()
    with pytest.raises(Stopped):
        next(run)


def small_model(dims: int = 2, channels: int = 1, classes: int = 2) -> Model:
    outputs = 1 if classes == 2 else classes
    plan = Plan(
        net={"name": "unet", "dims": dims, "in_channels": channels, "outputs": outputs, "width": 0.1},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (32,) * dims, "device": "cpu"},
    )
    return Model(build(plan.net).eval(), plan, ("background", *(f"class {i}" for i in range(1, classes))))


def test_mask_lies_on_the_images_grid():
    geometry = Geometry(
        (2.5, 0.7, 0.7), "mm", np.array([[0.7, 0, 0.1, 3], [0, 0.7, 0, -4], [0.1, 0, 2.5, 9], [0, 0, 0, 1.0]])
    )
    image = Volume(np.random.default_rng(0).normal(size=(1, 5, 21, 33)), geometry)
    mask = predict(small_model(), image)
    assert mask.shape == (5, 21, 33)
    assert mask.data.dtype == np.uint8
    assert mask.geometry.matches(geometry)


def test_refuses_an_image_with_other_channels_and_says_so():
    image = Volume(np.zeros((3, 8, 8)))
    with pytest.raises(ModelError, match="3 channels, the model was trained on 1"):
        predict(small_model(), image)


def test_refuses_a_plane_for_a_volume_model():
    with pytest.raises(ModelError, match="2D"):
        predict(small_model(dims=3), Volume(np.zeros((1, 8, 8))))


@pytest.mark.parametrize("data", [np.full((1, 9, 9), 7), np.zeros((1, 1, 1)), np.full((1, 3, 4, 5), 2.5)])
def test_one_value_everywhere_is_refused(data):
    with pytest.raises(ReadError, match="one value everywhere"):
        predict(small_model(), Volume(data))
