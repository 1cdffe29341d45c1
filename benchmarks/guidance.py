"""Are the places that guidance proposes worth more than random ones? And are slips of the hand found?

    python benchmarks/guidance.py DATA [--sets dsb2018-nuclei,isbi2012-em] [--seeds N] [--rounds N] [--arms A,B,...]

A simulated annotator with a few strokes on two images is sent to places, by different rules, and paints at most two
strokes at each: where the mask that is shown is most wrong, of the class that is true. After every few places the
instant model is fitted again and scored on whole images of fold 0, which nobody paints on. All rules get the same
number of looks; strokes and Dice are told for each. `whole image` is a user without guidance who opens random images
and finds their worst mistakes by eye.

Slips: of the strokes on six images one in ten is turned into another class. They are looked for by a model fitted to
all strokes, slips included, and by models that have not seen the stroke they judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from napari_unetseg.data import Dataset, load_dataset, prepare
from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.annotator import correct, scribble
from napari_unetseg.data.dataset import Case, Sample
from napari_unetseg.guidance import Candidate, find_slips, suggest
from napari_unetseg.inference import entropy, evaluate, make_predictor, predict_probabilities
from napari_unetseg.instant import fit_instant
from napari_unetseg.nets import Model
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.validate import cross_check

SIDE, POOL, HELD, LOOKS = 192, 10, 8, 6
ARMS = ("random place", "random of a class", "most entropy", "doubt", "doubt, 1 in 3 random", "whole image")
PLAN = Plan().change(data={"heldout": 0.0}, training={"device": "cpu"})


@dataclasses.dataclass
class Painted:
    """A case whose annotation grows."""

    whole: Sample
    strokes: np.ndarray

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.whole.name, lambda: (self.whole.image, self.strokes))

    def case(self) -> Case:
        return Case(self.whole.name, self.whole.name, None, None, self)

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        return to_mask(self.strokes)

    def sample(self) -> Sample:
        return Sample(self.whole.name, self.whole.image, *self.target())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--sets", default="dsb2018-nuclei,isbi2012-em")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--arms", default=";".join(ARMS), help="separated by ;")
    given = options.parse_args()
    torch.set_num_threads(1)
    for name in given.sets.split(","):
        dataset = load_dataset(given.data / name, DataPlan())
        begin = time.process_time()
        print(f"{name}: {given.seeds} draws, {LOOKS} looks a round")
        for arm in filter(None, given.arms.split(";")):
            runs = [run(dataset, arm, given.rounds, seed) for seed in range(given.seeds)]
            dice, strokes = (np.mean([[row[i] for row in rows] for rows in runs], axis=0) for i in (0, 1))
            ends = [rows[-1][0] for rows in runs]
            said = " ".join(f"{d:.3f}" for d in dice)
            print(f"  {arm:<22} Dice {said}  mean {dice[1:].mean():.3f}  sd of the last {np.std(ends, ddof=1):.3f}  "
                  f"strokes {strokes[-1]:.0f}", flush=True)  # fmt: skip
        every = [slips(dataset, seed) for seed in range(given.seeds)]
        for way in every[0]:
            made, found, others, good = np.sum([each[way] for each in every], axis=0)
            print(f"  slips, by models that have {way}: {found} of {made} found, {others} of {good} good strokes named")
        print(f"  {time.process_time() - begin:.0f} s of processor time", flush=True)


def crop(sample: Sample) -> Sample:
    starts = [max(0, (n - SIDE) // 2) for n in sample.target.shape]
    part = sample.crop(tuple(slice(s, s + SIDE) for s in starts))
    return dataclasses.replace(part, target=np.ascontiguousarray(part.target), known=np.ones(part.target.shape, bool))


def draw(dataset: Dataset, seed: int) -> tuple[list[Sample], list[Sample]]:
    rng, held = np.random.default_rng(seed), np.random.default_rng(99)
    pool = [case for case in dataset.cases if case.fold != 0]
    rest = [case for case in dataset.cases if case.fold == 0]
    chosen = [pool[i] for i in rng.permutation(len(pool))[:POOL]]
    return [crop(case.load()) for case in chosen], [crop(rest[i].load()) for i in held.permutation(len(rest))[:HELD]]


def fit(dataset: Dataset, painted: list[Painted]) -> Model:
    cases = tuple(one.case() for one in painted if one.strokes.any())
    labelled = dataclasses.replace(dataset, cases=cases, labels="annotation", _counts={})
    return fit_instant(labelled, PLAN)


def run(dataset: Dataset, arm: str, rounds: int, seed: int) -> list[tuple[float, int]]:
    """Dice on the held-out images and strokes painted, at the start and after each round."""
    pool, held = draw(dataset, seed)
    rng = np.random.default_rng(seed)
    classes = len(dataset.classes)
    painted = [Painted(sample, np.zeros(sample.target.shape, np.uint8)) for sample in pool]
    for one in painted[:2]:
        one.strokes = scribble(one.whole.target, classes, rng, 0.004)
    rows, strokes = [], 0
    for turn in range(rounds + 1):
        model = fit(dataset, painted)
        test = [prepare(sample, model.plan.normalisation) for sample in held]
        rows.append((evaluate(make_predictor(model), test, dataset.classes, "held out").mean_dice, strokes))
        if turn < rounds:
            for one, box in places(arm, painted, model, 100 * seed + turn):
                strokes += paint(one, box, model, classes, rng)
    return rows


def places(arm: str, painted: list[Painted], model: Model, seed: int) -> list[tuple[Painted, tuple[slice, ...]]]:
    rng = np.random.default_rng(seed)
    if arm == "whole image":
        return [(painted[i], (slice(None), slice(None))) for i in rng.permutation(len(painted))[:LOOKS]]
    if arm == "random place":
        return [(one, box_at(rng.integers(one.strokes.shape), one.strokes.shape))
                for one in (painted[i] for i in rng.integers(len(painted), size=LOOKS))]  # fmt: skip
    if arm == "most entropy":
        return most_entropy(painted, model)
    every = {"random of a class": 1, "doubt": 0, "doubt, 1 in 3 random": 3, "doubt, 1 in 2 random": 2}[arm]
    candidates = [one.candidate for one in painted]
    found = suggest(candidates, model, number=LOOKS, seconds=1e6, random_every=every, seed=seed)
    named = {one.whole.name: one for one in painted}
    return [(named[each.case], each.box) for each in found]


def most_entropy(painted: list[Painted], model: Model) -> list[tuple[Painted, tuple[slice, ...]]]:
    """The squares with the highest mean entropy of all, apart from one another."""
    means = []
    for one in painted:
        doubt = np.where(one.strokes == 0, entropy(predict_probabilities(model, one.whole.image)), 0)
        side = min(one.strokes.shape) // 4
        means.append(ndimage.uniform_filter(doubt, side, mode="constant"))
    found = []
    for _ in range(LOOKS):
        which = int(np.argmax([mean.max() for mean in means]))
        box = box_at(np.unravel_index(means[which].argmax(), means[which].shape), means[which].shape)
        means[which][box] = 0
        found.append((painted[which], box))
    return found


def box_at(place: np.ndarray | tuple, shape: tuple[int, ...]) -> tuple[slice, ...]:
    side = min(128, max(32, min(shape) // 4))
    starts = [int(max(0, min(at - side // 2, n - side))) for at, n in zip(place, shape, strict=True)]
    return tuple(slice(start, start + side) for start in starts)


def paint(one: Painted, box: tuple[slice, ...], model: Model, classes: int, rng: np.random.Generator) -> int:
    """Correct what is most wrong in the box; the number of strokes."""
    mask = make_predictor(model).mask(predict_probabilities(model, one.whole.image))
    wrong = int(ndimage.label((mask != one.whole.target)[box])[1])
    after = correct(one.strokes[box], mask[box], one.whole.target[box], classes, rng, strokes=2, width=2)
    one.strokes = one.strokes.copy()
    one.strokes[box] = after
    return min(2, wrong)


def slips(dataset: Dataset, seed: int) -> dict[str, tuple[int, int, int, int]]:
    """By the way of looking: slips made, found, other strokes named, other strokes there are."""
    pool, _ = draw(dataset, seed)
    rng, classes = np.random.default_rng(seed), len(dataset.classes)
    painted = [Painted(sample, scribble(sample.target, classes, rng, 0.01)) for sample in pool[:6]]
    strokes = [(one, parts == number) for one in painted for parts, count in numbered(one.strokes, classes)
               for number in range(1, count + 1)]  # fmt: skip
    made = [strokes[i] for i in rng.permutation(len(strokes))[: max(3, len(strokes) // 10)]]
    for one, where in made:
        one.strokes[where] = int(one.strokes[where][0]) % classes + 1
    candidates, rows = [one.candidate for one in painted], {}
    for way in ("learned from them", "not seen them"):
        if way == "not seen them":
            named = cross_check(candidates, dataset.classes)
        else:
            named = find_slips(candidates, fit(dataset, painted), seconds=1e6)
        found = [any(n.case == one.whole.name and where[n.region].any() for n in named) for one, where in made]
        true = [any(n.case == one.whole.name and where[n.region].any() for one, where in made) for n in named]
        rows[way] = len(made), sum(found), len(named) - sum(true), len(strokes) - len(made)
    return rows


def numbered(strokes: np.ndarray, classes: int) -> list[tuple[np.ndarray, int]]:
    return [ndimage.label(strokes == label, np.ones((3, 3))) for label in range(1, classes + 1)]


if __name__ == "__main__":
    main()
