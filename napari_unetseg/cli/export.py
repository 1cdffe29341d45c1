"""``napari-unetseg export``: a model for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from napari_unetseg.cli.main import Json, app
from napari_unetseg.errors import PlanError

__all__ = ["export"]


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    to: Annotated[str, typer.Option("--to", help="Format: onnx.")] = "onnx",
    out: Annotated[Path, typer.Option("--out", "-o", help="File *.onnx, or folder.")] = Path("exported"),
    as_json: Json = False,
) -> None:
    """Write a model for other programs, and check that it answers the same there."""
    from napari_unetseg.export import EXPORTS
    from napari_unetseg.nets import Model

    if to not in EXPORTS:
        raise PlanError(
            f"Models cannot be exported to {to!r} in this version.", hint=f"There is: {', '.join(EXPORTS)}."
        )
    done = EXPORTS[to](Model.load(model), out)
    if as_json:
        facts = {"file": str(done.file), "description": str(done.description), "sizes": done.sizes}
        print(json.dumps({**facts, "largest_difference": done.difference}, indent=1))
        return
    print(f"{done.file} answers as the model does: largest difference of a probability {done.difference:.1g}.")
    print(f"How to feed it is in {done.description}")
