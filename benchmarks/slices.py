"""Volumes by a 3D net, by planes with their neighbours (2.5D), and by planes along one axis and along all three.

    python benchmarks/slices.py DATA [--steps 200] [--width 0.25] [--learn 40] [--score 12] [--seeds 1]
        [--nets 3D,2D,2.5D-1,2.5D-2]

DATA holds volumes and split.json. Each net is trained for as many steps, with the patch and batch that planning
chooses, on volumes of folds 1.., and scored on volumes of fold 0; 2.5D sees one or two planes on each side. Seconds are
the processor's, of one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from napari_unetseg.data import Case, Dataset, load_dataset
from napari_unetseg.inference import predict
from napari_unetseg.metrics import score_masks
from napari_unetseg.nets import Model
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.training import fine_tune

NETS = {
    "3D": {"net": {"dims": 3}},
    "2D": {"net": {"dims": 2}},
    "2.5D-1": {"net": {"dims": 2}, "data": {"neighbours": 1}},
    "2.5D-2": {"net": {"dims": 2}, "data": {"neighbours": 2}},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--width", type=float, default=0.25)
    options.add_argument("--learn", type=int, default=40, help="volumes to learn from")
    options.add_argument("--score", type=int, default=12, help="volumes to score on")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--nets", default=",".join(NETS))
    given = options.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(given.data, DataPlan())
    draw = np.random.default_rng(0).permutation
    learned, scored = ([c for c in dataset.cases if (c.fold == 0) is held] for held in (False, True))
    learned = [learned[i] for i in draw(len(learned))[: given.learn]]
    scored = [scored[i] for i in draw(len(scored))[: given.score]]
    some = dataclasses.replace(dataset, cases=tuple(learned), _counts={})
    print("| net | axes | patch, batch | training s | s a volume | Dice |", "|---" * 6 + "|", sep="\n", flush=True)
    for name in given.nets.split(","):
        sections = NETS[name]
        models, took = [], []
        for seed in range(given.seeds):
            begin = time.process_time()
            models.append(train(some, given, sections, seed))
            took.append(time.process_time() - begin)
        for axes in ("planes", "all") if name != "3D" else ("planes",):
            found = [score(model, scored, dataset, axes) for model in models]
            dice, seconds = zip(*found, strict=True)
            training = models[0].plan.training
            cells = [name, {"planes": "Z" if name != "3D" else "-", "all": "Z, Y and X"}[axes]]
            cells += [f"{' x '.join(map(str, training.patch))}, {training.batch_size}", f"{np.mean(took):.0f}"]
            cells += [f"{np.mean(seconds):.2f}", ", ".join(f"{value:.3f}" for value in dice)]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def train(dataset: Dataset, given: argparse.Namespace, sections: dict, seed: int) -> Model:
    epochs = max(1, given.steps // 20)
    steps = {"epochs": epochs, "steps_per_epoch": 20, "validate_every": epochs, "device": "cpu", "seed": seed}
    plan = Plan().change(**sections).change(net={"width": given.width}, training=steps)
    return fine_tune(dataset, plan)


def score(model: Model, cases: list[Case], dataset: Dataset, axes: str) -> tuple[float, float]:
    """Mean Dice over the classes, and seconds a volume."""
    changed = dataclasses.replace(model, plan=model.plan.change(inference={"axes": axes}))
    pairs, begin = [], time.process_time()
    for case in cases:
        truth = case.load()
        pairs.append((truth.name, predict(changed, truth.image).data, truth.target, truth.known))
    seconds = (time.process_time() - begin) / len(cases)
    return score_masks(pairs, dataset.classes, rule="fold 0").mean_dice, seconds


if __name__ == "__main__":
    main()
