"""``objects.csv``, one row an object, where the plan numbers the objects of the masks.

The rows of a file are kept in a hidden file as soon as its mask is written, so that a run that goes on where another
was ended has them all, and none is held in memory for long.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.batch.outputs import Job
from napari_unetseg.io import atomic_write
from napari_unetseg.postprocess import measure_volume, write_rows
from napari_unetseg.volume import LabelVolume, Volume

__all__ = ["NAME", "gather_objects", "keep_objects", "rows_of_mask"]

NAME, _HIDDEN = "objects.csv", ".objects"


def keep_objects(job: Job, classes: np.ndarray, objects: np.ndarray, image: Volume, names: Sequence[str]) -> None:
    """Measure the objects of a file, and keep their rows."""
    rows = measure_volume(LabelVolume(classes, image.geometry), names, image, objects)
    write_rows(rows_of_mask(job.target, job.folder), [row for row in rows if row["object"]])


def gather_objects(folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of all files that were done, each with the file and the mask it is of."""
    if not (folder / _HIDDEN).is_dir():
        return
    places = [(entry, rows_of_mask(Path(entry["mask"]), folder)) for entry in entries if entry["status"] == "done"]
    kept = [(entry, place) for entry, place in places if entry.get("objects") and place.is_file()]
    if not kept:
        (folder / NAME).unlink(missing_ok=True)
        return

    def fill(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            names = list(dict.fromkeys(name for _, place in kept for name in _columns(place)))
            writer = csv.DictWriter(stream, ["file", "mask", *names], restval="")
            writer.writeheader()
            for entry, place in kept:
                same = {"file": entry["file"], "mask": Path(entry["mask"]).relative_to(folder).as_posix()}
                writer.writerows({**same, **row} for row in _rows(place))

    atomic_write(folder / NAME, fill)


def rows_of_mask(target: Path, folder: Path) -> Path:
    """Where the rows of one mask are kept."""
    return folder / _HIDDEN / target.relative_to(folder).with_name(target.name + ".csv")


def _columns(place: Path) -> list[str]:
    with place.open(newline="", encoding="utf-8") as stream:
        return next(csv.reader(stream), [])


def _rows(place: Path) -> Iterator[dict[str, str]]:
    with place.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)
