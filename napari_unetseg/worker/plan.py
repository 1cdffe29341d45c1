"""What a training would do and cost, asked before Train is pressed."""

from __future__ import annotations

import json

from napari_unetseg.events import Control
from napari_unetseg.plan import Plan
from napari_unetseg.planning import plan_for
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Result, open_project

__all__ = ["plan_training"]


@VERBS.register("plan")
def plan_training(args: Args, control: Control, bench: Bench) -> Result:
    """Complete a plan for a project's strokes; nothing is trained.

    ``{project, plan, minutes}`` to ``{plan, notes: sentences, sentence, estimate_seconds, first_mask, steps,
    step_seconds, memory, free}``: seconds, and bytes.
    """
    plan = Plan.from_json(json.dumps(args.get("plan") or {}))
    project = open_project(args)
    plan, notes, estimate = plan_for(project, plan, minutes=args.get("minutes"), control=control)
    told = estimate.to_dict()
    return {"plan": json.loads(plan.to_json()), "notes": notes, "estimate_seconds": told.pop("seconds"), **told}
