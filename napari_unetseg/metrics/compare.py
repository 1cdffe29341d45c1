"""All metrics of a mask at once, per class: what ``napari-unetseg score`` prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from napari_unetseg.metrics import overlap, surface
from napari_unetseg.metrics.membranes import membrane_scores
from napari_unetseg.registry import Registry
from napari_unetseg.volume import check_spacing

__all__ = ["METRICS", "compare_masks", "mean_scores"]

Metric = Callable[[np.ndarray, np.ndarray, Sequence[float] | None], float]
CaseScores = dict[str, dict[str, float | None]]

METRICS: Registry[Metric] = Registry("metric")

# beyond so many label values an image holds instances, not classes
MOST_CLASSES = 64


@METRICS.register("jaccard", unit="", better="higher")
def jaccard(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Jaccard index: shared voxels as a share of all voxels of either mask."""
    return overlap.jaccard(pred, truth)


@METRICS.register("dice", unit="", better="higher")
def dice(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Dice coefficient: shared voxels as a share of the mean size of the masks."""
    return overlap.dice(pred, truth)


METRICS.register("hausdorff", unit="spacing", better="lower")(surface.hausdorff)
METRICS.register("hausdorff95", unit="spacing", better="lower")(surface.hausdorff95)
METRICS.register("assd", unit="spacing", better="lower")(surface.assd)


@METRICS.register("rvd", unit="%", better="zero")
def rvd(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Relative volume difference in percent, positive when the mask is too large."""
    return overlap.relative_volume_difference(pred, truth)


def compare_masks(
    pred: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    *,
    membranes: bool = False,
    known: np.ndarray | None = None,
) -> CaseScores:
    """Every metric of every class but the background.

    Parameters
    ----------
    pred, truth : ([Z,] Y, X) ndarray of integers
        Masks: 0 background, 1.. classes.
    spacing : sequence of float, optional
        Voxel size; distances come in its unit, in voxels when omitted.
    classes : sequence of str, optional
        Class names, background first. When omitted the classes are the label values found, named by their number;
        0/255 against 0/1, and images with more than 64 values (instances), are compared as ``"foreground"``.
    membranes : bool
        Also ``v_rand`` and ``v_info``, each class being taken for the interior of cells.
    known : ndarray of bool, optional
        Voxels where the truth is known. Only Jaccard and Dice can be told then, the rest is None.

    Returns
    -------
    dict
        ``{class: {metric: value}}``; None where a metric is undefined (a distance to nothing).

    Raises
    ------
    GeometryError
        The masks differ in shape, or the spacing does not fit them.
    AnnotationError
        A label has no class.
    """
    pred, truth = np.asarray(pred), np.asarray(truth)
    overlap.check_shapes(pred, truth, known)
    spacing = check_spacing(spacing, pred.ndim)
    if classes is None:
        pred, truth, classes = _by_value(pred, truth)
    counted = overlap.counts(pred, truth, known, len(classes))
    scores: CaseScores = {}
    for label, name in enumerate(classes[1:], start=1):
        row = dict.fromkeys([*METRICS, *(("v_rand", "v_info") if membranes else ())], math.nan)
        row.update(jaccard=float(counted.jaccard[label]), dice=float(counted.dice[label]))
        if known is None or bool(np.all(known)):
            mine, wanted = pred == label, truth == label
            apart = surface.distances(mine, wanted, spacing)
            row.update(hausdorff=apart.hausdorff, hausdorff95=apart.hausdorff95, assd=apart.assd)
            row.update(
                rvd=overlap.relative_volume_difference(mine, wanted),
                **(membrane_scores(mine, wanted) if membranes else {}),
            )
        scores[name] = {metric: value if math.isfinite(value) else None for metric, value in row.items()}
    return scores


def mean_scores(cases: Iterable[Mapping[str, Mapping[str, float | None]]]) -> CaseScores:
    """Mean over cases of what `compare_masks` gives, each metric over the cases where it is defined."""
    values: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        for name, row in case.items():
            for metric, value in row.items():
                found = values.setdefault(name, {}).setdefault(metric, [])
                if value is not None:
                    found.append(value)
    return {
        name: {metric: float(np.mean(found)) if found else None for metric, found in row.items()}
        for name, row in values.items()
    }


def _by_value(pred: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Masks renumbered 0, 1, .. by the label values that occur, and their names."""
    values = np.union1d(np.unique(pred), np.unique(truth))
    values = values[values != 0]
    if len(values) > MOST_CLASSES or values.tolist() == [1, 255]:
        return (pred != 0).astype(np.uint8), (truth != 0).astype(np.uint8), ["background", "foreground"]
    ordered = np.concatenate([[0], values])
    place = np.argsort(ordered)
    renumbered = [place[np.searchsorted(ordered[place], mask)] for mask in (pred, truth)]
    return renumbered[0], renumbered[1], ["background", *(str(value) for value in values)]
