"""`Worker`: commands in, one verb at a time, events out."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

import torch

from napari_unetseg.devices import is_out_of_memory
from napari_unetseg.errors import Stopped, UnetSegError
from napari_unetseg.events import Control, Event, PreviewReady, Running, StepDone, View
from napari_unetseg.inference.memory import used_memory
from napari_unetseg.worker import after, compare, doubt, instant, plan, progress, score  # noqa: F401 - register their verbs
from napari_unetseg.worker.verbs import VERBS, Bench

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_URGENT = ("instant",)  # somebody just lifted the brush: done between the steps of whatever else runs
_BETWEEN_STEPS = 0.05  # seconds: no curve needs the hundreds of steps a second of a tiny net


@dataclass
class _Job:
    id: int
    verb: str
    args: Mapping[str, Any]
    control: Control = field(default_factory=Control)


class Worker:
    """Runs jobs from one stream of commands, one after the other.

    Parameters
    ----------
    commands : text stream
        Read on a thread of its own, so that stop and look act at once.
    events : text stream
        Where events go; nothing else may write there.
    bench : Bench
        What stays warm between jobs.
    on_leave : callable, optional
        Called when told to shut down, or when nobody is left to work for.
    """

    def __init__(
        self, commands: TextIO, events: TextIO, bench: Bench, on_leave: Callable[[], None] | None = None
    ) -> None:
        self._commands, self._events, self._bench, self._on_leave = commands, events, bench, on_leave
        self._writing = threading.Lock()
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._urgent: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._jobs: dict[int, _Job] = {}
        self._next_step = 0.0

    def run(self) -> None:
        """Work until told to shut down, or until the commands end."""
        threading.Thread(target=self._listen, daemon=True).start()
        for _ in self._bench.probe():
            self._do_urgent()
        while (job := self._queue.get()) is not None:
            self._do_urgent()
            self._take(job)

    def _do_urgent(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._urgent.get_nowait())

    def _take(self, job: _Job) -> None:
        if job.id in self._jobs:  # an urgent one waits in both queues
            self._do(job)
            self._jobs.pop(job.id, None)

    def say(self, job: int, event: str, **values: Any) -> None:
        """Write one event; when nobody reads any more, begin to leave."""
        line = json.dumps({"id": job, "event": event, **values}, default=str) + "\n"
        try:
            with self._writing:
                self._events.write(line)
                self._events.flush()
        except OSError:
            self._leave()

    # -- commands ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        for line in self._commands:
            if not line.strip():
                continue
            try:
                if self._obey(json.loads(line)):
                    break
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
                self.say(0, "Note", level="warning", text=f"The worker does not understand {line.strip()[:200]!r}.")
        self._leave()

    def _obey(self, command: Mapping[str, Any]) -> bool:
        """Do what a command says; True when it was to shut down."""
        if "verb" in command:
            job = _Job(int(command["id"]), str(command["verb"]), dict(command.get("args") or {}))
            self._jobs[job.id] = job
            if job.verb in _URGENT:
                self._urgent.put(job)
            self._queue.put(job)
        elif "stop" in command:
            if command["stop"] in self._jobs:
                self._jobs[command["stop"]].control.stop()
        elif "look" in command:
            view = command["look"]
            self._look(View(str(view["case"]), view.get("index")) if view else None)
        elif "shutdown" not in command:
            raise ValueError(command)
        return "shutdown" in command

    def _look(self, view: View | None) -> None:
        for job in list(self._jobs.values()):
            job.control.look(view)

    def _leave(self) -> None:
        for job in list(self._jobs.values()):
            job.control.leave()
        self._queue.put(None)
        if self._on_leave is not None:
            self._on_leave()

    # -- jobs -------------------------------------------------------------------------------------------------

    def _do(self, job: _Job) -> None:
        try:
            if job.control.stopped:
                raise Stopped("It was stopped before it began.")  # noqa: TRY301
            result = self._relay(job)
        except BaseException as error:
            facts = _explain(job.verb, error)
        else:
            return self.say(job.id, "Done", result=result)
        finally:
            _free_memory()
        return self.say(job.id, "Failed", **facts)

    def _relay(self, job: _Job) -> Mapping[str, Any]:
        run = VERBS[job.verb](job.args, job.control, self._bench)
        if not isinstance(run, Generator):
            return run
        for event in (running := Running(run)):
            self._pass_on(job.id, event)
            if job.verb not in _URGENT:
                self._do_urgent()
        return running.result

    def _pass_on(self, job: int, event: Event) -> None:
        if isinstance(event, StepDone):
            if time.monotonic() < self._next_step:
                return
            self._next_step = time.monotonic() + _BETWEEN_STEPS
        values = event.to_json()
        if isinstance(event, StepDone):
            values["memory"] = _memory_in_use()
        if isinstance(event, PreviewReady):
            values["mask"] = self._bench.put("preview", event.mask)
        self.say(job, values.pop("event"), **values)


def _explain(verb: str, error: BaseException) -> dict[str, Any]:
    """Message and hint for the user; the traceback of what nobody expected goes to the log."""
    if isinstance(error, Stopped):
        return {"message": error.message, "hint": error.hint, "stopped": True}
    if isinstance(error, UnetSegError):
        return {"message": error.message, "hint": error.hint}
    if is_out_of_memory(error):
        logger.error("out of memory in %s", verb, exc_info=error)
        return {"message": "Memory ran out.", "hint": "Choose a smaller patch or width, or close other programs."}
    logger.error("unexpected error in %s", verb, exc_info=error)
    first = (str(error).splitlines() or [""])[0][:200]
    return {
        "message": f"An unexpected error ended this ({type(error).__name__}: {first}).",
        "hint": "Your strokes are safe. The log has the details; please report it.",
    }


def _memory_in_use() -> int | None:
    """Bytes that this process holds: of the graphics card where that computes, else of main memory."""
    return (torch.cuda.memory_reserved() if torch.cuda.is_available() else 0) or used_memory()


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
