"""A plan that completes itself, and what it will cost.

`decide` takes every decision the user left open, with a sentence for each; `objects` and `mirrored` look at images and
classes for it; `cost` counts and measures; `estimate` puts it together before anything is trained.
"""

from __future__ import annotations

from napari_unetseg.planning.cost import steps_per_epoch
from napari_unetseg.planning.decide import complete_plan, decide_net
from napari_unetseg.planning.estimate import Estimate, plan_for

__all__ = ["Estimate", "complete_plan", "decide_net", "plan_for", "steps_per_epoch"]
