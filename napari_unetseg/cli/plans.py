"""The plan that options ask for: a protocol, a plan file over it, single options over both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_unetseg.cli import terminal
from napari_unetseg.errors import PlanError
from napari_unetseg.plan import Plan
from napari_unetseg.protocols import PROTOCOLS

__all__ = [
    "Data",
    "Device",
    "Dims",
    "Epochs",
    "ImageFiles",
    "LabelFiles",
    "Labels",
    "Minutes",
    "Net",
    "PlanFile",
    "Protocol",
    "Seed",
    "make_plan",
]

# options that `train`, `plan` and `compare` have in common
Data = Annotated[Path | None, typer.Argument(help="Project, or folder with images and labels.")]
Net = Annotated[str | None, typer.Option(help="Architecture, see `nets`.")]
Dims = Annotated[int | None, typer.Option(help="2 for planes, 3 for volumes.", min=2, max=3)]
Minutes = Annotated[float | None, typer.Option(help="Time budget of a training.", min=0.01)]
Epochs = Annotated[int | None, typer.Option(help="Epochs of a training, instead of minutes.", min=1)]
Labels = Annotated[str | None, typer.Option(help="What 0 means in label files: mask or annotation.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0)]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
ImageFiles = Annotated[list[Path] | None, typer.Option(help="Image file; give a --label for each.")]
LabelFiles = Annotated[list[Path] | None, typer.Option(help="Label file of the image given before.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="Plan as JSON, or a model.json.")]
Protocol = Annotated[
    str | None, typer.Option(help=f"Train as a paper did: {', '.join(PROTOCOLS)}. Other options still win.")
]


def make_plan(protocol: str | None, file: Path | None, options: Mapping[str, Mapping[str, Any]]) -> Plan:
    """Put a plan together; what differs from the paper of a protocol is said on standard error.

    Parameters
    ----------
    protocol : str, optional
        Of `PROTOCOLS`.
    file : Path, optional
        Plan whose given fields win over the protocol's.
    options : mapping of section to mapping
        Fields that win over both, where they are not None. A budget replaces the other kind of budget.

    Raises
    ------
    PlanError
        A field cannot be, or both minutes and epochs were given.
    UnknownName
        There is no such protocol.
    """
    budget = options.get("training", {})
    if budget.get("minutes") is not None and budget.get("epochs") is not None:
        raise PlanError("Both --minutes and --epochs were given.", hint="Give one of them.")
    plan = Plan.read(file) if file else Plan()
    if protocol is not None:
        plan = plan.over(PROTOCOLS[protocol]())
        facts = PROTOCOLS.facts(protocol)
        terminal.errors.print(f"Protocol {protocol}, after {facts['paper']}. What differs:", markup=False)
        for sentence in facts["differs"]:
            terminal.errors.print(f"  {sentence}", markup=False)
    if budget.get("minutes") is not None or budget.get("epochs") is not None:
        plan = plan.change(training={"minutes": None, "epochs": None})
    changes = {part: {k: v for k, v in values.items() if v is not None} for part, values in options.items()}
    return plan.change(**{part: values for part, values in changes.items() if values})
