"""Keys of the layers of the workbench; napari's own (P brush, E eraser, F fill, Z move, [ ] brush size) stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from napari.layers import Layer

if TYPE_CHECKING:
    from napari_unetseg.widgets.bridge import Bridge

__all__ = ["HELP", "bind_keys"]

HELP = (
    ("1 … 9", "class"),
    ("P  E  F  G", "brush, eraser, fill, polygon"),
    ("[  ]", "smaller, larger brush"),
    ("T", "show or hide the mask"),
    ("O", "mask as outline"),
    ("C", "copy the mask here (Shift: all)"),
    ("D", "done here (Shift: all)"),
    ("I", "fill between slices"),
    ("J", "where to paint next"),
    ("N", "next image (Shift: previous)"),
    ("→  ←", "next, previous slice"),
    ("Space", "hold to move the picture"),
    ("Ctrl-Z", "undo (Shift: redo)"),
)


def bind_keys(layer: Layer, bridge: Bridge) -> None:
    """Bind the keys on this one layer, where they outrank napari's own."""
    edits = bridge.edits

    def bind(key: str, action: Callable[[], None]) -> None:
        def pressed(_: Layer) -> None:
            bridge.try_to(action)

        layer.bind_key(key, pressed, overwrite=True)

    for label in range(1, 10):
        bind(str(label), partial(bridge.select_class, label))
    if layer is not bridge.annotation:  # where napari has them, and more: held down, they last as long as that
        for key, tool in (("P", "paint"), ("E", "erase"), ("F", "fill")):
            bind(key, partial(bridge.select_tool, tool))
    bind("G", partial(bridge.select_tool, "polygon"))
    bind("T", bridge.toggle_mask)
    bind("O", bridge.toggle_contour)
    bind("C", edits.copy_mask)
    bind("Shift-C", partial(edits.copy_mask, True))
    bind("D", edits.finish)
    bind("Shift-D", partial(edits.finish, True))
    bind("I", edits.fill_between)
    bind("J", bridge.place_wanted.emit)
    bind("N", partial(bridge.step_wanted.emit, 1))
    bind("Shift-N", partial(bridge.step_wanted.emit, -1))
    bind("Right", partial(bridge.step_slice, 1))
    bind("Left", partial(bridge.step_slice, -1))
    bind("Control-Z", edits.undo)
    bind("Control-Shift-Z", edits.redo)
