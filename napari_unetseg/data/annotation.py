"""The one place that knows how strokes are numbered.

An Annotation has 0 where nothing was painted, 1 on background and 2.. on the other classes. A Mask has 0 on background
and 1.. on the classes; it is ``annotation - 1`` where the annotation is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_unetseg.errors import AnnotationError

__all__ = [
    "BACKGROUND",
    "UNLABELLED",
    "check_annotation",
    "check_counts",
    "count_known",
    "count_strokes",
    "from_mask",
    "overrule",
    "to_mask",
]

UNLABELLED, BACKGROUND = 0, 1

_SLAB = 2**22  # voxels looked at in one go, so that counting needs no copy of a large volume


def to_mask(annotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split an annotation into a mask and where that mask may be believed.

    Parameters
    ----------
    annotation : ([Z,] Y, X) integer ndarray
        0 unlabelled, 1 background, 2.. the other classes.

    Returns
    -------
    mask : ([Z,] Y, X) ndarray of the same dtype
        0 background, 1.. classes; 0 where unknown.
    known : ([Z,] Y, X) bool ndarray

    Examples
    --------
    >>> mask, known = to_mask(np.array([0, 1, 2], np.uint8))
    >>> mask.tolist(), known.tolist()
    ([0, 0, 1], [False, True, True])
    """
    known = annotation != UNLABELLED
    return np.where(known, annotation - annotation.dtype.type(1), annotation.dtype.type(0)), known


def from_mask(mask: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Annotation (uint8) that says `mask` where `known`, everywhere when `known` is omitted.

    Examples
    --------
    >>> from_mask(np.array([0, 1]), np.array([False, True])).tolist()
    [0, 2]
    """
    annotation = (np.asarray(mask).astype(np.uint8) + np.uint8(1)).astype(np.uint8)
    if known is not None:
        annotation[~known] = UNLABELLED
    return annotation


def overrule(mask: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    """Mask in which the user's strokes win over the net's answer."""
    strokes, known = to_mask(annotation)
    return np.where(known, strokes.astype(mask.dtype), mask)


def count_known(mask: np.ndarray, known: np.ndarray, n_classes: int) -> np.ndarray:
    """Known voxels of each class, ``(n_classes,)`` int64."""
    counts = np.zeros(n_classes, np.int64)
    mask, known = mask.reshape(-1), known.reshape(-1)
    for start in range(0, mask.size, _SLAB):
        part = mask[start : start + _SLAB][known[start : start + _SLAB]]
        counts += np.bincount(part, minlength=n_classes)[:n_classes]
    return counts


def check_annotation(annotation: np.ndarray, classes: Sequence[str], shape: Sequence[int] | None = None) -> None:
    """Refuse an annotation from which nothing can be learned.

    Parameters
    ----------
    annotation : ([Z,] Y, X) integer ndarray
    classes : sequence of str
        Names, background first.
    shape : sequence of int, optional
        Shape of the image, which the annotation must have.

    Raises
    ------
    AnnotationError
        No whole numbers, another shape, a label without a class, no strokes, or strokes of one class only.
    """
    if not np.issubdtype(annotation.dtype, np.integer):
        raise AnnotationError(f"The annotation holds {annotation.dtype} numbers.", hint="Labels are whole numbers.")
    if shape is not None and tuple(annotation.shape) != tuple(shape):
        raise AnnotationError(
            f"The annotation has shape {tuple(annotation.shape)}, its image {tuple(shape)}.",
            hint="Make a new annotation layer for this image.",
        )
    low, high = (int(annotation.min()), int(annotation.max())) if annotation.size else (0, 0)
    if low < 0 or high > len(classes):
        raise AnnotationError(
            f"The annotation has the label {low if low < 0 else high}, but there are {len(classes)} classes "
            f"(labels 1 to {len(classes)}).",
            hint="Add a class, or erase that label.",
        )
    check_counts(count_known(*to_mask(annotation), len(classes)), classes)


def check_counts(counts: Sequence[int] | np.ndarray, classes: Sequence[str]) -> None:
    """Refuse known voxels (`counts` per class) that lie in fewer than two classes, naming a class without strokes."""
    seen = [name for name, n in zip(classes, counts, strict=True) if n]
    missing = [name for name, n in zip(classes, counts, strict=True) if not n]
    if not seen:
        raise AnnotationError("Nothing is annotated yet.", hint="Paint at least one stroke of each class.")
    if len(seen) < 2:
        raise AnnotationError(
            f"Only the class {seen[0]!r} is annotated.",
            hint=f"Paint at least one stroke of each class; {missing[0]!r} has none." if missing else "Add a class.",
        )


def count_strokes(annotation: np.ndarray, classes: int) -> list[int]:
    """How many strokes there are of each class, background first: connected parts of one label, corners counting.

    Examples
    --------
    >>> count_strokes(np.array([[1, 1, 0, 2], [0, 0, 0, 0], [2, 0, 0, 0]], np.uint8), 2)
    [1, 2]
    """
    from scipy import ndimage

    counts = [0] * classes
    everywhere = np.ones((3,) * annotation.ndim)
    for label, box in enumerate(ndimage.find_objects(annotation, classes), start=1):
        if box is not None:
            counts[label - 1] = int(ndimage.label(annotation[box] == label, everywhere)[1])
    return counts
