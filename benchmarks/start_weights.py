"""Are start weights learned on generated images worth anything? Learned here, and measured on sets they never saw.

    python benchmarks/start_weights.py learn WEIGHTS.safetensors [--seconds 1800] [--seed 0]
    python benchmarks/start_weights.py train DATA [--start WEIGHTS.safetensors] [--sets ...] [--draws 2]
    python benchmarks/start_weights.py probe DATA [--start WEIGHTS.safetensors] [--sets ...] [--draws 2]

`learn`: the recommended U-Net (half width, instance normalisation, three channels) sees episodes: two halves of a
generated scene (`scenes.py`), any of whose kinds may be what is wanted, with a few strokes in one half. A linear head
is solved from the strokes in closed form (ridge regression, as in Bertinetto et al. 2019, arXiv:1805.08136), and the
loss is that of all voxels of both halves: what is learned is features from which a few strokes tell the rest, edges
too.

`train`: the product's training from about 1 % strokes, with its teacher, from these weights or from nothing: Dice on
whole images of fold 0 after some steps, of the answer shown (net and instant model together) and of the net alone.

`probe`: no training of the net: the instant model's forest on its own features, on the net's last two levels, on both
side by side, and the mean of the first two.

One thread throughout; `--seconds` are those of the processor.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scenes import SHAPE, scene
from scipy import ndimage
from sklearn.ensemble import ExtraTreesClassifier
from strokes import SETS, Painted, draw, paint
from torch import nn
from torch.nn import functional

from napari_unetseg import instant
from napari_unetseg.data import Batch, Case, Prepared, load_dataset, prepare
from napari_unetseg.data.augment import augment
from napari_unetseg.devices import choose_compute
from napari_unetseg.events import Control
from napari_unetseg.inference.sliding import Predictor, make_predictor
from napari_unetseg.metrics import score_masks
from napari_unetseg.nets import build
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.nets.pretrained import adapt_first
from napari_unetseg.optim import WeightAverage
from napari_unetseg.plan import DataPlan, NetSpec, Plan
from napari_unetseg.training.job import Job, prepare_job
from napari_unetseg.training.loop import _step
from napari_unetseg.training.teacher import teach

_EPISODES, _POOL, _RATE, _SIDE, _WIDTH = 4, 400, 2e-3, 128, 16
_FIRST = "net.encoder.blocks.0.0.weight"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = options.add_subparsers(required=True, dest="verb")
    verb = verbs.add_parser("learn")
    verb.add_argument("weights", type=Path)
    verb.add_argument("--seconds", type=float, default=1800)
    verb.add_argument("--seed", type=int, default=0)
    for name in ("train", "probe"):
        verb = verbs.add_parser(name)
        verb.add_argument("data", type=Path)
        verb.add_argument("--start", type=Path)
        verb.add_argument("--sets", default="dsb2018-nuclei,isbi2012-em,cvc-clinicdb")
        verb.add_argument("--draws", type=int, default=2)
        verb.add_argument("--steps", type=int, default=100)
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.verb == "learn":
        learn(given.weights, given.seconds, given.seed)
        return
    start = load_file(given.start) if given.start else {}
    for name in given.sets.split(","):
        for number in range(given.draws):
            job, test = begin(given.data / name, number, given.steps)
            take(job.net, start)
            job.average.average.load_state_dict(job.net.state_dict())
            found = train(job, test) if given.verb == "train" else probe(job, test)
            print(name, number, {key: round(value, 3) for key, value in found.items()}, flush=True)


# ---------------------------------------------------------------------------------------------------- learning
def learn(path: Path, seconds: float, seed: int) -> None:
    rng, begin = np.random.default_rng(seed), time.process_time()
    torch.manual_seed(seed)
    compute = choose_compute("cpu", "auto", 2)
    bare: Any = build(NetSpec(name="unet", in_channels=3, width=0.5, norm="instance"))
    bare.net.head = nn.Identity()
    net = compute.place(bare).train()
    average = WeightAverage(net, compute.place(copy.deepcopy(net)), 0.998)
    knobs = nn.Parameter(torch.tensor([math.log(0.03), math.log(4.0)]))  # of the ridge, and of the logits' scale
    groups = [{"params": net.parameters()}, {"params": [knobs], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, _RATE, weight_decay=1e-4, fused=True)
    pool = [scene(rng) for _ in range(_POOL)]
    step, logs = 0, []
    while (done := (time.process_time() - begin) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * done)) / 2
        pool[rng.integers(len(pool))] = scene(rng)
        batch = augment(episodes(rng, pool), 1.0, int(rng.integers(2**31)))
        with compute.autocast():
            features = net(compute.place(batch.image))
        loss, dice = judge(features.float(), batch, knobs)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        step += 1
        average.update(step)
        logs.append((loss.item(), *dice.tolist()))
        if step % 50 == 0:
            loss_, support, query = np.mean(logs[-50:], axis=0)
            text = f"loss {loss_:.3f}, Dice {support:.3f} with strokes, {query:.3f} without"
            print(f"{step} steps, {time.process_time() - begin:.0f} s: {text}", flush=True)
    save_file({name: value.half().contiguous() for name, value in average.average.state_dict().items()}, path)


def episodes(rng: np.random.Generator, pool: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    """Pairs of patches, strokes (1 background, 2 wanted, in place of hints) in the first of each."""
    images, targets, strokes = [], [], []
    while len(targets) < 2 * _EPISODES:
        image, labels = pool[rng.integers(len(pool))]
        kinds = int(labels.max()) + 1
        wanted = np.arange(kinds) == rng.integers(kinds) if rng.random() < 0.6 else rng.random(kinds) < 0.5
        halves = np.split(wanted[labels], SHAPE[1] // _SIDE, axis=1)
        if not all(0.01 < half.mean() < 0.99 for half in halves):
            continue
        order = rng.permutation(len(halves))
        images += [np.split(image, SHAPE[1] // _SIDE, axis=2)[i] for i in order]
        targets += [halves[i] for i in order]
        first = targets[-2]
        painted = np.where(stroke(rng, first), 2, stroke(rng, ~first).astype(np.int64))
        strokes += [painted, np.zeros_like(painted)]
    pixels = np.stack(images).astype(np.float32) / 255
    if rng.random() < 0.5:
        pixels -= pixels.mean(axis=(1, 2, 3), keepdims=True)
        pixels /= pixels.std(axis=(1, 2, 3), keepdims=True) + 1e-3
    target = torch.from_numpy(np.stack(targets).astype(np.int64))
    known = torch.ones(target.shape, dtype=torch.bool)
    return Batch(torch.from_numpy(pixels), target, known, torch.from_numpy(np.stack(strokes)))


def stroke(rng: np.random.Generator, where: np.ndarray) -> np.ndarray:
    """A few short lines inside, a little away from the edges where there is room."""
    core = ndimage.binary_erosion(where, iterations=2, border_value=1)
    if core.sum() < where.sum() / 4:
        core = where
    places, number = np.argwhere(core), rng.integers(2, 9)
    begin, turn = places[rng.integers(len(places), size=number)], rng.uniform(0, 2 * math.pi, number)
    far = np.arange(25)
    along = np.stack([np.sin(turn), np.cos(turn)], axis=1)[:, None] * far[:, None]
    points = np.round(begin[:, None] + along)[far < rng.integers(2, 25, number)[:, None]].astype(int)
    painted = np.zeros(where.shape, bool)
    for offset in ((0, 0), (0, 1), (1, 0)):
        there = points + offset
        there = there[((there >= 0) & (there < where.shape)).all(axis=1)]
        painted[there[:, 0], there[:, 1]] = True
    return painted & core


def judge(features: torch.Tensor, batch: Batch, knobs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of what a head solved from the strokes says everywhere, and its mean Dice with and without strokes."""
    f = features.reshape(_EPISODES, 2, _WIDTH, -1)
    hints, target, known = (t.reshape(_EPISODES, 2, -1) for t in (batch.hints, batch.target, batch.known))
    target, known = target.float() * known, known.float()
    head = solve(f[:, 0].transpose(1, 2), hints[:, 0], knobs[0].exp())
    logits = knobs[1].exp() * (torch.einsum("eqfn,ef->eqn", f, head[:, :-1]) + head[:, -1, None, None])
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid() * known
    dice = (2 * (p * target).sum(2) + 50) / ((p + target).sum(2) + 50)
    other = (2 * ((known - p) * (known - target)).sum(2) + 50) / ((2 * known - p - target).sum(2) + 50)
    loss = (each * known).sum() / known.sum() + 1 - (dice.mean() + other.mean()) / 2
    hard = (logits > 0) * known
    return loss, ((2 * (hard * target).sum(2) + 1) / ((hard + target).sum(2) + 1)).mean(0).detach()


