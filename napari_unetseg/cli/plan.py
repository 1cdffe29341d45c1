"""``napari-unetseg plan``: what `train` would do, why, and what it would cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

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
    Net,
    PlanFile,
    Protocol,
    make_plan,
)
from napari_unetseg.io import atomic_write

__all__ = ["plan"]


@app.command()
def plan(
    data: Data = None,
    net: Net = None,
    dims: Dims = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    protocol: Protocol = None,
    plan: PlanFile = None,
    labels: Labels = None,
    device: Device = None,
    image: ImageFiles = None,
    label: LabelFiles = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the plan, to change and train by.")] = None,
    as_json: Json = False,
) -> None:
    """Say what `train` would decide for these images, why, how long it takes and what memory; nothing is trained."""
    wanted: dict[str, dict[str, Any]] = {
        "net": {"name": net, "dims": dims},
        "data": {"labels": labels},
        "training": {"minutes": minutes, "epochs": epochs, "device": device},
    }
    given = make_plan(protocol, plan, wanted)
    pairs = paired(data, image, label)
    from napari_unetseg.data import load_dataset
    from napari_unetseg.devices import limit_threads
    from napari_unetseg.planning import plan_for

    limit_threads()
    decided, notes, estimate = plan_for(load_dataset(data, given.data, pairs=pairs), given)
    if out is not None:
        atomic_write(out, lambda path: path.write_text(decided.to_json(), encoding="utf-8"))
    if as_json:
        document = {"plan": json.loads(decided.to_json()), "notes": notes, "estimate": estimate.to_dict()}
        print(json.dumps(document, indent=1))
        return
    for note in notes:
        print(note)
    print(estimate.sentence())
    if out is not None:
        print(f"The plan is in {out}: change it, and train by it with --plan {out}")
