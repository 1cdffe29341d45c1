"""Shared layers: normalisation, padding, sharpening."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_unetseg.nets.assembly import Padded
from napari_unetseg.nets.blocks import BatchNorm, Layers, fit
from napari_unetseg.nets.skips import Sharpen


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_batch_norm_is_plain_batch_norm_on_its_first_batch():
    x = 3 + 2 * torch.randn(4, 5, 8, 8)
    ours, theirs = BatchNorm(5), nn.BatchNorm2d(5, eps=1e-3)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_batch_norm_gives_the_gradient_of_batch_norm_on_its_first_batch():
    x = torch.randn(4, 5, 8, 8, dtype=torch.float64)
    grads = []
    for norm in (BatchNorm(5), nn.BatchNorm2d(5, eps=1e-3)):
        leaf = x.clone().requires_grad_()
        (norm.double()(leaf) * torch.linspace(0, 1, 64, dtype=torch.float64).view(8, 8).sin()).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)


def test_batch_norm_converges_to_the_statistics_of_the_data():
    norm = BatchNorm(2)
    for _ in range(2000):
        norm(
            torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
            + torch.tensor([0.5, 3.0]).view(1, 2, 1, 1) * torch.randn(1, 2, 8, 8)
        )
    torch.testing.assert_close(norm.running_mean, torch.tensor([1.0, -2.0]), rtol=0.1, atol=0.1)
    torch.testing.assert_close(norm.running_var.sqrt(), torch.tensor([0.5, 3.0]), rtol=0.1, atol=0.05)


def test_batch_norm_takes_one_voxel_and_keeps_its_statistics():
    norm = BatchNorm(3)
    norm(torch.randn(2, 3, 8, 8))
    kept = norm.running_var.clone()
    x = torch.randn(1, 3, 1, 1, requires_grad=True)
    norm(x).square().sum().backward()
    assert torch.equal(norm.running_var, kept)
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize("size", [1, 2, 8])
def test_batch_norm_may_run_twice_before_its_gradient(size):
    norm = BatchNorm(3)
    (norm(torch.randn(1, 3, size, size)).sum() + norm(torch.randn(1, 3, size, size)).sum()).backward()
    assert norm.bias.grad is not None


@pytest.mark.parametrize("size", [1, 8])
def test_batch_norm_in_half_precision(size):
    norm = BatchNorm(3)
    x = torch.randn(2, 3, size, size)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(norm.eval()(x), out.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", ["batch", "instance", "group", "none"])
def test_norms_take_one_voxel(kind):
    assert torch.isfinite(Layers(2, kind).norm(6)(torch.randn(1, 6, 1, 1))).all()


def test_keras_and_he_initialisation():
    conv = Layers(2, init="glorot-uniform").conv(32, 64)
    limit = (6 / (9 * (32 + 64))) ** 0.5
    assert conv.weight.abs().max() <= limit
    assert conv.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert not conv.bias.any()
    assert Layers(2, init="he-normal").conv(32, 64).weight.std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.05)


class Remember(nn.Module):
    def forward(self, x):
        self.seen = x
        return x


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16), (17, 31), (2, 40), (3, 5, 9)])
def test_padding_gives_the_image_back(size):
    inner = Remember()
    x = torch.randn(2, 3, *size)
    assert torch.equal(Padded(inner, 16)(x), x)
    assert all(n % 16 == 0 for n in inner.seen.shape[2:])


def test_padding_reflects_on_both_sides():
    inner = Remember()
    Padded(inner, 8)(torch.arange(5.0).view(1, 1, 1, 5))
    assert inner.seen[0, 0, 0].tolist() == [1, 0, 1, 2, 3, 4, 3, 2]


def test_no_padding_no_copy():
    inner = Remember()
    x = torch.randn(1, 1, 16, 32)
    Padded(inner, 16)(x)
    assert inner.seen is x


def test_fit_crops_and_pads_the_far_side():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert fit(x, torch.Size((1, 4)))[0, 0].tolist() == [[0, 1, 2, 2]]


def test_sharpening_an_impulse():
    impulse = torch.zeros(1, 2, 5, 5)
    impulse[:, :, 2, 2] = 1
    out = Sharpen(2, 2)(impulse)
    expected = -torch.ones(3, 3)
    expected[1, 1] = 8
    assert torch.equal(out[0, 0, 1:4, 1:4], expected)
    assert torch.equal(out[0, 1], out[0, 0])
    assert out.abs().sum() == 2 * 16


@pytest.mark.parametrize(("dims", "centre"), [(2, 8), (3, 26)])
def test_sharpening_kernel(dims, centre):
    weight = Sharpen(dims, 4).weight
    assert weight.shape == (4, 1, *[3] * dims)
    assert weight.flatten(1).sum(dim=1).tolist() == [0] * 4
    assert weight.amax() == centre
    assert Sharpen(dims, 4, kernel="identity+laplacian").weight.amax() == centre + 1


def test_sharpening_a_constant_leaves_only_the_border():
    out = Sharpen(2, 1)(torch.ones(1, 1, 6, 6))[0, 0]
    assert not out[1:-1, 1:-1].any()
    assert out[0, 2] == 3
    assert out[0, 0] == 5


def test_sharpening_is_not_learnt_unless_asked():
    assert not list(Sharpen(2, 3).parameters())
    assert len(list(Sharpen(2, 3, trainable=True).parameters())) == 1
