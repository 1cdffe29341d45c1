"""The engine as the workspace wants it: events arrive on the window's thread, after `submit` returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

from napari_unetseg.engine import Engine
from napari_unetseg.events import View
from napari_unetseg.workspace import Aside

__all__ = ["QtAside", "QtJobs"]


class QtAside(QObject):
    """Does slow work on one thread, in order, and tells of its end on the thread this object lives on."""

    _ended = Signal(object, object, object)

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1, "napari-unetseg-aside")
        self._last: Future[None] | None = None
        self._ended.connect(self._tell, Qt.ConnectionType.QueuedConnection)

    def __call__(self, work: Callable[[], Any], finished: Callable[[Any, BaseException | None], None]) -> None:
        """Do `work` on the other thread; then `finished` with its result or error, on this one."""
        self._last = self._pool.submit(self._do, work, finished)

    def wait(self) -> None:
        """Return when all work is done; `finished` may be called later."""
        if self._last is not None:
            self._last.exception()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()

    def _do(self, work: Callable[[], Any], finished: Callable[[Any, BaseException | None], None]) -> None:
        value, failure = None, None
        try:
            value = work()
        except Exception as error:
            failure = error
        self._ended.emit(finished, value, failure)

    def _tell(self, finished: Callable[..., None], value: Any, failure: BaseException | None) -> None:
        finished(value, failure)


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
        self.aside: Aside = QtAside()
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
        if isinstance(self.aside, QtAside):
            self.aside.close()
        self.engine.close(grace=2.0)

    def _hand_over(self, receiver: Callable[[Any], None]) -> Callable[[Any], None]:
        def from_any_thread(value: Any) -> None:
            if not self._closed:
                self._arrived.emit(receiver, value)

        return from_any_thread

    def _deliver(self, receiver: Callable[[Any], None], value: Any) -> None:
        if not self._closed:
            receiver(value)
