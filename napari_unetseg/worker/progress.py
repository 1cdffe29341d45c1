"""Honest progress: a model is scored on new strokes before any model learns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from napari_unetseg.data.annotation import count_strokes, to_mask
from napari_unetseg.data.normalise import normalise
from napari_unetseg.events import Control
from napari_unetseg.inference import make_predictor
from napari_unetseg.metrics import score_masks
from napari_unetseg.project import Project
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Result, need, open_project, plain

__all__ = ["score_strokes"]

_MARGIN = 64  # voxels around new strokes that the net sees when it is scored on them


@VERBS.register("score_strokes")
def score_strokes(args: Args, control: Control, bench: Bench) -> Result:
    """Score a model on strokes it has never seen.

    ``{project, revisions, model, seen: {case: revision}}`` to ``{scores, strokes: {class: new strokes}, seen: strokes
    that the model was trained on}``; `scores` is None when there is nothing new.
    """
    project, model, seen = open_project(args), bench.model(need(args, "model")), need(args, "seen")
    predictor = make_predictor(model)
    new = np.zeros(len(model.classes), int)

    def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        for case, strokes, box in _unseen(project, seen):
            image = normalise(project.image(case).data, model.plan.normalisation)[(slice(None), *box)]
            truth, known = to_mask(strokes[box])
            new[:] += count_strokes(strokes[box], len(new))
            yield case, predictor.mask(predictor.probabilities(image, control)), truth, known

    scores = score_masks(pairs(), model.classes, rule="new strokes", model=model.id)
    learned = (project.annotation_at(case, number).data for case, number in seen.items() if case in project.cases)
    return {
        "scores": plain(scores) if scores.voxels else None,
        "strokes": dict(zip(model.classes, new.tolist(), strict=True)),
        "seen": sum(sum(count_strokes(labels, len(new))) for labels in learned) if scores.voxels else 0,
    }


def _unseen(project: Project, seen: Mapping[str, int]) -> Iterator[tuple[str, np.ndarray, tuple[slice, ...]]]:
    """Strokes painted since the revisions `seen`, and a box around them with a margin."""
    for case in project.annotated():
        now = project.annotation(case).data
        if case in seen:
            now = np.where(now != project.annotation_at(case, seen[case]).data, now, 0)
        if now.any():
            corners = [(int(where.min()), int(where.max()) + 1) for where in np.nonzero(now)]
            yield case, now, tuple(slice(max(0, low - _MARGIN), high + _MARGIN) for low, high in corners)
