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
from napari_unetseg.data.augment import Recipe, make_recipe
from napari_unetseg.data.seen import describe_seen
from napari_unetseg.devices import Compute, ThreadGovernor, choose_compute, choose_device
from napari_unetseg.errors import AnnotationError, ModelError, ReadError
from napari_unetseg.events import Control
from napari_unetseg.inference.calibration import calibrated_plan
from napari_unetseg.inference.sliding import Predictor, make_predictor
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import Model, build
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.nets.together import Together
from napari_unetseg.optim import WeightAverage, make_optimiser, make_scaler
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.planning import complete_plan, steps_per_epoch
from napari_unetseg.scores import Scores
from napari_unetseg.training.clock import Clock, Progress
from napari_unetseg.training.feed import Feed
from napari_unetseg.training.stopping import until_stopped
from napari_unetseg.training.teacher import learn_hints

__all__ = ["Job", "finish_job", "prepare_job"]

_FADED = 0.3  # of the teacher's weight in later rounds: corrections tell where the edges are
_OVERTAKES = 200  # steps after which the net leads where nothing was held out


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
    optimiser: torch.optim.Optimizer
    feed: Feed
    clock: Clock
    notes: tuple[str, ...]
    anisotropy: float
    spacing: tuple[float, ...]
    start: Model | None
    batch_size: int
    parts: int = 1  # that a batch is computed in, one after the other, where memory is short
    recipe: Recipe = field(default_factory=Recipe)
    progress: Progress = field(default_factory=Progress)
    governor: ThreadGovernor = field(default_factory=ThreadGovernor)
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    viewed: tuple[str, Any] | None = None
    instant: Model | None = None
    leader: Predictor | None = None  # whose masks are shown until the net is better
    led: bool = False  # by the net, once it was
    seen: dict[str, Any] = field(default_factory=dict)

    def overtakes(self, scores: Scores) -> bool:
        """Whether the net, so scored, takes the lead from the instant model."""
        if self.leader is None or self.instant is None or self.instant.scores is None:
            return False
        if not self.heldout:  # on what both have learned from, there is nothing to compare
            return self.progress.step >= _OVERTAKES
        return scores.mean_dice >= self.instant.scores.mean_dice

    @property
    def instant_stays(self) -> bool:
        """Whether the instant model is what would be kept now."""
        named = self.progress.step > 0 and self.plan.given("net", "name")
        return self.leader is not None and self.start is None and not named

    @property
    def start_stays(self) -> bool:
        """Whether the model gone on from is what would be kept now."""
        return self.comparable and self.progress.best is not None and self.progress.kept[0] == 0

    @property
    def comparable(self) -> bool:
        """Whether the model gone on from can be scored as it is beside the one in the making."""
        if self.start is None:
            return False
        plan = self.start.plan
        same = plan.normalisation == self.plan.normalisation and plan.data.neighbours == self.plan.data.neighbours
        return same and self.start.classes == self.classes and plan.net.in_channels == self.plan.net.in_channels

    def leads(self) -> None:
        """Let the net lead from now on."""
        self.leader, self.led = None, True

    @property
    def predictor(self) -> Predictor:
        """The running average, beside the instant model where that teaches it, ready to segment."""
        if self.progress.step == 0 and self.start is not None and self.comparable:
            return make_predictor(self.start, self.compute)
        return Predictor(self.answer.eval(), self.plan, self.compute)

    @property
    def answer(self) -> nn.Module:
        """The running average, beside the instant model where that teaches it."""
        net: Any = self.average.average
        if self.instant is None:
            return net
        instant: Any = self.compute.place(self.instant.net)
        both = Together(net.net, instant.net, self.instant.plan.net.in_channels)
        return self.compute.place(Padded(both, both.divisor))

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
    if start is not None and start.plan.net.name == "instant" and plan.net.name != "instant":
        start = None  # it has taught, and will again; there is nothing in it that the net could go on from
    if minutes is not None:
        plan = plan.change(training={"minutes": minutes, "epochs": None})
    if "instant" in plan.net.parts:
        plan = plan.change(net={"parts": _alone(plan.net)["parts"]})
    if start is not None and (not plan.given("net", "name") or plan.net.name == start.plan.net.name):
        plan = plan.change(net={**_alone(start.plan.net), **plan.net.model_dump(exclude_unset=True)})
    dataset = data if isinstance(data, Dataset) else load_dataset(data, plan.data)
    parts = split(dataset, plan.data, plan.training.seed)
    samples, unseen = ([part.load() for part in until_stopped(some, control)] for some in (parts.train, parts.heldout))
    _check_learnable(samples, dataset.classes)
    faded = start is not None and plan.training.teacher is None
    plan, notes = complete_plan(plan, dataset, samples, choose_device(plan.training.device))
    if faded:
        plan = plan.change(training={"teacher": round(_FADED * (plan.training.teacher or 0), 3)})
    compute = choose_compute(plan.training.device, plan.training.precision, plan.net.dims)
    train, held = (
        [prepare(sample, plan.normalisation) for sample in until_stopped(some, control)] for some in (samples, unseen)
    )
    torch.manual_seed(plan.training.seed)
    net = build(plan.net, start=start is None)
    if start is not None:
        notes = (*notes, *_take_weights(net, start))
    net, average = compute.place(net).train(), compute.place(copy.deepcopy(net))
    training = plan.training
    sampler = PatchSampler(train, plan.patch, len(dataset.classes), training.seed, neighbours=plan.data.neighbours)
    spacing = samples[0].image.geometry.spacing
    return Job(
        plan=plan, classes=dataset.classes, dataset=dataset, train=train, heldout=held,
        rule=said_of(parts.rule, [s.known for s in held]), compute=compute, net=net,
        average=WeightAverage(net, average, training.average), optimiser=make_optimiser(net, training),
        feed=Feed(sampler, compute.device), scaler=make_scaler(compute.device, compute.precision),
        clock=Clock(plan, steps_per_epoch(plan, [image.target.size for image in train])),
        notes=(*dataset.notes, *notes, compute.why),
        anisotropy=spacing[0] / min(spacing[1:]) if plan.net.dims == 3 else 1.0, spacing=tuple(spacing), start=start,
        batch_size=training.batch_size or 1, recipe=make_recipe(training.recipe),
        seen=describe_seen((t.image, s.image.geometry) for t, s in zip(train, samples, strict=True)),
    )  # fmt: skip


