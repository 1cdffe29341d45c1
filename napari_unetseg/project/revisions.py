"""Numbered labels in a folder: each a compressed TIFF that any viewer opens, never changed once written."""

from __future__ import annotations

import json
import os
import re
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_unetseg.errors import ProjectError
from napari_unetseg.io import atomic_write

__all__ = ["Revisions", "count_labels"]

_FILE = re.compile(r"(\d{4,9})\.tif")


class Revisions:
    """Labels of one image, as they were at moments worth keeping.

    Parameters
    ----------
    folder : Path
        Where they are; it need not exist yet.
    shape : sequence of int
        Shape ``([Z,] Y, X)`` that all of them have.
    """

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self.folder = folder
        self.shape = tuple(shape)

    def numbers(self) -> list[int]:
        """Numbers of all revisions, oldest first."""
        if not self.folder.is_dir():
            return []
        found = (_FILE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, number: int) -> Path:
        """File of a revision."""
        return self.folder / f"{number:04d}.tif"

    def write(
        self,
        labels: np.ndarray,
        facts: Mapping[str, Any],
        before: Callable[[int], None] | None = None,
        mutex: AbstractContextManager[Any] | None = None,
    ) -> int:
        """Keep `labels` (uint8) and some `facts` about them as a new revision; return its number.

        `before` is called with that number when all is written, just before the revision appears; `mutex` is held for
        these two only.
        """
        number = max(self.numbers(), default=0) + 1
        text = json.dumps({**facts, "shape": list(self.shape), "counts": count_labels(labels)})
        # whole planes as pages, whatever the shape, so that nothing is taken for colours
        planes = labels.reshape(-1, *labels.shape[-2:])

        def save(path: Path) -> None:
            tifffile.imwrite(
                path, planes, photometric="minisblack", compression="zlib", compressionargs={"level": 3},
                description=text, metadata=None,
            )  # fmt: skip

        ready = self.folder / f".{secrets.token_hex(4)}-{number:04d}.tif"
        atomic_write(ready, save)
        with mutex or nullcontext():
            if before is not None:
                before(number)
            os.replace(ready, self.path(number))
        return number

    def read(self, number: int) -> np.ndarray:
        """Labels of a revision, uint8.

        Raises
        ------
        ProjectError
            If there is no such revision, or its file is damaged.
        """
        with self._open(number) as (tif, facts):
            if facts.get("shape") != list(self.shape):
                raise ValueError(f"its shape is {facts.get('shape')}, the image's {list(self.shape)}")
            planes = tif.asarray(key=range(len(tif.pages)))
            if planes.dtype != np.uint8:
                raise ValueError(f"it holds {planes.dtype}")
            return planes.reshape(self.shape)

    def facts(self, number: int) -> dict[str, Any]:
        """What was said about a revision, with its ``counts`` per label value; the labels stay on disk."""
        with self._open(number) as (_, facts):
            return facts

    @contextmanager
    def _open(self, number: int) -> Iterator[tuple[tifffile.TiffFile, dict[str, Any]]]:
        path = self.path(number)
        if not path.is_file():
            raise ProjectError(f"There is no revision {number} in {self.folder}.", hint=f"There are: {self.numbers()}.")
        try:
            with tifffile.TiffFile(path) as tif:
                facts = json.loads(tif.pages.first.description)
                if not isinstance(facts, dict):
                    raise TypeError("it does not say what it is")  # noqa: TRY301
                yield tif, facts
        except (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, zlib.error, struct.error) as error:
            raise ProjectError(
                f"The labels in {path} are damaged ({error}).",
                hint="Move this file away, and the project goes back to the revision before it.",
            ) from error


def count_labels(labels: np.ndarray) -> list[int]:
    """Voxels of each value, from 0 to the highest there is, at least two numbers; in parts, to be light on memory."""
    flat, step = labels.ravel(), 2**22
    parts = (np.bincount(flat[start : start + step], minlength=256) for start in range(0, flat.size, step))
    counts = sum(parts, start=np.zeros(256, dtype=np.int64))
    return counts[: max(2, int(labels.max(initial=0)) + 1)].tolist()
