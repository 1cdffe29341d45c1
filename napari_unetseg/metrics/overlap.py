"""Overlap of two masks: counts that add up across images, and what is read from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_unetseg.errors import AnnotationError, GeometryError
from napari_unetseg.scores import Scores

__all__ = ["Counts", "counts", "dice", "jaccard", "relative_volume_difference", "score_masks"]


@dataclass(frozen=True, eq=False)
class Counts:
    """True positives, false positives and false negatives of each class; ``+`` adds images up.

    Attributes
    ----------
    tp, fp, fn : (K,) int64 ndarray
        Voxels, per class, background first.
    voxels : int
        Known voxels that were counted.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    voxels: int = 0

    @classmethod
    def zero(cls, n_classes: int) -> Counts:
        """Counts of no image at all: the start of a sum."""
        none = np.zeros(n_classes, np.int64)
        return cls(none, none, none)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.voxels + other.voxels)

    @property
    def jaccard(self) -> np.ndarray:
        """``TP / (TP + FP + FN)`` per class, ``(K,)``; 1 for a class that neither mask has."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def dice(self) -> np.ndarray:
        """``2 TP / (2 TP + FP + FN)`` per class, ``(K,)``; 1 for a class that neither mask has."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def counts(pred: np.ndarray, truth: np.ndarray, known: np.ndarray | None, n_classes: int) -> Counts:
    """Count agreement of two masks on the known voxels.

    Parameters
    ----------
    pred, truth : ndarray of integers or bool
        Masks of one shape: 0 background, 1.. classes. Values of unknown voxels do not matter.
    known : ndarray of bool, optional
        Which voxels count; all when None.
    n_classes : int
        Number of classes, background included.

    Returns
    -------
    Counts

    Raises
    ------
    GeometryError
        The arrays differ in shape.
    AnnotationError
        A known voxel has a class that does not exist.
    """
    check_shapes(pred, truth, known)
    if known is None:
        pred, truth = np.ravel(pred), np.ravel(truth)
    else:
        known = np.asarray(known, bool)
        pred, truth = pred[known], truth[known]
    for what, mask in (("mask", pred), ("truth", truth)):
        if mask.size and (mask.max() >= n_classes or mask.min() < 0):
            wrong = int(mask.max() if mask.max() >= n_classes else mask.min())
            raise AnnotationError(
                f"The {what} has label {wrong}, but there are only the classes 0 to {n_classes - 1}.",
                hint="Name every class, background included, or correct the labels.",
            )
    pairs = np.bincount(truth.astype(np.int64) * n_classes + pred.astype(np.int64), minlength=n_classes**2)
    table = pairs.reshape(n_classes, n_classes)
    tp = np.diagonal(table)
    return Counts(tp.copy(), table.sum(0) - tp, table.sum(1) - tp, int(pred.size))


def jaccard(pred: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None) -> float:
    """Jaccard index (intersection over union) of two bool masks; 1 if both are empty, 0 if one is."""
    return float(counts(np.asarray(pred, bool), np.asarray(truth, bool), known, 2).jaccard[1])


def dice(pred: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None) -> float:
    """Dice coefficient of two bool masks, ``2 J / (1 + J)``; 1 if both are empty, 0 if one is."""
    return float(counts(np.asarray(pred, bool), np.asarray(truth, bool), known, 2).dice[1])


def relative_volume_difference(pred: np.ndarray, truth: np.ndarray) -> float:
    """``100 (|pred| / |truth| - 1)`` in percent: positive when too large (Drozdzal et al. 2017 report its magnitude).

    0 if both are empty; not a number if only the truth is.
    """
    check_shapes(pred, truth)
    size, wanted = np.count_nonzero(pred), np.count_nonzero(truth)
    if wanted == 0:
        return 0.0 if size == 0 else float("nan")
    return float(100 * (size / wanted - 1))


def score_masks(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]],
    classes: Sequence[str],
    rule: str = "",
    model: str = "",
) -> Scores:
    """Score masks against truth on known voxels, all images counted together.

    Counts are added over the images before Jaccard and Dice are read from them, so that an image with three known
    voxels weighs three voxels. The Dice of each image is in `Scores.per_image`.

    Parameters
    ----------
    pairs : iterable of (name, pred, truth, known)
        Masks as in `counts`; parts of one image may come under one name.
    classes : sequence of str
        Class names, background first; the background gets no score.
    rule : str
        How the voxels were held out, in plain words; empty when they were not.
    model : str
        Identifier of the model that made the masks.

    Returns
    -------
    Scores
    """
    images: dict[str, Counts] = {}
    for name, pred, truth, known in pairs:
        images[name] = images.get(name, Counts.zero(len(classes))) + counts(pred, truth, known, len(classes))
    total = sum(images.values(), Counts.zero(len(classes)))
    return Scores(
        jaccard=_by_class(classes, total.jaccard),
        dice=_by_class(classes, total.dice),
        rule=rule,
        images=tuple(images),
        voxels=total.voxels,
        model=model,
        per_image={name: _by_class(classes, each.dice) for name, each in images.items()},
    )


def check_shapes(pred: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None) -> None:
    """Raise `GeometryError` unless the arrays have one shape."""
    shapes = [np.shape(array) for array in (pred, truth, known) if array is not None]
    if len(set(shapes)) > 1:
        raise GeometryError(
            f"The mask is {_size(shapes[0])} but its truth is {_size(next(s for s in shapes if s != shapes[0]))}.",
            hint="Compare masks that lie on the same grid.",
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"


def _by_class(classes: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(classes[1:], values[1:], strict=True)}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    # the one place that decides it: empty against empty is perfect agreement
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)
