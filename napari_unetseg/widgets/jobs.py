"""The engine as the workspace wants it: events arrive on the window's thread, after `submit` returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_unetseg.engine import Engine
from napari_unetseg.events import View

__all__ = ["QtJobs"]


class QtJobs(QObject):
    """Owns an `Engine` and hands its events over to the thread this object lives on.

    Signals
    -------
    ready(dict)
        A worker is warm: facts about the device.
    crashed(str)
        A worker died; the sentence says why and what happens now.
    """

    ready = Signal(object)
    crashed = Signal(str)
    _arrived = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self._arrived.connect(self._deliver, Qt.ConnectionType.QueuedConnection)
        self.engine = Engine(on_ready=self._hand_over(self.ready.emit), on_crash=self._hand_over(self.crashed.emit))

    def start(self) -> None:
        """Warm the worker up."""
        self.engine.start()

    def submit(self, verb: str, args: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None]) -> int:
        """Queue a verb; see `Engine.submit`."""
        return self.engine.submit(verb, args, self._hand_over(on_event))

    def stop(self, job: int) -> None:
        """Ask a job to finish at its next step."""
        self.engine.stop(job)

    def look(self, view: View | None) -> None:
        """Say where the user looks."""
        self.engine.look(view)

    def close(self) -> None:
        """End the worker; no event is delivered any more."""
        self._closed = True
        self.engine.close(grace=2.0)

    def _hand_over(self, receiver: Callable[[Any], None]) -> Callable[[Any], None]:
        def from_any_thread(value: Any) -> None:
            if not self._closed:
                self._arrived.emit(receiver, value)

        return from_any_thread

    def _deliver(self, receiver: Callable[[Any], None], value: Any) -> None:
        if not self._closed:
            receiver(value)
