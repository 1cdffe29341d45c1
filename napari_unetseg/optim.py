"""Optimisers and schedules by name: values in the Plan, never subclasses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from napari_unetseg.plan import TrainingPlan
from napari_unetseg.registry import Registry

__all__ = ["OPTIMISERS", "SCHEDULES", "Moment", "WeightAverage", "clip_gradients", "make_optimiser", "make_scaler"]

_LEAST_GAIN = 1e-4  # in Dice: a score that is better by less counts as no better


@dataclass(frozen=True)
class Moment:
    """How far a training is: all that a schedule may look at.

    Attributes
    ----------
    done : float
        Share of the budget that is used, 0 to 1.
    updates : int
        Optimiser steps done.
    scores : tuple of float
        Mean Dice of every validation so far, in order.
    """

    done: float = 0.0
    updates: int = 0
    scores: tuple[float, ...] = ()


OPTIMISERS: Registry[Callable[[list[dict], TrainingPlan], torch.optim.Optimizer]] = Registry("optimiser")
SCHEDULES: Registry[Callable[[Moment, TrainingPlan], float]] = Registry("schedule")


@OPTIMISERS.register("adamw")
def adamw(groups: list[dict], plan: TrainingPlan) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(groups, plan.learning_rate, _betas(plan), plan.epsilon or 1e-8, fused=True)


@OPTIMISERS.register("adam")
def adam(groups: list[dict], plan: TrainingPlan) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015): what MultiResUNet, Sharp U-Net, the modular U-Nets and MILDNet were trained with."""
    return torch.optim.Adam(groups, plan.learning_rate, _betas(plan), plan.epsilon or 1e-8, fused=True)


@OPTIMISERS.register("sgd")
def sgd(groups: list[dict], plan: TrainingPlan) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum, 0.99 unless the plan says otherwise."""
    momentum = _or(plan.momentum, 0.99)
    return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=momentum, nesterov=momentum > 0)


@OPTIMISERS.register("rmsprop")
def rmsprop(groups: list[dict], plan: TrainingPlan) -> torch.optim.Optimizer:
    """RMSprop with Keras' rho 0.9: what FC-ResNet was trained with."""
    return torch.optim.RMSprop(
        groups,
        lr=plan.learning_rate,
        alpha=_or(plan.smoothing, 0.9),
        eps=plan.epsilon or 1e-8,
        momentum=_or(plan.momentum, 0.0),
    )


def _betas(plan: TrainingPlan) -> tuple[float, float]:
    return _or(plan.momentum, 0.9), _or(plan.smoothing, 0.999)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def make_optimiser(net: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """Optimiser of `plan` over the trainable parameters of `net`.

    Weight decay acts on kernels only, not on biases and norms. It is torch's, half of whose gradient a penalty
    ``l2 * sum(w ** 2)`` would have: Keras' ``l2(d)`` is a weight decay of ``2 d``.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMISERS[plan.optimiser]([group for group in groups if group["params"]], plan)


def make_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """What keeps small gradients from vanishing in float16; it does nothing in any other precision."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def clip_gradients(net: nn.Module, most: float) -> None:
    """Scale the gradients of a net so that together they are no longer than `most`."""
    parameters = [p for p in net.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # to multiply all by one takes as long as the norm; to look at a number on a card would be to wait for it
    if norm.device.type != "cpu" or not norm <= most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)


@SCHEDULES.register("constant")
def constant(moment: Moment, plan: TrainingPlan) -> float:
    """Keep the learning rate as it is."""
    return 1.0


@SCHEDULES.register("cosine")
def cosine(moment: Moment, plan: TrainingPlan) -> float:
    """Fall along half a cosine to a hundredth, after a short warm-up."""
    warm = min(1.0, 0.1 + moment.done / 0.02)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(moment.done, 1.0))))


@SCHEDULES.register("polynomial")
def polynomial(moment: Moment, plan: TrainingPlan) -> float:
    """Fall as (1 - progress) to the power 0.9, as nnU-Net does."""
    return max(1e-3, (1 - min(moment.done, 1.0)) ** 0.9)


@SCHEDULES.register("plateau")
def plateau(moment: Moment, plan: TrainingPlan) -> float:
    """Fall to a tenth whenever `patience` validations in a row were no better than the best before them."""
    factor, best, waited = 1.0, -math.inf, 0
    for score in moment.scores:
        if score > best + _LEAST_GAIN:
            best, waited = score, 0
        else:
            waited += 1
        if waited >= plan.patience:
            factor, waited = factor / 10, 0
    return max(factor, 1e-6)


@SCHEDULES.register("decay")
def decay(moment: Moment, plan: TrainingPlan) -> float:
    """Fall as 1 / (1 + decay * updates), update by update, as Keras' optimisers did."""
    return 1 / (1 + plan.decay * moment.updates)


class WeightAverage:
    """Running average of a net's weights: what is validated, shown and saved.

    It is smoother than the net at any one step, which counts when the whole training lasts a minute. The decay grows
    with the number of steps, ``min(decay, (1 + step) / (10 + step))``, so that the average is never behind early on.
    """

    def __init__(self, net: nn.Module, average: nn.Module, decay: float = 0.99) -> None:
        self.net, self.average, self.decay = net, average, decay
        self.average.load_state_dict(net.state_dict())
        self.average.requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the net after optimiser step number `step`."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        mine: list[torch.Tensor] = list(self.average.parameters())
        theirs: list[torch.Tensor] = list(self.net.parameters())
        torch._foreach_lerp_(mine, theirs, weight)
        buffers: list[torch.Tensor] = list(self.average.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(self.net.buffers()))
