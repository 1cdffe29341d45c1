"""The first-seconds model: strokes in, a mask about a second later.

A forest of extremely randomised trees learns from the known voxels, then teaches the small net of `nets.instant` what
it answers on them and on unlabelled voxels of the same images. The forest is what learns well from few strokes; the net
is what can be saved, tiled, explained and exported like any other, and answers faster. Taught by the strokes alone the
net scores lower (``benchmarks/instant.py`` keeps the comparison).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import napari_unetseg
from napari_unetseg.data import Dataset, Prepared, Sample, fit_normalisation, load_dataset, prepare, said_of, split
from napari_unetseg.data.annotation import check_counts, count_known
from napari_unetseg.data.seen import describe_seen
from napari_unetseg.devices import Compute, ThreadGovernor, choose_compute
from napari_unetseg.errors import PlanError, Stopped
from napari_unetseg.events import Control, Event, Started, StepDone, TileDone, Validated, verb
from napari_unetseg.inference.calibration import calibrated_plan
from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.inference.sliding import make_predictor, tile_slices
from napari_unetseg.losses import class_logits
from napari_unetseg.nets import Model, build
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.nets.instant import ANISOTROPIES, InstantNet
from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores

__all__ = ["fit_instant"]

_TILE = {2: 1024, 3: 128}
_KNOWN, _UNKNOWN = 20_000, 20_000  # voxels learned from; more changes the time, not the score
_TREES, _LEAF = 50, 3
_STEPS, _BATCH, _RATE = 150, 2048, 0.02


@verb
def fit_instant(
    data: Any, plan: Plan | None = None, *, control: Control | None = None
) -> Generator[Event, None, Model]:
    """Fit the instant net to strokes or masks.

    Parameters
    ----------
    data : Project, Dataset, path
        What `napari_unetseg.data.load_dataset` takes.
    plan : Plan, optional
        Its data section, seed and device count; the net is the instant one, whatever it names.
    control : Control, optional
        To stop it, within an image.

    Returns
    -------
    Model
        Scored on what was held out, as `fine_tune` does.

    Raises
    ------
    AnnotationError
        When nothing can be learned from the labels.
    Stopped
        When stopped before it was done.
    """
    threads = torch.get_num_threads()
    try:
        return (yield from _fit(data, plan or Plan(), control or Control()))
    finally:
        torch.set_num_threads(threads)


def _fit(data: Any, plan: Plan, control: Control) -> Generator[Event, None, Model]:
    begin, threads = time.monotonic(), torch.get_num_threads()
    dataset = data if isinstance(data, Dataset) else load_dataset(data, plan.data)
    parts = split(dataset, plan.data, plan.training.seed)
    samples = [part.load() for part in parts.train]
    check_counts(_totals(samples, len(dataset.classes)), dataset.classes)
    how = plan.data.normalisation or fit_normalisation(samples)
    plan = _complete(plan.change(data={"normalisation": how.model_dump()}), dataset, samples)
    compute = choose_compute(plan.training.device, "float32", plan.net.dims)
    yield Started("instant model", str(compute.device), _STEPS, dataset.notes)
    torch.manual_seed(plan.training.seed)
    net = build(plan.net)
    inner: Any = net.net
    train = [prepare(sample, how) for sample in samples]
    inner.features.mix.copy_(_mixture(inner.features.mix, train))
    lesson = yield from _collect(Padded(inner.features, inner.divisor), train, plan, compute, control)
    history = yield from _teach(inner.cpu(), lesson, plan, control)
    facts: dict[str, Any] = {
        "steps": _STEPS,
        "device": str(compute.device),
        "images": [image.name for image in train],
        "seen": describe_seen((t.image, s.image.geometry) for t, s in zip(train, samples, strict=True)),
        "notes": list(dataset.notes),
        "versions": {"napari-unetseg": napari_unetseg.__version__, "torch": torch.__version__},
    }
    model = Model(net.cpu().eval(), plan, dataset.classes, None, history, (), facts)
    held = [prepare(part.load(), how) for part in parts.heldout]
    rule = said_of(parts.rule, [image.known for image in held])
    with ThreadGovernor(threads).step():
        scores = evaluate(make_predictor(model, compute), held or train, dataset.classes, rule, control)
    model.scores = Scores.from_dict({**scores.to_dict(), "model": model.id})
    model.plan = calibrated_plan(plan, scores)
    facts["seconds"] = round(time.monotonic() - begin, 2)
    yield Validated(_STEPS, model.scores, True, facts["seconds"])
    return model


def _complete(plan: Plan, dataset: Dataset, samples: Sequence[Sample]) -> Plan:
    """Decide what the instant net needs to know: dimensions, channels, anisotropy, intensities, tile."""
    dims = plan.net.dims if plan.given("net", "dims") else dataset.ndim
    if dims > dataset.ndim:
        raise PlanError("A 3D net needs volumes, and these images are 2D.", hint="Leave out the dims, or give 2.")
    spacing = samples[0].image.geometry.spacing
    ratio = spacing[0] / min(spacing[1:]) if dims == 3 else 1.0
    anisotropy = min(ANISOTROPIES, key=lambda a: abs(math.log(ratio / a)))
    net = {
        "name": "instant",
        "dims": dims,
        "in_channels": dataset.in_channels,
        "outputs": 1 if len(dataset.classes) == 2 else len(dataset.classes),
        "parts": {"anisotropy": anisotropy},
    }
    plan = Plan(net=net, data=plan.data, training=plan.training, inference=plan.inference, post=plan.post)
    tile = plan.inference.tile or (_TILE[dims],) * dims
    return plan.change(data={"labels": dataset.labels}, inference={"tile": tile})


class _Lesson:
    """Features and classes of known voxels, features of others: ``(N, F)`` float32, ``(N,)`` int64."""

    def __init__(self, known: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], other: Sequence[torch.Tensor]):
        self.known, self.labels, self.other = torch.cat(list(known)), torch.cat(list(labels)), torch.cat(list(other))


def _totals(images: Sequence[Sample] | Sequence[Prepared], n_classes: int) -> np.ndarray:
    """Known voxels of each class over all images."""
    return np.sum([count_known(image.target, image.known, n_classes) for image in images], axis=0)


def _collect(
    features: Padded, images: Sequence[Prepared], plan: Plan, compute: Compute, control: Control
) -> Generator[Event, None, _Lesson]:
    """Features at the strokes, and at unlabelled voxels of the tiles that the strokes lie in."""
    rng = np.random.default_rng(plan.training.seed)
    n_classes = max(2, plan.net.outputs)
    features = compute.place(features)
    share = np.minimum(1.0, _KNOWN / n_classes / np.maximum(_totals(images, n_classes), 1))
    jobs, governor = list(_jobs(images, plan, share, rng)), ThreadGovernor()
    found: list[tuple[torch.Tensor, ...]] = []
    for number, (image, region, labels) in enumerate(jobs):
        if control.stopped:
            raise Stopped("The instant model was stopped.", hint="Nothing was changed.")
        with torch.no_grad(), governor.step():
            pixels = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *region)]))
            there = features(compute.place(pixels[None]))[0].cpu().flatten(1)
        chosen = np.flatnonzero(labels >= 0)
        others = rng.integers(labels.size, size=-(-_UNKNOWN // len(jobs)))
        found.append((there[:, chosen].T, torch.from_numpy(labels[chosen]), there[:, others].T))
        yield TileDone(number + 1, len(jobs))
    return _Lesson(*zip(*found, strict=True))


def _jobs(
    images: Sequence[Prepared], plan: Plan, share: np.ndarray, rng: np.random.Generator
) -> Generator[tuple[np.ndarray, tuple[slice, ...], np.ndarray], None, None]:
    """Tiles with strokes: image ``(C, ...)``, region of its last axes, and flat labels, -1 where not learned from."""
    dims = plan.net.dims
    for image in images:
        for plane in np.ndindex(*image.target.shape[:-dims]):
            known, target = image.known[plane].copy(), image.target[plane]
            if not known.any():
                continue
            known &= rng.random(known.shape) < share[np.where(known, target, 0)]
            for region in tile_slices(known.shape, plan.inference.tile or known.shape, plan.inference.overlap):
                if not known[region].any():
                    continue
                labels = np.where(known[region], target[region].astype(np.int64), -1).ravel()
                known[region] = False  # voxels of an overlap are learned once
                yield image.image[(slice(None), *plane)], region, labels


def _mixture(mix: torch.Tensor, images: Sequence[Prepared]) -> torch.Tensor:
    """Weights ``(colours, C)`` of the channels: each by itself when few, else the first principal components."""
    colours, channels = mix.shape
    if colours == channels:
        return mix
    pixels = np.concatenate([image.image.reshape(channels, -1)[:, ::97] for image in images], axis=1)
    values, vectors = np.linalg.eigh(np.cov(pixels.astype(np.float64)))
    weights = vectors[:, -colours:] / np.sqrt(np.maximum(values[-colours:], 1e-6))
    return torch.from_numpy(weights.T.astype(np.float32))


def _teach(
    net: InstantNet, lesson: _Lesson, plan: Plan, control: Control
) -> Generator[Event, None, list[dict[str, float]]]:
    """Fit a forest to the known voxels, and the net to what the forest answers everywhere; returns the history."""
    from sklearn.ensemble import ExtraTreesClassifier

    begin, n_classes, seed = time.monotonic(), max(2, plan.net.outputs), plan.training.seed
    forest = ExtraTreesClassifier(_TREES, min_samples_leaf=_LEAF, class_weight="balanced", random_state=seed)
    forest.fit(lesson.known.numpy(), lesson.labels.numpy())
    every = torch.cat([lesson.known, lesson.other])
    wanted = torch.zeros(len(every), n_classes)
    wanted[:, forest.classes_] = torch.from_numpy(forest.predict_proba(every.numpy())).float()
    shape = net.shift.shape
    net.shift.copy_(every.mean(dim=0).reshape(shape))
    net.scale.copy_(1 / (every.std(dim=0).reshape(shape) + 1e-3))
    optimiser = torch.optim.AdamW(net.perceptron.parameters(), _RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, _STEPS)
    history = []
    torch.set_num_threads(1)  # for steps this small a second thread costs more than it saves, much more under load
    for step in range(1, _STEPS + 1):
        if control.stopped:
            raise Stopped("The instant model was stopped.", hint="Nothing was changed.")
        some = torch.randint(len(every), (_BATCH,))
        logits = class_logits(net.classify(every[some].T.reshape(1, *shape[:-1], _BATCH)))[0].flatten(1).T
        loss = functional.cross_entropy(logits, wanted[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        seconds = time.monotonic() - begin
        yield StepDone(step, loss.item(), seconds, seconds / step * (_STEPS - step))
        if step % 10 == 0:
            history.append({"step": step, "seconds": round(seconds, 3), "loss": loss.item()})
    return history
