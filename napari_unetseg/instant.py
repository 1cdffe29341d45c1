"""The first-seconds model: strokes in, a mask about a second later.

A forest of extremely randomised trees learns from the known voxels, then teaches the small net of `nets.instant` what
it answers on them and on unlabelled voxels of the same images. The forest is what learns well from few strokes; the net
is what can be saved, tiled, explained and exported like any other, and answers faster. Taught by the strokes alone the
net scores lower (``benchmarks/instant.py`` keeps the comparison).
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch.nn import functional
from torch.optim.adamw import adamw

import napari_unetseg
from napari_unetseg.data import Dataset, Prepared, Sample, fit_normalisation, load_dataset, prepare, said_of, split
from napari_unetseg.data.annotation import check_counts, count_known
from napari_unetseg.data.seen import describe_seen
from napari_unetseg.devices import Compute, ThreadGovernor, choose_compute
from napari_unetseg.errors import PlanError
from napari_unetseg.events import Control, Event, Started, StepDone, TileDone, Validated, until_stopped, verb
from napari_unetseg.inference.calibration import calibrated_plan
from napari_unetseg.inference.evaluate import evaluate
from napari_unetseg.inference.sliding import make_predictor, tile_slices
from napari_unetseg.losses import class_logits
from napari_unetseg.nets import Model, build
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.nets.instant import ANISOTROPIES, InstantNet
from napari_unetseg.nets.stopping import interruptible
from napari_unetseg.plan import Normalisation, Plan
from napari_unetseg.scores import Scores

__all__ = ["Lesson", "earlier_net", "fit_instant", "fit_prepared", "instant_plan", "learn_lesson", "mix_channels"]

_TILE = {2: 1024, 3: 128}
_KNOWN, _UNKNOWN = 20_000, 20_000  # voxels learned from; more changes the time, not the score
_TREES, _LEAF, _AT_ONCE = 50, 3, 5
_STEPS, _BATCH, _RATE, _RISE = 150, 2048, 0.02, 0.3
_EARLIER = 0.5  # of what is learned of unlabelled voxels comes from the round before
_STRANGE = 0.05  # of a class's labels that the round before gets right at most where the class is new to it
_WINDOW = 0.1  # of the width of a CT window, by which it may move between rounds


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
    plan, control, begin = plan or Plan(), control or Control(), time.monotonic()
    dataset = data if isinstance(data, Dataset) else load_dataset(data, plan.data, control=control)
    parts = split(dataset, plan.data, plan.training.seed)
    samples, unseen = ([part.load() for part in until_stopped(some, control)] for some in (parts.train, parts.heldout))
    check_counts(_totals(samples, len(dataset.classes)), dataset.classes)
    if plan.data.normalisation is None:
        plan = plan.change(data={"normalisation": fit_normalisation(samples).model_dump()})
    how = plan.normalisation
    if plan.given("net", "dims") and plan.net.dims > dataset.ndim:
        raise PlanError("A 3D net needs volumes, and these images are 2D.", hint="Leave out the dims, or give 2.")
    dims = plan.net.dims if plan.given("net", "dims") else dataset.ndim
    plan = instant_plan(
        plan.change(data={"labels": dataset.labels}),
        dims,
        samples[0].image.data.shape[0],
        samples[0].image.geometry.spacing,
        1 if len(dataset.classes) == 2 else len(dataset.classes),
    )
    train, held = ([prepare(part, how) for part in until_stopped(some, control)] for some in (samples, unseen))
    rule = said_of(parts.rule, [image.known for image in held])
    model = yield from fit_prepared(plan, dataset.classes, train, control)
    with ThreadGovernor().step():
        scores = evaluate(make_predictor(model), held or train, dataset.classes, rule, control)
    model.scores = Scores.from_dict({**scores.to_dict(), "model": model.id})
    model.plan = calibrated_plan(plan, scores)
    model.facts["seen"] = describe_seen((t.image, s.image.geometry) for t, s in zip(train, samples, strict=True))
    model.facts |= {"notes": list(dataset.notes), "seconds": round(time.monotonic() - begin, 2)}
    yield Validated(_STEPS, model.scores, True, model.facts["seconds"])
    return model


def fit_prepared(
    plan: Plan, classes: Sequence[str], images: Sequence[Prepared], control: Control, earlier: InstantNet | None = None
) -> Generator[Event, None, Model]:
    """Fit the instant net to prepared images; the model has no scores yet.

    Parameters
    ----------
    plan : Plan
        Of `instant_plan`.
    classes : sequence of str
        Names, background first.
    images : sequence of Prepared
        The known voxels are learned from.
    control : Control
        To stop it, within an image.
    earlier : InstantNet, optional
        Of the round before; see `Lesson`.
    """
    compute = choose_compute(plan.training.device, "float32", plan.net.dims, control)
    yield Started("instant model", str(compute.device), _STEPS)
    torch.manual_seed(plan.training.seed)
    net = build(plan.net)
    inner: Any = net.net
    mix = mix_channels(inner.features.mix, images) if earlier is None else earlier.features.mix
    inner.features.mix.copy_(mix)
    lesson = yield from _collect(Padded(inner.features, inner.divisor), images, plan, compute, control)
    lesson.hear(earlier)
    history = yield from learn_lesson(inner.cpu(), lesson, plan, control)
    facts: dict[str, Any] = {
        "steps": _STEPS,
        "device": str(compute.device),
        "images": [image.name for image in images],
        "versions": {"napari-unetseg": napari_unetseg.__version__, "torch": torch.__version__},
    }
    return Model(net.cpu().eval(), plan, tuple(classes), None, history, (), facts)


def instant_plan(plan: Plan, dims: int, channels: int, spacing: Sequence[float], outputs: int) -> Plan:
    """Plan of the instant net for images of so many channels and that spacing; data section and seed of `plan`."""
    ratio = spacing[0] / min(spacing[1:]) if dims == 3 else 1.0
    net = {
        "name": "instant",
        "dims": dims,
        "in_channels": channels,
        "outputs": outputs,
        "parts": {"anisotropy": min(ANISOTROPIES, key=lambda a: abs(math.log(ratio / a)))},
    }
    data = plan.change(data={"neighbours": 0}).data
    inference = plan.inference.model_copy(update={"tile": plan.inference.tile or (_TILE[dims],) * dims})
    return Plan(net=net, data=data, training=plan.training, inference=inference, post=plan.post)


class Lesson:
    """Features and classes of known voxels, features of others: ``(N, F)`` float32, ``(N,)`` int64.

    Of others, `labelled` ``(M,)`` says which have a label that is not among the known; none when omitted.

    Attributes
    ----------
    earlier : (M, K) float tensor, optional
        What the net of an earlier round says of the others. Corrections are painted on mistakes only, so what is
        learned from them alone swings from too much of a class to too little; the round before holds it.
    """

    def __init__(
        self,
        known: Sequence[torch.Tensor],
        labels: Sequence[torch.Tensor],
        other: Sequence[torch.Tensor],
        labelled: Sequence[torch.Tensor] = (),
    ) -> None:
        self.known, self.labels, self.other = torch.cat(list(known)), torch.cat(list(labels)), torch.cat(list(other))
        self.labelled = torch.cat(list(labelled)) if labelled else torch.zeros(len(self.other), dtype=torch.bool)
        self.earlier: torch.Tensor | None = None

    def hear(self, net: InstantNet | None) -> None:
        """Take in what the net of an earlier round says, unless there is a class that is new to it."""
        if net is None:
            return
        with torch.no_grad():
            right = _logits(net, self.known).argmax(dim=1) == self.labels
            if all(right[self.labels == label].float().mean() > _STRANGE for label in self.labels.unique()):
                self.earlier = _logits(net, self.other).softmax(dim=1)


def earlier_net(model: Model | None, plan: Plan, classes: Sequence[str]) -> InstantNet | None:
    """The instant net of an earlier model, alone or beside its net, where one of `plan` would see and say the same."""
    if model is None or model.classes != tuple(classes):
        return None
    spec, mine = model.plan.net, plan.net
    net: Any = model.net.net
    sees = (spec.parts.get("anisotropy"), spec.in_channels)
    if spec.name != "instant":
        if "instant" not in spec.parts:
            return None
        net, sees = net.instant, tuple(spec.parts["instant"])
    alike = (spec.dims, spec.outputs, sees) == (mine.dims, mine.outputs, (mine.parts["anisotropy"], mine.in_channels))
    if not alike or not _alike(model.plan.normalisation, plan.normalisation):
        return None
    return copy.deepcopy(net).cpu()


def _alike(one: Normalisation, other: Normalisation) -> bool:
    """Whether an image looks the same after both; the window of CT moves a little with every stroke."""
    if one.kind != "ct":
        return one == other
    moved = max(abs(one.low - other.low), abs(one.high - other.high))
    return other.kind == "ct" and moved <= _WINDOW * (other.high - other.low)


def _logits(net: InstantNet, features: torch.Tensor) -> torch.Tensor:
    """Logits ``(N, K)`` of the classes at features ``(N, F)``."""
    shaped = features.T.reshape(1, *net.shift.shape[:-1], len(features))
    return class_logits(net.classify(shaped))[0].flatten(1).T


def _totals(images: Sequence[Sample] | Sequence[Prepared], n_classes: int) -> np.ndarray:
    """Known voxels of each class over all images."""
    return np.sum([count_known(image.target, image.known, n_classes) for image in images], axis=0)


def _collect(
    features: Padded, images: Sequence[Prepared], plan: Plan, compute: Compute, control: Control
) -> Generator[Event, None, Lesson]:
    """Features at the strokes, and at unlabelled voxels of the tiles that the strokes lie in."""
    rng = np.random.default_rng(plan.training.seed)
    n_classes = max(2, plan.net.outputs)
    features = compute.place(features)
    share = np.minimum(1.0, _KNOWN / n_classes / np.maximum(_totals(images, n_classes), 1))
    jobs, governor = list(_jobs(images, plan, share, rng)), ThreadGovernor()
    found: list[tuple[torch.Tensor, ...]] = []
    for number, (image, region, labels, known) in enumerate(jobs):
        with torch.no_grad(), governor.step(), interruptible(control, features):
            pixels = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *region)]))
            there = features(compute.place(pixels[None]))[0].cpu().flatten(1)
        chosen = np.flatnonzero(labels >= 0)
        others = rng.integers(labels.size, size=-(-_UNKNOWN // len(jobs)))
        labelled = torch.from_numpy(known[others])
        found.append((there[:, chosen].T, torch.from_numpy(labels[chosen]), there[:, others].T, labelled))
        yield TileDone(number + 1, len(jobs))
    return Lesson(*zip(*found, strict=True))


def _jobs(
    images: Sequence[Prepared], plan: Plan, share: np.ndarray, rng: np.random.Generator
) -> Generator[tuple[np.ndarray, tuple[slice, ...], np.ndarray, np.ndarray], None, None]:
    """Tiles with strokes: image ``(C, ...)``, region of its last axes; flat: labels, -1 if not learned from, known."""
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
                yield image.image[(slice(None), *plane)], region, labels, image.known[plane][region].ravel()


def mix_channels(mix: torch.Tensor, images: Sequence[Prepared]) -> torch.Tensor:
    """Weights ``(colours, C)`` of the channels: each by itself when few, else the first principal components."""
    colours, channels = mix.shape
    if colours == channels:
        return mix
    each = [image.image.reshape(channels, -1) for image in images]
    step = max(1, min(97, sum(values.shape[1] for values in each) // 1000))
    pixels = np.concatenate([values[:, ::step] for values in each], axis=1)
    values, vectors = np.linalg.eigh(np.cov(pixels.astype(np.float64)))
    weights = vectors[:, -colours:] / np.sqrt(np.maximum(values[-colours:], 1e-6))
    return torch.from_numpy(weights.T.astype(np.float32))


def learn_lesson(
    net: InstantNet, lesson: Lesson, plan: Plan, control: Control
) -> Generator[Event, None, list[dict[str, float]]]:
    """Fit a forest to the known voxels, and the net to what the forest answers everywhere; returns the history."""
    begin, n_classes = time.monotonic(), max(2, plan.net.outputs)
    forest = _plant(lesson, plan.training.seed, control)
    every = torch.cat([lesson.known, lesson.other])
    answers = forest.predict_proba(every.numpy())
    unseen = np.nan_to_num(forest.oob_decision_function_)
    columns = np.searchsorted(forest.classes_, lesson.labels.numpy())
    answers = answers * _prior(unseen, columns, answers[len(lesson.known) :])
    wanted = torch.zeros(len(every), n_classes)
    wanted[:, forest.classes_] = torch.from_numpy(answers / answers.sum(axis=1, keepdims=True)).float()
    if lesson.earlier is not None:  # where there are labels the user's word counts alone
        share = torch.where(lesson.labelled, 0.0, _EARLIER)[:, None]
        wanted[len(lesson.known) :].lerp_(lesson.earlier, share)
    shape = net.shift.shape
    net.shift.copy_(every.mean(dim=0).reshape(shape))
    net.scale.copy_(1 / (every.std(dim=0).reshape(shape) + 1e-3))
    descend, history = _descent(list(net.perceptron.parameters())), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for steps this small a second thread costs more than it saves, much more under load
    try:
        for step in range(1, _STEPS + 1):
            control.poll()
            some = torch.randint(len(every), (_BATCH,))
            loss = functional.cross_entropy(_logits(net, every[some]), wanted[some])
            descend(loss, step)
            seconds = time.monotonic() - begin
            yield StepDone(step, loss.item(), seconds, seconds / step * (_STEPS - step))
            if step % 10 == 0:
                history.append({"step": step, "seconds": round(seconds, 3), "loss": loss.item()})
    finally:
        torch.set_num_threads(threads)
    return history


def _descent(weights: list[torch.nn.Parameter]) -> Callable[[torch.Tensor, int], None]:
    """Step 1, 2, ... of AdamW with one cycle of the rate (Smith & Topin 2018), as torch's classes do it.

    Those classes load torch's compiler when the first is made, which is a second more to wait for the first mask; the
    function that they call does not.
    """
    means, squares = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    counts = [torch.zeros(()) for _ in weights]
    top = _RISE * _STEPS - 1

    def between(first: float, last: float, done: float) -> float:
        return last + (first - last) / 2 * (1 + math.cos(math.pi * done))

    def descend(loss: torch.Tensor, step: int) -> None:
        up, done = step - 1 <= top, step - 1
        done = done / top if up else (done - top) / (_STEPS - 1 - top)
        rate = between(_RATE / 25, _RATE, done) if up else between(_RATE, _RATE / 25e4, done)
        momentum = between(0.95, 0.85, done) if up else between(0.85, 0.95, done)
        slopes = list(torch.autograd.grad(loss, weights))
        with torch.no_grad():
            adamw(
                weights, slopes, means, squares, [], counts,
                amsgrad=False, beta1=momentum, beta2=0.999, lr=rate, weight_decay=1e-3, eps=1e-8, maximize=False,
            )  # fmt: skip

    return descend


def _plant(lesson: Lesson, seed: int, control: Control) -> Any:
    """Fit the forest, a few trees at a time, so that it can be stopped; the trees are those of one fit."""
    from sklearn.ensemble import ExtraTreesClassifier

    forest = ExtraTreesClassifier(
        min_samples_leaf=_LEAF, class_weight="balanced", bootstrap=True, warm_start=True, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a voxel that every tree happened to learn from
        for trees in until_stopped(range(_AT_ONCE, _TREES + 1, _AT_ONCE), control):
            forest.set_params(n_estimators=trees, oob_score=trees == _TREES)
            forest.fit(lesson.known.numpy(), lesson.labels.numpy())
    return forest


def _prior(unseen: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray) -> np.ndarray:
    """Factors ``(K,)`` on the classes' probabilities, half way to how often they really are.

    Strokes show every class about as often, images do not. How often the forest mixes the classes up on strokes it has
    not learned from, and how often it says each on unlabelled voxels, together tell how often each is there (Lipton et
    al. 2018, black box shift estimation). The estimate leans on strokes being typical of their class, which they are
    not at edges: its square root was best or second best on every set, all of it or nothing of it was worst on some
    (``benchmarks/instant.py``).

    Parameters
    ----------
    unseen : (N, K) ndarray
        Out-of-bag probabilities of the known voxels.
    labels : (N,) integer ndarray
        Columns of `unseen` that are true.
    unlabelled : (M, K) ndarray
    """
    there = [k for k in range(unseen.shape[1]) if (labels == k).any()]
    mixed = np.stack([unseen[labels == k].mean(axis=0) for k in there])
    shares = np.full(unseen.shape[1], 1e-3)
    shares[there] = np.maximum(nnls(mixed.T, unlabelled.mean(axis=0))[0], 1e-3)
    return np.sqrt(shares / shares.sum())