def _alone(spec: NetSpec) -> dict[str, Any]:
    """Fields of a net, without the instant model beside it, which is fitted anew."""
    fields = spec.model_dump()
    return {**fields, "parts": {name: part for name, part in fields["parts"].items() if name != "instant"}}


def _check_learnable(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    blank = [sample.name for sample in samples if (sample.image.data == sample.image.data.flat[0]).all()]
    if samples and len(blank) == len(samples):
        raise ReadError(
            f"The image {blank[0]} has one value everywhere: nothing can be learned.", hint="Check the files."
        )
    seen = {int(label) for sample in samples for label in np.unique(sample.target[sample.known])}
    missing = [name for label, name in enumerate(classes) if label not in seen]
    if not seen:
        raise AnnotationError("No image has any label to learn from.", hint="Paint a few strokes of every class.")
    if len(seen) == 1:
        only = classes[min(seen)]
        raise AnnotationError(
            f"Only {only!r} is labelled in the images to learn from; {', '.join(map(repr, missing))} is not.",
            hint="Label at least two classes, background being one of them.",
        )


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
    else:
        job.progress.kept = job.progress.step, job.progress.seconds
    _mark_kept(job.progress)
    net, plan, scores = job.answer.eval().cpu(), job.plan, job.progress.best_scores
    parents = (*job.start.parents, job.start.id) if job.start else ()
    facts = {
        "steps": job.progress.step,
        "seconds": round(job.progress.seconds, 1),
        "kept_step": job.progress.kept[0],
        "kept_seconds": round(job.progress.kept[1], 1),
        "device": str(job.compute.device),
        "precision": job.compute.precision,
        "images": [image.name for image in job.train],
        "seen": job.seen,
        "notes": list(job.notes),
        "versions": {"napari-unetseg": napari_unetseg.__version__, "torch": torch.__version__},
    }
    if job.instant is not None:
        spec = job.instant.plan.net
        beside = {"instant": (spec.parts["anisotropy"], spec.in_channels)}
        plan = plan.change(net={"parts": {**plan.net.parts, **beside}})
        if job.instant_stays:
            scores, plan, net = job.instant.scores, job.instant.plan, job.instant.net.cpu()
            facts |= {"kept_step": 0, "kept_seconds": 0.0}
    if job.start is not None and job.start_stays:
        net, plan = job.start.net.cpu(), job.start.plan
    model = Model(net, calibrated_plan(plan, scores), job.classes, scores, job.progress.history, parents, facts)
    if model.scores is not None:
        model.scores = Scores.from_dict({**model.scores.to_dict(), "model": model.id})
    return model


def _mark_kept(progress: Progress) -> None:
    """Say in the history which row's weights were kept."""
    for row in progress.history:
        if row["step"] == progress.kept[0] and "loss" not in row:
            row["kept"] = 1
