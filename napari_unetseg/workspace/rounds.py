"""Rounds: the models of a project in the order of training, read without torch, and which of two is to be kept."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

from napari_unetseg.project import Project
from napari_unetseg.scores import Scores
from napari_unetseg.workspace.state import Curves, Round

__all__ = ["comparable", "model_facts", "not_worse", "read_curves", "read_rounds", "round_number"]

logger = logging.getLogger(__name__)


def model_facts(folder: Path) -> dict[str, Any]:
    """What ``model.json`` of a model folder says; empty when it cannot be read."""
    try:
        facts = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        logger.warning("%s has no readable model.json: %s", Path(folder).name, error)
        return {}
    return facts if isinstance(facts, dict) else {}


def read_rounds(project: Project) -> tuple[Round, ...]:
    """Every readable model of the project, oldest first; a folder left by an interrupted training is passed over."""
    current = project.current_model
    rounds = []
    for folder in project.models:
        facts = model_facts(folder)
        if facts:
            scores = Scores.from_dict(facts["scores"]) if facts.get("scores") else None
            rounds.append(
                Round(
                    number=round_number(folder),
                    folder=folder,
                    net=facts.get("plan", {}).get("net", {}).get("name", "?"),
                    scores=scores,
                    current=current is not None and Path(current) == Path(folder),
                    kept=_kept(folder, facts.get("steps"), scores),
                )
            )
    return tuple(rounds)


def _kept(folder: Path, steps: Any, scores: Scores | None) -> tuple[int, int] | None:
    """Step of the history at which the scores of the model were measured, and the number of steps."""
    if scores is None or not isinstance(steps, int):
        return None
    try:
        with open(folder / "history.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in reversed(rows):
            if all(math.isclose(float(row[f"dice {name}"]), dice, abs_tol=1e-9) for name, dice in scores.dice.items()):
                return int(float(row["step"])), steps
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        logger.info("%s has no readable history.csv: %s", folder.name, error)
    return None


def read_curves(folder: Path) -> Curves:
    """Learning curves that a model keeps of its training; without points where they cannot be read."""
    curves = Curves(round_number(folder))
    try:
        with open(folder / "history.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                step = int(float(row["step"]))
                if row.get("loss"):
                    curves.steps.append(step)
                    curves.losses.append(float(row["loss"]))
                dice, jaccard = (
                    {key.split(" ", 1)[1]: float(value) for key, value in row.items() if key.startswith(kind) and value}
                    for kind in ("dice ", "jaccard ")
                )
                if dice:
                    curves.validations.append((step, Scores(jaccard, dice, rule="what was held out")))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        logger.info("%s has no readable history.csv: %s", folder.name, error)
    return curves


def not_worse(new: Scores | None, old: Scores | None) -> bool:
    """Whether the new model may replace the old one, as far as the two can be compared.

    Two scores are comparable when they were measured on the same held-out images and as many voxels. Where nothing was
    held out, or the two were measured on different voxels, the newer model, which saw more strokes, is kept. A model
    without any score (it was stopped too early) does not replace one that has.
    """
    if old is None or not old.voxels or not old.rule:
        return True
    if new is None or not new.voxels:
        return False
    return not comparable(new, old) or not new.mean_dice < old.mean_dice


def comparable(new: Scores, old: Scores) -> bool:
    """Whether two scores were measured on the same held-out images and as many voxels."""
    return (new.rule, set(new.images), new.voxels) == (old.rule, set(old.images), old.voxels)


def round_number(folder: Path) -> int:
    """Number in the name of a model folder, ``round-NNN``."""
    return int(folder.name.rpartition("-")[2])
