"""`Comparing`: which architecture is best on the user's own strokes, told by cross-validation."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_unetseg.workspace.desk import MINUTES
from napari_unetseg.workspace.learning import Learning
from napari_unetseg.workspace.state import Message

__all__ = ["Comparing"]

logger = logging.getLogger(__name__)

_FOLDER, _SUMMARY = "comparison", "summary.json"
_MOST_FOLDS = 5
_INSTANT_SECONDS = 5.0
_SCORING = 1.15  # of the time that training takes


class Comparing(Learning):
    """Compares nets and losses; what is finished is kept in the project and not done again."""

    @property
    def usual_folds(self) -> int:
        """Folds when none are given: one a group of annotated images, five at most; blocks where there is one group."""
        groups = len({self.project.group(case) for case in self.annotated}) if self.project else 0
        return min(_MOST_FOLDS, groups) if groups > 1 else _MOST_FOLDS

    def comparison_seconds(self, nets: Sequence[str], folds: int, minutes: float) -> float:
        """About how long a comparison takes, told before it begins."""
        each = (_INSTANT_SECONDS if net == "instant" else 60 * minutes * _SCORING for net in nets)
        return folds * sum(each)

    def compare(self, nets: Sequence[str], folds: int, minutes: float) -> None:
        """Train and score every net on the same folds of the strokes, each training `minutes` long.

        ``"unet:dice"`` is a net with another loss. `comparison_changed` brings the result.
        """
        project = self._ready("compare")
        plan = self.plan.change(training={"minutes": minutes or MINUTES, "epochs": None})
        args: dict[str, Any] = {
            "project": str(project.path),
            "nets": list(nets),
            "folds": folds,
            "plan": json.loads(plan.to_json(complete=False)),
            "out": str(project.path / _FOLDER),
        }
        project.log("compare", nets=list(nets), folds=folds, minutes=minutes)
        facts = {"total": folds * len(nets), "done": 0, "seconds": self.comparison_seconds(nets, folds, minutes)}
        job = self._begin("compare", args, "Comparing: preparing.", **facts)

        def send(revisions: dict[str, int]) -> None:
            args["revisions"] = revisions
            self._send(job)

        self._write(project.snapshot, send, lambda: self._on_failed(job, {"message": "The comparison did not begin."}))

    def read_comparison(self) -> dict[str, Any] | None:
        """What the last comparison of this project found; None when there was none."""
        if self.project is None:
            return None
        path = self.project.path / _FOLDER / _SUMMARY
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("The last comparison was not readable: %s", error)
            return None
        return {**found, "report": str(path.with_name("report.html"))} if isinstance(found, dict) else None

    def _tell_everything(self) -> None:
        self.comparison = self.read_comparison()
        super()._tell_everything()
        self.comparison_changed.emit(self.comparison)

    def _on_stepdone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        if job["verb"] != "compare":
            super()._on_stepdone(job, event)
            return
        seconds, left = event["seconds"], event["left"]
        share = seconds / (seconds + left) if seconds + left > 0 else 0.0
        each = job["seconds"] / job["total"]
        to_come = left + each * max(0, job["total"] - job["done"] - 1)
        said = f"Training {job['done'] + 1} of {job['total']}: step {event['step']}, loss {event['loss']:.3f}."
        self._advance((job["done"] + share) / job["total"], to_come, said)

    def _comparison_filedone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        job["done"], job["total"] = event["index"] + 1, max(1, event["total"])
        words = f"failed: {event['error']}" if event["status"] == "failed" else f"is {event['status']}"
        said = f"{event['file']} {words}."
        if event["status"] == "failed":
            self.message.emit(Message(said, level="warning"))
        left = event["left"] or job["seconds"] * (1 - job["done"] / job["total"])
        self._advance(job["done"] / job["total"], left, f"{job['done']} of {job['total']} trainings: {said}")

    def _comparing_done(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        self.comparison = dict(result)
        self.comparison_changed.emit(self.comparison)
        done, expected = result["runs"], result["expected"]
        text = f"{done} of {expected} trainings are compared; the report is in {Path(result['report']).parent.name}."
        hint = "Compare again to go on where it was stopped." if done < expected else ""
        self.message.emit(Message(text, hint))
        self.actions_changed.emit()
