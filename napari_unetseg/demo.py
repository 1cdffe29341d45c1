"""The main job on sample data, with a simulated annotator in the user's place.

Scribble on some images, train, look where the mask is wrong, correct there, train again, and segment all images. What
is scored, the annotator never touches: whole images with their full truth.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.batch import segment_folder
from napari_unetseg.data.annotator import correct, scribble
from napari_unetseg.errors import PlanError
from napari_unetseg.events import Control, Event, Note, verb
from napari_unetseg.figures import overlay, panels, save_png
from napari_unetseg.inference import predict
from napari_unetseg.io import read_labels
from napari_unetseg.metrics import dice, score_masks
from napari_unetseg.nets import Model
from napari_unetseg.plan import Plan
from napari_unetseg.project import Project
from napari_unetseg.samples import HELD_OUT, demo_project
from napari_unetseg.samples import sample as find_sample
from napari_unetseg.scores import Scores
from napari_unetseg.training import fine_tune

__all__ = ["RoundDone", "run_demo"]

_SHARE = 0.01  # of the voxels that the annotator paints in the first round


@dataclass(frozen=True)
class RoundDone(Event):
    """A round of strokes and training is over, scored on images that were never touched."""

    number: int
    scores: Scores
    painted: int
    seconds: float
    picture: str

    def sentence(self) -> str:
        """One line for the terminal."""
        return f"Round {self.number}: {self.scores.sentence()}; {self.painted:,} voxels painted, {self.seconds:.0f} s"


@verb
def run_demo(
    out: str | Path, *, sample: str = "nuclei-2d", minutes: float = 1.0, seed: int = 0, control: Control | None = None
) -> Generator[Event, None, dict[str, Any]]:
    """Run the main job in two rounds and segment the folder.

    Parameters
    ----------
    out : path
        Folder for the project, a picture a round, the masks and their table.
    sample : str
        Name of a sample set.
    minutes : float
        Training time a round.
    seed : int
        Of the simulated annotator and of the training.
    control : Control, optional
        To stop it.

    Returns
    -------
    dict
        ``lines`` (one a round, for people), ``rounds`` (scores), ``project``, ``model``, ``masks``.
    """
    out, control = Path(out), control or Control()
    samples = find_sample(sample)
    project = demo_project(out, sample)
    try:
        truths = {case: read_labels(mask).data for case, (_, mask) in zip(project.cases, samples.pairs, strict=True)}
        test = [case for case in project.cases if project.group(case) == HELD_OUT]
        work = [case for case in project.cases if case not in test]
        if not test or not work:
            raise PlanError(f"The sample {sample} has too few images.", hint="Use nuclei-2d or organ-3d for the demo.")
        yield Note(
            f"{samples.title}: strokes on {len(work)} images, scored on {len(test)} others with their full truth."
        )
        rng = np.random.default_rng(seed)
        model: Model | None = None
        rounds: list[RoundDone] = []
        for number in (1, 2):
            start = time.monotonic()
            painted = _annotate(project, work, truths, model, rng)
            plan = Plan(training={"minutes": minutes, "seed": seed})
            folder = project.new_model_folder()
            model = yield from fine_tune.events(project, plan, start=model, control=control, folder=folder)
            project.set_current_model(folder)
            scores, masks = yield from _score(project, model, test, truths, control)
            picture = _picture(out / f"round-{number}.png", project, (work[0], test[0]), truths, masks)
            done = RoundDone(number, scores, painted, time.monotonic() - start, str(picture))
            rounds.append(done)
            yield Note(done.sentence())
            yield done
        assert model is not None  # two rounds were run
        rows = yield from segment_folder.events([samples.pairs[0][0].parent], model, out / "masks", control=control)
    finally:
        project.close()
    return {
        "lines": [done.sentence() for done in rounds],
        "rounds": [
            {"round": done.number, **done.scores.to_dict(), "seconds": round(done.seconds, 1)} for done in rounds
        ],
        "project": str(project.path),
        "model": str(model.folder),
        "masks": str(out / "masks"),
        "files": len({row["file"] for row in rows}),
    }


def _annotate(
    project: Project, cases: Sequence[str], truths: dict[str, np.ndarray], model: Model | None, rng: np.random.Generator
) -> int:
    """Paint as a user would: scribbles at first, then strokes where the model is wrong; returns voxels painted."""
    classes, painted = len(project.classes), 0
    for case in cases:
        before = project.annotation(case).data
        if model is None:
            strokes = scribble(truths[case], classes, rng, fraction=_SHARE)
        else:
            prediction = predict(model, project.image(case)).data
            strokes = correct(before, prediction, truths[case], classes, rng)
        painted += int((strokes != before).sum())
        project.annotate(case, strokes)
    return painted


def _score(
    project: Project, model: Model, cases: Sequence[str], truths: dict[str, np.ndarray], control: Control
) -> Generator[Event, None, tuple[Scores, dict[str, np.ndarray]]]:
    masks = {}
    for case in cases:
        mask = yield from predict.events(model, project.image(case), control=control)
        masks[case] = mask.data
    rule = f"{len(cases)} untouched image{'s' * (len(cases) != 1)} with full truth"
    pairs = ((case, masks[case], truths[case], np.ones(truths[case].shape, bool)) for case in cases)
    return score_masks(pairs, project.classes, rule=rule, model=model.id), masks


def _picture(
    path: Path,
    project: Project,
    cases: tuple[str, str],
    truths: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
) -> Path:
    """Strokes on a painted image; mask and truth on an untouched one; of volumes the plane with most truth."""
    painted, test = cases
    tiles, titles = [], []
    for case, mask, strokes, title in (
        (painted, None, project.annotation(painted).data, f"strokes on {painted}"),
        (test, masks[test], None, f"mask of {test}, Dice {_dice(masks[test], truths[test]):.2f}"),
        (test, truths[test], None, f"truth of {test}"),
    ):
        image = project.image(case).data
        shown = np.zeros(truths[case].shape, np.uint8) if mask is None else mask
        if image.ndim == 4:
            amount = (strokes if strokes is not None else truths[case]).astype(bool).sum(axis=(1, 2))
            plane = int(amount.argmax())
            image, shown = image[:, plane], shown[plane]
            strokes = None if strokes is None else strokes[plane]
        tiles.append(overlay(image, shown, strokes, colours=project.colours))
        titles.append(title)
    save_png(path, panels(tiles, titles))
    return path


def _dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Dice of all classes but the background together."""
    return float(dice(mask > 0, truth > 0))
