"""`Lead`: who answers the user, from the first second of a training to the model that is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from napari_unetseg.devices import Compute
from napari_unetseg.nets import Model
from napari_unetseg.nets.assembly import Padded
from napari_unetseg.nets.together import Together
from napari_unetseg.scores import Scores
from napari_unetseg.training.clock import Progress

__all__ = ["Lead"]

_OVERTAKES = 200  # steps after which the net leads where nothing was held out
_CLEARLY = 2.0  # standard errors of the two scores


class Lead:
    """Who answers: the net, but for the time from `begin` to `hand_over`, when the instant model does.

    Once the instant model is there it also stands beside the net in every answer of it (`answer`). Of all this a
    checkpoint keeps `handed_over`, for an instant model is fitted to the same strokes again in a second.

    Parameters
    ----------
    net : torch.nn.Module
        Running average of the net that is trained.
    start : Model, optional
        Model that was gone on from, where it can be scored beside the new one: what has to be beaten.
    named : bool
        Whether the user asked for the net by name, and is given it even where the instant model is still ahead.
    """

    def __init__(self, net: nn.Module, start: Model | None = None, named: bool = False) -> None:
        self.net, self.start, self.named = net, start, named
        self.answer: nn.Module = net
        self.instant: Model | None = None
        self.handed_over = False

    @property
    def by_instant(self) -> bool:
        """Whether the instant model answers now."""
        return self.instant is not None and not self.handed_over

    def begin(self, instant: Model, compute: Compute) -> None:
        """Let the instant model, scored, answer, and stand beside the net; without the lead after a hand-over."""
        net, beside = (one.net for one in (self.net, compute.place(instant.net)))
        both = Together(net, beside, instant.plan.net.in_channels, instant.plan.net.outputs)  # type: ignore[arg-type]
        self.instant, self.answer = instant, compute.place(Padded(both, both.divisor))

    def shift(self, offset: Sequence[float]) -> None:
        """Add to the net's logits in every answer (nothing when empty); for one output, that of the second class."""
        if self.instant is not None:
            both: Any = self.answer.net
            both.offset.copy_(torch.tensor(offset[-len(both.offset) :] if len(offset) else 0.0))

    def overtaken(self, scores: Scores, steps: int) -> bool:
        """Whether the net, so scored after so many steps, takes the lead from the instant model.

        On images nobody painted on, net and instant model together were better than the instant model alone in most
        draws, also in some where a few held-out strokes said the opposite (``docs/decisions.md``, 35). So the more
        steps the net has made and the less is held out, the further it may lag.
        """
        if not self.by_instant or self.instant is None or self.instant.scores is None:
            return False
        then, steps = self.instant.scores, steps + (self.start.facts.get("steps", 0) if self.start else 0)
        if not then.rule:  # on what both have learned from, there is nothing to compare
            return steps >= _OVERTAKES
        doubt = _CLEARLY * math.hypot(scores.uncertainty, then.uncertainty)
        return scores.mean_dice >= then.mean_dice - doubt * min(1.0, steps / _OVERTAKES)

    def hand_over(self) -> None:
        """Let the net answer from now on."""
        self.handed_over = True

    def withdraw(self) -> None:
        """Do without the instant model, where memory is too short for it."""
        self.instant, self.answer = None, self.net

    def kept(self, progress: Progress, goes_on: bool) -> Literal["instant", "start", "net"]:
        """Which model is kept if the training ends now."""
        if self.start is not None and progress.best is not None and progress.kept[0] == 0:
            return "start"
        if self.by_instant and not goes_on and not (self.named and progress.step > 0):
            return "instant"
        return "net"

    def beside(self) -> dict[str, Any]:
        """Parts of the net's plan that tell of the instant model beside it."""
        if self.instant is None:
            return {}
        spec = self.instant.plan.net
        return {"instant": (spec.parts["anisotropy"], spec.in_channels)}
