"""Masks known to be right, as the classes of a project: from whatever values their files have."""

from __future__ import annotations

import numpy as np

from napari_unetseg.data.labels import count_values, look
from napari_unetseg.errors import AnnotationError

__all__ = ["as_classes"]


def as_classes(labels: np.ndarray, classes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (0 background) of label values, and where they are known.

    Values 0 to `classes` - 1 are class indices. Others are taken in their order where there are as many as classes, and
    as instances where there is one class. A value below 0 is unknown.

    Parameters
    ----------
    labels : ([Z,] Y, X) integer ndarray
    classes : int
        The background included.
    name : str
        What the user calls it.

    Raises
    ------
    AnnotationError
        When they do not fit the classes.
    """
    counts = count_values(labels)
    known = labels >= 0
    if max(counts, default=0) < classes:
        return np.where(known, labels, 0).astype(np.uint8), known
    rule, _ = look(counts)
    found = 2 if rule.kind == "above" else len(rule.groups)
    if found != classes:
        raise AnnotationError(
            f"{name} has {found} label values, the project {classes} classes.",
            hint="Choose masks of the same classes: 0 background, then 1, 2, ... in the order of the project.",
        )
    return rule.apply(labels, name)
