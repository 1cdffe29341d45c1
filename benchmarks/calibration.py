"""Does 0.8 mean 0.8? Calibration of a short training on images that nobody has looked at.

    python benchmarks/calibration.py DATA [--nets unet,instant] [--steps 400] [--tta none,turns] [-o PICTURE.png]

DATA holds split.json. A net is trained on folds 1.., a fifth of whose images is held out to choose the weights and fit
the temperature; what is told is measured on fold 0, at the temperature 1 and at the one fitted.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from napari_unetseg.data import Dataset, load_dataset
from napari_unetseg.figures import panels, reliability_diagram, save_png
from napari_unetseg.inference import predict_doubt
from napari_unetseg.inference.calibration import Evidence, tempered
from napari_unetseg.instant import fit_instant
from napari_unetseg.metrics import score_masks
from napari_unetseg.nets import Model
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.training import fine_tune


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--nets", default="unet,instant")
    options.add_argument("--width", type=float, default=0.25)
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--tta", default="none", help="none, flips or turns; separated by commas")
    options.add_argument("--most", type=int, default=30, help="images of fold 0 to measure on")
    options.add_argument("-o", "--out", type=Path)
    given = options.parse_args()
    dataset = load_dataset(given.data, DataPlan())
    learned = dataclasses.replace(dataset, cases=tuple(case for case in dataset.cases if case.fold != 0), _counts={})
    pictures, titles = [], []
    for net in given.nets.split(","):
        plan = Plan().change(training={"device": "cpu"})
        if net == "instant":
            model = fit_instant(learned, plan)
        else:
            epochs = max(1, given.steps // 20)
            steps = {"epochs": epochs, "steps_per_epoch": 20, "validate_every": epochs}
            model = fine_tune(learned, plan.change(net={"name": net, "width": given.width}, training=steps))
        for tta in given.tta.split(","):
            found, dice = measure(model, dataset, tta, given.most)
            temperature = model.plan.inference.temperature
            print(
                f"{net}, tta {tta}: temperature {temperature:.2f} (fitted on {model.scores.rule}), "
                f"ECE {found['ece_before']:.4f} to {found['ece_after']:.4f}, Dice {dice:.3f}",
                flush=True,
            )
            if tta == "none":
                pictures.append(reliability_diagram(found["before"], found["after"]))
                titles.append(net)
    if given.out:
        save_png(given.out, panels(pictures, titles))


def measure(model: Model, dataset: Dataset, tta: str, most: int) -> tuple[dict, float]:
    """Rows of `reliability` and ECE on fold 0 at temperature 1 (before) and as fitted (after), and Dice."""
    cases = [case for case in dataset.cases if case.fold == 0]
    samples = [cases[i].load() for i in np.random.default_rng(0).permutation(len(cases))[:most]]
    warm = dataclasses.replace(model, plan=model.plan.change(inference={"temperature": 1.0}))
    before, after, pairs = Evidence(), Evidence(), []
    for sample in samples:
        belief = predict_doubt(warm, sample.image, tta=tta, dropout_passes=0)
        before.add(belief.probability, sample.target, sample.known)
        calibrated = tempered(belief.probability, model.plan.inference.temperature)
        after.add(calibrated, sample.target, sample.known)
        pairs.append((sample.name, belief.mask(), sample.target, sample.known))
    found = {}
    for when, evidence in (("before", before), ("after", after)):
        rows = evidence.calibration()
        found[when], found[f"ece_{when}"] = rows["before"], rows["ece_before"]
    return found, score_masks(pairs, dataset.classes, rule="fold 0").mean_dice


if __name__ == "__main__":
    main()
