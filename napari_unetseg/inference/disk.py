"""From a file to its mask in a fixed memory: `predict_file`, which a kill only interrupts.

What is finished is kept beside the mask (`ledger`). The same call goes on from it, provided that image, model and plan
are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from napari_unetseg.data.normalise import Intensities, about, measure_slabs
from napari_unetseg.errors import OutOfMemory, PlanError
from napari_unetseg.events import Control, Event, Note, Started, verb
from napari_unetseg.inference.ensemble import Ensemble
from napari_unetseg.inference.ledger import Ledger
from napari_unetseg.inference.looks import LABELS, Looks
from napari_unetseg.inference.memory import ceiling, free_memory, release, used_memory, watched
from napari_unetseg.inference.sliding import check_image, interruptible, poll
from napari_unetseg.inference.streaming import Sheets, Unit
from napari_unetseg.io import create_lazy, open_lazy
from napari_unetseg.io.lazy import LazyVolume, RawFile
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.plan import Plan
from napari_unetseg.postprocess import after_net

__all__ = ["fits_in_memory", "predict_file"]

_SLAB = 2**23  # bytes read at once to measure intensities, or to write the mask
_STEPS = 24  # bytes a voxel that post-processing needs at its worst: numbers of objects, distances, their copies
_NET = 2**30  # set aside for a tile in the net where the system does not say what it takes
_NEAR = 0.9  # of the ceiling: from there on freed memory is given back after every row
_SHARE = 0.7  # of what is left for bands: allocators keep some for themselves
_LEEWAY = 1.05  # for strips that were begun: what the program holds besides is not the same twice
_SUMS = {"float32": torch.float32, "float16": torch.float16}


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
    model: Model | str | Path | Ensemble,
    image: str | Path | LazyVolume,
    out: str | Path,
    *,
    layers: Mapping[str, str | Path] = MappingProxyType({}),
    memory: int | None = None,
    control: Control | None = None,
    focus: Sequence[float] | None = None,
) -> Generator[Event, None, Path]:
    """Segment an image of any size from file to file.

    Parameters
    ----------
    model : Model, path or Ensemble
        An ensemble is averaged: several models, mirrored and turned copies, dropout.
    image : path or LazyVolume
        Read band by band where its format allows it.
    out : path
        Mask to write; its suffix chooses the format. What an interrupted call has left beside it is used.
    layers : mapping
        Files to write besides, by name: ``probability`` (one channel a class), ``entropy``, and ``disagreement`` where
        there is more than one pass. They are uint8, in which 255 stands for 1.
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
    ensemble = _ensemble(model)
    plan = ensemble.models[0].plan
    source = image if isinstance(image, LazyVolume) else open_lazy(image)
    out, name, most = Path(out), source.path.name, ceiling(_allowed(plan, memory))
    for one in ensemble.models:
        check_image(one.plan, name, source.shape)
        _check_plan(one.plan, source, most)
    plans = {one.plan.normalisation: one.plan for one in ensemble.models}  # the image is read once for each
    with about(name):
        intensities = {how: _measured(source, each, control) for how, each in plans.items()}
    looks = Looks.of(ensemble, intensities, source.geometry.spacing, layers)
    ledger = Ledger.open(out, _recipe(ensemble, source, looks))
    room = most - _taken_by_nets(looks, source, control)
    spare = 0 if _allowed(plan, memory) is not None else free_memory() // 2  # which the ceiling leaves to others
    sheets = _sheets(ledger, looks, source, int(_SHARE * room), int(_LEEWAY * _SHARE * (room + spare)))
    notes = (
        f"{name}: {len(sheets.strips)} strip{'s' * (len(sheets.strips) != 1)} of tiles in "
        f"{sheets.nbytes / 2**20:.0f} MiB beside the net.",
    )
    yield Started("segmenting", str(looks.first.compute.device), sheets.units, notes)
    if ledger.done:
        yield Note(f"{name}: goes on from {len(ledger.done)} of {sheets.units} parts that were finished before.")
    channels = {"probability": len(ensemble.classes)}
    raw = ledger.files({kind: (channels.get(kind, 1), *source.spatial) for kind in (LABELS, *looks.layers)})

    def keep(unit: Unit, plane: tuple[int, ...], where: tuple[slice, slice], found: dict[str, np.ndarray]) -> None:
        place = (slice(None), *(slice(p, p + 1) for p in plane), *where)
        for kind, values in found.items():
            raw[kind][place] = values.reshape(len(values), *(1,) * len(plane), *values.shape[1:])
        ledger.add(unit)
        if (used_memory() or 0) > _NEAR * most:
            release()

    try:
        yield from sheets.finished(keep, ledger.done, focus, control)
    finally:
        ledger.sync()
    _write(out, raw[LABELS], source, plan, control)
    for layer in looks.layers:
        _write_layer(Path(layers[layer]), raw[layer], source, control)
    ledger.remove()
    return out


