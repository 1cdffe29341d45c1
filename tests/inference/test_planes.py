"""A 2D net along all three axes of a volume, and with neighbouring planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import blobs, folder_of_blobs
from torch import nn

from napari_unetseg.data.patches import PatchSampler, Prepared
from napari_unetseg.devices import Compute
from napari_unetseg.errors import ModelError, PlanError
from napari_unetseg.events import Running, TileDone
from napari_unetseg.inference import Predictor, predict
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.training import fine_tune
from napari_unetseg.volume import Geometry, Volume


class Pixelwise(nn.Module):
    """Logit of a pixel from its own channels alone: what it gives does not depend on the axis looked along."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1, keepdim=True)


def predictor(neighbours: int = 0, net: nn.Module | None = None, axes: str = "all") -> Predictor:
    plan = Plan(
        net={"dims": 2, "in_channels": 2 * neighbours + 1},
        data={"neighbours": neighbours},
        inference={"tile": (16, 16), "axes": axes},
    )
    return Predictor((net or Pixelwise()).eval(), plan, Compute(torch.device("cpu")))


def run(ready: Predictor, image: np.ndarray, spacing=None) -> tuple[np.ndarray, list[TileDone]]:
    tiles = Running(ready.tiles(image, spacing=spacing))
    events = list(tiles)
    return tiles.result, events


@pytest.mark.parametrize("shape", [(9, 20, 33), (1, 17, 5)])
def test_every_voxel_comes_back_along_every_axis(shape, monkeypatch):
    import napari_unetseg.inference.planes as planes

    monkeypatch.setattr(planes, "_SLAB", 700)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    out, events = run(predictor(), image)
    np.testing.assert_allclose(out[1], 1 / (1 + np.exp(-image[0])), atol=1e-5)
    assert events[-1].done == events[-1].total
    assert [e.done for e in events] == sorted(e.done for e in events)


def test_thick_planes_are_stretched_before_and_after():
    class Square(Pixelwise):
        def forward(self, x):
            seen.append(tuple(x.shape[2:]))
            return super().forward(x)

    seen: list[tuple[int, ...]] = []
    ready = predictor(net=Square())
    ready = Predictor(ready.net, ready.plan.change(inference={"tile": (64, 64), "margin": 0}), ready.compute)
    smooth = np.linspace(-1, 1, 10, dtype=np.float32)[:, None, None] + np.zeros((10, 12, 14), np.float32)
    out, _ = run(ready, smooth[None], spacing=(3.0, 1.0, 1.0))
    assert set(seen) == {(12, 14), (30, 14), (30, 12)}
    np.testing.assert_allclose(out[1], 1 / (1 + np.exp(-smooth)), atol=0.02)


def test_three_axes_are_averaged_and_not_taken_from_one():
    torch.manual_seed(0)
    net = build(Plan(net={"width": 0.1, "depth": 2}).net)
    image = np.random.default_rng(0).normal(size=(1, 12, 16, 20)).astype(np.float32)
    out, _ = run(predictor(net=net), image)
    one = predictor(net=net, axes="planes")
    each = [
        np.moveaxis(one.probabilities(np.ascontiguousarray(np.moveaxis(image, 1 + a, 1))), 1, 1 + a) for a in range(3)
    ]
    np.testing.assert_allclose(out, np.mean(each, axis=0), atol=1e-4)


def test_a_net_sees_the_neighbours_of_its_plane():
    image = np.arange(5, dtype=np.float32)[None, :, None, None] * np.ones((1, 5, 8, 8), np.float32)
    out = predictor(1, axes="planes").probabilities(image)[1]
    np.testing.assert_allclose(out[:, 4, 4], 1 / (1 + np.exp(-np.array([2 / 3, 1, 2, 3, 10 / 3]))), atol=1e-4)


def test_patches_hold_the_neighbours_as_channels():
    image = np.arange(6, dtype=np.float32)[None, :, None, None] * np.ones((2, 6, 20, 20), np.float32)
    image[1] += 10
    target = np.arange(6)[:, None, None] * np.ones((6, 20, 20), int)
    case = Prepared("a", image, target.astype(np.uint8), np.ones((6, 20, 20), bool))
    batch = PatchSampler([case], (8, 8), 6, neighbours=1).draw(12)
    assert batch.image.shape == (12, 6, 8, 8)
    for pixels, label in zip(batch.image[:, :, 4, 4].tolist(), batch.target[:, 4, 4].tolist(), strict=True):
        below, above = (1, 1) if label == 0 else (4, 4) if label == 5 else (label - 1, label + 1)
        assert pixels == [below, below + 10, label, label + 10, above, above + 10]


def test_neighbours_are_learned_from_and_used(tmp_path):
    folder = folder_of_blobs(tmp_path, 2, (8, 32, 32), suffix=".nii")
    plan = Plan(
        net={"width": 0.1, "depth": 2},
        data={"neighbours": 1},
        training={"epochs": 1, "steps_per_epoch": 2, "patch": (16, 16), "device": "cpu", "precision": "float32"},
    )
    model = fine_tune(folder, plan)
    assert (model.plan.net.dims, model.plan.net.in_channels, model.plan.image_channels) == (2, 3, 1)
    image, _ = blobs((8, 32, 32))
    assert predict(model, Volume(image[None])).shape == (8, 32, 32)
    with pytest.raises(ModelError, match="neighbouring planes"):
        predict(model, Volume(image[None, 0]))
    flat = folder_of_blobs(tmp_path / "flat", 2, (32, 32))
    with pytest.raises(PlanError, match="2D nets on volumes"):
        fine_tune(flat, plan)


def test_the_spacing_of_the_image_is_used():
    plan = Plan(
        net={"width": 0.1, "depth": 2},
        data={"normalisation": {"kind": "none"}},
        training={"patch": (16, 16), "device": "cpu", "precision": "float32"},
        inference={"axes": "all"},
    )
    torch.manual_seed(0)
    model = Model(build(plan.net).eval(), plan, ("background", "cell"))
    data = np.random.default_rng(0).normal(size=(1, 6, 20, 20)).astype(np.float32)
    thick, cubes = (predict(model, Volume(data, Geometry((s, 1.0, 1.0)))).data for s in (4.0, 1.0))
    assert (thick != cubes).any()
