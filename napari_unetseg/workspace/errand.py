"""`Errand`: one thing asked of the engine beside the stage, such as a map of doubt; it makes way for what is begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from psygnal import Signal

from napari_unetseg.workspace.desk import Desk
from napari_unetseg.workspace.state import Jobs

__all__ = ["Errand"]

Then = Callable[[Mapping[str, Any]], None]


class Errand:
    """One request at a time; a newer one takes the place of the older, whose answer is dropped.

    Parameters
    ----------
    workspace : Desk
        Whose stage it makes way for, and whose user is told of errors.
    jobs : Jobs
        Who does it.
    keep : bool
        Whether what was found is wanted even though it was stopped half way.
    """

    changed = Signal()

    def __init__(self, workspace: Desk, jobs: Jobs, *, keep: bool = False) -> None:
        self.workspace, self._jobs, self._keep = workspace, jobs, keep
        self._job: dict[str, Any] | None = None
        self.fraction = 0.0
        self.seconds = float("nan")  # that the last one took
        workspace.stage_changed.connect(self._on_stage)
        workspace.project_changed.connect(self.drop)

    @property
    def running(self) -> bool:
        """Whether an answer is awaited."""
        return self._job is not None

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop and has not answered yet."""
        return self._job is not None and self._job["stopped"]

    def start(self, verb: str, args: Mapping[str, Any], then: Then) -> None:
        """Ask; `then` gets the result, unless it failed or is no longer wanted."""
        self.drop()
        job: dict[str, Any] = {"then": then, "began": time.monotonic(), "stopped": False}
        self._job, self.fraction = job, 0.0
        job["id"] = self._jobs.submit(verb, args, lambda event: self._on_event(job, event))
        self.changed.emit()

    def stop(self) -> None:
        """Finish at the next step."""
        if self._job is not None and not self._job["stopped"]:
            self._job["stopped"] = True
            self._jobs.stop(self._job["id"])
            if not self._keep:
                self._job = None
            self.changed.emit()

    def drop(self, _: Any = None) -> None:
        """Want its answer no more."""
        if self._job is not None:
            if not self._job["stopped"]:
                self._jobs.stop(self._job["id"])
            self._job = None
            self.changed.emit()

    def _on_stage(self, stage: str) -> None:
        if stage != "idle":
            self.stop()

    def _on_event(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        if job is not self._job:
            return
        kind = event["event"]
        if kind == "TileDone":
            self.fraction = event["done"] / max(1, event["total"])
            self.changed.emit()
        if kind not in ("Done", "Failed"):
            return
        self._job = None
        self.seconds = time.monotonic() - job["began"]
        if kind == "Done":
            job["then"](event["result"])
        elif not event.get("stopped"):
            self.workspace.complain(event)
        self.changed.emit()
