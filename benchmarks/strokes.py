"""A few strokes against dense masks, and what the teacher is worth.

    python benchmarks/strokes.py DATA [--sets dsb2018-nuclei,...] [--seeds 2] [--steps 300] [--net unet] [-o TABLE.csv]

DATA holds the public sets, each with its split.json. A simulated annotator paints about 1 % of a few images of folds
1..; each way learns from the same images, with a part of them held out as the product does, for the same number of
steps with the same patches and batches; whole images of fold 0 are scored. Ways: the instant model; the net on the
strokes alone; the net taught by the instant model (the product's way); the net on dense masks of the same images.
`shown` is what a user would see: the instant model until the net is better on what was held out. Rows that are in the
table already are not done again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
from pathlib import Path

import numpy as np

from napari_unetseg.data import Case, Dataset, Sample, load_dataset
from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.annotator import scribble
from napari_unetseg.events import Leads, Running
from napari_unetseg.inference import predict
from napari_unetseg.instant import fit_instant
from napari_unetseg.metrics import score_masks
from napari_unetseg.nets import Model
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.training import fine_tune

SETS = {  # images painted, images scored
    "dsb2018-nuclei": (8, 10),
    "msd-hippocampus": (4, 10),
    "isbi2012-em": (3, 3),
    "cvc-clinicdb": (8, 10),
    "covid-ct-multiclass": (6, 8),
    "chasedb1-vessels": (4, 3),
}
WAYS = ("instant", "strokes", "taught", "dense")
FIELDS = ("set", "net", "steps", "seed", "way", "dice", "jaccard", "heldout", "shown", "seconds")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--sets", default=",".join(list(SETS)[:4]))
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--net", default="unet")
    options.add_argument("--ways", default=",".join(WAYS))
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results/strokes.csv"))
    given = options.parse_args()
    rows = read_rows(given.out)
    for seed in range(given.seeds):
        for name in given.sets.split(","):
            for way in given.ways.split(","):
                key = {"set": name, "net": given.net, "steps": str(given.steps), "seed": str(seed), "way": way}
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append({**key, **measure(given.data / name, SETS[name], key)})
                write_rows(given.out, rows)
                print(rows[-1], flush=True)
    print(table(rows))


def measure(folder: Path, numbers: tuple[int, int], key: dict[str, str]) -> dict[str, str]:
    dataset = load_dataset(folder, DataPlan())
    rng = np.random.default_rng(int(key["seed"]))
    learned = draw([case for case in dataset.cases if case.fold != 0], numbers[0], rng)
    scored = draw([case for case in dataset.cases if case.fold == 0], numbers[1], np.random.default_rng(0))
    samples = [paint(case.load(), len(dataset.classes), rng, key["way"] == "dense") for case in learned]
    cases = tuple(Case(s.name, s.name, None, None, Painted(s)) for s in samples)
    labels = "mask" if key["way"] == "dense" else "annotation"
    painted = dataclasses.replace(dataset, cases=cases, labels=labels, _counts={})
    begin = time.monotonic()
    leader, model = train(painted, dataset.ndim, key)
    seconds = time.monotonic() - begin
    pairs = []
    for case in scored:
        truth = case.load()
        pairs.append((truth.name, predict(model, truth.image).data, truth.target, truth.known))
    scores = score_masks(pairs, dataset.classes, rule="fold 0")
    return {
        "dice": f"{scores.mean_dice:.3f}",
        "jaccard": f"{scores.mean_jaccard:.3f}",
        "heldout": f"{model.scores.mean_dice:.3f}" if model.scores else "",
        "shown": leader,
        "seconds": f"{seconds:.0f}",
    }


def train(painted: Dataset, ndim: int, key: dict[str, str]) -> tuple[str, Model]:
    """Who leads at the end, and the model."""
    plan = Plan().change(training={"device": "cpu"})
    if key["way"] == "instant":
        return "instant", fit_instant(painted, plan)
    # patch and batch of strokes for dense masks too, so that only the labels differ
    side = {2: (128, 128), 3: (48, 48, 48)}[ndim]
    steps = {"epochs": max(1, int(key["steps"]) // 20), "steps_per_epoch": 20, "patch": side}
    if key["way"] == "strokes":
        steps["teacher"] = 0.0
    leader = key["net"]
    run = Running(fine_tune.events(painted, plan.change(net={"name": key["net"]}, training=steps)))
    for event in run:
        if isinstance(event, Leads):
            leader = event.who
    return leader, run.result


@dataclasses.dataclass(frozen=True)
class Painted:
    """A sample in place of a file."""

    kept: Sample

    def sample(self) -> Sample:
        return self.kept

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        return self.kept.target, self.kept.known


def paint(sample: Sample, classes: int, rng: np.random.Generator, dense: bool) -> Sample:
    mask, known = to_mask(scribble(sample.target, classes, rng, 0.01))
    return sample if dense else dataclasses.replace(sample, target=mask, known=known)


def draw(cases: list[Case], number: int, rng: np.random.Generator) -> list[Case]:
    return [cases[i] for i in rng.permutation(len(cases))[:number]]


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def table(rows: list[dict[str, str]]) -> str:
    """Mean Dice over the seeds, set by set, and strokes as a share of dense masks."""
    lines = [
        "| set | net, steps | instant | strokes alone | taught | dense | taught / dense |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, net, steps in dict.fromkeys((row["set"], row["net"], row["steps"]) for row in rows):
        found = {
            way: [
                float(r["dice"]) for r in rows if (r["set"], r["net"], r["steps"], r["way"]) == (name, net, steps, way)
            ]
            for way in WAYS
        }
        means = {way: float(np.mean(values)) if values else float("nan") for way, values in found.items()}
        cells = " | ".join(f"{means[way]:.3f}" for way in WAYS)
        lines.append(f"| {name} | {net}, {steps} | {cells} | {means['taught'] / means['dense']:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
