"""Scores of images of a project, one row an image and class: against truth, accepted masks or strokes."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import numpy as np

from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.truth import as_classes
from napari_unetseg.errors import AnnotationError, Stopped, UnetSegError
from napari_unetseg.events import Control, Event, TileDone, finish
from napari_unetseg.io import read_labels
from napari_unetseg.metrics import compare_masks
from napari_unetseg.postprocess import after_net
from napari_unetseg.project import Project
from napari_unetseg.volume import LabelVolume
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Run, need, open_project

__all__ = ["score_cases"]


@VERBS.register("score_cases")
def score_cases(args: Args, control: Control, bench: Bench) -> Run:
    """Segment images and score them.

    ``{project, model, on, cases, truths}`` to ``{rows: [{case, class, dice, jaccard, hausdorff95, voxels, unit}],
    failed: {case: why}}``. `on` is ``truth`` (with ``truths``, a file for each case), ``accepted`` or ``strokes``; of
    strokes there are no distances (None). An image that fails is left out and named.
    """
    project, model, on = open_project(args), bench.model(need(args, "model")), need(args, "on")
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    cases, begin = list(need(args, "cases")), time.monotonic()
    for done, case in enumerate(cases, start=1):
        if control.stopped:
            raise Stopped("The scoring was stopped.")
        try:
            image = project.image(case)
            where = f"{args['project']}:{case}", str(args["model"])
            mask = _segment(bench.masks.predict(where, model, image, control))
            mask, _ = after_net(mask, model.plan.post.steps, image.geometry.spacing)
            truth, known = _right(project, case, on, args.get("truths") or {})
            if truth.shape != mask.shape:
                raise AnnotationError(f"The truth of {case} has the shape {truth.shape}, the image {mask.shape}.")
            whole = None if known.all() else known
            scores = compare_masks(mask, truth, image.geometry.spacing, model.classes, known=whole)
        except Stopped:
            raise
        except UnetSegError as error:
            failed[case] = error.message
            continue
        shared = {"case": case, "voxels": int(np.count_nonzero(known)), "unit": image.geometry.unit}
        rows += [
            {**shared, "class": name, **{key: one[key] for key in ("dice", "jaccard", "hausdorff95")}}
            for name, one in scores.items()
        ]
        left = (time.monotonic() - begin) / done * (len(cases) - done)
        yield TileDone(done, len(cases), left)
    return {"rows": rows, "failed": failed}


def _segment(run: Generator[Event, None, LabelVolume]) -> np.ndarray:
    """Run to the end without telling of tiles: what is told of are images."""
    return finish(run).data


def _right(project: Project, case: str, on: str, truths: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mask known to be right, and where it is known."""
    if on == "strokes":
        return to_mask(project.annotation(case).data)
    if on == "accepted":
        accepted = project.mask(case)
        if accepted is None:
            raise AnnotationError(f"The mask of {case} is not accepted any more.")
        return np.asarray(accepted.data), np.ones(accepted.data.shape, bool)
    return as_classes(np.asarray(read_labels(truths[case]).data), len(project.classes), f"The truth of {case}")
