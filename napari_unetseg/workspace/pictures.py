"""What an image must be to learn from it: said when it is added, not when training stops at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.volume import Volume
from napari_unetseg.workspace.state import Message

__all__ = ["check_picture", "doubtful"]

_SMALLEST = 8  # pixels a side
_NAMED = 3


def check_picture(name: str, image: Volume) -> str:
    """Say what is doubtful about an image: it is ``constant`` or ``tiny``; empty when nothing is.

    Parameters
    ----------
    name : str
        What the user calls it.
    image : Volume
        ``(C, [Z,] Y, X)``.

    Raises
    ------
    ReadError
        If there is no finite value in a channel: nothing could be learned or predicted from it.
    """
    spans = []
    for channel in image.data:
        values = channel[np.isfinite(channel)] if channel.dtype.kind == "f" else channel
        if not values.size:
            raise ReadError(
                f"{name} was not added: it holds no numbers (only NaN or infinite values).",
                hint="Export it again from the program it comes from.",
            )
        spans.append(values.min() != values.max())
    if not any(spans):
        return "constant"
    return "tiny" if min(image.data.shape[-2:]) < _SMALLEST else ""


def doubtful(found: Mapping[str, Sequence[str]]) -> list[Message]:
    """Warnings about images that were added all the same: names by the answer of `check_picture`."""
    said = {
        "constant": ("the same value everywhere", "There is nothing to see there: was the right file chosen?"),
        "tiny": (f"fewer than {_SMALLEST} pixels a side", "A net sees next to nothing there; choose larger images."),
    }
    messages = []
    for doubt, (what, hint) in said.items():
        if names := found.get(doubt):
            who = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
            messages.append(Message(f"{who} {'has' if len(names) == 1 else 'have'} {what}.", hint, "warning"))
    return messages
