"""What the values in label files mean: from the numbers on disk to class indices and known voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_unetseg.data.annotation import to_mask
from napari_unetseg.errors import AnnotationError

__all__ = ["LabelRule", "class_names", "count_values", "look", "rule_from_names", "rule_from_values"]

_MOST_CLASSES = 16  # more different values than this are instances
_EDGE = 16  # grey levels from black or white that a smoothed or JPEG mask still has inside and outside

_HINT = "Say which values belong to which class with `values` in the plan's data section."


@dataclass(frozen=True)
class LabelRule:
    """How label values become classes.

    Attributes
    ----------
    kind : str
        ``values``: each group of values is a class; ``above``: values above `threshold` are the foreground;
        ``annotation``: 0 unlabelled, 1 background, 2.. the classes.
    groups : tuple of tuple of int
        Values of each class, background first (``values`` only).
    unknown : tuple of int
        Values that mean "not labelled".
    strict : bool
        Whether a value of no group is an error; otherwise it is unknown.
    """

    kind: Literal["values", "above", "annotation"]
    groups: tuple[tuple[int, ...], ...] = ()
    unknown: tuple[int, ...] = ()
    strict: bool = True
    threshold: int = 0

    def apply(self, labels: np.ndarray, name: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Turn label values into a mask (uint8) and where it is known.

        Raises
        ------
        AnnotationError
            A value that no class has, in the file `name`.
        """
        if self.kind == "annotation":
            if labels.size and (labels.min() < 0 or labels.max() > 255):
                raise AnnotationError(
                    f"{name} has labels from {labels.min()} to {labels.max()}; an annotation has 0 to 255.",
                    hint="0 is unlabelled, 1 background, 2 and more the classes.",
                )
            return to_mask(labels.astype(np.uint8, copy=False))
        if self.kind == "above":
            known = labels >= 0
            for value in self.unknown:
                known &= labels != value
            return ((labels > self.threshold) & known).astype(np.uint8), known
        return self._by_group(labels, name)

    def _by_group(self, labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        nobody, ignored = 255, 254
        places = {value: index for index, group in enumerate(self.groups) for value in group}
        places |= dict.fromkeys(self.unknown, ignored)
        low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
        if high - low < 2**16:
            table = np.full(high - low + 1, nobody, np.uint8)
            for value, place in places.items():
                if low <= value <= high:
                    table[value - low] = place
            index = labels if low == 0 else labels.astype(np.int64) - low
            mask = table[index]
        else:
            mask = np.full(labels.shape, nobody, np.uint8)
            for value, place in places.items():
                mask[labels == value] = place
        strangers = mask == nobody
        if self.strict and strangers.any():
            value = int(labels[strangers][0])
            raise AnnotationError(
                f"{name} has the label value {value}, which belongs to no class.",
                hint=_HINT,
            )
        known = ~(strangers | (mask == ignored))
        mask[~known] = 0
        return mask, known


def count_values(labels: np.ndarray) -> dict[int, int]:
    """How often each value occurs."""
    if labels.dtype.itemsize <= 2 and labels.dtype.kind == "u":
        counts = np.bincount(labels.reshape(-1))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def look(counts: Mapping[int, int]) -> tuple[LabelRule, str]:
    """Guess what label values mean, and say the guess in a sentence.

    Parameters
    ----------
    counts : mapping of int to int
        How often each value occurs in the label files.

    Raises
    ------
    AnnotationError
        There is one value only.
    """
    negative = tuple(sorted(v for v in counts if v < 0))
    values = sorted(v for v in counts if v >= 0)
    aside = f" Negative values ({', '.join(map(str, negative))}) are unlabelled." if negative else ""
    if len(values) < 2:
        only = f"only the value {values[0]}" if values else "no values"
        raise AnnotationError(f"The label files hold {only}.", hint="At least two classes must be labelled.")
    if len(values) == 2:
        note = f"Labels: {values[0]} is the background, {values[1]} the foreground."
        return LabelRule("values", tuple((v,) for v in values), negative), note + aside
    if len(values) <= _MOST_CLASSES:
        listed = ", ".join(map(str, values))
        note = f"Labels: each of the {len(values)} values ({listed}) is a class, the first is the background."
        return LabelRule("values", tuple((v,) for v in values), negative), note + aside
    if _is_smoothed(counts, values):
        note = f"Labels: {len(values)} grey values near black and white; foreground is above 127."
        return LabelRule("above", unknown=negative, threshold=127), note + aside
    note = f"Labels: {len(values):,} different values are instances; foreground is every value above 0."
    return LabelRule("above", unknown=negative), note + aside


def rule_from_names(names: Mapping[int, str], unknown: Sequence[int] = ()) -> LabelRule:
    """Rule of a data set that names its label values; the smallest value is the background."""
    return LabelRule("values", tuple((v,) for v in sorted(names)), tuple(unknown))


def rule_from_values(values: Sequence[Sequence[int]]) -> tuple[LabelRule, str]:
    """Rule that the plan gives: values of each class, background first; other values are unlabelled.

    Raises
    ------
    AnnotationError
        Fewer than two classes, or a value in two of them.
    """
    flat = [v for group in values for v in group]
    if len(values) < 2 or not all(values):
        raise AnnotationError("The plan's label values name fewer than two classes.", hint="Give one group per class.")
    if len(set(flat)) != len(flat):
        twice = next(v for v in flat if flat.count(v) > 1)
        raise AnnotationError(f"The plan gives the label value {twice} to two classes.", hint="Give it to one.")
    groups = tuple(tuple(group) for group in values)
    return LabelRule("values", groups, strict=False), "Labels: values as the plan says; others are unlabelled."


def class_names(count: int) -> tuple[str, ...]:
    """Names for classes that have none."""
    return ("background", "foreground") if count == 2 else ("background", *(f"class {i}" for i in range(1, count)))


def _is_smoothed(counts: Mapping[int, int], values: Sequence[int]) -> bool:
    """Whether the values are those of a two-valued 8-bit mask that was smoothed or went through JPEG."""
    if values[-1] > 255 or values[-1] < 240:
        return False
    total = sum(counts[v] for v in values)
    dark = sum(counts[v] for v in values if v < _EDGE)
    bright = sum(counts[v] for v in values if v > 255 - _EDGE)
    return bright > 0.005 * total and dark + bright > 0.9 * total
