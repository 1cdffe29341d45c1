"""``napari-unetseg calibrate``: whether probabilities of 0.8 mean 0.8, and what would make them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_unetseg.cli.main import Json, app
from napari_unetseg.errors import PlanError

if TYPE_CHECKING:
    from napari_unetseg.data import Case, Dataset
    from napari_unetseg.nets import Model

__all__ = ["calibrate"]

_WORTH = 0.005  # of the calibration error: less is not worth keeping


@app.command()
def calibrate(
    data: Annotated[Path, typer.Argument(help="Project, or folder with images and labels.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="Model folder.")],
    save: Annotated[bool, typer.Option("--save", help="Keep the temperature in the model.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="PNG file for the reliability diagram.")] = None,
    as_json: Json = False,
) -> None:
    """Measure how honest probabilities are on images that the model has not learned from, and fit its temperature."""
    from napari_unetseg.data import load_dataset, prepare
    from napari_unetseg.devices import limit_threads
    from napari_unetseg.figures import reliability_diagram, save_png
    from napari_unetseg.inference import evaluate, make_predictor
    from napari_unetseg.nets import Model

    limit_threads()
    loaded = Model.load(model)
    dataset = load_dataset(data, loaded.plan.data)
    if dataset.classes != loaded.classes and len(dataset.classes) != len(loaded.classes):
        raise PlanError(
            f"The labels have {len(dataset.classes)} classes, the model {len(loaded.classes)}.",
            hint="Give data with the model's classes.",
        )
    cases = _unseen(loaded, dataset)
    images = [prepare(case.load(), loaded.plan.normalisation) for case in cases]
    rule = f"{len(cases)} image{'s' * (len(cases) != 1)} not learned from"
    scores = evaluate(make_predictor(loaded), images, loaded.classes, rule)
    found = scores.calibration
    if found is None:
        raise PlanError("There are too few labelled voxels to tell.", hint="Label more of some image, or more images.")
    if out is not None:
        save_png(out, reliability_diagram(found["before"], found["after"]))
    if save:
        loaded.plan = loaded.plan.change(inference={"temperature": found["temperature"]})
        if loaded.scores is not None:
            loaded.scores = replace(loaded.scores, calibration=found)
        loaded.save(model)
    if as_json:
        print(json.dumps({"images": len(cases), "saved": save, **found}, indent=1))
        return
    print(
        f"On {rule} ({found['voxels']:,} voxels) probabilities are off by {found['ece_before']:.3f} on average (ECE)."
    )
    now = loaded.plan.inference.temperature
    if not save and found["ece_before"] - found["ece_after"] < _WORTH:
        print(f"No other temperature is clearly better than the model's own ({now:.2f}).")
        return
    kept = "It is kept in the model." if save else "Keep it with --save."
    print(f"At the temperature {found['temperature']:.2f} they are off by {found['ece_after']:.3f}. {kept}")


def _unseen(model: Model, dataset: Dataset) -> list[Case]:
    learned = set(model.facts.get("images") or ())
    cases = [case for case in dataset.cases if case.name not in learned]
    if not cases:
        raise PlanError(
            "The model has learned from all of these images, on which any model looks sure and right.",
            hint="Give images that it has not seen.",
        )
    return cases
