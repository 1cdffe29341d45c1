"""Free composition of parts, depth, dropout, deep supervision, options, and what a wrong wish gets."""

from __future__ import annotations

import pytest
import torch

from napari_unetseg.errors import PlanError, UnknownName
from napari_unetseg.nets import BLOCKS, DOWNS, NETS, SKIPS, UPS, build, count_parameters
from napari_unetseg.nets.multires import MultiResBlock
from napari_unetseg.nets.skips import SharpSkip
from napari_unetseg.plan import NetSpec, Plan


def made(name="unet", **spec):
    return build(NetSpec(name=name, **{"width": 0.125, **spec}))


PARTS = [
    (kind, part)
    for kind, registry in {"block": BLOCKS, "skip": SKIPS, "down": DOWNS, "up": UPS}.items()
    for part in registry
]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_every_part_fits_into_unet(kind, part, dims):
    size = (20, 33) if dims == 2 else (8, 10, 9)
    net = made(dims=dims, parts={kind: part}, depth=3)
    logits = net(torch.randn(2, 1, *size))
    assert logits.shape == (2, 1, *size)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", [name for name in NETS if hasattr(made(name).net, "skip")])
def test_every_u_takes_another_skip(name):
    net = made(name, parts={"skip": "add"})
    assert net(torch.randn(1, 1, 32, 64)).shape == (1, 1, 32, 64)


def test_multires_blocks_with_sharp_skips():
    net = made(parts={"block": "multires", "skip": "sharp"})
    assert isinstance(net.net.skip, SharpSkip)
    assert all(isinstance(block, MultiResBlock) for block in [*net.net.encoder.blocks, *net.net.blocks])


def test_composition_survives_the_plan_as_json():
    plan = Plan(net=NetSpec(width=0.125, parts={"block": "multires", "skip": "sharp"}))
    again = Plan.from_json(plan.to_json())
    assert count_parameters(build(again.net)) == count_parameters(build(plan.net))


@pytest.mark.parametrize(("depth", "divisor"), [(2, 2), (4, 8), (6, 32)])
def test_depth(depth, divisor):
    net = made(depth=depth)
    assert net.divisor == divisor
    assert net(torch.randn(1, 1, 7, 9)).shape == (1, 1, 7, 9)


def test_width_scales_the_features():
    half, whole = (count_parameters(made(width=width))["trainable"] for width in (0.5, 1))
    assert 3.9 < whole / half < 4.1


def test_dropout_acts_in_training_only():
    net = made(dropout=0.5)
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(("name", "heads"), [("unet", 4), ("unet++", 4), ("multiresunet", 4)])
def test_deep_supervision_gives_a_list_at_full_size(name, heads):
    net = made(name, parts={"deep_supervision": True}, outputs=2)
    x = torch.randn(1, 1, 20, 30)
    logits = net(x)
    assert [each.shape for each in logits] == [(1, 2, 20, 30)] * heads
    net.eval()
    assert net(x).shape == (1, 2, 20, 30)


def test_unet_plus_plus_averages_its_heads_in_evaluation():
    net = made("unet++", parts={"deep_supervision": True})
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        mean = torch.stack(net(x)).mean(dim=0)
        torch.testing.assert_close(net.eval()(x), mean)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"parts": {"blok": "multires"}}, "blok"),
        ({"parts": {"kernel": "laplacian"}}, "kernel"),
        ({"name": "mildnet", "parts": {"merge": "product"}}, "merge"),
        ({"name": "fcresnet", "parts": {"skip": "add"}}, "skip"),
        ({"name": "fcresnet", "depth": 4}, "resolution levels"),
        ({"name": "resnet50-unet", "parts": {"down": "strided"}}, "down-sampling"),
        ({"pretrained": "vgg16"}, "start weights"),
        ({"name": "fcn8", "width": 0.5, "pretrained": "vgg16"}, "width"),
    ],
)
def test_what_cannot_be_is_said(spec, says):
    with pytest.raises(PlanError) as error:
        build(NetSpec(**spec))
    assert says in str(error.value)
    assert error.value.hint


def test_unknown_names_come_with_a_suggestion():
    with pytest.raises(UnknownName, match="unet"):
        build(NetSpec(name="u-net"))
    with pytest.raises(UnknownName, match="multires"):
        made(parts={"block": "multi-res"})


def test_options_come_as_lists_from_json():
    made("mildnet", parts={"rates": [1, 2, 4]})
