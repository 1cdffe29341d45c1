"""Optimisers and schedules by name: values in the Plan, never subclasses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from napari_unetseg.registry import Registry

__all__ = ["OPTIMISERS", "SCHEDULES", "WeightAverage", "make_optimiser"]

OPTIMISERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry("optimiser")
SCHEDULES: Registry[Callable[[float], float]] = Registry("schedule")


@OPTIMISERS.register("adamw")
def adamw(groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=lr, fused=True)


@OPTIMISERS.register("adam")
def adam(groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015): what MultiResUNet, Sharp U-Net, the modular U-Nets and MILDNet were trained with."""
    return torch.optim.Adam(groups, lr=lr, fused=True)


@OPTIMISERS.register("sgd")
def sgd(groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.99."""
    return torch.optim.SGD(groups, lr=lr, momentum=0.99, nesterov=True)


@OPTIMISERS.register("rmsprop")
def rmsprop(groups: list[dict], lr: float) -> torch.optim.Optimizer:
    """RMSprop with Keras' rho 0.9: what FC-ResNet was trained with."""
    return torch.optim.RMSprop(groups, lr=lr, alpha=0.9, eps=1e-8)


def make_optimiser(name: str, net: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters of `net`; weight decay acts on kernels only, not on biases and norms."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMISERS[name]([group for group in groups if group["params"]], lr)


@SCHEDULES.register("constant")
def constant(progress: float) -> float:
    """Keep the learning rate as it is."""
    return 1.0


@SCHEDULES.register("cosine")
def cosine(progress: float) -> float:
    """Fall along half a cosine to a hundredth, after a short warm-up."""
    warm = min(1.0, 0.1 + progress / 0.02)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))


@SCHEDULES.register("polynomial")
def polynomial(progress: float) -> float:
    """Fall as (1 - progress) to the power 0.9, as nnU-Net does."""
    return max(1e-3, (1 - min(progress, 1.0)) ** 0.9)


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
        for ours, other in zip(self.average.buffers(), self.net.buffers(), strict=True):
            ours.copy_(other)
