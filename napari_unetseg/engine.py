"""`Engine`: starts the worker process, sends it verbs, hands back its events, and starts a new one when it dies.

No Qt and no torch. What travels is described in `napari_unetseg.worker`. The process is started by its module name, so
that nothing is forked and no script of the user is run a second time, on any system.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from napari_unetseg.errors import EngineError
from napari_unetseg.events import View

__all__ = ["Engine", "OnEvent"]

logger = logging.getLogger(__name__)

OnEvent = Callable[[dict[str, Any]], None]

_PYTHON = "NAPARI_UNETSEG_PYTHON"  # for applications whose own executable is no Python
_CRASHES, _SECONDS = 3, 60.0  # so many crashes in so short a time, and no new worker is started unasked
_WHAT = "The engine"
_SAFE = "Your strokes and models are safe."


class Engine:
    """One worker process, kept warm.

    Callbacks run **on the reader thread** of the engine, one at a time; hand over to the window's thread there. An
    event is a plain dict ``{"id": job, "event": name, ...}``: those of `napari_unetseg.events` by their class names,
    and at the end exactly one ``Done`` (with ``result``) or ``Failed`` (with ``message, hint``; also ``stopped`` when
    the user stopped it before there was a result, ``crashed`` when the worker died).

    Parameters
    ----------
    on_ready : callable, optional
        Called with the ``Ready`` event of every worker: device facts, ``pid``.
    on_crash : callable, optional
        Called with a sentence when a worker died; a new one is being started then, unless they die again and again.
    """

    def __init__(self, on_ready: OnEvent | None = None, on_crash: Callable[[str], None] | None = None) -> None:
        self.on_ready = on_ready
        self.on_crash = on_crash
        self.facts: dict[str, Any] | None = None
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, OnEvent] = {}
        self._worker: _Worker | None = None
        self._crashes: collections.deque[float] = collections.deque(maxlen=_CRASHES)
        self._closed = False

    def start(self) -> None:
        """Start the worker, so that it is warm when it is needed; harmless when it runs already.

        Raises
        ------
        EngineError
            When no process can be started, or the engine was closed.
        """
        with self._lock:
            if self._closed:
                raise EngineError("The engine is closed.", hint="Open the window again.")
            if self._worker is None:
                self._worker = _Worker(self._hear, self._died)

    @property
    def ready(self) -> bool:
        """Whether a worker is warm."""
        return self.facts is not None

    def submit(self, verb: str, args: Mapping[str, Any], on_event: OnEvent) -> int:
        """Queue a verb for the worker, which runs one at a time; returns the number of the job."""
        with self._lock:
            self.start()
            job = next(self._numbers)
            self._jobs[job] = on_event
            self._send({"id": job, "verb": verb, "args": dict(args)})
        return job

    def stop(self, job: int) -> None:
        """Ask a job to finish at its next step, keeping its best result so far."""
        self._send({"stop": job})

    def look(self, view: View | None) -> None:
        """Ask the running job for previews of `view`."""
        self._send({"look": view and {"case": view.case, "index": view.index}})

    def close(self, grace: float = 3.0) -> None:
        """End the worker: it has `grace` seconds to leave, then it is killed. No callback comes any more.

        A training leaves its last steps in its checkpoint, a folder its finished masks; a kill costs the last step.
        """
        with self._lock:
            if self._closed:
                return
            self._send({"shutdown": True})
            self._closed = True
            self._jobs.clear()
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end(grace)

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, command: Mapping[str, Any]) -> None:
        with self._lock:
            if self._worker is not None:
                self._worker.send(command)

    def _hear(self, worker: _Worker, event: dict[str, Any]) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            last = event["event"] in ("Done", "Failed")
            on_event = self._jobs.pop(event["id"], None) if last else self._jobs.get(event["id"])
            if event["event"] == "Ready":
                self.facts, on_event = event, self.on_ready
        if on_event is not None:
            _call(on_event, event)
        elif event["event"] == "Note":
            logger.warning("worker: %s", event.get("text"))

    def _died(self, worker: _Worker, why: str) -> None:
        with self._lock:
            if worker is not self._worker:
                return
            self._worker, self.facts = None, None
            jobs, self._jobs = self._jobs, {}
            often = len(self._crashes) == _CRASHES - 1 and time.monotonic() - self._crashes[0] < _SECONDS
            hint = self._begin_again(often)
        logger.error("%s %s", why, hint)
        for job, on_event in jobs.items():
            _call(on_event, {"id": job, "event": "Failed", "message": why, "hint": hint, "crashed": True})
        if self.on_crash is not None:
            _call(self.on_crash, f"{why} {hint}")

    def _begin_again(self, often: bool) -> str:
        self._crashes.append(time.monotonic())
        if often:
            self._crashes.clear()
            return f"{_SAFE} It happened {_CRASHES} times in a row: see the log before you try again."
        try:
            self.start()
        except EngineError as error:
            return f"{_SAFE} {error}"
        return f"{_SAFE} A new one is being started; if it happens again, try a smaller patch or width."


class _Worker:
    """A process, its pipes, the threads that read them, and the folder for its arrays."""

    def __init__(
        self,
        hear: Callable[[_Worker, dict[str, Any]], None],
        died: Callable[[_Worker, str], None],
    ) -> None:
        self._hear, self._died = hear, died
        self._last = collections.deque[str](maxlen=30)
        self._folder = Path(tempfile.mkdtemp(prefix="napari-unetseg-"))
        python = os.environ.get(_PYTHON) or sys.executable
        # -P: a file of the user's, in the folder where napari was started, must not stand in for a library
        command = [python, "-P", "-X", "faulthandler", "-m", "napari_unetseg.worker", str(self._folder)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(),
                encoding="utf-8",
                errors="replace",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise EngineError(
                f"{_WHAT} could not be started with {python!r}: {error.strerror or error}.",
                hint=f"Set the variable {_PYTHON} to the Python that napari-unetseg is installed in.",
            ) from error
        self._in = cast("IO[str]", self._process.stdin)
        self._out = cast("IO[str]", self._process.stdout)
        self._err = cast("IO[str]", self._process.stderr)
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._drain, self._read)]
        for thread in self._threads:
            thread.start()

    def send(self, command: Mapping[str, Any]) -> None:
        """Write one line; a dead worker is noticed by its reader, not here."""
        with contextlib.suppress(OSError, ValueError):
            self._in.write(json.dumps(command, default=str) + "\n")
            self._in.flush()

    def end(self, grace: float) -> None:
        """Let it finish, or kill it."""
        with contextlib.suppress(OSError):
            self._in.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            logger.info("The worker did not end within %.0f s and is killed.", grace)
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(1.0)
        self._clean()

    def _read(self) -> None:
        for line in self._out:
            try:
                event = json.loads(line)
            except ValueError:
                logger.warning("The worker said something else than an event: %.200s", line)
                continue
            self._hear(self, event)
        code = self._process.wait()
        self._threads[0].join(1.0)
        self._died(self, self._why(code))
        self._clean()

    def _drain(self) -> None:
        for line in self._err:
            logger.info("worker: %s", line.rstrip())
            if line.strip():
                self._last.append(line.strip())

    def _why(self, code: int) -> str:
        if code == -getattr(signal, "SIGKILL", 9):
            return f"{_WHAT} was killed. Memory may have run out."
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"{_WHAT} crashed ({signal.Signals(-code).name})."
        if code > 0x80000000:  # Windows: an exception code
            return f"{_WHAT} crashed (0x{code:08X})."
        last = f": {self._last[-1]}" if self._last else "."
        return f"{_WHAT} ended with code {code}{last}"

    def _clean(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()
        for pipe in (self._out, self._err):
            with contextlib.suppress(OSError):
                pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Ours, and the folder this package was imported from where Python would not find it by itself."""
    env = dict(os.environ)
    root = Path(__file__).resolve().parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        env["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [env.get("PYTHONPATH")])])
    return env


def _call(callback: Callable[[Any], None], value: Any) -> None:
    try:
        callback(value)
    except Exception:
        # a mistake in a window must not end the reader thread, which others wait for
        logger.exception("A callback of the engine failed.")
