"""Rows of measures as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_unetseg.io import atomic_write

__all__ = ["write_rows"]


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
            writer.writerows(rows)

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, fill)
    return path
