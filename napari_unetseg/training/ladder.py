"""What is done when memory runs out: smaller batches, patches one by one, smaller patches, fewer bits, the CPU.

Each rung changes the job and gives a sentence for the user. Weights, optimiser and history stay as they are.
"""

from __future__ import annotations

import gc
import operator
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from napari_unetseg.data import Batch
from napari_unetseg.devices import Compute, choose_compute, half_precision
from napari_unetseg.errors import OutOfMemory
from napari_unetseg.optim import make_scaler
from napari_unetseg.training.feed import Feed

if TYPE_CHECKING:
    from napari_unetseg.training.job import Job

__all__ = ["free_memory", "portions", "rungs", "smaller_tile", "step_down", "step_to"]

_LEAST_SIDE = {2: 64, 3: 16}  # voxels: below it a patch shows too little of its surroundings
_LEAST_TILE = {2: 128, 3: 32}


def step_down(job: Job) -> str:
    """Take the next rung; returns what was done, for the user.

    Raises
    ------
    OutOfMemory
        When there is none left.
    """
    job.optimiser.zero_grad(set_to_none=True)
    if job.progress.step == 0:
        job.optimiser.state.clear()  # what was allocated in part; nothing is learned yet
    free_memory()
    if job.batch_size > 2:
        job.batch_size //= 2
        job.plan = job.plan.change(training={"batch_size": job.batch_size})
        return f"Out of memory: going on with {job.batch_size} patches a step."
    if job.parts < job.batch_size:
        job.parts = job.batch_size
        return f"Out of memory: the {job.batch_size} patches of a step are computed one after the other."
    if smaller := _smaller(job.plan.patch, _LEAST_SIDE[job.plan.net.dims]):
        job.plan = job.plan.change(training={"patch": smaller})
        job.feed.sampler.patch = smaller
        return f"Out of memory: going on with patches of {_times(smaller)} voxels."
    if job.compute.precision == "float32" and (half := half_precision(job.compute.device)):
        _compute_so(job, replace(job.compute, precision=half))
        job.plan = job.plan.change(training={"precision": half})
        return f"Out of memory: going on in {half}, which needs about half of it."
    if job.compute.device.type != "cpu":
        gone = job.compute.device
        _compute_so(job, choose_compute("cpu", dims=job.plan.net.dims))
        job.plan = job.plan.change(training={"device": "cpu", "precision": "auto"})
        return f"Out of memory: {gone} is too small for this, going on on the processor."
    raise OutOfMemory(
        f"{job.compute.device} ran out of memory with one patch of {_times(job.plan.patch)} voxels.",
        hint="Give a smaller width or another net, or close other programs.",
    )


def smaller_tile(job: Job) -> str:
    """Halve the tile that images are segmented in; returns what was done, for the user.

    Raises
    ------
    OutOfMemory
        When it is as small as it may be.
    """
    free_memory()
    tile = _smaller(job.predictor.tile, _LEAST_TILE[job.plan.net.dims])
    if tile is None:
        raise OutOfMemory(
            f"{job.compute.device} ran out of memory while the net was scored.",
            hint="Give a smaller width or another net, or close other programs.",
        )
    job.plan = job.plan.change(inference={"tile": tile})
    return f"Out of memory: images are segmented in tiles of {_times(tile)} voxels."


def rungs(job: Job) -> dict[str, Any]:
    """How far down the ladder a job is, in plain values for JSON."""
    training = job.plan.training
    return {
        "batch_size": job.batch_size,
        "parts": job.parts,
        "patch": job.plan.patch,
        "precision": training.precision,
        "device": training.device,
        "tile": job.plan.inference.tile,
    }


def step_to(job: Job, wanted: Mapping[str, Any]) -> None:
    """Put a job on the rungs that another was on (see `rungs`)."""
    job.batch_size, job.parts = wanted["batch_size"], wanted["parts"]
    if wanted["device"] == "cpu" and job.compute.device.type != "cpu":
        _compute_so(job, choose_compute("cpu", wanted["precision"], job.plan.net.dims))
    elif wanted["precision"] not in ("auto", job.compute.precision):
        _compute_so(job, replace(job.compute, precision=wanted["precision"]))
    training = {name: wanted[name] for name in ("batch_size", "patch", "precision", "device")}
    job.plan = job.plan.change(training=training, inference={"tile": wanted["tile"]})
    job.feed.sampler.patch = job.plan.patch


def _compute_so(job: Job, compute: Compute) -> None:
    """Take net, running average, optimiser and batches to where, and how, they are computed from now on."""
    job.compute = compute
    compute.place(job.net)
    compute.place(job.lead.answer)
    job.optimiser.load_state_dict(job.optimiser.state_dict())  # which moves it to where the weights are
    job.scaler = make_scaler(compute.device, compute.precision)
    job.feed = Feed(job.feed.sampler, compute.device)


def portions(batch: Batch, count: int) -> Iterator[Batch]:
    """Split a batch into `count` parts, as equal as they can be."""
    for rows in torch.arange(len(batch.image)).chunk(count):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        yield batch.each(operator.itemgetter(part))


def free_memory() -> None:
    """Give back to the device what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _smaller(sides: tuple[int, ...], least: int) -> tuple[int, ...] | None:
    """Halve the longest sides, to a multiple of 16; None when they are at `least` already."""
    longest = max(sides)
    half = max(least, longest // 2 // 16 * 16)
    return tuple(min(side, half) for side in sides) if half < longest else None


def _times(sides: tuple[int, ...]) -> str:
    return " x ".join(map(str, sides))
