"""Every net for one minute on a data set, from the command line: a smoke test of learning.

    python benchmarks/minute.py DATA [--minutes 1] [--fold 0] [--nets unet,mildnet] [-o benchmarks/results/minute.md]

Each net is trained by ``napari-unetseg train`` in a process of its own; the held-out fold is then segmented, and its
masks are scored: Jaccard of the class, Jaccard of what is not the class (membranes), V_rand and V_info, beside the
trivial mask that calls everything the class. Rows that are already in the table are not done again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from napari_unetseg.data import load_dataset, split
from napari_unetseg.inference import predict
from napari_unetseg.metrics import jaccard, membrane_scores
from napari_unetseg.nets import NETS, Model
from napari_unetseg.plan import DataPlan

COLUMNS = ["net", "Jaccard", "membrane Jaccard", "V_rand", "V_info", "steps", "width", "patch"]
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def scores(masks: list[np.ndarray], truths: list[np.ndarray]) -> list[str]:
    mask, truth = np.stack(masks), np.stack(truths)
    membranes = [membrane_scores(m, t) for m, t in zip(masks, truths, strict=True)]
    numbers = [jaccard(mask == 1, truth == 1), jaccard(mask == 0, truth == 0)]
    numbers += [float(np.mean([m[name] for m in membranes])) for name in ("v_rand", "v_info")]
    return [f"{number:.3f}" for number in numbers]


def one(net: str, data: str, minutes: float, fold: int, heldout: list) -> str:
    with tempfile.TemporaryDirectory() as place:
        words = [
            "train",
            data,
            "--net",
            net,
            "--fold",
            str(fold),
            "--minutes",
            str(minutes),
            "-o",
            f"{place}/m",
            "--json",
        ]
        done = subprocess.run([sys.executable, "-m", "napari_unetseg.cli", *words], capture_output=True, text=True)
        if done.returncode:
            return f"| {net} | failed: {done.stderr.strip().splitlines()[-1]} | | | | | | |\n"
        model = Model.load(f"{place}/m")
    masks = [predict(model, sample.image).data for sample in heldout]
    plan = model.plan
    cells = [net, *scores(masks, [s.target for s in heldout]), model.facts["steps"], plan.net.width]
    return f"| {' | '.join(map(str, cells))} | {' x '.join(map(str, plan.patch))} |\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data")
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--fold", type=int, default=0)
    options.add_argument("--nets", default="")
    options.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "results" / "minute.md")
    given = options.parse_args()
    dataset = load_dataset(given.data)
    heldout = [part.load() for part in split(dataset, DataPlan(fold=given.fold)).heldout]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if not given.out.exists():
        machine = f"{os.cpu_count()} cores, {platform.machine()}, {datetime.date.today().isoformat()}"
        trivial = scores([np.ones_like(s.target) for s in heldout], [s.target for s in heldout])
        title = f"{given.minutes:g} minutes on {Path(given.data).name}, fold {given.fold} held out ({machine})\n\n"
        given.out.write_text(
            title + HEAD + f"| everything the class | {' | '.join(trivial)} | | | |\n", encoding="utf-8"
        )
    names = given.nets.split(",") if given.nets else [n for n in NETS.names() if 2 in NETS.facts(n).get("dims", (2, 3))]
    for net in names:
        if f"| {net} |" in given.out.read_text(encoding="utf-8"):
            continue
        row = one(net, given.data, given.minutes, given.fold, heldout)
        with given.out.open("a", encoding="utf-8") as stream:
            stream.write(row)
        print(json.dumps(row.strip()), flush=True)


if __name__ == "__main__":
    main()
