"""Rows of measures as a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_unetseg.io import atomic_write

__all__ = ["short", "write_rows"]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows with the same columns; what was not measured is left empty.

    Raises
    ------
    WriteError
        The disk is full, or the folder read-only.
    """

    def fill(place: Path) -> None:
        # a name on disk need not be valid text
        with place.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["class", "label", "object", "objects"])
            writer.writeheader()
            writer.writerows(map(short, rows))

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, fill)
    return path


def short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose numbers are written with six digits, more only before the point: no length is known better.

    Examples
    --------
    >>> short({"area": 0.1 + 0.2, "volume": 12345678.91, "mean": -0.00123456789, "class": "cell", "x": None})
    {'area': 0.3, 'volume': 12345679.0, 'mean': -0.00123457, 'class': 'cell', 'x': None}
    """
    return {key: _short(value) if isinstance(value, float) else value for key, value in row.items()}


def _short(value: float) -> float:
    if not math.isfinite(value) or value == 0:
        return value
    return round(value, max(0, 5 - math.floor(math.log10(abs(value)))))
