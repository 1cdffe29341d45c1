"""Small pictures of masks over their images, and the sheet that shows many of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.batch.outputs import thumbnail
from napari_unetseg.figures import overlay
from napari_unetseg.io import atomic_write
from napari_unetseg.palette import PALETTE

__all__ = ["contact_sheet", "save_thumbnail"]

SIDE = 144
_COLUMNS, _MOST, _CAPTION, _GAP, _LINE = 10, 100, 26, 6, 18
_COLOURS = {"failed": (176, 0, 32), "flagged": (150, 90, 0), "": (40, 40, 40)}


def save_thumbnail(path: Path, image: np.ndarray, mask: np.ndarray) -> None:
    """Draw a mask over its image, the plane with most of it in a volume, as a small JPEG."""
    from PIL import Image

    if mask.ndim == 3:
        counts = np.count_nonzero(mask, axis=(1, 2))
        plane = int(counts.argmax()) if counts.any() else len(mask) // 2
        image, mask = image[:, plane], mask[plane]
    step = max(1, -(-max(mask.shape) // SIDE))
    image, mask = image[:, ::step, ::step], mask[::step, ::step]
    times = SIDE // max(mask.shape)  # enlarged before it is drawn on: outlines would hide a small image
    image, mask = (array.repeat(times, -2).repeat(times, -1) for array in (image, mask))
    picture = Image.fromarray(overlay(image, mask))
    picture.thumbnail((SIDE, SIDE))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "JPEG", quality=85)


def contact_sheet(path: Path, entries: Sequence[Mapping[str, Any]], folder: Path, classes: Sequence[str] = ()) -> Path:
    """Write one PNG with the pictures of files in the order given, at most a hundred, each with its name and state.

    The `classes`, the background first, are named above them in their colours.
    """
    from PIL import Image, ImageDraw

    shown = entries[:_MOST]
    columns = min(_COLUMNS, max(1, len(shown)))
    rows = -(-len(shown) // columns)
    cell = SIDE + _GAP
    places = _legend(classes, columns * cell)
    head = _LINE * (1 + max((line for _, line, _, _ in places), default=0)) + _GAP
    size = columns * cell + _GAP, head + rows * (cell + _CAPTION) + _GAP
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    said = f"{len(entries)} files, worst first" if len(shown) == len(entries) else f"worst {_MOST} of {len(entries)}"
    draw.text((_GAP, _GAP), said, fill=_COLOURS[""])
    for left, line, colour_of_class, name in places:
        top = _GAP + line * _LINE
        draw.rectangle((left, top, left + 10, top + 10), fill=colour_of_class)
        draw.text((left + 15, top), name, fill=_COLOURS[""])
    for index, entry in enumerate(shown):
        left, top = _GAP + index % columns * cell, head + index // columns * (cell + _CAPTION)
        picture = load_thumbnail(entry, folder)
        if picture is None:
            draw.rectangle((left, top, left + SIDE, top + SIDE), fill=(238, 238, 238))
        else:
            page.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        state = "failed" if entry["status"] == "failed" else ", ".join(entry.get("flags") or ())
        colour = _COLOURS["failed" if state == "failed" else "flagged" if state else ""]
        name = _plain(Path(entry["file"]).name)
        draw.text((left, top + SIDE + 1), name if len(name) <= 24 else f"{name[:14]}..{name[-8:]}", fill=_COLOURS[""])
        draw.text((left, top + SIDE + 13), state or f"doubt {entry.get('doubt') or 0:.2f}", fill=colour)
    # hardly larger than with more effort, which would cost as much as the rest of a run over a hundred small files
    atomic_write(path, lambda beside: page.save(beside, "PNG", compress_level=1))
    return path


def _legend(classes: Sequence[str], width: int) -> list[tuple[int, int, str, str]]:
    """Left, line, colour and name of each class but the background, in lines of `width` pixels below the first."""
    found, left, line = [], _GAP, 1
    for index, name in enumerate(map(_plain, classes[1:]), start=1):
        needed = 27 + 6 * len(name)  # a letter of Pillow's own font is 6 pixels wide
        if left > _GAP and left + needed > width:
            left, line = _GAP, line + 1
        found.append((left, line, PALETTE[index % len(PALETTE)], name))
        left += needed
    return found


def _plain(name: str) -> str:
    """Letters that the font has."""
    return name.encode("ascii", "replace").decode()


def load_thumbnail(entry: Mapping[str, Any], folder: Path) -> Any:
    """Picture of an entry; None where there is none, or it is damaged."""
    from PIL import Image

    if not entry["mask"]:
        return None
    try:
        with Image.open(thumbnail(Path(entry["mask"]), folder)) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError):
        return None
