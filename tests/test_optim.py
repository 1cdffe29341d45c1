"""Optimisers and schedules by name, and the running average of weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from napari_unetseg.errors import UnknownName
from napari_unetseg.optim import OPTIMISERS, SCHEDULES, WeightAverage, make_optimiser


@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_every_optimiser_goes_downhill(name):
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimiser = make_optimiser(name, net, 1e-2, 1e-4)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    losses = []
    for _ in range(40):
        loss = ((net(x) - y) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert OPTIMISERS.describe(name)


def test_weight_decay_leaves_biases_and_norms_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    kernels, others = make_optimiser("adamw", net, 1e-3, 0.5).param_groups
    assert (len(kernels["params"]), kernels["weight_decay"]) == (1, 0.5)
    assert (len(others["params"]), others["weight_decay"]) == (3, 0.0)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_every_schedule_stays_between_nothing_and_one(name):
    factors = [SCHEDULES[name](i / 50) for i in range(56)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[-1] <= max(factors)


def test_unknown_names_say_what_comes_near():
    with pytest.raises(UnknownName, match="Did you mean adam"):
        make_optimiser("adamm", nn.Linear(1, 1), 1, 0)


def test_average_follows_the_net_and_its_buffers():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(net, copy.deepcopy(net), decay=0.9)
    start = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.add_(1.0)
        net[1].running_mean.fill_(3.0)
    average.update(step=1)
    moved = (average.average[0].weight - start).mean().item()
    assert moved == pytest.approx(1 - 2 / 11, abs=1e-5)
    assert average.average[1].running_mean.tolist() == [3.0, 3.0]
    assert not any(p.requires_grad for p in average.average.parameters())
