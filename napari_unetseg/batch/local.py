"""Files through the net of this process: the next one is read, and the last one written, while the device works."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from napari_unetseg.batch.outputs import Job
from napari_unetseg.batch.work import Entry, Loaded, Segmenter, failed
from napari_unetseg.errors import Stopped
from napari_unetseg.events import Control, Event, Running, TileDone

__all__ = ["run_here"]

Step = Event | tuple[Job, Entry]

_AHEAD = 2  # files read before they are needed
_WAITING = 1 << 30  # bytes of images that may wait; one image always may
_MOST_STARTS = 3


def run_here(
    jobs: Sequence[Job], segmenter: Segmenter, begin: Callable[[Job], None], control: Control
) -> Generator[Step, None, None]:
    """Segment files; yields events, and the row of each file when it is over.

    A file at which the program ended before is left for the end and done alone, so that what ends the program once more
    is known; the third time it is given up.

    Raises
    ------
    WriteError
        When the disk is full.
    """
    fresh = [job for job in jobs if not job.starts]
    suspects = sorted((job for job in jobs if job.starts), key=lambda job: job.starts)
    for some in (fresh, *([job] for job in suspects)):
        if control.stopped:
            return
        if some and some[0].starts >= _MOST_STARTS:
            yield some[0], failed(_said_of(some[0]))
        elif some:
            try:
                yield from _Pipeline(some, segmenter, begin, control).run(tiles=len(jobs) == 1)
            except Stopped:
                return


def _said_of(job: Job) -> str:
    return (
        f"The program ended {job.starts} times while it worked on {job.file.name}: it may need more memory than there "
        "is, or its decoder crashes. Run with --failed-only to try once more."
    )


class _Pipeline:
    def __init__(
        self, jobs: Sequence[Job], segmenter: Segmenter, begin: Callable[[Job], None], control: Control
    ) -> None:
        self._jobs, self._segmenter, self._begin, self._control = deque(jobs), segmenter, begin, control
        self._reads: deque[tuple[Job, Future[Loaded | Entry]]] = deque()
        self._writes: deque[tuple[Job, Future[Entry]]] = deque()

    def run(self, *, tiles: bool) -> Generator[Step, None, None]:
        """Read ahead on one thread, write behind on another; `tiles` says whether to yield `TileDone`."""
        with ThreadPoolExecutor(1, "read") as self._reader, ThreadPoolExecutor(1, "write") as self._writer:
            try:
                self._read_ahead()
                while self._reads and not self._control.stopped:
                    job, reading = self._reads.popleft()
                    loaded = reading.result()
                    self._read_ahead()
                    if isinstance(loaded, Loaded):
                        yield from self._think(job, loaded, tiles)
                    else:
                        yield job, loaded
                    yield from self._written(most=1)
            except Stopped:
                yield from self._written(most=0)
                raise
            finally:
                for _, reading in self._reads:
                    reading.cancel()
            yield from self._written(most=0)

    def _read_ahead(self) -> None:
        waiting = sum(_bytes(reading) for _, reading in self._reads)
        while self._jobs and len(self._reads) < _AHEAD and (waiting < _WAITING or not self._reads):
            job = self._jobs.popleft()
            self._begin(job)
            self._reads.append((job, self._reader.submit(self._segmenter.read, job)))

    def _think(self, job: Job, loaded: Loaded, tiles: bool) -> Generator[Step, None, None]:
        begin = last = time.monotonic()
        run = Running(self._segmenter.think(job, loaded, self._control))
        for event in run:
            if tiles and isinstance(event, TileDone) and time.monotonic() - last > 0.5:
                last = time.monotonic()
                yield event
        found = run.result
        if isinstance(found, dict):
            yield job, found
            return
        if found.nbytes > _WAITING:
            yield from self._written(most=0)
        seconds = time.monotonic() - begin
        self._writes.append((job, self._writer.submit(self._segmenter.finish, job, loaded, found, seconds)))

    def _written(self, most: int) -> Generator[Step, None, None]:
        """Rows of the files that are written, until at most so many wait to be."""
        while self._writes and (len(self._writes) > most or self._writes[0][1].done()):
            job, writing = self._writes.popleft()
            yield job, writing.result()


def _bytes(reading: Future[Any]) -> int:
    done = reading.done() and not reading.cancelled() and reading.result()
    return done.nbytes if isinstance(done, Loaded) else 0
