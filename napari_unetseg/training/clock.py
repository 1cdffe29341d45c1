"""How far a training run is (`Progress`), and its budget (`Clock`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores

__all__ = ["Clock", "Progress"]

_PREVIEW_SECONDS = 4.0
_HISTORY_ROWS = 2000


@dataclass
class Progress:
    """What a resumed run needs to know; `kept` is the step, and the second, of the best weights."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] | None = None
    best_scores: Scores | None = None
    kept: tuple[int, float] = (0, 0.0)
    offset: tuple[float, ...] = ()  # of the best weights' logits
    validated_at: int = -1
    top: float = -1.0
    floor: float = -1.0
    scored: list[float] = field(default_factory=list)

    def keeps(self, scores: Scores, tolerance: float = 2.0) -> bool:
        """Whether the weights just scored are the ones to keep.

        Later weights are better ones unless shown otherwise: on a few held-out strokes an early lucky score must not
        win over the rest of the training, so what counts as worse is what lies two standard errors below the top. The
        score of the model that was gone on from is a floor without tolerance. With `tolerance` 0 standard errors the
        highest score wins, lucky or not.
        """
        dice = scores.mean_dice
        if self.step == 0:
            self.floor = dice
        self.top = max(self.top, dice)
        return dice >= self.floor and dice >= self.top - tolerance * scores.uncertainty

    def log(self, loss: float) -> None:
        """Keep every loss at first, then every second, fourth ... so that the history stays bounded."""
        every = 1 << max(0, (self.step // _HISTORY_ROWS).bit_length())
        if self.step % every == 0 or self.step == 1:
            self.history.append({"step": self.step, "seconds": round(self.seconds, 2), "loss": loss})


class Clock:
    """Budget in minutes or epochs, and when to validate and to preview: together at most a fifth of the time."""

    def __init__(self, plan: Plan, steps_per_epoch: int) -> None:
        training = plan.training
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = None if training.epochs is None else training.epochs * steps_per_epoch
        self.total_seconds = None if training.minutes is None or training.epochs is not None else training.minutes * 60
        self._begin, self._earlier = time.monotonic(), 0.0
        self._next_validation = min(8.0, 0.12 * self.total_seconds) if self.total_seconds else 0.0
        self._next_preview = 0.0
        self._validate_every = training.validate_every
        self._stop_after = training.stop_after

    def start_at(self, seconds: float) -> None:
        """Count on from `seconds` of an earlier, killed run."""
        self._begin, self._earlier = time.monotonic(), seconds

    def seconds(self) -> float:
        """Seconds trained, earlier runs included."""
        return self._earlier + time.monotonic() - self._begin

    def done(self, progress: Progress) -> float:
        """Share of the budget that is used, 0 to 1 and a little over."""
        if self.total_steps:
            return progress.step / self.total_steps
        return self.seconds() / self.total_seconds if self.total_seconds else 0.0

    def over(self, progress: Progress) -> bool:
        """Whether the budget is used up, or nothing has been gained for as long as the plan waits."""
        return self.done(progress) >= 1 or self.stalled(progress)

    def stalled(self, progress: Progress) -> bool:
        """Whether the last validations, as many as the plan's ``stop_after``, were no better than one before."""
        scores = progress.scored
        if self._stop_after is None or len(scores) <= self._stop_after:
            return False
        return max(scores[-self._stop_after :]) <= max(scores[: -self._stop_after])

    def left(self, progress: Progress) -> float:
        """Estimated seconds left."""
        if self.total_seconds:
            return max(0.0, self.total_seconds - self.seconds())
        done = self.done(progress)
        return progress.seconds / done * (1 - done) if done else 0.0

    def epoch(self, progress: Progress) -> int:
        """Whole epochs done."""
        return progress.step // self.steps_per_epoch

    def validation_due(self, progress: Progress) -> bool:
        """Whether to score the net now."""
        if self.over(progress):
            return False  # the end validates anyway
        if self._validate_every:
            return progress.step % (self.steps_per_epoch * self._validate_every) == 0
        if self.total_steps:  # by steps alone, so that the same seed gives the same run
            return progress.step % (self.steps_per_epoch * max(1, self.total_steps // self.steps_per_epoch // 20)) == 0
        return self.seconds() >= self._next_validation

    def validated(self, cost: float) -> None:
        """Note that a validation took `cost` seconds, and plan the next."""
        self._next_validation = self.seconds() + max(8 * cost, 0.08 * (self.total_seconds or 0.0))

    def preview_due(self, progress: Progress) -> bool:
        """Whether to show a preview now."""
        return self.seconds() >= self._next_preview and progress.step > 0

    def previewed(self, cost: float) -> None:
        """Note that a preview took `cost` seconds, and plan the next."""
        self._next_preview = self.seconds() + max(_PREVIEW_SECONDS, 8 * cost)
