"""What a training run works with: made from data and plan by `prepare_job`, turned into a Model by `finish_job`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import napari_unetseg
from napari_unetseg.data import Batch, Dataset, PatchSampler, Prepared, Sample, load_dataset, prepare, said_of, split
from napari_unetseg.data.annotation import count_known
from napari_unetseg.data.augment import Recipe, make_recipe
from napari_unetseg.data.seen import describe_seen
from napari_unetseg.data.splits import describe_heldout
from napari_unetseg.devices import Compute, ThreadGovernor, choose_compute, choose_device
from napari_unetseg.errors import AnnotationError, ModelError, ReadError
from napari_unetseg.events import Control, until_stopped
from napari_unetseg.inference.calibration import calibrated_plan
from napari_unetseg.inference.sliding import Predictor, make_predictor
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import Model, build
from napari_unetseg.optim import WeightAverage, make_optimiser, make_scaler
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.planning import complete_plan, steps_per_epoch
from napari_unetseg.scores import Scores
from napari_unetseg.training.clock import Clock, Progress
from napari_unetseg.training.feed import Feed
from napari_unetseg.training.lead import Lead
from napari_unetseg.training.shares import Shares
from napari_unetseg.training.teacher import learn_hints

__all__ = ["Job", "finish_job", "prepare_job"]

_FADED = 0.3  # of the teacher's weight in later rounds: corrections tell where the edges are


@dataclass
class Job:
    """Everything a training run works with."""

    plan: Plan
    classes: tuple[str, ...]
    dataset: Dataset
    train: list[Prepared]
    heldout: list[Prepared]
    rule: str
    compute: Compute
    net: nn.Module
    average: WeightAverage
    lead: Lead
    optimiser: torch.optim.Optimizer
    feed: Feed
    clock: Clock
    notes: tuple[str, ...]
    anisotropy: float
    spacing: tuple[float, ...]
    begun: Model | None  # model of the round before
    start: Model | None  # the same, where the net goes on from its weights
    batch_size: int
    parts: int = 1  # that a batch is computed in, one after the other, where memory is short
    recipe: Recipe = field(default_factory=Recipe)
    progress: Progress = field(default_factory=Progress)
    governor: ThreadGovernor = field(default_factory=ThreadGovernor)
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    viewed: tuple[str, Any] | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, Any] = field(default_factory=dict)
    shares: Shares | None = None
    offset: tuple[float, ...] = ()  # of the net's logits now

    @property
    def predictor(self) -> Predictor:
        """The net, as it answers now, ready to segment; before the first step the model gone on from."""
        start = self.lead.start
        if self.progress.step or start is None:
            return Predictor(self.lead.answer.eval(), self.plan, self.compute)
        tile = self.plan.inference.tile or start.plan.inference.tile  # smaller where memory was short
        plan = start.plan.change(inference={"tile": tile})
        return Predictor(self.compute.place(start.net).eval(), plan, self.compute)

    @property
    def leader(self) -> Predictor:
        """Who answers now, ready to segment."""
        lead = self.lead
        return make_predictor(lead.instant, self.compute) if lead.by_instant and lead.instant else self.predictor

    @property
    def kept(self) -> str:
        """Which model is kept if the training ends now: ``instant``, ``start`` or ``net``."""
        return self.lead.kept(self.progress, self.start is not None)

    def match_shares(self, control: Control) -> None:
        """Let the net say each class as often as the instant model does."""
        if self.shares is not None and self.progress.step:
            alone = Predictor(self.average.average.eval(), self.plan, self.compute)
            self.offset = tuple(float(one) for one in self.shares.offset(alone, control))
            self.lead.shift(self.offset)

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Loss of the plan on what is labelled, and what the teacher has to say about the rest."""
        loss = LOSSES[self.plan.training.loss](logits, batch.target, batch.known)
        if batch.hints is not None:
            loss = loss + (self.plan.training.teacher or 0) * learn_hints(logits, batch.hints, batch.known)
        return loss

    def image(self, case: str) -> Any:
        """Prepared image of a case of the data, strokes or not; None when there is no such case."""
        # whole, though a part of it may be held out; kept, for the user looks at one image for a while
        if self.viewed is None or self.viewed[0] != case:
            found = next((c for c in self.dataset.cases if c.name == case), None)
            if found is None:
                return None
            self.viewed = case, prepare(found.load(), self.plan.normalisation).image
        return self.viewed[1]


