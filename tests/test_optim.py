"""Optimisers and schedules by name, and the running average of weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from napari_unetseg.errors import UnknownName
from napari_unetseg.optim import OPTIMISERS, SCHEDULES, Moment, WeightAverage, clip_gradients, make_optimiser
from napari_unetseg.plan import TrainingPlan


@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_every_optimiser_goes_downhill(name):
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimiser = make_optimiser(net, TrainingPlan(optimiser=name, learning_rate=1e-2))
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
    kernels, others = make_optimiser(net, TrainingPlan(weight_decay=0.5)).param_groups
    assert (len(kernels["params"]), kernels["weight_decay"]) == (1, 0.5)
    assert (len(others["params"]), others["weight_decay"]) == (3, 0.0)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_every_schedule_stays_between_nothing_and_one(name):
    plan = TrainingPlan(decay=1e-3, patience=3)
    factors = [SCHEDULES[name](Moment(i / 50, 10 * i, (0.5,) * i), plan) for i in range(56)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[-1] == 1.0 if name == "constant" else factors[-1] < max(factors)
    assert SCHEDULES.describe(name)


def test_plateau_falls_when_torchs_does():
    """torch counts the validations beyond its patience, Keras (and we) those up to it."""
    rng = np.random.default_rng(0)
    scores = np.round(np.minimum.accumulate(rng.random(80))[::-1] + 0.05 * rng.random(80), 3).tolist()
    plan = TrainingPlan(patience=3)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=0.1, patience=2, threshold=1e-4, threshold_mode="abs", min_lr=1e-6
    )
    for count, score in enumerate(scores, start=1):
        theirs.step(score)
        ours = SCHEDULES["plateau"](Moment(0.5, count, tuple(scores[:count])), plan)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"])
    assert 1e-6 <= ours < 1


def test_decay_is_keras_per_update():
    plan = TrainingPlan(decay=1e-3)
    assert SCHEDULES["decay"](Moment(0.9, 0), plan) == 1.0
    assert SCHEDULES["decay"](Moment(0.1, 1000), plan) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", {"betas": (0.8, 0.99), "eps": 1e-7}),
        ("adamw", {"betas": (0.8, 0.99), "eps": 1e-7}),
        ("sgd", {"momentum": 0.8, "nesterov": True}),
        ("rmsprop", {"momentum": 0.8, "alpha": 0.99, "eps": 1e-7}),
    ],
)
def test_the_plan_sets_what_an_optimiser_has(name, expected):
    plan = TrainingPlan(optimiser=name, momentum=0.8, smoothing=0.99, epsilon=1e-7)
    group = make_optimiser(nn.Linear(1, 1), plan).param_groups[0]
    assert {key: group[key] for key in expected} == expected


def test_weight_decay_is_twice_keras_l2():
    """One step of plain SGD on a loss of zero moves a kernel as the gradient of l2 * sum(w ** 2) does."""
    l2, rate = 0.05, 0.1
    net = nn.Linear(2, 1, bias=False)
    weight = net.weight.detach().clone().requires_grad_()
    (l2 * weight.square().sum()).backward()
    plan = TrainingPlan(optimiser="sgd", learning_rate=rate, momentum=0.0, weight_decay=2 * l2)
    optimiser = make_optimiser(net, plan)
    net.weight.grad = torch.zeros_like(net.weight)
    optimiser.step()
    torch.testing.assert_close(net.weight.detach(), weight.detach() - rate * weight.grad)


def test_unknown_names_say_what_comes_near():
    with pytest.raises(UnknownName, match="Did you mean adam"):
        make_optimiser(nn.Linear(1, 1), TrainingPlan(optimiser="adamm"))


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


def test_an_average_without_memory_is_the_net_itself():
    net = nn.Linear(2, 2)
    average = WeightAverage(net, copy.deepcopy(net), decay=0.0)
    with torch.no_grad():
        net.weight.add_(1.0)
    average.update(step=100)
    torch.testing.assert_close(average.average.weight, net.weight)


@pytest.mark.parametrize("most", [0.5, 50.0])
def test_gradients_are_clipped_as_torch_does_it(most):
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    for net in nets:
        for index, p in enumerate(net.parameters()):
            p.grad = torch.full_like(p, 2.0 + index)
    clip_gradients(nets[0], most)
    nn.utils.clip_grad_norm_(nets[1].parameters(), most)
    for ours, theirs in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
