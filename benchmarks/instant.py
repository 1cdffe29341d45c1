"""What answers best in the first seconds: forest, perceptron, or a perceptron taught by a forest.

    python benchmarks/instant.py DATA [--sets isbi2012-em,...] [--seeds N] [--threads N]

DATA holds the public sets, each with its split.json. A simulated annotator paints about 1 % of a few images of folds
1..; fold 0 is scored. All candidates learn from the same features of the same voxels; the last three are a perceptron
taught by extra trees whose classes are as frequent as painted, as estimated, or at the square root of that, which is
the product's way, all through the same tiles as any model. Seconds are processor time: fit (features of the
painted images not counted), predict for 512 x 512 pixels (features not counted), features for 512 x 512 pixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from torch.nn import functional

from napari_unetseg import instant
from napari_unetseg.data import Dataset, Prepared, fit_normalisation, load_dataset, prepare
from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.annotator import scribble
from napari_unetseg.devices import Compute
from napari_unetseg.events import Control, finish
from napari_unetseg.inference import Predictor, evaluate
from napari_unetseg.metrics import score_masks
from napari_unetseg.nets import build
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.plan import DataPlan, Plan

SETS = {
    "isbi2012-em": (2, 3),
    "dsb2018-nuclei": (8, 10),
    "cvc-clinicdb": (8, 8),
    "msd-hippocampus": (4, 8),
    "covid-ct-multiclass": (6, 8),
}
Classify = Callable[[torch.Tensor], np.ndarray]  # features (F, N) to probabilities (K, N)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.sets.split(","):
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(given.seeds):
            for way, row in measure(given.data / name, *SETS[name], seed).items():
                rows.setdefault(way, []).append(row)
        print(f"{name}: {given.seeds} draws of images and strokes")
        for way, found in rows.items():
            jaccard, dice, fit, predict, features = np.mean(found, axis=0)
            print(
                f"  {way:<24} Jaccard {jaccard:.3f}  Dice {dice:.3f}  fit {fit:5.2f} s  "
                f"predict {predict:4.2f} s  features {features:4.2f} s"
            )


def measure(folder: Path, painted: int, scored: int, seed: int) -> dict[str, tuple[float, ...]]:
    dataset = load_dataset(folder, DataPlan())
    rng = np.random.default_rng(seed)
    learn = draw([case for case in dataset.cases if case.fold != 0], painted, rng)
    held = draw([case for case in dataset.cases if case.fold == 0], scored, np.random.default_rng(0))
    samples = []
    for case in learn:
        sample = case.load()
        mask, known = to_mask(scribble(sample.target, len(dataset.classes), rng, 0.01))
        samples.append(replace(sample, target=mask, known=known))
    how = fit_normalisation(samples)
    plan = Plan().change(data={"normalisation": how.model_dump()})
    outputs = 1 if len(dataset.classes) == 2 else len(dataset.classes)
    plan = instant.instant_plan(plan, dataset.ndim, dataset.in_channels, samples[0].image.geometry.spacing, outputs)
    train = [prepare(sample, how) for sample in samples]
    test = [prepare(case.load(), how) for case in held]
    return run(dataset, plan, train, test)


def draw(cases: list, number: int, rng: np.random.Generator) -> list:
    return [cases[i] for i in rng.permutation(len(cases))[:number]]


def run(dataset: Dataset, plan: Plan, train: list[Prepared], test: list[Prepared]) -> dict[str, tuple[float, ...]]:
    compute, control, classes = Compute(torch.device("cpu")), Control(), len(dataset.classes)
    net = build(plan.net)
    net.net.features.mix.copy_(instant.mix_channels(net.net.features.mix, train))
    features = Padded(net.net.features, net.divisor)
    lesson = finish(instant._collect(features, train, plan, compute, control))
    begin = time.process_time()
    with torch.no_grad():
        seen = [by_plane(features, image.image, plan.net.dims) for image in test]
    voxels = sum(there[0].numel() for there in seen)
    spent = (time.process_time() - begin) / voxels * 512**2
    rows = {}
    ways = {
        "random forest": lambda: forest(RandomForestClassifier(50, class_weight="balanced"), lesson, classes),
        "extra trees": lambda: forest(
            ExtraTreesClassifier(50, min_samples_leaf=3, class_weight="balanced"), lesson, classes
        ),
        "perceptron": lambda: perceptron(lesson, classes),
    }
    for way, fit in ways.items():
        begin = time.process_time()
        classify = fit()
        fitted = time.process_time()
        masks = [classify(there.flatten(1)).argmax(axis=0).reshape(there.shape[1:]) for there in seen]
        done = time.process_time()
        pairs = [(t.name, mask, t.target, t.known) for t, mask in zip(test, masks, strict=True)]
        scores = score_masks(pairs, dataset.classes, rule="fold 0")
        rows[way] = (scores.mean_jaccard, scores.mean_dice, fitted - begin, (done - fitted) / voxels * 512**2, spent)
    prior = instant._prior
    shares = {"as painted": lambda *_: 1.0, "estimated": lambda *seen: prior(*seen) ** 2, "square root": prior}
    for said, weigh in shares.items():
        instant._prior = weigh
        begin = time.process_time()
        torch.manual_seed(0)
        finish(instant.learn_lesson(net.net, lesson, plan, control))
        fitted = time.process_time()
        scores = evaluate(Predictor(net.eval(), plan, compute), test, dataset.classes, "fold 0")
        whole = (time.process_time() - fitted) / voxels * 512**2
        rows[f"taught, {said}"] = (scores.mean_jaccard, scores.mean_dice, fitted - begin, whole - spent, spent)
    instant._prior = prior
    return rows


def by_plane(features: Padded, image: np.ndarray, dims: int) -> torch.Tensor:
    pixels = torch.from_numpy(image)
    if dims == image.ndim - 1:
        return features(pixels[None])[0]
    return torch.stack([features(plane[None])[0] for plane in pixels.unbind(1)], dim=1)


def forest(model, lesson: instant.Lesson, classes: int) -> Classify:
    model.set_params(random_state=0).fit(lesson.known.numpy(), lesson.labels.numpy())
    return lambda features: model.predict_proba(features.T.numpy()).T


def perceptron(lesson: instant.Lesson, classes: int, hidden: int = 64, steps: int = 150) -> Classify:
    """The same perceptron, taught by the strokes alone, with a third of its inputs dropped while it learns."""
    torch.manual_seed(0)
    shift, scale = lesson.known.mean(dim=0), 1 / (lesson.known.std(dim=0) + 1e-3)
    layers = torch.nn.Sequential(
        torch.nn.Linear(len(shift), hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, classes),
    )
    optimiser = torch.optim.AdamW(layers.parameters(), 0.02, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, steps)
    weight = len(lesson.labels) / torch.bincount(lesson.labels, minlength=classes).clamp_min(1) / classes
    inputs = ((lesson.known - shift) * scale).clamp(-5, 5)
    for _ in range(steps):
        some = torch.randint(len(inputs), (2048,))
        logits = layers(functional.dropout(inputs[some], 0.3))
        loss = functional.cross_entropy(logits, lesson.labels[some], weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    @torch.no_grad()
    def classify(features: torch.Tensor) -> np.ndarray:
        return layers(((features.T - shift) * scale).clamp(-5, 5)).T.numpy()

    return classify


if __name__ == "__main__":
    main()
