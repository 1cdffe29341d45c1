"""What is finished of a mask that is being made: kept beside it, so that a kill only interrupts.

The voxels are in ``.NAME.part`` (layers of doubt in ``.NAME.part.LAYER``), and ``.NAME.part.jsonl`` says which of them
are there. They are brought to the disk before the line that says so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_unetseg.errors import WriteError
from napari_unetseg.inference.looks import LABELS, LAYERS
from napari_unetseg.inference.streaming import Unit
from napari_unetseg.io.lazy import RawFile

__all__ = ["Ledger"]

_SYNC = 1.0  # seconds of work that a kill may cost, besides the rows in hand


@dataclass
class Ledger:
    """Which parts of a mask are finished: a line with the recipe and the number of strips, then one a part.

    Attributes
    ----------
    out : Path
        The mask that it is about.
    recipe : str
        Hash of all that decides it.
    done : set of Unit
        What need not be made again.
    strips : (int, str)
        Number of strips that the parts are of, and type of the sums.
    """

    out: Path
    recipe: str
    done: set[Unit] = field(default_factory=set)
    strips: tuple[int, str] = (0, "")
    _new: list[Unit] = field(default_factory=list)
    _kinds: tuple[str, ...] = ()
    _synced: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, out: Path, recipe: str) -> Ledger:
        """Ledger of the mask `out`; what was made by another recipe is forgotten."""
        ledger = cls(out, recipe)
        try:
            lines = ledger.path.read_text(encoding="utf-8").splitlines()
            head = json.loads(lines[0]) if lines and ledger.scratch(LABELS).is_file() else {}
            if head.get("recipe") == recipe:
                ledger.strips = (int(head["strips"]), str(head["sums"]))
                for line in lines[1:]:
                    plane, strip, row = json.loads(line)
                    ledger.done.add((plane, strip, row))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # no ledger, or a last line that a kill cut short
        if not ledger.done:
            ledger.remove()
        return ledger

    def begin_anew(self) -> None:
        """Forget what is finished."""
        self.done.clear()
        self.remove()

    @property
    def path(self) -> Path:
        """The lines."""
        return self.out.with_name(f".{self.out.name}.part.jsonl")

    def scratch(self, kind: str) -> Path:
        """The voxels of the labels or of a layer."""
        return self.out.with_name(f".{self.out.name}.part" + ("" if kind == LABELS else f".{kind}"))

    def files(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, RawFile]:
        """Labels and layers by name, uint8, as far as they are finished."""
        self._kinds = tuple(shapes)
        try:
            if self.done:
                return {kind: RawFile(self.scratch(kind), 0, shape, np.uint8) for kind, shape in shapes.items()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            head = {"recipe": self.recipe, "strips": self.strips[0], "sums": self.strips[1]}
            made = {kind: RawFile.make(self.scratch(kind), 0, shape, np.uint8) for kind, shape in shapes.items()}
            self.path.write_text(json.dumps(head) + "\n", encoding="utf-8")
        except OSError as error:
            self.remove()
            raise self._failed(error) from error
        return made

    def add(self, unit: Unit) -> None:
        """A part is in the files."""
        self._new.append(unit)
        if time.monotonic() - self._synced > _SYNC:
            self.sync()

    def sync(self) -> None:
        """Bring the voxels to the disk, then the lines that say so."""
        if not self._new:
            return
        try:
            for kind in self._kinds:
                with self.scratch(kind).open("rb+") as file:
                    os.fsync(file.fileno())
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(unit) + "\n" for unit in self._new)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        self.done.update(self._new)
        self._new.clear()
        self._synced = time.monotonic()

    def remove(self) -> None:
        """Nothing is left to go on from."""
        for path in (self.path, *map(self.scratch, (LABELS, *LAYERS))):
            path.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> WriteError:
        return WriteError(
            f"The mask {self.out.name} could not be written: {error.strerror or error}.",
            hint="Free some space, or choose another folder.",
        )
