"""Files on a Dask cluster: one started on this machine, or one that is there; only paths and rows cross.

Workers are processes started anew, never forked, so that a program which calls this needs no guard. Each loads the
model once. When one dies, the scheduler gives its files to others; a file that kills several becomes a failed row.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_unetseg.batch.local import Step
from napari_unetseg.batch.outputs import Cluster, Job, Outputs
from napari_unetseg.batch.work import Entry, Segmenter, failed
from napari_unetseg.devices import limit_threads
from napari_unetseg.errors import ModelError, Stopped, UnetSegError
from napari_unetseg.events import Control, Event, Note, finish
from napari_unetseg.nets import Model

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Computers", "segment_one"]

_THREADS = 2  # of a worker: one file is read or written while the net works on the other
_PATIENCE = 120.0  # seconds until the first worker of this machine must have come
_TRIES = 5  # times that a file is handed out whose row was lost on its way


@dataclass(frozen=True)
class _Recipe:
    """What a worker needs to make the same masks as this process would: folders of models on the shared disk."""

    hash: str
    folders: tuple[str, ...]
    outputs: Outputs


# ---------------------------------------------------------------------------------------------- in the worker process
_loading, _device = threading.Lock(), threading.Lock()
_loaded: dict[str, Segmenter] = {}


def segment_one(job: Job, recipe: _Recipe) -> Entry:
    """Segment one file on a worker; its row goes back."""
    try:
        segmenter = _segmenter(recipe)
    except UnetSegError as error:
        return failed(str(error))
    loaded = segmenter.read(job)
    if isinstance(loaded, dict):
        return loaded
    begin = time.monotonic()
    with _device:
        waited = time.monotonic() - begin
        found = finish(segmenter.think(job, loaded, Control()))
    if isinstance(found, dict):
        return found
    return segmenter.finish(job, loaded, found, time.monotonic() - begin - waited)


def _segmenter(recipe: _Recipe) -> Segmenter:
    """Models of a recipe, loaded the first time it is met."""
    with _loading:
        if recipe.hash not in _loaded:
            limit_threads()
            models = [Model.load(folder) for folder in recipe.folders]
            segmenter = Segmenter(recipe.outputs.ensemble(models), recipe.outputs)
            if segmenter.recipe != recipe.hash:
                raise ModelError(
                    f"The model in {', '.join(recipe.folders)} is not the one that the run began with.",
                    hint="Give the workers the same files as the machine that starts the run.",
                )
            _loaded.clear()
            _loaded[recipe.hash] = segmenter
        return _loaded[recipe.hash]


def models_loaded() -> list[str]:
    """Recipes whose models this process holds."""
    return list(_loaded)


# --------------------------------------------------------------------------------------------- in the process that asks
class Computers:
    """The workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected to the scheduler.
    address : str
        Of the scheduler.
    own : sequence of subprocess.Popen
        Workers that were started for this run; empty on a cluster that was there before.
    """

    def __init__(self, client: Client, address: str, own: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        self._client, self._address, self._own = client, address, own

    @classmethod
    @contextlib.contextmanager
    def join(cls, cluster: Cluster) -> Iterator[Computers]:
        """Connect to a cluster, or start one on this machine that ends with the context.

        Raises
        ------
        UnetSegError
            When Dask is not installed, or nobody answers at the address.
        """
        try:
            import distributed
        except ImportError as error:
            raise UnetSegError(
                f"Dask is not installed ({error.name} is missing).",
                hint='Install it with: pip install "napari-unetseg[cluster]".',
            ) from error
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quiet())
            own: Sequence[subprocess.Popen[bytes]] = ()
            address = cluster.address
            if not address:
                scheduler = stack.enter_context(
                    distributed.LocalCluster(
                        n_workers=0, host="127.0.0.1", protocol="tcp", dashboard_address=None, silence_logs=50
                    )
                )
                address = scheduler.scheduler_address
                own = stack.enter_context(_worker_processes(address, cluster.workers))
            try:
                client = stack.enter_context(
                    distributed.Client(address, timeout="20s", set_as_default=False, name="napari-unetseg")
                )
            except (OSError, TimeoutError, ValueError) as error:
                raise UnetSegError(
                    f"No Dask scheduler answers at {address}.",
                    hint="Check the address, and that this machine reaches it; --dask alone starts workers here.",
                ) from error
            yield cls(client, address, own)

    @property
    def said(self) -> str:
        """How many there are, in words."""
        count = len(self._client.scheduler_info(n_workers=-1)["workers"])
        kind = "processes of this machine" if self._own else f"workers of {self._address}"
        return f"Dask, {count} {kind}"

    def wait(self, control: Control) -> Generator[Event, None, None]:
        """Wait until there is a worker: on this machine for two minutes, elsewhere for as long as the queue takes."""
        begin, said, asked = time.monotonic(), False, None
        while not self._client.scheduler_info(n_workers=-1)["workers"] and not control.stopped:
            self._check_alive()
            if self._own and time.monotonic() - begin > _PATIENCE:
                raise UnetSegError("No worker process could be started.", hint="Try again without --dask.")
            if asked is None:  # a cluster that grows with its work has no worker before it has some
                asked = self._client.submit(os.getpid, pure=False)
            if not said and time.monotonic() - begin > 10:
                said = True
                yield Note("Waiting for the first worker of the cluster.")
            time.sleep(0.2)

    def segment(
        self, jobs: Sequence[Job], segmenter: Segmenter, begin: Callable[[Job], None], control: Control
    ) -> Generator[Step, None, None]:
        """Segment files on the workers; yields the row of each file once.

        Raises
        ------
        UnetSegError
            When the cluster is lost; files that are done stay done.
        """
        if not jobs or control.stopped:
            return
        with _on_disk(segmenter, jobs[0].folder) as folders:
            recipe = _Recipe(segmenter.recipe, folders, segmenter.outputs)
            yield from self._spread(deque(jobs), recipe, begin, control)

    def _spread(
        self, waiting: deque[Job], recipe: _Recipe, begin: Callable[[Job], None], control: Control
    ) -> Generator[tuple[Job, Entry], None, None]:
        # a name of our own for each future: Dask would take two calls on one path for the same
        name, number = f"segment-{secrets.token_hex(4)}", 0
        pending: dict[Any, tuple[Job, Future]] = {}
        over: queue.SimpleQueue[Any] = queue.SimpleQueue()
        tries: Counter[Path] = Counter()
        try:
            while waiting or pending:
                if control.stopped:
                    return
                while waiting and len(pending) < self._window():
                    job, number = waiting.popleft(), number + 1
                    begin(job)
                    future = self._client.submit(segment_one, job, recipe, key=f"{name}-{number}", pure=False)
                    pending[future.key] = job, future
                    future.add_done_callback(lambda one: over.put(one.key))
                with contextlib.suppress(queue.Empty):
                    job, future = pending.pop(over.get(timeout=0.5))
                    row, tries[job.file] = self._row(job, future), tries[job.file] + 1
                    if row is not None:
                        yield job, row
                    elif tries[job.file] < _TRIES:
                        waiting.appendleft(job)
                    else:
                        raise self._lost()
                    continue
                self._check_alive()
        except Stopped:
            return
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._client.cancel([future for _, future in pending.values()])

    def _window(self) -> int:
        """Files that are handed out at a time: a few for each thread, so that stopping is quick."""
        threads = sum(self._client.nthreads().values()) if self._client.status == "running" else 1
        return max(8, 3 * threads)

    def _row(self, job: Job, future: Future) -> Entry | None:
        """Row of a file; None when it was lost: with its worker, or because the scheduler was out of reach."""
        from distributed import KilledWorker

        if future.status == "finished":
            with contextlib.suppress(CancelledError, OSError, TimeoutError):
                return future.result(timeout=_PATIENCE)
        if future.status != "error":
            return None
        error = future.exception()
        if isinstance(error, KilledWorker):
            return failed(
                f"Every worker that took {job.file.name} ended: it may need more memory than a worker has, or its "
                "decoder crashes. Give workers more memory and run with --failed-only."
            )
        if isinstance(error, ImportError):
            raise UnetSegError(
                f"A worker of the cluster cannot import {error.name or 'napari_unetseg'}.",
                hint="Install the same version of napari-unetseg on the workers.",
            ) from error
        if isinstance(error, UnetSegError):  # the disk is full
            raise error
        return failed(f"{type(error).__name__}: {error}".splitlines()[0])

    def _check_alive(self) -> None:
        if self._client.status not in ("running", "connecting") or (
            self._own and all(one.poll() is not None for one in self._own)
        ):
            raise self._lost()

    def _lost(self) -> UnetSegError:
        return UnetSegError(
            "The Dask cluster was lost.", hint="Run the same command again; finished files are not done again."
        )


@contextlib.contextmanager
def _on_disk(segmenter: Segmenter, folder: Path) -> Iterator[tuple[str, ...]]:
    """Folders from which workers load the models; those never saved lie hidden in the output folder meanwhile."""
    with tempfile.TemporaryDirectory(prefix=".models-", dir=folder, ignore_cleanup_errors=True) as place:
        folders = []
        for model, name in zip(segmenter.ensemble.models, segmenter.ids, strict=True):
            saved = model.folder
            if saved is None or not Path(saved).is_dir():
                saved = Path(place) / name
                replace(model).save(saved)  # a copy, so that the caller's folder does not change
            folders.append(str(Path(saved).absolute()))
        yield tuple(folders)


@contextlib.contextmanager
def _worker_processes(address: str, count: int | None) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Worker processes of this machine, each under a nanny that starts it again when it dies."""
    cards = torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = count or cards or max(1, cores // 2)
    with tempfile.TemporaryDirectory(prefix="napari-unetseg-", ignore_cleanup_errors=True) as scratch:
        # -P: a file of the user's, in the folder where this was started, must not stand in for a library
        words = [sys.executable, "-P", "-m", "distributed.cli.dask_worker", address, "--nthreads", str(_THREADS)]
        words += ["--no-dashboard", "--local-directory", scratch, "--death-timeout", "20"]
        words += ["--memory-limit", f"{1 / count:.3f}"]
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // count))
        started = []
        for number in range(count):
            environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": _python_path()}
            if cards:
                environment["CUDA_VISIBLE_DEVICES"] = _card(number % cards)
            started.append(
                subprocess.Popen(
                    [*words, "--name", f"worker-{number + 1}"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        try:
            yield started
        finally:
            _end(started)


def _python_path() -> str:
    """Ours, and the folder this package was imported from where Python would not find it by itself."""
    root, given = Path(__file__).resolve().parents[2], os.environ.get("PYTHONPATH", "")
    own = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    return os.pathsep.join([*own, *filter(None, [given])])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have Dask say nothing of connections that open and close; what goes wrong is said in our words."""
    loggers = {name: logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _card(number: int) -> str:
    """Name of one of the graphics cards that this process may use."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return visible[number] if number < len(visible) else str(number)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + 10
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
