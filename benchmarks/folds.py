"""Five folds of every architecture on every set: mean and spread of Jaccard, Dice and HD95, and paired tests.

    python benchmarks/folds.py DATA [--sets ...] [--nets ...] [--minutes 0.33 | --steps N] [--width W] [--patch P]
        [--piece 540] [-o OUT]

DATA holds the public sets, each with its split.json, whose five folds by group are used. A piece ends by itself after
about so many seconds; the same command goes on. With everything done, the tables are written to OUT/folds.md, what the
papers published of the same sets (published.csv) beside ours. On EM V_rand and V_info are scored as well. On a graphics
card: --minutes 3 --nets all --device cuda. On a processor the nets are half as wide as their papers'.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unetseg.data import load_dataset
from napari_unetseg.events import Control, Running
from napari_unetseg.nets import NETS
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.validate import Comparison, compare_nets

SETS = ("isbi2012-em", "dsb2018-nuclei", "msd-hippocampus", "cvc-clinicdb")
NETS_HERE = ("unet", "multiresunet", "sharp-unet", "mildnet", "unet++")
MEMBRANES = ("isbi2012-em",)
WORDS = {"dice": "Dice", "jaccard": "Jaccard", "hausdorff95": "HD95", "v_rand": "V_rand", "v_info": "V_info"}
MOST = 60  # cases of a set that take part, drawn once: the rest would change the seconds digit of the mean


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--nets", default=",".join(NETS_HERE), help="names, or all")
    options.add_argument("--minutes", type=float, default=0.33)
    options.add_argument("--steps", type=int, help="instead of minutes")
    options.add_argument("--width", type=float, help="of the nets, 1 the papers'; by default what the planning decides")
    options.add_argument("--patch", type=int, help="side of the patches, likewise")
    options.add_argument("--most", type=int, default=MOST, help="cases of a set; 0 for all")
    options.add_argument("--device", default="auto")
    options.add_argument("--piece", type=float, default=float("inf"), help="seconds after which this call ends")
    options.add_argument("-o", "--out", type=Path, default=Path("folds"))
    given = options.parse_args()
    end, done = time.monotonic() + given.piece, {}
    for name in given.sets.split(","):
        found = compare(name, given, end)
        if found is None:
            sys.exit("Not all is done; the same command goes on.")
        done[name] = found
    (given.out / "folds.md").write_text("\n".join(table(done, given)) + "\n", encoding="utf-8")
    print(f"Written: {given.out / 'folds.md'}")


def compare(name: str, given: argparse.Namespace, end: float) -> Comparison | None:
    dataset = load_dataset(given.data / name, DataPlan())
    if given.most and len(dataset) > given.most:
        chosen = sorted(np.random.default_rng(0).permutation(len(dataset))[: given.most])
        dataset = dataclasses.replace(dataset, cases=tuple(dataset.cases[i] for i in chosen), _counts={})
    nets = given.nets.split(",")
    if nets == ["all"]:
        nets = [net for net in NETS if dataset.ndim in NETS.facts(net).get("dims", (2, 3))]
    budget = {"minutes": given.minutes}
    if given.steps:
        budget = {"epochs": max(1, given.steps // 10), "steps_per_epoch": 10}
    patch = {"patch": (given.patch,) * dataset.ndim} if given.patch else {}
    width = {"width": given.width} if given.width else {}
    plan = Plan(training={**budget, **patch, "device": given.device}, net=width)
    control = Control()
    run = Running(
        compare_nets.events(
            dataset, nets, out=given.out / name, plan=plan, membranes=name in MEMBRANES, control=control
        )
    )
    for _ in run:
        if time.monotonic() > end:
            control.stop()
    comparison = run.result
    print(f"{name}: {len(comparison.runs)} of {comparison.expected} runs", flush=True)
    return comparison if len(comparison.runs) == comparison.expected else None


def table(done: dict[str, Comparison], given: argparse.Namespace) -> list[str]:
    budget = f"{given.steps} steps" if given.steps else f"{given.minutes:g} minutes"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() and given.device != "cpu" else "processor"
    width = f", width {given.width:g}" if given.width else ""
    width += f", patches of {given.patch}" if given.patch else ""
    lines = [f"{budget} a training{width}, {device}, torch {torch.__version__}, {time.strftime('%d %B %Y')}.", ""]
    lines += [f"| set | net | class | cases | {' | '.join(WORDS.values())} | p against the best (Holm) |"]
    lines += ["|" + "---|" * (len(WORDS) + 5)]
    for name, comparison in done.items():
        best = max(comparison.table, key=lambda row: row["dice_mean"] or 0)["net"]
        for row in comparison.table:
            tests = [t for t in comparison.tests if {t["net"], t["other"]} == {row["net"], best}]
            p = tests[0]["p_holm"] if tests else None
            chance = "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
            cells = (name, row["net"], row["class"], row["cases"], *(spread(row, m) for m in WORDS), chance)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    for name, comparison in done.items():
        for run in comparison.runs:
            if run["error"]:
                lines += ["", f"{name}, {run['net']}, fold {run['fold']}: {run['error']}"]
    return [*lines, *beside_published(done)]


def spread(row: dict[str, Any], metric: str) -> str:
    mean, deviation = row.get(f"{metric}_mean"), row.get(f"{metric}_sd")
    if mean is None:
        return "-"
    places = 1 if metric == "hausdorff95" else 3
    return f"{mean:.{places}f} ± {deviation or 0:.{places}f}"


def beside_published(done: dict[str, Comparison]) -> list[str]:
    """Rows of published.csv whose set and net were run; ours is of the first class, which is all these sets have."""
    lines = []
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as file:
        for said in csv.DictReader(file):
            rows = [row for row in done[said["set"]].table if row["net"] == said["net"]] if said["set"] in done else []
            if rows and (mean := rows[0].get(f"{said['metric']}_mean")) is not None:
                metric = WORDS[said["metric"]]
                cells = (said["set"], said["net"], metric, f"{mean:.3f}", said["value"], said["paper"])
                lines.append(f"| {' | '.join(cells)} |")
    head = ["", "| set | net | metric | ours | published | paper |", "|" + "---|" * 6]
    return [*head, *lines] if lines else []


if __name__ == "__main__":
    main()
