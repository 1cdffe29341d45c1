"""Masks against truth: two files, or two folders paired by name (`score_files`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import GeometryError, ReadError
from napari_unetseg.io import find_images, is_image, read_labels, stem
from napari_unetseg.metrics import compare_masks, mean_scores
from napari_unetseg.volume import LabelVolume

__all__ = ["score_files"]


def score_files(
    mask: str | Path, truth: str | Path, spacing: Sequence[float] | None = None, *, membranes: bool = False
) -> dict[str, Any]:
    """Score a mask file against a truth file, or a folder of masks against a folder of truths paired by name.

    Parameters
    ----------
    mask, truth : path
        Two files, or two folders.
    spacing : sequence of float, optional
        Voxel size in axis order; from the truth's file when omitted.
    membranes : bool
        Also V_rand and V_info.

    Returns
    -------
    dict
        ``cases`` (a list with ``name, unit, classes``) and ``mean`` per class, called as the files call it (DICOM-SEG)
        or by its label.

    Raises
    ------
    ReadError
        When a file cannot be read or no names match.
    GeometryError
        When a mask and its truth differ in shape.
    """
    pairs = _pairs(Path(mask), Path(truth))
    cases: list[dict[str, Any]] = []
    for name, one, other in pairs:
        ours, theirs = read_labels(one), read_labels(other)
        if ours.shape != theirs.shape:
            raise GeometryError(
                f"The mask {one.name} has shape {ours.shape}, its truth {other.name} {theirs.shape}.",
                hint="Score masks on the grid of their truth.",
            )
        step = tuple(spacing) if spacing else theirs.geometry.spacing
        pred, target = _same_values(ours, theirs)
        scores = compare_masks(pred, target, step, membranes=membranes)
        unit = "given" if spacing else theirs.geometry.unit
        names = _names(ours, theirs)
        cases.append({"name": name, "unit": unit, "classes": {names.get(c, c): found for c, found in scores.items()}})
    return {"cases": cases, "mean": mean_scores(case["classes"] for case in cases)}


def _pairs(mask: Path, truth: Path) -> list[tuple[str, Path, Path]]:
    for path in (mask, truth):
        if not path.exists():
            raise ReadError(f"There is no file or folder {path}.", hint="Check the path.")
    many = [path.is_dir() and not is_image(path) for path in (mask, truth)]
    if many[0] != many[1]:
        raise ReadError("One of the two is a folder, the other a file.", hint="Give two files or two folders.")
    if not many[0]:
        return [(stem(mask), mask, truth)]
    ours = {stem(file): file for file in find_images(mask)}
    theirs = {stem(file): file for file in find_images(truth)}
    both = [name for name in ours if name in theirs]
    if not both:
        raise ReadError(
            f"No file in {mask.name} has the name of one in {truth.name}.", hint="Masks and truths are paired by name."
        )
    return [(name, ours[name], theirs[name]) for name in both]


def _names(mask: LabelVolume, truth: LabelVolume) -> dict[str, str]:
    """Names of the label values, as far as the files have any and do not contradict each other."""
    ours, theirs = (dict(enumerate(one.header.get("classes", ()))) for one in (mask, truth))
    if any(ours[value] != theirs[value] for value in ours.keys() & theirs.keys()):
        return {}
    return {str(value): name for value, name in (ours | theirs).items()}


def _same_values(mask: LabelVolume, truth: LabelVolume) -> tuple[np.ndarray, np.ndarray]:
    """Bring a two-valued truth (0/255, instances) and a mask of one class to the same numbers."""
    pred, target = mask.data, truth.data
    if pred.max(initial=0) > 1 and target.max(initial=0) <= 1:
        target, pred = _same(target, pred)
        return pred, target
    return _same(pred, target)


def _same(binary: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.unique(other)
    values = values[values != 0]
    few = len(values) <= 1 or len(values) > 16
    if binary.max(initial=0) <= 1 and few:
        return binary, (other != 0).astype(np.uint8)
    return binary, other