def prepare_job(
    data: Any, plan: Plan, minutes: float | None, start: Model | str | Path | None, control: Control
) -> Job:
    """Load and split the data, complete the plan, build and place the net.

    Raises
    ------
    Stopped
        When `control` says so meanwhile.
    """
    if isinstance(start, (str, Path)):
        start = Model.load(start)
    begun = start
    if start is not None and start.plan.net.name == "instant" and plan.net.name != "instant":
        start = None  # there is nothing in it that the net could go on from; only its successor hears it
    if minutes is not None:
        plan = plan.change(training={"minutes": minutes, "epochs": None})
    if plan.inference.temperature != 1:  # the plan of a model: it was fitted to that model's weights
        plan = plan.change(inference={"temperature": 1.0})
    if "instant" in plan.net.parts:
        plan = plan.change(net={"parts": _alone(plan.net)["parts"]})
    if start is not None and (not plan.given("net", "name") or plan.net.name == start.plan.net.name):
        plan = plan.change(net={**_alone(start.plan.net), **plan.net.model_dump(exclude_unset=True)})
    plan = _as_before(plan, start)
    dataset = data if isinstance(data, Dataset) else load_dataset(data, plan.data, control=control)
    parts = split(dataset, plan.data, plan.training.seed, begun.facts if begun else None)
    samples, unseen = ([part.load() for part in until_stopped(some, control)] for some in (parts.train, parts.heldout))
    unlearnable = _check_learnable(samples, dataset.classes, control)
    faded = start is not None and plan.training.teacher is None
    plan, notes = complete_plan(plan, dataset, samples, choose_device(plan.training.device), control=control)
    if faded:
        plan = plan.change(training={"teacher": round(_FADED * (plan.training.teacher or 0), 3)})
    compute = choose_compute(plan.training.device, plan.training.precision, plan.net.dims, control)
    train, held = (
        [prepare(sample, plan.normalisation) for sample in until_stopped(some, control)] for some in (samples, unseen)
    )
    torch.manual_seed(plan.training.seed)
    net = build(plan.net, start=start is None)
    if start is not None:
        notes = (*notes, *_take_weights(net, start))
    net, average = compute.place(net).train(), compute.place(copy.deepcopy(net))
    training = plan.training
    some, classes, neighbours = until_stopped(train, control), dataset.classes, plan.data.neighbours
    sampler = PatchSampler(some, plan.patch, len(classes), training.seed, neighbours=neighbours)
    spacing = samples[0].image.geometry.spacing
    return Job(
        plan=plan, classes=classes, dataset=dataset, train=train, heldout=held,
        rule=said_of(parts.rule, [s.known for s in held]), compute=compute, net=net,
        average=WeightAverage(net, average, training.average),
        lead=Lead(average, start if _comparable(start, plan, classes) else None, plan.given("net", "name")),
        optimiser=make_optimiser(net, training),
        feed=Feed(sampler, compute.device), scaler=make_scaler(compute.device, compute.precision),
        clock=Clock(plan, steps_per_epoch(plan, [image.target.size for image in train])),
        notes=(*dataset.notes, *unlearnable, *notes, compute.why),
        anisotropy=spacing[0] / min(spacing[1:]) if plan.net.dims == 3 else 1.0, spacing=tuple(spacing),
        begun=begun, start=start,
        batch_size=training.batch_size or 1, recipe=make_recipe(training.recipe),
        seen=describe_seen((t.image, s.image.geometry) for t, s in zip(train, samples, strict=True)),
        held_out=describe_heldout(parts),
    )  # fmt: skip


def _as_before(plan: Plan, start: Model | None) -> Plan:
    """The kind of normalisation that a net has learned with stays; the window of ``ct`` follows the strokes."""
    how = start and start.plan.data.normalisation
    if not how or how.kind == "ct" or plan.data.normalisation is not None:
        return plan
    return plan.change(data={"normalisation": how.model_dump()})


def _comparable(start: Model | None, plan: Plan, classes: Sequence[str]) -> bool:
    """Whether the model gone on from can be scored as it is beside the one in the making."""
    if start is None:
        return False
    old = start.plan
    same = old.normalisation == plan.normalisation and old.data.neighbours == plan.data.neighbours
    return same and start.classes == tuple(classes) and old.net.in_channels == plan.net.in_channels


def _alone(spec: NetSpec) -> dict[str, Any]:
    """Fields of a net, without the instant model beside it, which is fitted anew."""
    fields = spec.model_dump()
    return {**fields, "parts": {name: part for name, part in fields["parts"].items() if name != "instant"}}


