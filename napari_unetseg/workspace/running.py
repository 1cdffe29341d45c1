"""`Running`: the one job that runs, what its events change, and the writing of big files aside."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from napari_unetseg.errors import UnetSegError, WriteError
from napari_unetseg.events import View
from napari_unetseg.workspace.choice import Choice
from napari_unetseg.workspace.state import Aside, AtOnce, Jobs, Message

__all__ = ["Running"]

logger = logging.getLogger(__name__)

_STAGES = {
    "train": "training",
    "predict": "predicting",
    "segment": "segmenting",
    "compare": "comparing",
    "undo_segment": "undoing",
}
_DOING = {"train": "Training", "predict": "Segmenting", "segment": "Segmenting the folder", "compare": "Comparing"}


class Running(Choice):
    """Starts jobs, hears them, stops them.

    Each event of a job goes to the method ``_on_<event>``, its end to ``_<stage>_done``.
    """

    def __init__(self, jobs: Jobs, aside: Aside | None = None) -> None:
        super().__init__(jobs)
        self._aside = aside or AtOnce()
        self._index: int | None = None
        self._running: dict[str, Any] = {}

    def close_project(self) -> None:
        """Stop what runs, finish what is being written, and let go of the project; everything painted is on disk."""
        self._leave_running()
        self._aside.wait()
        super().close_project()

    def select_case(self, case: str | None) -> None:
        """Take another image in hand."""
        super().select_case(case)
        self.look(None)

    def stop(self) -> None:
        """Finish what runs at its next step; a training keeps its best model so far."""
        self._ready("stop")
        if "id" not in self._running:  # strokes are still being saved for it
            self._running = {}
            self._enter("idle")
            return
        self.stopping = True
        self._jobs.stop(self._running["id"])
        self.actions_changed.emit()

    def look(self, index: int | None) -> None:
        """Say which slice of the case in hand is on screen (None: the whole image); previews of a training follow."""
        self._index = index
        if self.stage == "training" and self.case:
            self._jobs.look(View(self.case, index))

    # -- starting ---------------------------------------------------------------------------------------------

    def _begin(self, verb: str, args: dict[str, Any], sentence: str, **facts: Any) -> dict[str, Any]:
        """Enter the stage of a job that is about to be sent."""
        self._leave_running()
        self._running = {"verb": verb, "args": args, **facts}
        self._enter(_STAGES[verb])
        self._advance(0.0, math.nan, sentence)
        return self._running

    def _send(self, job: dict[str, Any]) -> None:
        """Hand a job to the engine, unless the user has stopped it already."""
        if job is self._running:
            job["id"] = self._jobs.submit(job["verb"], job["args"], lambda event: self._on_event(job, event))

    def _leave_running(self) -> None:
        if "id" in self._running:
            self._jobs.stop(self._running["id"])
        self._running = {}

    def _write(
        self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[], None], what: str = ""
    ) -> None:
        """Do `work`, which writes big files, aside; then `done` with what it returned, or `failed`.

        `what` is written, in words of the user; without it an error names the file.
        """
        project = self.project

        def finished(value: Any, error: BaseException | None) -> None:
            if what and isinstance(error, WriteError):
                why = error.message.rpartition(": ")[2]
                self.message.emit(Message(f"{what} could not be saved: {why}", error.hint, "error"))
            elif isinstance(error, UnetSegError):
                self.message.emit(Message(error.message, error.hint, "error"))
            elif error is not None:
                logger.error("Writing failed", exc_info=error)
                self.message.emit(Message(f"Saving failed ({error}).", "The log has the details.", "error"))
            if project is self.project:
                done(value) if error is None else failed()

        self._aside(work, finished)

    # -- events -----------------------------------------------------------------------------------------------

    def _on_event(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        if job is not self._running:  # of a project that was closed meanwhile
            return
        handler = getattr(self, f"_on_{event['event'].lower()}", None)
        if handler is None:
            return
        try:
            handler(job, event)
        except UnetSegError as error:  # the project was taken over meanwhile, or its disk is full
            self.message.emit(Message(error.message, error.hint, "error"))
            self.actions_changed.emit()

    def _on_started(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        for note in event.get("notes", ()):
            self.message.emit(Message(note, level="log"))
        where = "the processor" if str(event.get("device", "cpu")) == "cpu" else "the graphics card"
        job["where"] = where
        self._advance(0.0, math.nan, f"{_DOING[job['verb']]} on {where}.")

    def _on_note(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self.message.emit(Message(event["text"], level=event.get("level", "info")))

    def _on_tiledone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        done, total = event["done"], max(1, event["total"])
        if job["verb"] == "train":  # of a preview, or of what is held out: the training is as far as it was
            told = f"Looking at the result: tile {done} of {total}."
            self._advance(self.progress.fraction, self.progress.left, told)
        else:
            self._advance(done / total, event["left"], f"Segmenting: tile {done} of {total}.")

    def _on_done(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self._running = {}
        self._enter("idle")
        getattr(self, f"_{_STAGES[job['verb']]}_done")(job, event["result"])

    def _on_failed(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self._running = {}
        self._enter("idle")
        self.complain(event)
