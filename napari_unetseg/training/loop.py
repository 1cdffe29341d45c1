"""`fine_tune`: the training loop.

It has no hooks: loss, optimiser, schedule, patch and budget are values in the Plan. What is validated, shown and saved
is the running average of the weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_unetseg.data.augment import augment
from napari_unetseg.errors import OutOfMemory, PlanError, Stopped, WriteError
from napari_unetseg.events import Control, Event, Note, PreviewReady, Started, StepDone, Validated, View, verb
from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.nets import Model
from napari_unetseg.optim import SCHEDULES, Moment
from napari_unetseg.plan import Plan
from napari_unetseg.training.job import Job, finish_job, prepare_job
from napari_unetseg.training.resume import Checkpoint

__all__ = ["fine_tune"]


@verb
def fine_tune(
    data: Any,
    plan: Plan | None = None,
    *,
    minutes: float | None = None,
    start: Model | str | Path | None = None,
    control: Control | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
) -> Generator[Event, None, Model]:
    """Train a net on strokes or masks.

    Parameters
    ----------
    data : Project, Dataset, path
        What `napari_unetseg.data.load_dataset` takes.
    plan : Plan, optional
        Decisions that are left open are taken from the images.
    minutes : float, optional
        Time budget; overrules the plan's.
    start : Model or path, optional
        Model to go on from; the new one is returned only where it scores at least as well on what is held out.
    control : Control, optional
        To stop it (within a step, keeping the best so far) and to say where the user looks.
    folder : path, optional
        Where the model is saved, and a checkpoint while it trains.
    resume : bool
        Go on from the checkpoint that a killed run left in `folder`.

    Returns
    -------
    Model
        With the weights that scored best on what was held out.

    Raises
    ------
    AnnotationError
        When nothing can be learned from the labels.
    PlanError
        When the plan does not fit the images.
    Stopped
        When stopped before the first step.
    """
    control = control or Control()
    job = prepare_job(data, plan or Plan(), minutes, start)
    checkpoint = Checkpoint(Path(folder)) if folder else None
    if resume and checkpoint:
        checkpoint.load(job)
    yield Started("training", str(job.compute.device), job.clock.total_steps or 0, job.notes)
    if job.progress.step == 0 and job.start is not None:
        yield from _validate(job, control)
    while not job.clock.over(job.progress) and not control.stopped:
        loss = yield from _step(job)
        job.progress.log(loss)
        yield StepDone(
            job.progress.step, loss, job.progress.seconds, job.clock.left(job.progress), job.clock.epoch(job.progress)
        )
        if job.clock.validation_due(job.progress):
            yield from _validate(job, control)
            if checkpoint:
                yield from _save(checkpoint, job)
        if control.view is not None and job.clock.preview_due(job.progress):
            yield from _preview(job, control.view)
    if job.progress.step == 0 and job.start is None:
        raise Stopped("Training was stopped before its first step.", hint="Nothing was changed.")
    if job.progress.validated_at != job.progress.step and not (control.stopped and job.progress.best is not None):
        yield from _validate(job, control)
    if job.clock.stalled(job.progress):
        yield Note(f"Ended early: nothing gained in {job.plan.training.stop_after} validations.")
    model = finish_job(job)
    if checkpoint:
        model.save(checkpoint.folder)
        checkpoint.clear()
    return model


def _save(checkpoint: Checkpoint, job: Job) -> Generator[Event, None, None]:
    try:
        checkpoint.save(job)
    except WriteError as error:
        yield Note(str(error), "warning")


def _step(job: Job) -> Generator[Event, None, float]:
    """One optimiser step, on smaller batches when memory runs out; returns the loss."""
    progress, training = job.progress, job.plan.training
    moment = Moment(job.clock.done(progress), progress.step, tuple(progress.scored))
    rate = training.learning_rate * SCHEDULES[training.schedule](moment, training)
    for group in job.optimiser.param_groups:
        group["lr"] = rate
    while True:
        try:
            with job.governor.step():
                loss = _learn(job)
            break
        except (torch.OutOfMemoryError, MemoryError) as error:
            if job.batch_size == 1:
                sides = " x ".join(map(str, training.patch or ()))
                raise OutOfMemory(
                    f"{job.compute.device} ran out of memory with one patch of {sides} voxels.",
                    hint="Give a smaller patch or width, or train on the CPU.",
                ) from error
            job.batch_size //= 2
            job.optimiser.zero_grad(set_to_none=True)
            yield Note(f"Out of memory: going on with {job.batch_size} patches a step.", "warning")
    if not math.isfinite(loss):
        raise PlanError("The training diverged: the loss is not a number.", hint="Give a smaller learning rate.")
    progress.step += 1
    job.average.update(progress.step)
    progress.seconds = job.clock.seconds()
    return loss


def _learn(job: Job) -> float:
    training = job.plan.training
    batch = job.sampler.draw(job.batch_size)
    batch = augment(batch, training.augment, training.seed + job.progress.step, job.anisotropy, job.recipe)
    image, target, known = (
        job.compute.place(batch.image),
        batch.target.to(job.compute.device),
        batch.known.to(job.compute.device),
    )
    with job.compute.autocast():
        logits = job.net(image)
    heads = logits if isinstance(logits, list) else [logits]
    loss = torch.stack([job.loss(head.float(), target, known) for head in heads]).mean()
    job.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(job.net.parameters(), 12.0)
    job.optimiser.step()
    return loss.item()


def _validate(job: Job, control: Control) -> Generator[Event, None, None]:
    begin = time.monotonic()
    try:
        scores = evaluate(job.predictor, job.heldout or job.train, job.classes, job.rule, control)
    except Stopped:
        return
    progress = job.progress
    progress.scored.append(scores.mean_dice)
    best = not job.heldout or progress.keeps(scores, 0.0 if job.plan.training.keep == "best" else 2.0)
    if best:
        progress.best = {k: v.detach().cpu().clone() for k, v in job.average.average.state_dict().items()}
        progress.best_scores = scores
    progress.validated_at = progress.step
    row = {"step": progress.step, "seconds": round(progress.seconds, 2)}
    row.update({f"dice {name}": value for name, value in scores.dice.items()})
    row.update({f"jaccard {name}": value for name, value in scores.jaccard.items()})
    progress.history.append(row)
    job.clock.validated(time.monotonic() - begin)
    yield Validated(progress.step, scores, best, progress.seconds)


def _preview(job: Job, view: View) -> Generator[Event, None, None]:
    """Mask of what the user looks at; of a volume only the plane, with the slab a 3D net needs around it."""
    begin = time.monotonic()
    image = job.image(view.case)
    if image is None:
        return
    index = None
    if image.ndim == 4 and view.index is not None:
        index = min(max(view.index, 0), image.shape[1] - 1)
        half = 0 if job.plan.net.dims == 2 else (job.plan.training.patch or (32,))[0] // 2
        first = max(0, index - half)
        image, index = image[:, first : index + half + 1], index - first
    mask = job.predictor.mask(job.predictor.probabilities(image))
    job.clock.previewed(time.monotonic() - begin)
    yield PreviewReady(job.progress.step, view, mask if index is None else mask[index])
