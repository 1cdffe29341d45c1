"""What a training will do and cost, before it begins: the completed plan, its reasons, its time and its memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from napari_unetseg.data import Dataset, Sample, load_dataset, prepare, split
from napari_unetseg.devices import Compute, choose_compute, choose_device, free_memory
from napari_unetseg.events import Control, until_stopped
from napari_unetseg.plan import Plan
from napari_unetseg.planning.cost import measure_step, step_memory, steps_per_epoch
from napari_unetseg.planning.decide import complete_plan

__all__ = ["Estimate", "plan_for"]

_LEARNING = 0.85  # of the time; the rest is for scores and previews
_FIRST_SCORE = 8.0  # seconds of training, at most, before the first score
_FORWARD = 0.4  # of a step's time that a forward pass takes


@dataclass(frozen=True)
class Estimate:
    """What a training will cost on this machine, as measured a moment ago.

    Attributes
    ----------
    device : str
    steps : int
        Optimiser steps within the budget.
    step_seconds : float
        Seconds of one.
    seconds : float
        Of the whole training.
    first_mask : float
        Seconds until a first mask can be shown.
    memory, free : int or None
        Bytes that a step needs (by count, within a factor of two) and that are free; None where not known.
    """

    device: str
    steps: int
    step_seconds: float
    seconds: float
    first_mask: float
    memory: int
    free: int | None

    def sentence(self) -> str:
        """For the user."""
        free = "" if self.free is None else f" of {_gb(self.free)} free"
        return (
            f"A first mask in about {_duration(self.first_mask)}; this plan takes {_duration(self.seconds)}, "
            f"about {_round(self.steps):,} steps, and {_gb(self.memory)}{free} memory."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "sentence": self.sentence()}


def plan_for(
    data: Any, plan: Plan | None = None, *, minutes: float | None = None, control: Control | None = None
) -> tuple[Plan, tuple[str, ...], Estimate]:
    """Complete a plan for data, say why, and estimate time and memory; nothing is trained.

    Two steps are made on this machine, and forgotten, to measure their time.

    Parameters
    ----------
    data : Project, Dataset, path
        What `napari_unetseg.data.load_dataset` takes.
    plan : Plan, optional
        Fields that are given stay as they are.
    minutes : float, optional
        Time budget; overrules the plan's.
    control : Control, optional
        To stop it, between two images and within a step.

    Returns
    -------
    Plan
        As `fine_tune` would use it.
    tuple of str
        A sentence for every decision.
    Estimate

    Raises
    ------
    AnnotationError
        When there is nothing to learn from.
    PlanError
        When the plan does not fit the images.
    Stopped
        When `control` said stop.
    """
    begin, plan = time.monotonic(), plan or Plan()
    if minutes is not None:
        plan = plan.change(training={"minutes": minutes, "epochs": None})
    dataset = data if isinstance(data, Dataset) else load_dataset(data, plan.data, control=control)
    parts = split(dataset, plan.data, plan.training.seed)
    samples = [part.load() for part in until_stopped(parts.train, control)]
    plan, notes = complete_plan(plan, dataset, samples, choose_device(plan.training.device), control=control)
    reading = (time.monotonic() - begin) * (1 + len(parts.heldout) / len(samples))
    compute = choose_compute(plan.training.device, plan.training.precision, plan.net.dims, control)
    return plan, (*dataset.notes, *notes, compute.why), _estimate(plan, samples, reading, compute, control)


def _estimate(
    plan: Plan, samples: Sequence[Sample], reading: float, compute: Compute, control: Control | None
) -> Estimate:
    begin = time.monotonic()
    prepare(samples[0], plan.normalisation)
    preparing = (time.monotonic() - begin) * sum(s.target.size for s in samples) / samples[0].target.size
    batch, begin = plan.training.batch_size or 1, time.monotonic()
    step = measure_step(plan, compute, control)
    building = max(0.0, time.monotonic() - begin - 2 * step)
    dims = plan.net.dims
    # the plane that the user looks at; for a 3D net with half a patch around it
    viewed = math.prod(samples[0].target.shape[-2:]) * (plan.patch[0] if dims == 3 else 1)
    showing = step * _FORWARD * viewed / (batch * math.prod(plan.patch))
    training = plan.training
    if training.epochs is None:
        seconds = (training.minutes or 0.0) * 60
        steps = max(1, round(seconds * _LEARNING / step))
    else:
        steps = training.epochs * steps_per_epoch(plan, [sample.target.size for sample in samples])
        seconds = steps * step / _LEARNING
    # what is shown before is a net that has seen nothing yet
    first = reading + preparing + building + min(_FIRST_SCORE, 0.12 * seconds) + step + showing
    memory = step_memory(plan.net, plan.patch, batch, compute.precision)
    return Estimate(str(compute.device), steps, step, seconds, first, memory, free_memory(compute.device))


def _round(number: float) -> int:
    """Two digits are enough for an estimate."""
    return int(round(number, 1 - math.floor(math.log10(number)))) if number >= 1 else 1


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{_round(seconds)} s"
    minutes = seconds / 60
    if minutes < 100:
        return f"{minutes:.0f} minutes"
    hours = minutes / 60
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
