"""After the net: steps tried out on the mask of an image, and its objects measured, without another pass of the net."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.data.annotation import overrule
from napari_unetseg.events import Control, Event
from napari_unetseg.io import write
from napari_unetseg.postprocess import after_net, check_steps, measure_volume, number_objects, parted, write_rows
from napari_unetseg.volume import LabelVolume
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Run, load_image, named, need, open_project

__all__ = ["measure_case", "preview_post"]

_AT_ONCE = 8_000_000  # voxels on which steps are done while a slider moves


@VERBS.register("preview_post")
def preview_post(args: Args, control: Control, bench: Bench) -> Run:
    """Try steps out on what the net said.

    ``{project, case, model, steps, index}`` (or ``{image, model, ...}``) to ``{mask, objects, index, note}``: paths of
    arrays for plane `index`, or for all planes where it is None; `objects` is None unless a step numbers them. Of a
    volume too large to do in an instant, the planes around are taken for all; `note` then says so.
    """
    check_steps(steps := _steps(args))
    raw = yield from _raw(args, control, bench)
    data, index = raw.data, args.get("index")
    around, inner = _around(data.shape, index)
    classes, objects = after_net(data[around], steps, raw.geometry.spacing)
    note = ""
    if inner is not None:
        classes, objects = classes[inner], None if objects is None else objects[inner]
        if around[0] != slice(0, data.shape[0]):
            note = f"Tried on planes {around[0].start} to {around[0].stop - 1}; the whole volume follows."
    return {
        "mask": bench.put("tried", classes),
        "objects": None if objects is None else bench.put("tried-objects", objects),
        "index": index,
        "note": note,
    }


@VERBS.register("measure")
def measure_case(args: Args, control: Control, bench: Bench) -> Run:
    """Measure the mask of an image of a project, as it is accepted or as it would be: strokes overrule the net.

    ``{project, case, model, steps, out}`` to ``{rows, table, objects}``: rows of `measure`, the CSV file written into
    the folder `out`, and the path of an array with the numbers of the objects: those that a step gives, else of the
    connected parts.
    """
    project, case, out = open_project(args), need(args, "case"), Path(need(args, "out"))
    image = project.image(case)
    accepted = project.mask(case) if case in project.accepted() else None
    steps = _steps(args)
    if accepted is not None:
        mask = accepted.data
    else:
        raw = yield from _raw(args, control, bench)
        mask = overrule(after_net(raw.data, steps, image.geometry.spacing)[0], project.annotation(case).data)
    objects = after_net(mask, parted(steps)[1], image.geometry.spacing)[1]
    if objects is None:
        objects = number_objects(mask)
    rows = measure_volume(LabelVolume(mask, image.geometry), project.classes, image, objects)
    table = write_rows(out / f"{case}.csv", rows)
    write(out / f"{case}_objects.tif", LabelVolume(objects, image.geometry))
    return {"rows": rows, "table": str(table), "objects": bench.put("objects", objects)}


def _steps(args: Args) -> list[tuple[str, dict[str, Any]]]:
    return [(str(name), dict(options)) for name, options in args.get("steps") or ()]


def _around(shape: tuple[int, ...], index: int | None) -> tuple[tuple[slice, ...], int | None]:
    """Planes that are done for the sake of one, and which of them it is; None: all are wanted."""
    if index is None or len(shape) == 2:
        return (slice(None),), None
    reach = max(1, _AT_ONCE // int(np.prod(shape[1:]))) // 2
    first, last = max(0, index - reach), min(shape[0], index + reach + 1)
    if int(np.prod(shape)) <= _AT_ONCE:
        first, last = 0, shape[0]
    return (slice(first, last),), index - first


def _raw(args: Args, control: Control, bench: Bench) -> Generator[Event, None, LabelVolume]:
    """What the net said about the image: kept from its last prediction, or predicted now."""
    where = named(args)
    kept = bench.masks.find(*where)
    if kept is not None:
        return kept
    return (yield from bench.masks.predict(where, bench.model(where[1]), load_image(args), control))
