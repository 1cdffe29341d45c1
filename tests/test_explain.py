"""Explanations: against numbers made by hand, against captum, on every net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_unetseg.errors import ModelError, PlanError, Stopped
from napari_unetseg.events import Control
from napari_unetseg.explain import EXPLANATIONS, decoder_saliency, explain, gradcam, object_at, saliency
from napari_unetseg.nets import NETS, Model, build
from napari_unetseg.nets.assembly import UShape
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.volume import Geometry, Volume


def model_of(name="unet", dims=2, channels=1, classes=("background", "cell"), **more):
    torch.manual_seed(0)
    outputs = 1 if len(classes) == 2 else len(classes)
    spec = NetSpec(name=name, dims=dims, in_channels=channels, outputs=outputs, width=0.1, **more)
    plan = Plan(net=spec, training={"device": "cpu"}).change(data={"normalisation": {"kind": "none"}})
    return Model(build(spec).eval(), plan, classes)


def image_of(*shape, seed=0):
    data = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Volume(data, Geometry((0.5,) * (len(shape) - 1), "um"))


class Weighted(nn.Module):
    """Logits whose gradients are known: 3 a + 1 b for class 1, -2 b for class 2, whatever the place."""

    divisor = 1

    def forward(self, x):
        return torch.stack([0 * x[:, 0], 3 * x[:, 0] + x[:, 1], -2 * x[:, 1] * torch.arange(x.shape[-1])], dim=1)


def test_saliency_by_hand():
    model = model_of(channels=2, classes=("background", "one", "two"))
    model.net = Weighted()
    image = image_of(2, 6, 5)
    found = saliency(model, image, 1)
    assert found.names == ("channel 0", "channel 1")
    assert "'one'" in found.legend
    assert np.array_equal(found.maps.data, np.ones((2, 6, 5)))  # constant gradients, each stretched to 1
    second = saliency(model, image, 2).maps.data
    assert not second[0].any()
    assert np.allclose(second[1], np.arange(5) / 4)
    box = saliency(model, image, 2, (slice(0, 2), slice(1, 3))).maps.data[1]
    assert np.allclose(box[0], [0, 0.5, 1, 0, 0])
    assert not box[2:].any()
    some = np.zeros((6, 5), bool)
    some[3, 2] = True
    assert np.argwhere(saliency(model, image, 2, some).maps.data[1]).tolist() == [[3, 2]]


def test_saliency_by_small_changes():
    """The gradient of a U-Net, by nudging single pixels of an image of odd size."""
    model, image = model_of(channels=2, depth=2), image_of(2, 7, 9)
    model.net = model.net.double()
    model.net.register_forward_pre_hook(lambda _, x: (x[0].double(),))
    found = saliency(model, image, 1).maps.data
    plain = torch.from_numpy(image.data).double()

    def total(x):
        return model.net(x[None]).sum().item()

    slopes = np.zeros((2, 7, 9))
    for place in np.ndindex(2, 7, 9):
        nudged = plain.clone()
        nudged[place] += 1e-4
        slopes[place] = abs(total(nudged) - total(plain)) / 1e-4
    for channel in range(2):
        assert np.allclose(found[channel], slopes[channel] / slopes[channel].max(), atol=0.02)


def test_gradcam_by_small_changes():
    """alpha_k from nudging the whole of a channel where the decoder joins: S then changes by alpha_k a voxel."""
    model, image = model_of(depth=2, classes=("background", "a", "b")), image_of(1, 8, 8)
    u = next(module for module in model.net.modules() if isinstance(module, UShape))
    x = torch.from_numpy(image.data)[None].double()
    found = gradcam(model, image, 2)
    assert found.names == ("level 1 of 1",)
    model.net.double()
    kept = []

    def total(channel=None):
        def nudge(_, inputs):
            kept.append(inputs[0].detach().clone())
            change = torch.zeros_like(inputs[0])
            if channel is not None:
                change[:, channel] = 1e-5
            return (inputs[0] + change,)

        hook = u.blocks[0].register_forward_pre_hook(nudge)
        value = model.net(x)[0, 2].sum().item()
        hook.remove()
        return value

    base = total()
    alpha = [(total(channel) - base) / 1e-5 / 64 for channel in range(kept[0].shape[1])]
    cam = sum(a * activation for a, activation in zip(alpha, kept[0][0], strict=True)).relu().numpy()
    assert cam.max() > 0
    assert np.allclose(found.maps.data[0], cam / cam.max(), atol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_agrees_with_captum(dims):
    attr = pytest.importorskip("captum.attr")
    model, image = model_of(dims=dims, depth=3), image_of(1, *(16,) * dims)
    x = torch.from_numpy(image.data)[None]
    u = next(module for module in model.net.modules() if isinstance(module, UShape))
    shown = 0
    for class_index, sign in ((0, -1), (1, 1)):

        def forward(x, sign=sign):
            return sign * model.net(x).sum().reshape(1)

        theirs = attr.Saliency(forward).attribute(x.clone().requires_grad_())[0]
        mine = saliency(model, image, class_index).maps.data
        assert np.allclose(mine, (theirs / theirs.max()).detach().numpy(), atol=1e-4)
        mine = gradcam(model, image, class_index).maps.data
        for number, block in enumerate(u.blocks):
            cam = attr.LayerGradCam(forward, block).attribute(x, attribute_to_layer_input=True, relu_attributions=True)
            cam = nn.functional.interpolate(cam, x.shape[2:], mode="bilinear" if dims == 2 else "trilinear")[0, 0]
            shown += bool(cam.max() > 0)
            assert np.allclose(mine[number], (cam / cam.max().clamp_min(1e-20)).detach().numpy(), atol=1e-4)
    assert shown >= 2


def test_decoder_saliency_averages_levels():
    """With one decoder level it is the gradient there: zero where S is not summed, beyond the last block's reach."""
    model, image = model_of(depth=2), image_of(1, 16, 16)
    found = decoder_saliency(model, image, 1, (slice(0, 4), slice(0, 16))).maps.data
    assert found.shape == (1, 16, 16)
    assert (found[0, :4] > 0).all()
    assert not found[0, 4:].any()  # only the 1x1 head follows the last block
    deeper = decoder_saliency(model_of(depth=3), image, 1, (slice(0, 4), slice(0, 16))).maps.data
    assert deeper[0, 4:].any()


