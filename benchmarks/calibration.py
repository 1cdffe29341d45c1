"""Does 0.8 mean 0.8? Calibration of a short training on images that nobody has looked at.

    python benchmarks/calibration.py DATA [--nets unet,instant] [--steps 400] [--tta none,turns] [-o PICTURE.png]
    python benchmarks/calibration.py DATA --strokes [--steps 40] [--draws 12]

DATA holds split.json. A net is trained on folds 1.., a fifth of whose images is held out to choose the weights and fit
the temperature; what is told is measured on fold 0, at the temperature 1 and at the one fitted. With --strokes the net
learns from strokes on a few images, and the temperature is fitted on strokes of 1, 2 or 4 others, drawn several times:
by likelihood alone, and held near 1 by the number of pieces of evidence.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from strokes import SETS, Painted, draw, paint, train

from napari_unetseg.data import Case, Dataset, load_dataset
from napari_unetseg.figures import panels, reliability_diagram, save_png
from napari_unetseg.inference import predict_doubt
from napari_unetseg.inference.calibration import Evidence, expected_error, fit_temperature, reliability, tempered
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
    options.add_argument("--strokes", action="store_true")
    options.add_argument("--draws", type=int, default=12)
    options.add_argument("-o", "--out", type=Path)
    given = options.parse_args()
    if given.strokes:
        few_strokes(given)
        return
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


def few_strokes(given: argparse.Namespace) -> None:
    dataset, rng = load_dataset(given.data, DataPlan()), np.random.default_rng(0)
    others = draw([case for case in dataset.cases if case.fold != 0], len(dataset), rng)
    number = SETS[given.data.name][0]
    samples = [paint(case.load(), len(dataset.classes), rng, dense=False) for case in others[: number + 12]]
    cases = tuple(Case(s.name, s.name, None, None, Painted(s)) for s in samples[:number])
    painted = dataclasses.replace(dataset, cases=cases, labels="annotation", _counts={})
    _, model = train(painted, dataset.ndim, {"way": "taught", "net": "unet", "steps": str(given.steps)})
    warm = dataclasses.replace(model, plan=model.plan.change(inference={"temperature": 1.0}))
    heldout = [(predict_doubt(warm, s.image, tta="none", dropout_passes=0).probability, s) for s in samples[number:]]
    truth = Evidence()
    for case in draw([case for case in dataset.cases if case.fold == 0], 8, rng):
        sample = case.load()
        found = predict_doubt(warm, sample.image, tta="none", dropout_passes=0).probability
        truth.add(found, sample.target, sample.known)
    said, true = truth.voxels()

    def off(temperature: float) -> float:
        return expected_error(reliability(tempered(said, temperature), true))

    best = fit_temperature(said, true)
    fitted = model.plan.inference.temperature
    print(f"{given.data.name}: fitted in training {fitted:.2f}, on the truth of fold 0 {best:.2f}")
    print(f"ECE on that truth at 1: {off(1):.3f}, at the best: {off(best):.3f}")
    head = ("images", "pieces", "T by likelihood: median, most", "T held: median, most", "ECE", "ECE held")
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    for images in (1, 2, 4):
        alone, held, pieces = [], [], []
        for _ in range(given.draws):
            evidence = Evidence()
            for i in rng.permutation(len(heldout))[:images]:
                evidence.add(heldout[i][0], heldout[i][1].target, heldout[i][1].known)
            voxels = evidence.voxels()
            pieces.append(evidence.pieces)
            alone.append(fit_temperature(*voxels, sharpen=False))
            held.append(fit_temperature(*voxels, sharpen=False, pieces=evidence.pieces))
        cells = [images, f"{np.median(pieces):.0f}"]
        cells += [f"{np.median(found):.2f}, {max(found):.2f}" for found in (alone, held)]
        cells += [f"{np.mean([off(t) for t in found]):.3f}" for found in (alone, held)]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
