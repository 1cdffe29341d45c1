"""What a training step of a plan needs: memory, counted without allocating any of it, and seconds, measured."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from napari_unetseg.devices import Compute
from napari_unetseg.events import Control
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import build
from napari_unetseg.nets.stopping import interruptible
from napari_unetseg.optim import WeightAverage, make_optimiser
from napari_unetseg.plan import NetSpec, Plan

__all__ = ["Cost", "measure_step", "net_cost", "step_memory", "steps_per_epoch"]

_COPIES = 6  # of the weights: net, gradients, two moments of the optimiser, running average, best so far
_WORKSPACE = 1.5  # gradients on the way back, convolutions, fragmentation; beside `benchmarks/results/nets.md`
_HALF = 0.6  # of the memory of float32: weights and statistics stay float32 in autocast
_LONG_STEP = 0.6  # seconds: a longer step is measured on one patch


@dataclass(frozen=True)
class Cost:
    """What one patch costs a net.

    Attributes
    ----------
    weights : int
        Bytes of the weights.
    kept : int
        Bytes in float32 that the forward pass of a patch keeps for the way back.
    divisor : int
        Factor by which the coarsest level is smaller than the patch.
    """

    weights: int
    kept: int
    divisor: int


@functools.lru_cache(maxsize=64)
def _counted(spec: str, patch: tuple[int, ...]) -> Cost:
    wanted = NetSpec.model_validate_json(spec)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "meta" and not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage  # held, so that no other takes its place
        return tensor

    with torch.device("meta"), torch.enable_grad():
        net: Any = build(wanted, start=False).train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = net(torch.empty((1, wanted.in_channels, *patch)))
    del out
    own = {p.untyped_storage()._cdata for p in (*net.parameters(), *net.buffers())}
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return Cost(weights, sum(s.nbytes() for key, s in kept.items() if key not in own), int(net.divisor))


def net_cost(spec: NetSpec, patch: tuple[int, ...]) -> Cost:
    """Count what a patch of a net costs; nothing is allocated."""
    return _counted(spec.model_dump_json(), patch)


def step_memory(spec: NetSpec, patch: tuple[int, ...], batch: int, precision: str = "float32") -> int:
    """Bytes that a training step needs at its peak, the images not counted."""
    cost = net_cost(spec, patch)
    share = 1.0 if precision == "float32" else _HALF
    # logits, loss and augmentation: a few arrays of the size of the patch an output and channel
    around = 4 * math.prod(patch) * (8 * max(2, spec.outputs) + 4 * spec.in_channels + 8)
    return int(_COPIES * cost.weights + batch * (cost.kept * share * _WORKSPACE + around))


def steps_per_epoch(plan: Plan, voxels: Sequence[int]) -> int:
    """Steps an epoch of a completed plan, for images of so many voxels."""
    if plan.training.steps_per_epoch:
        return plan.training.steps_per_epoch
    windows = sum(max(1.0, size / math.prod(plan.patch)) for size in voxels)
    return int(min(250, max(10, windows / (plan.training.batch_size or 1))))


def measure_step(plan: Plan, compute: Compute, control: Control | None = None) -> float:
    """Seconds of a training step of a completed plan on this machine, now: two steps are made and forgotten.

    Of a long step one patch is measured and multiplied. `control` may stop it within a step; `Stopped` is raised.
    """
    batch, training = plan.training.batch_size or 1, plan.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = compute.place(build(plan.net, start=False)).train()
    average = WeightAverage(net, compute.place(build(plan.net, start=False)))
    optimiser = make_optimiser(net, training)

    def step(rows: int) -> float:
        image = compute.place(torch.randn(rows, plan.net.in_channels, *plan.patch))
        target = torch.zeros(rows, *plan.patch, dtype=torch.int64, device=compute.device)
        known = torch.rand(rows, *plan.patch, device=compute.device) < 0.02
        _wait(compute)
        begin = time.perf_counter()
        with compute.autocast():
            logits = net(image)
        head = logits[0] if isinstance(logits, list) else logits
        LOSSES[training.loss](head.float(), target, known).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        average.update(1)
        _wait(compute)
        return time.perf_counter() - begin

    with interruptible(control, net) if control is not None else contextlib.nullcontext():
        first = step(1)
        rows = batch if first * batch < _LONG_STEP else 1
        return step(rows) * batch / rows


def _wait(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
