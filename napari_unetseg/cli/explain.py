"""``napari-unetseg explain``: why a model says what it says about an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from napari_unetseg.cli.main import Json, app
from napari_unetseg.errors import PlanError

if TYPE_CHECKING:
    from napari_unetseg.explain import Explanation
    from napari_unetseg.nets import Model
    from napari_unetseg.volume import Volume

__all__ = ["explain"]


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="Model folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the maps.")],
    method: Annotated[str, typer.Option(help="saliency, decoder-saliency or gradcam.")] = "saliency",
    class_name: Annotated[str | None, typer.Option("--class", help="Class, by name or number; else the last.")] = None,
    plane: Annotated[int | None, typer.Option(help="Plane of a volume to explain, from 0; else all.", min=0)] = None,
    at: Annotated[str | None, typer.Option(help="Explain the object there: row,column, or plane,row,column.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a model looks at: maps from 0 to 1 on the image's grid, and a picture of them."""
    from napari_unetseg.devices import limit_threads
    from napari_unetseg.explain import EXPLANATIONS, object_at
    from napari_unetseg.inference import predict
    from napari_unetseg.io import mask_suffix, read, stem, write
    from napari_unetseg.nets import Model

    limit_threads()
    explainer = EXPLANATIONS[method]
    loaded, volume = Model.load(model), read(image)
    region: tuple[slice, ...] | np.ndarray | None = _region(volume, plane)
    label = None if class_name is None and at is not None else _class_index(loaded, class_name)
    if at is not None:
        if plane is not None:
            raise PlanError("--plane and --at were given.", hint="Give the plane as the first number of --at.")
        region, label = object_at(predict(loaded, volume).data, _point(at, volume.ndim), label)
    found = explainer(loaded, volume, label, region)
    suffix = mask_suffix(image)
    maps = out / f"{stem(image)}_{method}{'.tif' if suffix == '.png' else suffix}"
    write(maps, found.maps, like=volume)
    picture = _picture(volume, found, out / f"{stem(image)}_{method}.png")
    if as_json:
        facts = {"maps": str(maps), "picture": str(picture), "names": found.names, "legend": found.legend}
        print(json.dumps(facts, indent=1))
        return
    print(found.legend)
    print(f"{len(found.names)} map{'s' * (len(found.names) != 1)} in {maps}, a picture in {picture}")


def _class_index(model: Model, wanted: str | None) -> int:
    if wanted is None:
        return len(model.classes) - 1
    if wanted in model.classes:
        return model.classes.index(wanted)
    if wanted.isdecimal():
        return int(wanted)
    raise PlanError(f"There is no class {wanted!r}.", hint=f"The model has {', '.join(model.classes)}.")


def _point(text: str, ndim: int) -> list[float]:
    try:
        point = [float(part) for part in text.split(",")]
    except ValueError:
        point = []
    if len(point) != ndim:
        example = "12,140,88" if ndim == 3 else "140,88"
        raise PlanError(f"--at {text!r} is no point of a {ndim}D image.", hint=f"Write it as {example}.")
    return point


def _region(volume: Volume, plane: int | None) -> tuple[slice, ...] | None:
    if plane is None:
        return None
    if volume.ndim != 3 or plane >= volume.shape[0]:
        planes = f"{volume.shape[0]} planes" if volume.ndim == 3 else "one plane only"
        raise PlanError(f"There is no plane {plane}: the image has {planes}.", hint="Count planes from 0.")
    return (slice(plane, plane + 1), slice(None), slice(None))


def _picture(volume: Volume, found: Explanation, path: Path) -> Path:
    """Image and maps side by side; of a volume, the plane where the maps are brightest."""
    from matplotlib import colormaps

    from napari_unetseg.figures import overlay, panels, save_png

    image, maps = volume.data, found.maps.data
    if volume.ndim == 3:
        plane = int(maps.sum(axis=(0, 2, 3)).argmax())
        image, maps = image[:, plane], maps[:, plane]
    heats = [(255 * colormaps["inferno"](one)[..., :3]).astype(np.uint8) for one in maps]
    return save_png(path, panels([overlay(image), *heats], ["image", *found.names]))