def _ensemble(model: Model | str | Path | Ensemble) -> Ensemble:
    if isinstance(model, Ensemble):
        return model
    return Ensemble.of([model if isinstance(model, Model) else Model.load(model)])


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


def _taken_by_nets(looks: Looks, source: LazyVolume, control: Control | None) -> int:
    """Bytes that the process holds at most while tiles go through the nets, found by sending some."""
    grid, most = looks.grid(source.spatial), used_memory() or 0
    if len(grid.axes[1].starts) == 1:
        return most  # one strip at most, so that nothing hangs on it
    for predictor in {repr(predictor.plan.net): predictor for predictor in looks.predictors}.values():
        tiles = np.zeros((looks.batch, predictor.plan.net.in_channels, *grid.side), np.float32)
        with watched() as peak, interruptible(predictor.net, control):
            predictor.run(tiles)
        most = max(most, peak.bytes if peak.bytes is not None else _NET)
    return most


def _sheets(ledger: Ledger, looks: Looks, source: LazyVolume, budget: int, most: int) -> Sheets:
    """As few strips as `budget` bytes allow; those of a mask that was begun while they need no more than `most`."""
    if ledger.done:
        number, sums = ledger.strips
        begun = Sheets.divided(looks, source, number, _SUMS[sums]) if number > 0 and sums in _SUMS else None
        if begun is not None and begun.nbytes <= most:
            return begun
        ledger.begin_anew()
    sheets = Sheets.of(looks, source, budget)
    ledger.strips = len(sheets.strips), next(name for name, sums in _SUMS.items() if sums == sheets.sums)
    return sheets


def _recipe(ensemble: Ensemble, source: LazyVolume, looks: Looks) -> str:
    """Hash of all that decides the finished parts, but for the strips that they are of."""
    state = source.path.stat()
    nets = [(model.id, model.plan.deciding()) for model in ensemble.models]
    facts = (nets, source.path.name, state.st_size, state.st_mtime_ns, source.shape)
    how = (looks.symmetries, looks.dropout_passes, looks.layers, looks.grid(source.spatial))
    return hashlib.sha256(repr((facts, how)).encode()).hexdigest()[:16]


def _write(out: Path, raw: RawFile, source: LazyVolume, plan: Plan, control: Control | None) -> None:
    labels: np.ndarray | None = None
    if plan.post.steps:
        classes, objects = after_net(raw[(slice(None),)][0], plan.post.steps, source.geometry.spacing)
        labels = classes if objects is None else objects
    with create_lazy(out, source, np.uint8 if labels is None else labels.dtype) as file:
        for start, stop in _slabs(source.spatial, raw.nbytes):
            poll(control)
            part = slice(start, stop)
            file[part] = raw[(slice(None), part)][0] if labels is None else labels[part]


def _write_layer(path: Path, raw: RawFile, source: LazyVolume, control: Control | None) -> None:
    channels = raw.shape[0]
    with create_lazy(path, source, np.uint8, channels) as file:
        for channel in range(channels):
            for start, stop in _slabs(source.spatial, raw.nbytes // channels):
                poll(control)
                part = slice(start, stop)
                file[channel, part] = raw[(slice(channel, channel + 1), part)][0]
