"""Does "worst first" put the worst masks first? Doubt of a file against its true error, after a short training.

    python benchmarks/order.py DATA [--sets dsb2018-nuclei,msd-hippocampus] [--seeds 2] [--steps 80] [--files 30]

DATA holds the public sets, each with its split.json. A simulated annotator paints about 1 % of a few images of folds
1..; files of fold 0 are segmented. A row a set and seed: Spearman's rank correlation of the doubt with 1 - Dice, how
many files are flagged uncertain within their run, the mean error of these and of the others, and of the first five.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from strokes import SETS, Painted, draw, paint, train

from napari_unetseg.batch.quality import Doubts, look_at, worst_first
from napari_unetseg.data import Case, load_dataset
from napari_unetseg.events import finish
from napari_unetseg.inference import Ensemble
from napari_unetseg.metrics import score_masks
from napari_unetseg.nets import Model
from napari_unetseg.plan import DataPlan


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--sets", default="dsb2018-nuclei,msd-hippocampus")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--steps", default="80")
    options.add_argument("--files", type=int, default=30)
    given = options.parse_args()
    print("| set | seed | files | Dice | rank correlation | uncertain | error of these | others | first five |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        for seed in range(given.seeds):
            dataset = load_dataset(given.data / name, DataPlan())
            rng = np.random.default_rng(seed)
            learned = draw([case for case in dataset.cases if case.fold != 0], SETS[name][0], rng)
            samples = [paint(case.load(), len(dataset.classes), rng, False) for case in learned]
            cases = tuple(Case(s.name, s.name, None, None, Painted(s)) for s in samples)
            painted = dataclasses.replace(dataset, cases=cases, labels="annotation", _counts={})
            _, model = train(painted, dataset.ndim, {"way": "taught", "net": "unet", "steps": given.steps})
            scored = draw([c for c in dataset.cases if c.fold == 0], given.files, np.random.default_rng(seed + 100))
            print(f"| {name} | {seed} | {row(model, scored, dataset.classes)} |", flush=True)


def row(model: Model, scored: list[Case], classes: tuple[str, ...]) -> str:
    """Cells of the table for one model."""
    ensemble, entries = Ensemble.of([model]), []
    for case in scored:
        sample = case.load()
        probability = finish(ensemble.tiles(sample.image))
        mask = ensemble.mask(probability)
        scores = score_masks([(sample.name, mask, sample.target, sample.known)], classes, rule="fold 0")
        found = look_at(probability, mask, sample.image, model)
        entries.append({**found, "status": "done", "error": 1 - scores.mean_dice})
    known = Doubts()
    for entry in entries:
        known.flagged(entry)
    entries = worst_first(known.settled(entries))
    errors = np.array([entry["error"] for entry in entries])
    flagged = np.array(["uncertain" in entry["flags"] for entry in entries])
    rank = spearmanr([entry["doubt"] for entry in entries], errors).statistic
    means = [f"{part.mean():.2f}" if len(part) else "-" for part in (errors[flagged], errors[~flagged], errors[:5])]
    return " | ".join([str(len(errors)), f"{1 - errors.mean():.2f}", f"{rank:.2f}", str(flagged.sum()), *means])


if __name__ == "__main__":
    main()