def solve(x: torch.Tensor, strokes: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    """Weights and bias ``(E, F + 1)`` that best tell strokes of one class (1) from those of the other (2)."""
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    share = sum((m := (strokes == k).float()) / m.sum(1, keepdim=True).clamp_min(1) / 2 for k in (1, 2))
    weighted = x * share[..., None]
    eye = torch.eye(x.shape[-1])
    eye[-1, -1] = 1e-3
    wanted = (strokes == 2).float() * 2 - 1
    return torch.linalg.solve(weighted.transpose(1, 2) @ x + ridge * eye, (weighted * wanted[..., None]).sum(1))


# --------------------------------------------------------------------------------------------------- measuring
def begin(folder: Path, seed: int, steps: int) -> tuple[Job, list[Prepared]]:
    """A training as the product would begin it, from strokes of a simulated annotator; and images to score it on."""
    dataset, numbers = load_dataset(folder, DataPlan()), SETS[folder.name]
    rng = np.random.default_rng(seed)
    learned = draw([case for case in dataset.cases if case.fold != 0], numbers[0], rng)
    scored = draw([case for case in dataset.cases if case.fold == 0], numbers[1], np.random.default_rng(0))
    samples = [paint(case.load(), len(dataset.classes), rng, False) for case in learned]
    cases = tuple(Case(s.name, s.name, None, None, Painted(s)) for s in samples)
    painted = replace(dataset, cases=cases, labels="annotation", _counts={})
    budget = {"device": "cpu", "epochs": 1, "steps_per_epoch": steps, "patch": (128, 128)}
    job = prepare_job(painted, Plan().change(net={"dims": 2}, training=budget), None, None, Control())
    return job, [prepare(case.load(), job.plan.normalisation) for case in scored]


def take(net: nn.Module, start: dict[str, torch.Tensor]) -> None:
    """Copy the start weights; the head stays as it is."""
    mine = net.state_dict()
    adapted = adapt_first({name: value.float() for name, value in start.items()}, _FIRST, mine[_FIRST].shape[1])
    net.load_state_dict({**mine, **adapted})


def train(job: Job, test: list[Prepared]) -> dict[str, float]:
    run(teach(job, Control()))
    found = {"instant": dice_of(job, test, make_predictor(job.lead.instant, job.compute))}
    while not job.clock.over(job.progress):
        job.net.train()
        run(_step(job))
        if job.progress.step in (25, 50, 100, 200, 400):
            found[f"shown {job.progress.step}"] = dice_of(job, test, job.predictor)
            alone = Predictor(job.average.average.eval(), job.plan, job.compute)
            found[f"net {job.progress.step}"] = dice_of(job, test, alone)
    return found


def run(events: Any) -> None:
    for _ in events:
        pass


def dice_of(job: Job, test: list[Prepared], predictor: Predictor) -> float:
    masks = [predictor.mask(predictor.probabilities(image.image)) for image in test]
    return dice(job, test, masks)


def dice(job: Job, test: list[Prepared], masks: list[np.ndarray]) -> float:
    pairs = [(t.name, mask, t.target, t.known) for t, mask in zip(test, masks, strict=True)]
    return score_masks(pairs, job.classes, rule="fold 0").mean_dice


def probe(job: Job, test: list[Prepared]) -> dict[str, float]:
    see, fixed = eyes(job)
    rng, number = np.random.default_rng(0), 20_000 // len(job.train)
    known, labels, other = [], [], []
    for image in job.train:
        seen = see(image.image)
        chosen = rng.permutation(np.flatnonzero(image.known))[:number]
        known.append(seen[chosen])
        labels.append(image.target.ravel()[chosen])
        other.append(seen[rng.integers(len(seen), size=number)])
    x, y, u = (np.concatenate(parts) for parts in (known, labels, other))
    columns = {"fixed": slice(0, fixed), "learned": slice(fixed, None), "side by side": slice(0, None)}
    forests = {}
    for name, some in columns.items():
        forest = ExtraTreesClassifier(
            50, min_samples_leaf=3, class_weight="balanced", bootstrap=True, oob_score=True, random_state=0
        ).fit(x[:, some], y)
        unseen = np.nan_to_num(forest.oob_decision_function_)
        forests[name] = forest, instant._prior(unseen, y, forest.predict_proba(u[:, some]))
    masks: dict[str, list[np.ndarray]] = {name: [] for name in (*columns, "mean")}
    for image in test:
        seen, shape = see(image.image), image.target.shape
        answers = {name: f.predict_proba(seen[:, columns[name]]) * prior for name, (f, prior) in forests.items()}
        answers = {name: a / a.sum(axis=1, keepdims=True) for name, a in answers.items()}
        answers["mean"] = answers["fixed"] + answers["learned"]
        for name, answer in answers.items():
            masks[name].append(answer.argmax(axis=1).reshape(shape).astype(np.uint8))
    return {name: dice(job, test, found) for name, found in masks.items()}


def eyes(job: Job) -> tuple[Any, int]:
    """From an image to features ``(voxels, F)``: the instant model's fixed ones, so many, then those of the net."""
    channels, outputs = job.train[0].image.shape[0], job.plan.net.outputs
    net: Any = build(instant.instant_plan(job.plan, 2, channels, job.spacing, outputs).net).net
    net.features.mix.copy_(instant.mix_channels(net.features.mix, job.train))
    fixed, inner = Padded(net.features, net.divisor), copy.deepcopy(job.net.eval())
    finer: list[torch.Tensor] = []
    inner.net.head = nn.Identity()
    inner.net.blocks[-2].register_forward_hook(lambda module, given, out: finer.append(out.float()))

    @torch.no_grad()
    def see(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(image)[None]
        first = fixed(pixels)
        with job.compute.autocast():
            last = inner(job.compute.place(pixels)).float()
        below = functional.interpolate(finer.pop(), scale_factor=2, mode="bilinear")
        below = below[..., : last.shape[-2], : last.shape[-1]]
        return torch.cat([first, last, below], dim=1)[0].flatten(1).T.numpy()

    return see, net.features.out


if __name__ == "__main__":
    main()
