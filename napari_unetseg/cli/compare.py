"""``napari-unetseg compare``: which net is best on these data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_unetseg.cli import terminal
from napari_unetseg.cli.main import Json, app, paired
from napari_unetseg.cli.plans import (
    Data,
    Device,
    Dims,
    Epochs,
    ImageFiles,
    LabelFiles,
    Labels,
    Minutes,
    PlanFile,
    Protocol,
    Seed,
    make_plan,
)
from napari_unetseg.events import Control

__all__ = ["compare"]


@app.command()
def compare(
    data: Data = None,
    nets: Annotated[str, typer.Option(help="Names, see `nets`, as A,B,C; A:dice is A with another loss.")] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path("comparison"),
    folds: Annotated[int | None, typer.Option(help="5, or as many as groups, when not given.", min=2, max=20)] = None,
    dims: Dims = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    protocol: Protocol = None,
    plan: PlanFile = None,
    labels: Labels = None,
    seed: Seed = None,
    device: Device = None,
    membranes: Annotated[bool, typer.Option("--membranes", help="Also V_rand and V_info of each class.")] = False,
    image: ImageFiles = None,
    label: LabelFiles = None,
    as_json: Json = False,
) -> None:
    """Compare nets on the same folds with the same budget; the same command goes on where it was stopped."""
    budget = {"minutes": minutes, "epochs": epochs, "seed": seed, "device": device}
    options: dict[str, dict[str, Any]] = {"net": {"dims": dims}, "data": {"labels": labels}, "training": budget}
    given = make_plan(protocol, plan, options)
    pairs = paired(data, image, label)
    from napari_unetseg.data import load_dataset
    from napari_unetseg.devices import limit_threads
    from napari_unetseg.validate import compare_nets

    limit_threads()
    dataset = load_dataset(data, given.data, pairs=pairs)
    names = [name.strip() for name in nets.split(",") if name.strip()]
    control = Control()
    events = compare_nets.events(dataset, names, out=out, folds=folds, plan=given, membranes=membranes, control=control)
    done = terminal.run(events, control)
    if as_json:
        facts = {"report": str(out / "report.html"), "runs": len(done.runs), "expected": done.expected}
        failed = [{name: run[name] for name in ("net", "fold", "error")} for run in done.failed]
        print(json.dumps({**facts, "failed": failed, "table": done.table, "tests": done.tests}, indent=1))
    else:
        columns = [f"{metric} {what}" for metric in done.metrics for what in ("mean", "sd")]
        rows = [
            [row["net"], row["class"], row["cases"], *(row[name.replace(" ", "_")] for name in columns)]
            for row in done.table
        ]
        terminal.table("", ["net", "class", "cases", *columns], rows)
        print(f"{len(done.runs) - len(done.failed)} of {done.expected} runs done; report.html is in {out}")
    if done.failed or len(done.runs) < done.expected:
        raise typer.Exit(1)
