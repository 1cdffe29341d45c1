"""`fine_tune`: the training loop.

It has no hooks: loss, optimiser, schedule, patch and budget are values in the Plan. What is validated, shown and saved
is the running average of the weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_unetseg.data.augment import augment, roughen
from napari_unetseg.devices import is_out_of_memory
from napari_unetseg.errors import OutOfMemory, PlanError, Stopped, WriteError
from napari_unetseg.events import Control, Event, Leads, Note, Started, StepDone, Validated, verb
from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.nets import Model
from napari_unetseg.nets.stopping import interruptible
from napari_unetseg.optim import SCHEDULES, Moment, clip_gradients
from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores
from napari_unetseg.training.job import Job, finish_job, prepare_job
from napari_unetseg.training.ladder import portions, smaller_tile, step_down
from napari_unetseg.training.preview import preview
from napari_unetseg.training.resume import Checkpoint
from napari_unetseg.training.teacher import teach

__all__ = ["fine_tune"]


class _Diverged(PlanError):
    """The loss is not a number; the running average has not seen the step."""


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
        Model to go on from; the new one is returned only where it scores at least as well on what is held out. There is
        nothing to go on from in an instant model but what it says, which its successor hears.
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
    try:
        job = prepare_job(data, plan or Plan(), minutes, start, control)
    except Stopped as error:
        raise _unbegun() from error
    checkpoint = Checkpoint(Path(folder)) if folder else None
    if resume and checkpoint:
        checkpoint.load(job)
    yield Started("training", str(job.compute.device), job.clock.total_steps or 0, job.notes)
    with interruptible(control, job.net, job.average.average):
        yield from _begin(job, control)
        try:
            yield from _train(job, control, checkpoint)
        except Stopped:
            pass
        except _Diverged as error:
            if job.progress.best is None:
                raise
            yield Note(f"{error.message} What was best before is kept. {error.hint}", "warning")
        untrained = job.progress.step == 0 and job.start is None
        if untrained and job.lead.instant is None:
            raise _unbegun()
        if (
            not untrained
            and job.progress.validated_at != job.progress.step
            and not (control.stopped and job.progress.best is not None)
        ):
            yield from _validate(job, control)
        if control.left:
            yield from _break_off(checkpoint, job)
    if job.clock.stalled(job.progress):
        yield Note(f"Ended early: nothing gained in {job.plan.training.stop_after} validations.")
    if job.kept == "instant":
        yield Note(
            "The net has not taken over from the instant model, which is what is kept; "
            "give the training more time for that."
        )
    if job.kept == "start" and job.progress.step:
        yield Note("Nothing was gained: the model gone on from is kept.")
    if job.progress.best is None and job.kept == "net":  # stopped before it was ever validated
        with contextlib.suppress(OutOfMemory):
            job.match_shares(Control())
    model = finish_job(job)
    if checkpoint:
        model.save(checkpoint.folder)
        checkpoint.clear()
    return model


def _unbegun() -> Stopped:
    return Stopped("Training was stopped before its first step.", hint="Nothing was changed.")


def _break_off(checkpoint: Checkpoint | None, job: Job) -> Generator[Event, None, None]:
    """End as a kill would, but with all steps in the checkpoint; always raises `Stopped`."""
    if checkpoint and job.progress.step:
        yield from _save(checkpoint, job)
    raise Stopped("Training was broken off.", hint="Resume it, and it goes on where it was.")


def _begin(job: Job, control: Control) -> Generator[Event, None, None]:
    """Score the model gone on from, and have the instant model teach; raises `Stopped` when it is to end before."""
    goes_on = job.progress.step == 0 and job.start is not None
    if goes_on and job.lead.start is not None:
        yield from _validate(job, control)
    if job.plan.training.teacher:
        yield from _teach(job, control)
    if goes_on and job.lead.start is None:  # only its weights are gone on from: scored as they will answer
        yield from _validate(job, control)


def _teach(job: Job, control: Control) -> Generator[Event, None, None]:
    try:
        yield from teach(job, control)
    except Stopped as error:
        raise _unbegun() from error
    except OutOfMemory:
        job.lead.withdraw()
        job.shares = None
        yield Note("Too little memory for the instant model: the net learns from the labels alone.", "warning")


def _train(job: Job, control: Control, checkpoint: Checkpoint | None) -> Generator[Event, None, None]:
    """Step, validate, save and show until the budget is used up; raises `Stopped` when it is to end before."""
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
            yield from preview(job, control)


def _save(checkpoint: Checkpoint, job: Job) -> Generator[Event, None, None]:
    try:
        checkpoint.save(job)
    except WriteError as error:
        yield Note(str(error), "warning")


def _step(job: Job) -> Generator[Event, None, float]:
    """One optimiser step, with less at a time when memory runs out; returns the loss."""
    progress, training = job.progress, job.plan.training
    moment = Moment(job.clock.done(progress), progress.step, tuple(progress.scored))
    rate = training.learning_rate * SCHEDULES[training.schedule](moment, training)
    for group in job.optimiser.param_groups:
        group["lr"] = rate
    while (loss := _try_to_learn(job)) is None:
        yield Note(step_down(job), "warning")
    if not math.isfinite(loss):
        raise _Diverged("The training diverged: the loss is not a number.", hint="Give a smaller learning rate.")
    progress.step += 1
    job.average.update(progress.step)
    progress.seconds = job.clock.seconds()
    return loss


def _try_to_learn(job: Job) -> float | None:
    """Loss of one step; None, with everything as it was before, when memory ran out."""
    try:
        with job.governor.step():
            return _learn(job)
    except Stopped:
        job.feed.rewind()
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        job.feed.rewind()
        return None  # out of here, so that the error lets go of its tensors


def _learn(job: Job) -> float:
    """One step on one batch, in parts where memory is short; the weights change at its very end."""
    training, loss = job.plan.training, torch.zeros((), device=job.compute.device)
    torch.manual_seed(training.seed + job.progress.step)  # dropout too is the same after a kill
    batch = job.feed.take(job.batch_size)
    batch = augment(batch, training.augment, training.seed + job.progress.step, job.anisotropy, job.recipe)
    batch = replace(batch, image=roughen(batch.image))
    job.optimiser.zero_grad(set_to_none=True)
    for part in portions(batch, job.parts):
        with job.compute.autocast():
            logits = job.net(job.compute.place(part.image))
        heads = logits if isinstance(logits, list) else [logits]
        share = torch.stack([job.loss(head.float(), part) for head in heads]).mean() / job.parts
        job.scaler.scale(share).backward()
        loss += share.detach()
    job.scaler.unscale_(job.optimiser)
    clip_gradients(job.net, 12.0)
    job.scaler.step(job.optimiser)
    job.scaler.update()
    job.feed.look_ahead(job.batch_size)
    return loss.item()


def _validate(job: Job, control: Control) -> Generator[Event, None, None]:
    begin = time.monotonic()
    try:
        while (scores := _try_to_score(job, control)) is None:
            yield Note(smaller_tile(job), "warning")
    except Stopped:
        return
    progress = job.progress
    progress.scored.append(scores.mean_dice)
    best = not job.heldout or progress.keeps(scores, 0.0 if job.plan.training.keep == "best" else 2.0)
    if best:
        progress.best = {k: v.detach().cpu().clone() for k, v in job.average.average.state_dict().items()}
        progress.best_scores = scores
        progress.kept, progress.offset = (progress.step, progress.seconds), job.offset
    progress.validated_at = progress.step
    row = {"step": progress.step, "seconds": round(progress.seconds, 2)}
    row.update({f"dice {name}": value for name, value in scores.dice.items()})
    row.update({f"jaccard {name}": value for name, value in scores.jaccard.items()})
    progress.history.append(row)
    job.clock.validated(time.monotonic() - begin)
    yield Validated(progress.step, scores, best, progress.seconds)
    if progress.best_scores and job.lead.overtaken(progress.best_scores, progress.step):
        job.lead.hand_over()
        text = f"The net answers from now on, with the instant model beside it: {progress.best_scores.sentence()}."
        yield Leads(job.plan.net.name, progress.best_scores, text, progress.seconds)


def _try_to_score(job: Job, control: Control) -> Scores | None:
    """Scores on what was held out; None when memory ran out."""
    try:
        job.match_shares(control)
        return evaluate(job.predictor, job.heldout or job.train, job.classes, job.rule, control)
    except OutOfMemory:
        return None
