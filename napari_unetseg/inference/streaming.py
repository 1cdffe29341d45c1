"""An image of any size through a net in a fixed memory: rows of tiles, each finished before it is forgotten.

Along its first axis the image is passed once. A band of sums, as high as one tile, holds what overlapping tiles have
added up; when a row of tiles is through, the rows that no later tile touches are complete, leave the band as labels
(and as probabilities and doubt), and the rest moves up. Where a band across the whole image is too large for the
memory, the image is divided into strips along its second axis, at the price of one more column of tiles a strip. A
thread reads the next band, and another cuts and normalises the next tiles, while the net computes.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from napari_unetseg.errors import OutOfMemory
from napari_unetseg.events import Control, Event, TileDone
from napari_unetseg.inference.looks import Looks, Tile
from napari_unetseg.inference.sliding import blend, interruptible, poll
from napari_unetseg.inference.tiling import Grid, windowed

__all__ = ["Sheets", "Source", "Strip", "Unit", "ahead"]

T = TypeVar("T")
Unit = tuple[int, int, int]  # plane, strip, row
Sink = Callable[[Unit, tuple[int, ...], tuple[slice, slice], dict[str, np.ndarray]], None]


class Source(Protocol):
    """What is read from: an array ``(C, [Z,] Y, X)``, or an image whose voxels stay on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, [Z,] Y, X)``."""

    @property
    def dtype(self) -> np.dtype:
        """Of the voxels."""

    def __getitem__(self, region: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class Strip:
    """A range of columns (the second axis of the net's dims), and the columns of tiles that touch it."""

    columns: slice
    tiles: range


@dataclass(frozen=True)
class _Run:
    """Rows of tiles that follow one another: the first ones only fill the band, those from `first` on are finished."""

    plane: int
    strip: int
    rows: range
    first: int


@dataclass(frozen=True)
class _Job:
    run: _Run
    row: int
    index: tuple[int, ...]
    last: bool  # of its row
    tile: Tile


@dataclass(frozen=True)
class Sheets:
    """How an image is passed.

    Attributes
    ----------
    looks : Looks
        What is done with a tile.
    source : Source
        ``(C, [Z,] Y, X)``.
    grid : Grid
        Tiles of the volume, or of each plane.
    strips : tuple of Strip
    sums : torch.dtype
        Of the band: float32, or float16 where that saves a strip (probabilities then are right to 0.002).
    """

    looks: Looks
    source: Source
    grid: Grid
    strips: tuple[Strip, ...]
    sums: torch.dtype = torch.float32

    @classmethod
    def of(cls, looks: Looks, source: Source, budget: int) -> Sheets:
        """Divide the image into as few strips as `budget` bytes for bands allow.

        Raises
        ------
        OutOfMemory
            Where not even strips of one tile would do.
        """
        columns = len(looks.grid(source.shape[1:]).axes[1].starts)
        for number in sorted({*range(1, min(columns, 8) + 1), *(2**n for n in range(4, 16)), columns}):
            if number > columns:
                break
            for sums in (torch.float32, torch.float16):
                sheets = cls.divided(looks, source, number, sums)
                if sheets.nbytes <= budget:
                    return sheets
        raise OutOfMemory(
            f"The memory allowed is {_mib(sheets.nbytes - budget)} MiB short of what one strip of tiles needs.",
            hint=f"Allow at least {_mib(sheets.nbytes - budget)} MiB more, or give smaller tiles (inference.tile).",
        )

    @classmethod
    def divided(cls, looks: Looks, source: Source, number: int, sums: torch.dtype) -> Sheets:
        """Divide the image into so many strips, at most one a column of tiles."""
        grid = looks.grid(source.shape[1:])
        columns = np.arange(len(grid.axes[1].starts))
        strips = tuple(_strip(grid, part) for part in np.array_split(columns, min(number, len(columns))))
        return cls(looks, source, grid, strips, sums)

    @property
    def nbytes(self) -> int:
        """Bytes of the bands: three of the image (in use, being read, being decoded), the sums, labels, some tiles."""
        looks, side = self.looks, self.grid.side
        rest = int(np.prod([axis.size for axis in self.grid.axes[2:]]))
        seen, stored = looks.first.plan.net.in_channels, self.source.dtype.itemsize
        widest = max(strip.columns.stop - strip.columns.start for strip in self.strips)
        read = max(self._read(strip).stop - self._read(strip).start for strip in self.strips)
        leaves = looks.channels * self.sums.itemsize + 2 * looks.bytes_kept
        bands = side[0] * rest * (3 * read * seen * stored + widest * leaves)
        bands += 24 * _few(looks) * max(2, looks.first.channels)
        # each batch is cut, normalised and stacked, two of them at a time; each model has its own
        tile = 2 * seen * (stored + 8 * len(looks.predictors)) + 12 * looks.channels
        return bands + looks.batch * int(np.prod(side)) * tile

    @property
    def planes(self) -> int:
        """Planes that are segmented one by one; 1 for a net that sees all at once."""
        return int(np.prod(self.source.shape[1 : -self.looks.first.plan.net.dims]))

    @property
    def units(self) -> int:
        """Parts of the result that are finished one by one."""
        return self.planes * len(self.strips) * len(self.grid.axes[0].starts)

    def finished(
        self,
        sink: Sink,
        done: Collection[Unit] = (),
        focus: Sequence[float] | None = None,
        control: Control | None = None,
    ) -> Generator[Event, None, None]:
        """Segment what is not `done`; yields `TileDone`.

        Parameters
        ----------
        sink : callable
            Given a unit, its plane (as an index), its rows and columns, and `Looks.finished` of them.
        done : collection of Unit
            What need not be computed.
        focus : sequence of float, optional
            Position ``([z,] y, x)`` whose rows come first.
        control : Control, optional
            Polled after every tile and between the layers of the net.
        """
        runs = self._runs(set(done), focus)
        rest = int(np.prod([len(axis.starts) for axis in self.grid.axes[2:]]))
        total = sum(len(run.rows) * len(self.strips[run.strip].tiles) * rest for run in runs)
        band = _Band(self, sink)
        answers: dict[bytes, Tensor] = {}
        start, passed = time.monotonic(), 0
        with contextlib.ExitStack() as stack:
            for predictor in self.looks.predictors:
                stack.enter_context(interruptible(predictor.net, control))
            for jobs in ahead(_batches(self._jobs(runs), self.looks.batch)):
                poll(control)
                results = self.looks.answered([job.tile for job in jobs], answers)
                for job, result in zip(jobs, results, strict=True):
                    band.add(job, result)
                passed += len(jobs)
                yield TileDone(passed, total, (time.monotonic() - start) / passed * (total - passed))

    def _runs(self, done: set[Unit], focus: Sequence[float] | None) -> list[_Run]:
        axis, planes, strips = self.grid.axes[0], list(range(self.planes)), list(range(len(self.strips)))
        row = None
        if focus is not None:
            row = min(
                range(len(axis.starts)), key=lambda r: abs(axis.starts[r] + axis.side / 2 - focus[-len(self.grid.axes)])
            )
            column = focus[1 - len(self.grid.axes)]
            strips.sort(key=lambda s: abs((self.strips[s].columns.start + self.strips[s].columns.stop) / 2 - column))
            if self.planes > 1:
                planes.sort(key=lambda plane: abs(plane - focus[0]))
        runs = []
        for plane, strip in itertools.product(planes, strips):
            missing = [r for r in range(len(axis.starts)) if (plane, strip, r) not in done]
            groups = _consecutive(missing, row)
            for first, last in groups:
                begin = axis.first_touching(max(0, axis.starts[first]))
                runs.append(_Run(plane, strip, range(begin, last + 1), first))
        return runs

    def _read(self, strip: Strip) -> slice:
        """Columns of the image that the tiles of a strip see."""
        axis = self.grid.axes[1]
        seen = [axis.seen(tile) for tile in (strip.tiles[0], strip.tiles[-1])]
        return slice(min(part.start for part in seen), max(part.stop for part in seen))

    def _bands(self, runs: Iterable[_Run]) -> Iterator[tuple[_Run, int, np.ndarray]]:
        """What each row of tiles sees, as read."""
        for run in runs:
            columns = self._read(self.strips[run.strip])
            for row in run.rows:
                window = (self.grid.axes[0].seen(row), columns)
                if len(self.source.shape) - 1 > len(self.grid.axes):
                    planes = self.looks.first.seen(run.plane, self.source.shape[1])
                    yield run, row, np.concatenate([self.source[(slice(None), z, *window)] for z in planes])
                else:
                    yield run, row, np.asarray(self.source[(slice(None), *window)])

    def _jobs(self, runs: Iterable[_Run]) -> Iterator[_Job]:
        """Tiles, normalised."""
        for run, row, band in ahead(self._bands(runs)):
            columns = self._read(self.strips[run.strip])
            origin = (self.grid.axes[0].seen(row).start, columns.start, 0)[: len(self.grid.axes)]
            rest = (range(len(axis.starts)) for axis in self.grid.axes[2:])
            indices = list(itertools.product((row,), self.strips[run.strip].tiles, *rest))
            for index in indices:
                window = [
                    slice(part.start - o, part.stop - o)
                    for part, o in zip(self.grid.window(index), origin, strict=True)
                ]
                yield _Job(run, row, index, index == indices[-1], self.looks.tile(windowed(band, window)))


class _Band:
    """The sums of one row of tiles, and what they still owe the next."""

    def __init__(self, sheets: Sheets, sink: Sink) -> None:
        self.sheets, self.sink = sheets, sink
        self.at: tuple[_Run, int] | None = None
        self.sums = torch.zeros(0)

    def add(self, job: _Job, result: Tensor) -> None:
        """Blend in a tile; finish the row with its last."""
        if self.at != (job.run, job.row):
            self._begin(job)
        grid, strip = self.sheets.grid, self.sheets.strips[job.run.strip]
        start = grid.axes[0].starts[job.row]
        rest = (slice(0, axis.size) for axis in grid.axes[2:])
        blend(self.sums, result, grid, job.index, (slice(start, start + grid.side[0]), strip.columns, *rest))
        if job.last:
            self._finish(job)

    def _begin(self, job: _Job) -> None:
        grid, sheets = self.sheets.grid, self.sheets
        before, self.at = self.at, (job.run, job.row)
        if before == (job.run, job.row - 1):
            shift = grid.axes[0].starts[job.row] - grid.axes[0].starts[job.row - 1]
            for row in range(0, grid.side[0] - shift, shift):  # in parts that do not overlap
                stop = min(row + shift, grid.side[0] - shift)
                self.sums[:, row:stop] = self.sums[:, row + shift : stop + shift]
            self.sums[:, -shift:] = 0
            return
        columns = sheets.strips[job.run.strip].columns
        shape = (grid.side[0], columns.stop - columns.start, *(axis.size for axis in grid.axes[2:]))
        if self.sums.shape[1:] == shape:
            self.sums.zero_()
            return
        self.sums = torch.zeros(0)  # the old band goes before the new one comes
        device = sheets.looks.first.blending_device(shape)
        self.sums = torch.zeros((sheets.looks.channels, *shape), dtype=sheets.sums, device=device)

    def _finish(self, job: _Job) -> None:
        axis, strip = self.sheets.grid.axes[0], self.sheets.strips[job.run.strip]
        if job.row < job.run.first:
            return
        rows = axis.finished(job.row)
        start = rows.start - axis.starts[job.row]
        ready = self.sums[:, start : start + rows.stop - rows.start]
        step = max(1, _few(self.sheets.looks) // max(1, ready[:1, :1].numel()))
        parts = [self.sheets.looks.finished(ready[:, row : row + step]) for row in range(0, ready.shape[1], step)]
        found = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
        plane = (job.run.plane,) if self.sheets.planes > 1 or self._flat() else ()
        arrays = {name: part.cpu().numpy() for name, part in found.items()}
        self.sink((job.run.plane, job.run.strip, job.row), plane, (rows, strip.columns), arrays)

    def _flat(self) -> bool:
        """Whether a net of planes segments a volume, be it one plane thick."""
        return len(self.sheets.source.shape) - 1 > len(self.sheets.grid.axes)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by a thread while the one before is used."""
    pool, end = ThreadPoolExecutor(1), object()
    try:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
            del item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # a stop does not wait for what is being read


def _few(looks: Looks) -> int:
    """Voxels that are finished at once: argmax gives 64 bits a voxel, doubt has many copies of the probabilities."""
    return 2**17 if looks.layers else 2**19


def _batches(jobs: Iterator[_Job], size: int) -> Iterator[list[_Job]]:
    while batch := list(itertools.islice(jobs, size)):
        yield batch


def _strip(grid: Grid, tiles: np.ndarray) -> Strip:
    axis = grid.axes[1]
    start = 0 if tiles[0] == 0 else max(0, axis.starts[tiles[0]])
    columns = slice(start, axis.finished(int(tiles[-1])).stop)
    return Strip(columns, range(axis.first_touching(start), int(tiles[-1]) + 1))


def _consecutive(rows: Sequence[int], first: int | None) -> list[tuple[int, int]]:
    """Runs of consecutive rows as (first, last); the one that holds `first` begins with it, and comes first."""
    groups: list[tuple[int, int]] = []
    for row in rows:
        if groups and groups[-1][1] == row - 1 and row != first:
            groups[-1] = (groups[-1][0], row)
        else:
            groups.append((row, row))
    return groups if first is None else sorted(groups, key=lambda group: group[0] != first)


def _mib(size: int) -> int:
    return -(-size // 2**20)
