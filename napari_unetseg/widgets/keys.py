"""Keys of the annotation layer; napari's own (P brush, E eraser, F fill, Z move, [ ] brush size) stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from napari.layers import Labels

if TYPE_CHECKING:
    from napari_unetseg.widgets.bridge import Bridge

__all__ = ["HELP", "bind_keys"]

HELP = (
    ("1 … 9", "class"),
    ("P  E  F  G", "brush, eraser, fill, polygon"),
    ("[  ]", "smaller, larger brush"),
    ("T", "show or hide the mask"),
    ("N  Shift-N", "next, previous image"),
    ("J", "where to paint next"),
    ("Space", "hold to move the picture"),
    ("Ctrl-Z", "undo"),
)


def bind_keys(layer: Labels, bridge: Bridge) -> None:
    """Bind the keys on this one layer, where they outrank napari's own."""

    def bind(key: str, action: Callable[[], None]) -> None:
        def pressed(_: Labels) -> None:
            action()

        layer.bind_key(key, pressed, overwrite=True)

    for label in range(1, 10):
        bind(str(label), partial(bridge.select_class, label))
    bind("G", partial(bridge.select_tool, "polygon"))
    bind("T", bridge.toggle_mask)
    bind("J", bridge.place_wanted.emit)
    bind("N", partial(bridge.step_wanted.emit, 1))
    bind("Shift-N", partial(bridge.step_wanted.emit, -1))
