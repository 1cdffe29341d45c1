"""Time to quality: Dice on images nobody painted on, against seconds of the machine and of a simulated hand.

    python benchmarks/rivals.py DATA [--sets A,B] [--systems ours,forest,monai,nnunet] [--budgets 5,10,30,60,120]
        [--rounds 5 --round-seconds 30 --hand-seconds 30] [--seeds 3] [--device cpu] [--threads N | --busy]
        [--nnunet PYTHON] [-o benchmarks/results]

DATA holds the public sets, each with its split.json, or is itself a dense folder of your own (``images/`` and
``labels/``): fold 0, or every fifth image where there are no folds, is held out and never painted on.

*machine*: a simulated annotator paints strokes once, the same for all systems; each then learns for each of the
budgets, reading, preparing and planning on the clock. What is not ready in time has no score. A system whose training
does not depend on its budget is looked at on its way; ours, whose schedule does, begins anew for each.
*hand*: the annotator looks at each system's own masks of the painted images and corrects the largest mistakes for so
many seconds of work, the system learns for as long as a round has, and so on.

On a machine with other work, --busy counts seconds of the processor instead, all that a system uses (its child
processes too), each library held to one thread. nnU-Net may live in an environment of its own: --nnunet names its
python. Each row says its clock.

Each combination is one piece of a few minutes at most, and one or more rows of rivals.csv; pieces that are there
already are not done again, so run the same command until it says that all is done. Plot and table are made from the
rows: rivals.png, rivals.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import logging
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clocks import count_processor
from rival_systems import SYSTEMS, Painted, Task, missing

from napari_unetseg.data import load_dataset
from napari_unetseg.data.annotator import Annotator
from napari_unetseg.data.dataset import Dataset, Sample
from napari_unetseg.io import atomic_write
from napari_unetseg.metrics import score_masks
from napari_unetseg.plan import DataPlan

# images painted on, images scored, share of the voxels painted before the first round
SETS = {
    "dsb2018-nuclei": (6, 20, 0.004),
    "isbi2012-em": (2, 6, 0.004),
    "cvc-clinicdb": (8, 20, 0.004),
    "msd-hippocampus": (4, 12, 0.001),
}
OWN = (4, 12, 0.004)  # of a folder of the user's own
COLUMNS = ["part", "set", "system", "seed", "budget", "round", "hand_seconds", "strokes", "seconds", "predict_seconds",
           "dice", "dice_images", "steps", "status", "device", "threads", "clock", "machine", "versions",
           "date"]  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """What is done in one go: budgets of *machine*, one after the other, or all rounds of *hand*."""

    part: str
    set: str
    system: str
    seed: int
    budgets: tuple[float, ...]

    @property
    def keys(self) -> set[tuple[str, ...]]:
        return {(self.part, self.set, self.system, str(self.seed), f"{budget:g}") for budget in self.budgets}

    def __str__(self) -> str:
        return f"{self.part} {self.set} {self.system} {self.seed} {' '.join(f'{b:g}' for b in self.budgets)}"


def main() -> None:
    given = options()
    logging.getLogger("napari_unetseg").setLevel(logging.ERROR)
    if given.busy:
        count_processor()
    else:
        torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "rivals.csv"
    done = {key_of(row) for row in read(table) if not worth_another_try(row, given.retry)}
    todo = [piece for piece in pieces(given) if not piece.keys <= done]
    begin = time.monotonic()
    for number, piece in enumerate(todo, start=1):
        if given.minutes and time.monotonic() - begin > 60 * given.minutes:
            print(f"{len(todo) - number + 1} pieces are left: run the same command again.")
            break
        print(f"{number} of {len(todo)}: {piece}", flush=True)
        rows = list(work(piece, given))
        write(table, [row for row in read(table) if key_of(row) not in piece.keys] + rows)
        for row in rows:
            print(f"   {row['status']}  Dice {row.get('dice', '')}  {row.get('seconds', '')} s", flush=True)
    else:
        print("All is done.")
    report(given.out, read(table))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--parts", default="machine,hand")
    parser.add_argument("--budgets", default="5,10,30,60,120", help="seconds to learn, of part machine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-seconds", type=float, default=30, help="to learn in a round of part hand")
    parser.add_argument("--hand-seconds", type=float, default=30, help="of simulated work before each round")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, help="to paint on; by default what suits the set")
    parser.add_argument("--scored", type=int, help="held-out images that are scored")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--busy", action="store_true", help="count processor seconds of one thread")
    parser.add_argument("--nnunet", help="python of an environment with nnunetv2; this one when omitted")
    parser.add_argument("--minutes", type=float, help="begin no piece after so many minutes")
    parser.add_argument("--retry", action="store_true", help="do again what failed or was not installed")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_name("results"))
    given = parser.parse_args()
    if unknown := set(given.systems.split(",")) - set(SYSTEMS):
        parser.error(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    if not given.data.is_dir():
        parser.error(f"there is no folder {given.data}")
    given.threads = 1 if given.busy else given.threads
    return given


def pieces(given: argparse.Namespace) -> Iterator[Piece]:
    own = not any((given.data / name).is_dir() for name in given.sets.split(","))
    names = [given.data.name] if own else [name for name in given.sets.split(",") if (given.data / name).is_dir()]
    for seed in range(given.seeds):
        for name in names:
            for part in given.parts.split(","):
                for system in given.systems.split(","):
                    budgets = tuple(map(float, given.budgets.split(",")))
                    if part == "hand":
                        yield Piece(part, name, system, seed, (given.round_seconds,))
                    elif SYSTEMS[system].steady:
                        yield Piece(part, name, system, seed, tuple(sorted(budgets)))
                    else:
                        yield from (Piece(part, name, system, seed, (budget,)) for budget in budgets)


def work(piece: Piece, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of a piece."""
    common = {
        "part": piece.part, "set": piece.set, "system": piece.system, "seed": piece.seed,
        "device": device_name(given.device), "threads": given.threads, "clock": "processor" if given.busy else "wall",
        "machine": platform.processor() or platform.machine(), "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    if missing(piece.system, given.nnunet):
        print(f"   {SYSTEMS[piece.system].title} is not installed; --retry tries again (--nnunet names another python)")
        yield from ({**common, "budget": f"{b:g}", "status": "not installed", "round": 0} for b in piece.budgets)
        return
    dataset, learn, held = draw(piece, given)
    task = Task(dataset.classes, given.device, given.threads, piece.seed, given.busy, given.nnunet)
    system, rng = SYSTEMS[piece.system](task), np.random.default_rng(piece.seed)
    user = Annotator(len(dataset.classes), rng)
    share = SETS.get(piece.set, OWN)[2]
    painted = [Painted(one.name, one.image, user.scribble(one.target, share)) for one in learn]
    learned = 0.0
    system.warm_up()
    turns = range(given.rounds) if piece.part == "hand" else [0] * len(piece.budgets)
    for number, turn in enumerate(turns):
        if turn:
            correct(user, system, painted, learn, given.hand_seconds)
        budget = seconds = piece.budgets[0]
        if piece.part == "machine":
            budget = piece.budgets[number]
            seconds = budget - learned
        row = {**common, **round_of(system, painted, (dataset, held), max(0.0, seconds))}
        learned += row["seconds"]
        if piece.part == "machine" and row["status"] == "done" and learned > 1.25 * budget + 2:
            row["status"] = "late"
        yield {
            **row, "budget": f"{budget:g}", "round": turn, "hand_seconds": round(user.seconds, 1),
            "strokes": user.strokes, "seconds": round(learned, 1), "versions": system.versions(),
        }  # fmt: skip
        if row["status"].startswith("failed"):
            return


def round_of(
    system: Any, painted: list[Painted], scored: tuple[Dataset, list[Sample]], seconds: float
) -> dict[str, Any]:
    """Let a system learn for so many seconds, and score it."""
    dataset, held = scored
    try:
        spent = system.learn(painted, seconds)
        masks, took = system.masks([one.image for one in held])
        dice, each = (
            score(masks, held, dataset),
            [score([m], [one], dataset) for m, one in zip(masks, held, strict=True)],
        )
    except Exception as error:  # a rival that fails is a row, and the others go on
        return {"status": f"failed: {type(error).__name__}: {error}"[:200], "seconds": 0.0}
    return {"status": "done", "seconds": spent, "predict_seconds": round(took, 1), "dice": round(dice, 4),
            "dice_images": round(float(np.mean(each)), 4), "steps": system.steps}  # fmt: skip


def draw(piece: Piece, given: argparse.Namespace) -> tuple[Dataset, list[Sample], list[Sample]]:
    """Images to paint on and images to be scored on, never the same nor of one group."""
    inside = given.data / piece.set
    dataset = load_dataset(inside if inside.is_dir() else given.data, DataPlan())
    if any(case.fold is not None for case in dataset.cases):
        held = [case for case in dataset.cases if case.fold == 0]
    else:
        groups = sorted({case.group for case in dataset.cases})
        held = [case for case in dataset.cases if case.group in groups[::5]]
    names = {case.name for case in held}
    pool = [case for case in dataset.cases if case.name not in names]
    paint, score, _ = SETS.get(piece.set, OWN)
    chosen = np.random.default_rng(piece.seed).permutation(len(pool))[: given.images or paint]
    scored = np.random.default_rng(0).permutation(len(held))[: given.scored or score]
    return dataset, [pool[i].load() for i in chosen], [held[i].load() for i in scored]


def correct(user: Annotator, system: Any, painted: list[Painted], truths: list[Sample], seconds: float) -> None:
    """Correct the largest mistakes, the worst image first, until the time is used up."""
    masks, _ = system.masks([one.image for one in painted])
    wrong = [np.mean(mask != one.target) for mask, one in zip(masks, truths, strict=True)]
    end = user.seconds + seconds
    for index in np.argsort(wrong)[::-1]:
        if user.seconds >= end:
            return
        one, share = painted[index], (end - user.seconds) / 2 + 5  # at least two images are looked at
        one.strokes = user.correct(one.strokes, masks[index], truths[index].target, strokes=20, seconds=share)


def score(masks: list[np.ndarray], held: list[Sample], dataset: Dataset) -> float:
    """Mean Dice of the classes, the voxels of all images taken together."""
    pairs = [(one.name, mask, one.target, one.known) for mask, one in zip(masks, held, strict=True)]
    return score_masks(pairs, dataset.classes, rule="held out").mean_dice


# ---------------------------------------------------------------------------------------------- rows, plot, table


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def read(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def key_of(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("part", "set", "system", "seed", "budget"))


def worth_another_try(row: dict[str, str], retry: bool) -> bool:
    return retry and row["status"].startswith(("failed", "not installed"))


def write(table: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table beside, and in its place at once: a kill leaves no half of a piece."""

    def fill(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(rows)

    atomic_write(table, fill)


def report(out: Path, rows: list[dict[str, str]]) -> None:
    """Plot and tables of all rows so far: mean over seeds, and in how many seeds it was ready."""
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(row["set"] for row in rows))
    if not sets:
        return
    figure = Figure(figsize=(9, 3.2 * len(sets)), layout="constrained")
    axes = figure.subplots(len(sets), 2, squeeze=False)
    text = ["# Time to quality\n", f"Made by `benchmarks/rivals.py`; {said(rows)}\n"]
    text += ["Dice of held-out images: mean of the images / all voxels together.\n"]
    for line, name in zip(axes, sets, strict=True):
        for axis, part, x in zip(line, ("machine", "hand"), ("budget", "hand_seconds"), strict=True):
            some = [row for row in rows if (row["set"], row["part"]) == (name, part)]
            means = {system: averages([r for r in some if r["system"] == system], x) for system in SYSTEMS}
            for system, points in means.items():
                if points:
                    axis.plot([p[0] for p in points], [p[1] for p in points], "o-", label=SYSTEMS[system].title)
            clock = "seconds to learn" if part == "machine" else "seconds of a simulated hand"
            clock = clock.replace("seconds", f"{some[0]['clock']} seconds" if some and part == "machine" else "seconds")
            axis.set(title=name, xlabel=clock, ylabel="Dice, held out")
            if part == "machine":
                axis.set_xscale("log")
            if axis.lines:
                axis.legend(fontsize=7)
            if some:
                text += table_of(f"{name}: Dice against {clock}", some, part, x)
    figure.savefig(out / "rivals.png", dpi=110)
    (out / "rivals.md").write_text("\n".join(text), encoding="utf-8")


def averages(rows: list[dict[str, str]], x: str) -> list[tuple[float, float, int]]:
    """Where on the axis, mean Dice and number of seeds, by budget or by round."""
    points = []
    for step in dict.fromkeys((float(row["budget"]), int(row["round"] or 0)) for row in rows):
        there = [r for r in rows if (float(r["budget"]), int(r["round"] or 0)) == step and r["status"] == "done"]
        if there:
            at, dice = (float(np.mean([float(r[k]) for r in there])) for k in (x, "dice_images"))
            points.append((at, dice, len(there)))
    return sorted(points)


def table_of(title: str, rows: list[dict[str, str]], part: str, x: str) -> list[str]:
    steps = sorted({float(r["budget"]) if part == "machine" else int(r["round"] or 0) for r in rows})
    head = [f"{step:g} s" if part == "machine" else f"round {step}" for step in steps]
    lines = [f"## {title}\n", f"| system | {' | '.join(head)} |", "|---" * (len(steps) + 1) + "|"]
    for system in dict.fromkeys(r["system"] for r in rows):
        cells = []
        for step in steps:
            there = [r for r in rows if r["system"] == system
                     and (float(r["budget"]) if part == "machine" else int(r["round"] or 0)) == step]  # fmt: skip
            cells.append(cell(there, part))
        lines.append(f"| {SYSTEMS[system].title} | {' | '.join(cells)} |")
    return [*lines, ""]


def cell(rows: list[dict[str, str]], part: str) -> str:
    there = [r for r in rows if r["status"] == "done"]
    done, whole = ([float(r[key]) for r in there] for key in ("dice_images", "dice"))
    if not done:
        return next((r["status"].partition(":")[0] for r in rows), "")
    spread = f" ± {np.std(done, ddof=1):.3f}" if len(done) > 1 else ""
    at = "" if part == "machine" else f" ({np.mean([float(r['hand_seconds']) for r in rows if r['dice']]):.0f} s)"
    late = len(rows) - len(done)
    return f"{np.mean(done):.3f}{spread} / {np.mean(whole):.3f}{at}" + (
        f", {late} of {len(rows)} not ready" if late else ""
    )


def said(rows: list[dict[str, str]]) -> str:
    devices = ", ".join(dict.fromkeys(f"{r['device']} ({r['threads']} threads, {r['machine']})" for r in rows))
    packages = ", ".join(dict.fromkeys(r["versions"] for r in rows if r["versions"]))
    seeds = len({r["seed"] for r in rows})
    return f"{devices}; {packages}; {min(r['date'] for r in rows)} to {max(r['date'] for r in rows)}; {seeds} seeds."


if __name__ == "__main__":
    main()
