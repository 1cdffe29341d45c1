"""``napari-unetseg measure``: size, place, form and intensity of every class and object of a mask, as a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from napari_unetseg.cli import terminal
from napari_unetseg.cli.main import Json, app, numbers
from napari_unetseg.errors import GeometryError, PlanError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

__all__ = ["measure"]


@app.command()
def measure(
    mask: Annotated[Path, typer.Argument(help="Mask file: 0 background, 1.. classes.")],
    image: Annotated[Path | None, typer.Option(help="Image it is of, for the intensities.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Table to write, *.csv.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the classes from 1, such as liver,tumour; else the file's.")
    ] = None,
    objects: Annotated[Path | None, typer.Option(help="Label file with numbers of the objects.")] = None,
    numbered: Annotated[bool, typer.Option("--numbered", help="The mask itself numbers objects of one class.")] = False,
    split: Annotated[bool, typer.Option("--split", help="Split touching objects before they are measured.")] = False,
    spacing: Annotated[str | None, typer.Option(help="Voxel size such as 3,0.7,0.7; else the file's.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of lengths: nm, um or mm; else the file's.")] = None,
    as_json: Json = False,
) -> None:
    """Measure every class and every object of a mask: a row each, in the unit of the voxel spacing."""
    from napari_unetseg.io import read, read_labels
    from napari_unetseg.postprocess import apply_steps, measure_volume, write_rows

    if sum((objects is not None, numbered, split)) > 1:
        raise PlanError(
            "Objects can be numbered in one way only.", hint="Give one of --objects, --numbered and --split."
        )
    if out is not None and out.suffix.lower() != ".csv":
        raise PlanError(f"{out.name} is no table.", hint="Name it *.csv.")
    volume = None if image is None else read(image)
    labels = _placed(read_labels(mask), volume, spacing, unit)
    instances = read_labels(objects).data if objects is not None else None
    if numbered:
        instances, labels = labels.data, replace(labels, data=(labels.data > 0).astype(np.uint8))
    elif split:
        instances = apply_steps(labels.data, ["split-touching"], labels.geometry.spacing)
    names = None if numbered else labels.header.get("classes")
    if classes is not None:
        names = ["background", *(name.strip() for name in classes.split(","))]
    rows = measure_volume(labels, names, volume, instances)
    if out is not None:
        write_rows(out, rows)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    extent = "area" if labels.ndim == 2 else "volume"
    wholes = [row for row in rows if not row["object"]]
    columns = ["class", "objects", "voxels", f"{extent} ({labels.geometry.unit}^{labels.ndim})"]
    terminal.table("", columns, [[row[name] for name in ("class", "objects", "voxels", extent)] for row in wholes])
    print(
        f"{len(rows)} rows are in {out}" if out is not None else "-o table.csv writes a row for every object as well."
    )


def _placed(labels: LabelVolume, image: Volume | None, spacing: str | None, unit: str | None) -> LabelVolume:
    """Mask with the voxel size that was given, else its own, else that of its image."""
    geometry = labels.geometry
    if image is not None and geometry.unit == "pixel" and image.shape == labels.shape:
        geometry = image.geometry
    if (given := numbers(spacing)) is not None:
        if len(given) != labels.ndim or not all(np.isfinite(step) and step > 0 for step in given):
            raise GeometryError(
                f"The voxel size {spacing} does not fit a mask with {labels.ndim} axes.",
                hint="Give one positive number for each axis.",
            )
        geometry = Geometry(tuple(given), unit or geometry.unit)
    elif unit is not None:
        geometry = geometry.to_unit(unit)
    return replace(labels, geometry=geometry)