def _check_learnable(samples: Sequence[Sample], classes: Sequence[str], control: Control) -> tuple[str, ...]:
    """Refuse what nothing can be learned from; a sentence on classes that cannot be learned."""
    blank, counts = [], np.zeros(len(classes), np.int64)
    for sample in until_stopped(samples, control):
        if (sample.image.data == sample.image.data.flat[0]).all():
            blank.append(sample.name)
        counts += count_known(sample.target, sample.known, len(classes))
    if samples and len(blank) == len(samples):
        raise ReadError(
            f"The image {blank[0]} has one value everywhere: nothing can be learned.", hint="Check the files."
        )
    seen = [name for name, n in zip(classes, counts, strict=True) if n]
    missing = [name for name in classes if name not in seen]
    if not seen:
        raise AnnotationError("No image has any label to learn from.", hint="Paint a few strokes of every class.")
    if len(seen) == 1:
        raise AnnotationError(
            f"Only {seen[0]!r} is labelled in the images to learn from; {', '.join(map(repr, missing))} is not.",
            hint="Label at least two classes, background being one of them.",
        )
    if not missing:
        return ()
    return (f"Nothing to learn from shows {', '.join(map(repr, missing))}: it will not be found in any image.",)


def _take_weights(net: nn.Module, start: Model) -> tuple[str, ...]:
    """Copy what fits; the head of a model with other classes does not."""
    alone: Any = start.net.net if "instant" in start.plan.net.parts else start.net
    mine, theirs = net.state_dict(), alone.state_dict()
    fitting = {k: v for k, v in theirs.items() if k in mine and mine[k].shape == v.shape}
    if len(fitting) < len(mine) / 2:
        raise ModelError(
            f"The model to start from ({start.plan.net.name}) has another shape than the net asked for.",
            hint="Start from a model of the same architecture and width, or train from the beginning.",
        )
    net.load_state_dict({**mine, **fitting})
    fresh = len(mine) - len(fitting)
    return (f"Goes on from model {start.id}" + (f"; {fresh} tensors begin anew." if fresh else "."),)


def finish_job(job: Job) -> Model:
    """Model of the best weights seen, with its history and where it comes from.

    Where the instant model is still ahead and the user asked for no net by name, it is the one.
    """
    average = job.average.average.eval()
    if job.progress.best is not None:
        average.load_state_dict(job.progress.best)
        job.lead.shift(job.progress.offset)
    else:
        job.progress.kept = job.progress.step, job.progress.seconds
    kept, start, begun = job.kept, job.start, job.begun
    net, plan, scores = job.lead.answer.eval().cpu(), job.plan, job.progress.best_scores
    parents = (*begun.parents, begun.id) if begun else ()
    facts = {
        "steps": job.progress.step,
        "seconds": round(job.progress.seconds, 1),
        "kept_step": job.progress.kept[0],
        "kept_seconds": round(job.progress.kept[1], 1),
        "device": str(job.compute.device),
        "precision": job.compute.precision,
        "images": list(dict.fromkeys([*_learned(begun), *(image.name for image in job.train)])),
        "held_out": job.held_out,
        "seen": job.seen,
        "notes": list(job.notes),
        "versions": {"napari-unetseg": napari_unetseg.__version__, "torch": torch.__version__},
    }
    if kept == "start" and start is not None:
        net, plan, parents = start.net.cpu(), start.plan, start.parents
        facts |= {"images": _learned(start), "seen": start.facts.get("seen", {})}
    elif kept == "instant" and (instant := job.lead.instant) is not None:
        scores, plan, net = instant.scores, instant.plan, instant.net.cpu()
        facts |= {"kept_step": 0, "kept_seconds": 0.0}
    else:
        plan = plan.change(net={"parts": {**plan.net.parts, **job.lead.beside()}})
    if kept != "instant":
        _mark_kept(job.progress)
    model = Model(net, calibrated_plan(plan, scores), job.classes, scores, job.progress.history, parents, facts)
    if model.scores is not None:
        model.scores = Scores.from_dict({**model.scores.to_dict(), "model": model.id})
    return model


def _learned(start: Model | None) -> list[str]:
    """Images that the model gone on from, and those before it, have learned from."""
    return list(start.facts.get("images") or ()) if start else []


def _mark_kept(progress: Progress) -> None:
    """Say in the history which row's weights were kept."""
    for row in progress.history:
        if row["step"] == progress.kept[0] and "loss" not in row:
            row["kept"] = 1
