"""How large should a tile be beside the training's patch? Dice on held-out images with tiles of 1, 2 and 4 patches.

    python benchmarks/tile.py DATA [--sets ...] [--side 128] [--steps 80] [--seeds 2]

A U-Net at quarter width learns from the dense masks of eight images for so many steps; six images of fold 0 are scored.
Prints a Markdown table; steps, not seconds, so that the load of the machine does not matter.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from napari_unetseg.data import load_dataset, prepare
from napari_unetseg.devices import choose_compute
from napari_unetseg.inference.sliding import Predictor
from napari_unetseg.metrics import score_masks
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.training import fine_tune

SETS = "isbi2012-em,chasedb1-vessels,dsb2018-nuclei,cvc-clinicdb,covid-ct-multiclass"
TIMES = (1, 2, 4)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--sets", default=SETS)
    options.add_argument("--side", type=int, default=128)
    options.add_argument("--steps", type=int, default=80)
    options.add_argument("--seeds", type=int, default=2)
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"| set | seed | {' | '.join(f'tile {k} x patch' for k in TIMES)} |\n|{'---|' * (2 + len(TIMES))}")
    for name in given.sets.split(","):
        for seed in range(given.seeds):
            dice = [f"{value:.3f}" for value in scores(given.data / name, given.side, given.steps, seed)]
            print(f"| {name} | {seed} | {' | '.join(dice)} |", flush=True)


def scores(folder: Path, side: int, steps: int, seed: int) -> list[float]:
    """Dice with tiles of one, two and four patches, of one net."""
    dataset = load_dataset(folder, DataPlan())
    some = {held: [case for case in dataset.cases if (case.fold == 0) == held] for held in (False, True)}
    drawn = [some[False][i] for i in np.random.default_rng(seed).permutation(len(some[False]))[:8]]
    scored = [some[True][i] for i in np.random.default_rng(0).permutation(len(some[True]))[:6]]
    training = {"device": "cpu", "epochs": 1, "steps_per_epoch": steps, "patch": (side,) * dataset.ndim, "seed": seed}
    plan = Plan(training=training, net={"width": 0.25}, data={"heldout": 0.0})
    model = fine_tune(dataclasses.replace(dataset, cases=tuple(drawn), _counts={}), plan)
    images, found = [prepare(case.load(), model.plan.normalisation) for case in scored], []
    for times in TIMES:
        tiled = model.plan.change(inference={"tile": (times * side,) * dataset.ndim})
        predictor = Predictor(model.net.eval(), tiled, choose_compute("cpu"))
        pairs = [
            (one.name, predictor.mask(predictor.probabilities(one.image)), one.target, one.known) for one in images
        ]
        found.append(score_masks(pairs, dataset.classes, rule="held out").mean_dice)
    return found


if __name__ == "__main__":
    main()
