"""Comparing nets from the window: `compare_nets` on a project's strokes, its summary kept beside the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_unetseg.events import Control
from napari_unetseg.io import atomic_write
from napari_unetseg.plan import Plan
from napari_unetseg.validate import Comparison, compare_nets
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Run, need, open_project

__all__ = ["compare"]


@VERBS.register("compare")
def compare(args: Args, control: Control, bench: Bench) -> Run:
    """Compare nets: ``{project, revisions, nets, folds, plan, out}`` to the facts of `summary`."""
    out, plan = Path(need(args, "out")), Plan.from_json(json.dumps(args.get("plan") or {}))
    run = compare_nets.events(
        open_project(args), need(args, "nets"), out=out, folds=args.get("folds"), plan=plan, control=control
    )
    facts = summary((yield from run))
    text = json.dumps(facts, indent=1)
    atomic_write(out / "summary.json", lambda beside: beside.write_text(text, encoding="utf-8"))
    return facts


def summary(done: Comparison) -> dict[str, Any]:
    """What the window shows of a comparison, as plain values."""
    return {
        "report": str(done.folder / "report.html"),
        "nets": list(done.nets),
        "runs": len(done.runs),
        "expected": done.expected,
        "failed": [{name: run[name] for name in ("net", "fold", "error")} for run in done.failed],
        "table": done.table,
        "tests": done.tests,
        "rows": done.rows,
    }
