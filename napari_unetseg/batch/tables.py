"""``table.csv``, one row a file and class, and ``run.json``, which says how the masks were made."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import napari_unetseg
from napari_unetseg.batch.work import Segmenter
from napari_unetseg.io import atomic_write
from napari_unetseg.postprocess.table import short

__all__ = ["COLUMNS", "append_rows", "rows_of", "write_run", "write_table"]

COLUMNS = (
    "file", "class", "voxels", "size", "unit", "components", "status", "error", "seconds", "mask", "flags", "doubt",
    "model", "image_hash",
)  # fmt: skip


def rows_of(entry: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Rows of the table for one file: one a class, or one for a failure."""
    doubt = entry.get("doubt")
    common = {
        **{key: entry.get(key, "") for key in ("file", "status", "error", "seconds", "model", "image_hash")},
        "mask": os.path.relpath(entry["mask"], folder) if entry["mask"] else "",
        "flags": " ".join(entry.get("flags") or ()),
        "doubt": "" if doubt is None else doubt,
    }
    return [{**dict.fromkeys(COLUMNS, ""), **common, **measured} for measured in entry["classes"] or [{}]]


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``table.csv``."""

    def fill(path: Path) -> None:
        # a name on disk need not be valid text
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(map(short, rows))

    atomic_write(folder / "table.csv", fill)


def append_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows at the end of ``table.csv``; it is written anew at the end of the run, so that none is ever missing."""
    with (
        contextlib.suppress(OSError),  # somebody may be looking at it
        (folder / "table.csv").open("a", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        csv.DictWriter(stream, COLUMNS).writerows(map(short, rows))


def write_run(
    folder: Path, segmenter: Segmenter, entries: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``run.json``; returns what it says."""
    import torch

    ensemble, outputs = segmenter.ensemble, segmenter.outputs
    run = {
        "napari-unetseg": napari_unetseg.__version__,
        "torch": torch.__version__,
        "device": str(ensemble.predictors[0].compute.device),
        "models": [
            {"id": name, "folder": str(m.folder or ""), "plan": json.loads(m.plan.to_json())}
            for name, m in zip(segmenter.ids, ensemble.models, strict=True)
        ],
        "classes": list(ensemble.classes),
        "outputs": {"probabilities": outputs.probabilities, "uncertainty": outputs.uncertainty, "tta": outputs.tta},
        "files": len(entries),
        "failed": sum(entry["status"] == "failed" for entry in entries),
        "flagged": sum(bool(entry.get("flags")) for entry in entries),
        **facts,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    atomic_write(folder / "run.json", lambda path: path.write_text(json.dumps(run, indent=1), encoding="utf-8"))
    return run
