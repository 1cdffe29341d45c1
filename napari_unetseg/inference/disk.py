"""From a file to its mask in a fixed memory: `predict_file`, which a kill only interrupts.

What is finished is kept beside the mask: the labels in ``.NAME.part``, and in ``.NAME.part.jsonl`` a ledger of which of
them are there. The same call goes on from it, provided that image, model and plan are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from napari_unetseg.data.normalise import Intensities, about, measure_slabs
from napari_unetseg.errors import OutOfMemory, PlanError, WriteError
from napari_unetseg.events import Control, Event, Note, Started, verb
from napari_unetseg.inference.memory import ceiling, release, used_memory, watched
from napari_unetseg.inference.sliding import Predictor, check_image, interruptible, make_predictor, poll
from napari_unetseg.inference.streaming import Sheets, Unit
from napari_unetseg.io import create_lazy, open_lazy
from napari_unetseg.io.lazy import LazyVolume, RawFile
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.plan import Plan
from napari_unetseg.postprocess import after_net

__all__ = ["fits_in_memory", "predict_file"]

_SLAB = 2**23  # bytes read at once to measure intensities, or to write the mask
_SYNC = 1.0  # seconds of work that a kill may cost, besides the rows in hand
_STEPS = 24  # bytes a voxel that post-processing needs at its worst: numbers of objects, distances, their copies
_NET = 2**30  # set aside for a tile in the net where the system does not say what it takes
_NEAR = 0.9  # of the ceiling: from there on freed memory is given back after every row
_SHARE = 0.7  # of what is left for bands: allocators keep some for themselves


def fits_in_memory(image: LazyVolume, plan: Plan, memory: int | None = None) -> bool:
    """Whether an image, its normalised copy, its probabilities and their copies stay below the ceiling.

    Parameters
    ----------
    image : LazyVolume
    plan : Plan
        Of the model.
    memory : int, optional
        Ceiling in bytes for the whole process; the plan's when omitted.
    """
    voxels = int(np.prod(image.spatial, dtype=object))
    seen, classes = image.shape[0], max(2, plan.net.outputs)
    left = ceiling(_allowed(plan, memory)) - (used_memory() or 0)
    return image.nbytes + voxels * (4 * seen + 8 * classes + 4) <= left


@verb
def predict_file(
    model: Model | str | Path,
    image: str | Path | LazyVolume,
    out: str | Path,
    *,
    memory: int | None = None,
    control: Control | None = None,
    focus: Sequence[float] | None = None,
) -> Generator[Event, None, Path]:
    """Segment an image of any size from file to file.

    Parameters
    ----------
    model : Model or path
    image : path or LazyVolume
        Read band by band where its format allows it.
    out : path
        Mask to write; its suffix chooses the format. What an interrupted call has left beside it is used.
    memory : int, optional
        Most bytes that the process may hold, torch's own among them; when omitted the plan's, or what it holds now and
        half of what is free.
    control : Control, optional
        To stop it, within a layer of the net.
    focus : sequence of float, optional
        Position ``([z,] y, x)`` whose rows come first.

    Returns
    -------
    Path
        `out`: 0 background, 1.. classes, with the image's geometry, post-processed as the plan says.

    Raises
    ------
    ModelError
        When image and model do not fit.
    OutOfMemory
        When the ceiling is too low for one strip of tiles, or for post-processing the mask.
    Stopped
        When `control` said stop; what was finished stays beside `out`.
    """
    model = model if isinstance(model, Model) else Model.load(model)
    source = image if isinstance(image, LazyVolume) else open_lazy(image)
    out, name, most = Path(out), source.path.name, ceiling(_allowed(model.plan, memory))
    check_image(model.plan, name, source.shape)
    _check_plan(model.plan, source, most)
    with about(name):
        intensities = _measured(source, model.plan, control)
    predictor = make_predictor(model)
    sheets = Sheets.of(predictor, source, intensities, int(_SHARE * (most - _taken_by_net(predictor, control))))
    ledger = _Ledger.open(out, _recipe(model, source, sheets))
    notes = (
        f"{name}: {len(sheets.strips)} strip{'s' * (len(sheets.strips) != 1)} of tiles in "
        f"{sheets.nbytes / 2**20:.0f} MiB beside the net.",
    )
    yield Started("segmenting", str(predictor.compute.device), sheets.units, notes)
    if ledger.done:
        yield Note(f"{name}: goes on from {len(ledger.done)} of {sheets.units} parts that were finished before.")
    raw = ledger.labels(source.spatial)

    def keep(unit: Unit, plane: tuple[int, ...], where: tuple[slice, slice], labels: np.ndarray) -> None:
        rest = (slice(0, size) for size in source.spatial[len(plane) + 2 :])
        raw[(*(slice(p, p + 1) for p in plane), *where, *rest)] = labels.reshape((*(1,) * len(plane), *labels.shape))
        ledger.add(unit)
        if (used_memory() or 0) > _NEAR * most:
            release()

    try:
        yield from sheets.labels(keep, ledger.done, focus, control)
    finally:
        ledger.sync()
    _write(out, raw, source, model.plan)
    ledger.remove()
    return out


def _allowed(plan: Plan, memory: int | None) -> int | None:
    if memory is None and plan.inference.memory is not None:
        return int(plan.inference.memory * 2**30)
    return memory


def _check_plan(plan: Plan, source: LazyVolume, most: int) -> None:
    """Refuse before the work what could not be done after it."""
    voxels = int(np.prod(source.spatial, dtype=object))
    needed = voxels * _STEPS + (used_memory() or 0)
    if plan.post.steps and needed > most:
        raise OutOfMemory(
            f"The mask of {source.path.name} has {voxels:,} voxels: post-processing it needs about "
            f"{needed / 2**30:.1f} GiB, and {most / 2**30:.1f} are allowed.",
            hint="Allow more memory, or leave out the steps of post-processing.",
        )
    if plan.inference.axes == "all" and plan.net.dims == 2 and len(source.spatial) == 3:
        raise PlanError(
            f"{source.path.name} is too large to be segmented along all three axes.",
            hint="Set inference.axes to planes, or allow more memory.",
        )


def _measured(source: LazyVolume, plan: Plan, control: Control | None) -> Intensities:
    """Intensities of the whole image, which is read once, slab by slab."""

    def slabs() -> Iterator[np.ndarray]:
        for start, stop in _slabs(source.shape[1:], source.nbytes):
            poll(control)
            yield source[:, start:stop]

    return measure_slabs(slabs, source.shape, source.dtype, plan.normalisation)


def _slabs(shape: Sequence[int], nbytes: int) -> Iterator[tuple[int, int]]:
    step = max(1, int(shape[0] * _SLAB / max(1, nbytes)))
    return ((start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _taken_by_net(predictor: Predictor, control: Control | None) -> int:
    """Bytes that the process holds at most while tiles go through the net, found by sending some."""
    side = predictor.grid(predictor.tile).side
    tiles = np.zeros((predictor.batch, predictor.plan.net.in_channels, *side), np.float32)
    with watched() as peak, interruptible(predictor.net, control):
        predictor.run(tiles)
    return peak.bytes if peak.bytes is not None else _NET


def _recipe(model: Model, source: LazyVolume, sheets: Sheets) -> str:
    """Hash of all that decides the finished parts."""
    state = source.path.stat()
    facts = (model.id, model.plan.to_json(), source.path.name, state.st_size, state.st_mtime_ns, source.shape)
    return hashlib.sha256(repr((facts, sheets.grid, sheets.strips)).encode()).hexdigest()[:16]


def _write(out: Path, raw: RawFile, source: LazyVolume, plan: Plan) -> None:
    everything = tuple(slice(0, size) for size in raw.shape)
    labels: RawFile | np.ndarray = raw
    if plan.post.steps:
        classes, objects = after_net(raw[everything], plan.post.steps, source.geometry.spacing)
        labels = classes if objects is None else objects
    with create_lazy(out, source, labels.dtype) as file:
        for start, stop in _slabs(raw.shape, raw.nbytes):
            region = (slice(start, stop), *everything[1:])
            file[region] = labels[region]


@dataclass
class _Ledger:
    """Which parts of a mask are finished: a line with the recipe, then one a part."""

    path: Path
    scratch: Path
    recipe: str
    done: set[Unit] = field(default_factory=set)
    _new: list[Unit] = field(default_factory=list)
    _synced: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, out: Path, recipe: str) -> _Ledger:
        """Ledger of the mask `out`; what was made by another recipe is forgotten."""
        scratch = out.with_name(f".{out.name}.part")
        ledger = cls(scratch.with_name(f"{scratch.name}.jsonl"), scratch, recipe)
        try:
            lines = ledger.path.read_text(encoding="utf-8").splitlines()
            if scratch.is_file() and lines and json.loads(lines[0]) == {"recipe": recipe}:
                for line in lines[1:]:
                    plane, strip, row = json.loads(line)
                    ledger.done.add((plane, strip, row))
        except (OSError, ValueError, TypeError):
            pass  # no ledger, or a last line that a kill cut short
        if not ledger.done:
            ledger.remove()
        return ledger

    def labels(self, shape: Sequence[int]) -> RawFile:
        """The labels, as far as they are finished."""
        try:
            if self.done:
                return RawFile(self.scratch, 0, shape, np.uint8)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            raw = RawFile.make(self.scratch, 0, shape, np.uint8)
            self.path.write_text(json.dumps({"recipe": self.recipe}) + "\n", encoding="utf-8")
        except OSError as error:
            self.remove()
            raise self._failed(error) from error
        return raw

    def add(self, unit: Unit) -> None:
        """A part is in the scratch file."""
        self._new.append(unit)
        if time.monotonic() - self._synced > _SYNC:
            self.sync()

    def sync(self) -> None:
        """Bring the labels to the disk, then the lines that say so."""
        if not self._new:
            return
        try:
            with self.scratch.open("rb+") as file:
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
        for path in (self.path, self.scratch):
            path.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> WriteError:
        return WriteError(
            f"The mask {self.scratch.parent.name} could not be written: {error.strerror or error}.",
            hint="Free some space, or choose another folder.",
        )
