"""The first seconds of a training from strokes: the instant model answers at once, then teaches the net.

Strokes lie inside things, so nothing tells a net where their edges are, and trained on the strokes alone it gives small
objects too much room. What the instant model believes of the voxels nobody labelled tells it more. The net hands back
where it stands: it leads, and its masks are shown, as soon as it is not clearly worse on what is held out.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetseg.data import Prepared
from napari_unetseg.data.hints import encode_hints, read_hints
from napari_unetseg.events import Control, Event, Leads, Running, Started, StepDone
from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.inference.sliding import Predictor, make_predictor
from napari_unetseg.instant import earlier_net, fit_prepared, instant_plan
from napari_unetseg.losses import class_logits
from napari_unetseg.scores import Scores
from napari_unetseg.training.preview import preview
from napari_unetseg.training.shares import Shares

if TYPE_CHECKING:
    from napari_unetseg.training.job import Job

__all__ = ["learn_hints", "teach"]

_SPEED = 300_000  # voxels a second that the instant model segments at the least
_SHARE = 0.15  # of the time that may go into hints
_TILE = {2: 512, 3: 64}
_HALO = {2: 32, 3: 12}


def teach(job: Job, control: Control) -> Generator[Event, None, None]:
    """Fit the instant model, let it lead, and have its hints beside the labels of the training images.

    Raises
    ------
    Stopped
        When `control` says so.
    """
    channels = job.train[0].image.shape[0]
    plan = instant_plan(job.plan, job.plan.net.dims, channels, job.spacing, job.plan.net.outputs)
    earlier = earlier_net(job.begun, plan, job.classes)
    run = Running(fit_prepared(plan, job.classes, job.train, control, earlier))
    for event in run:
        if not isinstance(event, (Started, StepDone)):
            yield event
    model = run.result
    predictor = make_predictor(model, job.compute)
    scores = evaluate(predictor, job.heldout or job.train, job.classes, job.rule, control)
    model.scores = Scores.from_dict({**scores.to_dict(), "model": model.id})
    job.lead.begin(model, job.compute)
    job.shares = Shares(job.train, predictor, job.plan.training.seed, control)
    job.match_shares(control)  # of a run that goes on after a kill
    best, steps = job.progress.best_scores, job.progress.step
    if best is not None and job.lead.overtaken(best, steps):
        job.lead.hand_over()  # as it comes from the rounds before
    if job.lead.by_instant:
        text = f"The instant model answers until the net takes over: {scores.sentence()}."
        yield Leads("instant", model.scores, text, job.clock.seconds())
    yield from preview(job, control)
    seconds = job.clock.total_seconds
    left = 2**24 if seconds is None else int(_SPEED * max(4.0, _SHARE * seconds))
    for number, image in enumerate(job.train):
        share = left // (len(job.train) - number)
        hints, spent = _hints(image, predictor, share, control)
        job.train[number] = replace(image, hints=hints)
        left -= spent
    job.feed.sampler.samples = tuple(job.train)


def _hints(image: Prepared, predictor: Predictor, voxels: int, control: Control) -> tuple[np.ndarray, int]:
    """Hints of an image where strokes are, at most about `voxels` of them; and how many there are."""
    shape = image.target.shape
    if image.target.size <= voxels:
        return encode_hints(predictor.probabilities(image.image, control)), image.target.size
    hints, spent = np.zeros(shape, np.uint16), 0
    for region in _near_strokes(image.known, _TILE[image.known.ndim]):
        halo = _HALO[len(shape)]
        wide = tuple(slice(max(0, part.start - halo), part.stop + halo) for part in region)
        inner = tuple(slice(part.start - w.start, part.stop - w.start) for part, w in zip(region, wide, strict=True))
        found = predictor.probabilities(image.image[(slice(None), *wide)], control)
        hints[region] = encode_hints(found[(slice(None), *inner)])
        spent += hints[region].size
        if spent >= voxels:
            break
    return hints, spent


def _near_strokes(known: np.ndarray, side: int) -> list[tuple[slice, ...]]:
    """Tiles of an image with known voxels, those with the most first, then the tiles beside them."""
    counts: np.ndarray = known
    for axis, size in enumerate(known.shape):
        counts = np.add.reduceat(counts, np.arange(0, size, side), axis=axis, dtype=np.int64)
    order = [tuple(map(int, i)) for i in np.argwhere(counts)]
    order.sort(key=lambda index: -counts[index])
    beside = [
        tuple(int(i + s) for i, s in zip(index, step, strict=True))
        for step in itertools.product((-1, 0, 1), repeat=known.ndim)
        for index in order
    ]
    inside = (i for i in beside if all(0 <= at < size for at, size in zip(i, counts.shape, strict=True)))
    return [tuple(slice(at * side, (at + 1) * side) for at in index) for index in dict.fromkeys([*order, *inside])]


def learn_hints(logits: torch.Tensor, hints: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Cross-entropy to what the teacher believes, over the voxels that nobody labelled.

    Parameters
    ----------
    logits : (B, K, ...) float tensor
    hints : (B, ...) int64 tensor
        As `napari_unetseg.data.hints` writes them.
    known : (B, ...) bool tensor

    Returns
    -------
    scalar tensor
        0 where there is no such voxel.
    """
    log_p = class_logits(logits.float()).log_softmax(1)
    wanted, said = read_hints(hints, log_p.shape[1])
    where = (said & ~known).float()
    return -((wanted * log_p).sum(1) * where).sum() / where.sum().clamp_min(1)