@pytest.mark.parametrize("method", list(EXPLANATIONS))
@pytest.mark.parametrize("name", list(NETS))
def test_every_net(method, name):
    """Maps in [0, 1] on the image's grid from every U-shaped net; a clear refusal where there is no decoder."""
    model = model_of(name)
    image = image_of(1, 33, 40)
    u_shaped = any(isinstance(module, UShape) for module in model.net.modules())
    if method != "saliency" and not u_shaped:
        with pytest.raises(ModelError, match="no decoder"):
            explain(method, model, image)
        return
    found = explain(method, model, image)
    assert found.maps.shape == image.shape
    assert found.maps.geometry is image.geometry
    assert len(found.names) == len(found.maps.data)
    assert np.isfinite(found.maps.data).all()
    assert found.maps.data.min() >= 0
    assert found.maps.data.max() == pytest.approx(1) or method == "gradcam"


def test_planes_and_tiles():
    """A 2D net explains the planes asked for; a large image is explained tile by tile without a seam."""
    model = model_of(depth=2)
    stack = image_of(1, 3, 20, 20)
    found = saliency(model, stack, 1, (slice(1, 2), slice(None), slice(None))).maps.data
    assert found[0, 1].any()
    assert not found[0, [0, 2]].any()
    image = image_of(1, 60, 60)
    whole = saliency(model, image, 1).maps.data
    model.plan = model.plan.change(inference={"tile": (40, 40), "overlap": 0.5})
    tiled = saliency(model, image, 1).maps.data
    assert np.corrcoef(whole.ravel(), tiled.ravel())[0, 1] > 0.97


def test_bad_questions():
    model, image = model_of(), image_of(1, 16, 16)
    with pytest.raises(PlanError, match="no class 2"):
        saliency(model, image, 2)
    with pytest.raises(PlanError, match="empty"):
        saliency(model, image, 1, np.zeros((16, 16), bool))
    with pytest.raises(PlanError, match="shape"):
        saliency(model, image, 1, np.ones((4, 4), bool))
    with pytest.raises(ModelError, match="channels"):
        saliency(model, image_of(3, 16, 16), 1)


@pytest.mark.parametrize("method", list(EXPLANATIONS))
@pytest.mark.parametrize("dims", [2, 3])
def test_one_plane_alone(method, dims):
    model, stack = model_of(dims=dims, depth=2), image_of(1, 5, 20, 24)
    model.plan = model.plan.change(training={"patch": (16, 16, 16)[-dims:]})
    found = explain(method, model, stack, 1, None, 3)
    assert found.maps.shape == (20, 24)
    assert found.maps.geometry.spacing == (0.5, 0.5)
    whole = explain(method, model, stack, 1, (slice(3, 4), slice(None), slice(None)))
    mine, theirs = found.maps.data, whole.maps.data[:, 3]
    top = theirs.reshape(len(theirs), -1).max(axis=1)[:, None, None]
    assert np.allclose(mine, theirs / np.where(top > 0, top, 1), atol=1e-4)


def test_neighbouring_planes_as_channels_are_one_map():
    model, stack = model_of(channels=6, depth=2), image_of(2, 5, 20, 24)
    model.plan = model.plan.change(data={"neighbours": 1})
    found = saliency(model, stack, 1, None, 2)
    assert found.names == ("channel 0", "channel 1")
    assert found.maps.data.shape == (2, 20, 24)
    assert saliency(model, stack, 1, (slice(2, 3),)).maps.data[:, 2] == pytest.approx(found.maps.data, abs=1e-5)


def test_a_click_means_an_object():
    mask = np.zeros((12, 12), np.uint8)
    mask[1:4, 1:4] = mask[6:9, 1:4] = 1
    mask[4, 4] = 1  # touches the first over a corner only
    region, label = object_at(mask, (2.3, 2.4))
    assert label == 1
    assert np.argwhere(region).tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]
    background, label = object_at(mask, (11, 11))
    assert label == 0
    assert background.sum() == (mask == 0).sum()
    around, label = object_at(mask, (11, 11), 1)
    assert label == 1
    assert around[3:, 3:].all()
    assert around.sum() == 81
    with pytest.raises(PlanError, match="outside"):
        object_at(mask, (12, 0))
    with pytest.raises(PlanError, match="outside"):
        object_at(mask, (1, 1, 1))


@pytest.mark.parametrize("method", list(EXPLANATIONS))
def test_it_stops_before_the_next_tile(method):
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        explain(method, model_of(depth=2), image_of(1, 16, 16), control=control)
