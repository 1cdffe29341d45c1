"""Layers that lie over the image for a while: below the strokes, never active, found by their role and taken away."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.layers import ROLE, role_of

__all__ = ["add_overlay", "go_to", "overlays", "remove_overlays"]

_AROUND = 3.0  # times the box that is shown


def overlays(context: Context, role: str) -> list[Any]:
    """Layers of this role, from bottom to top."""
    return [layer for layer in context.viewer.layers if role_of(layer).get("role") == role]


def remove_overlays(context: Context, role: str) -> None:
    """Take the layers of this role away."""
    for layer in overlays(context, role):
        context.viewer.layers.remove(layer)


def add_overlay(context: Context, layer: Layer, role: str) -> None:
    """Add a layer under the strokes, and leave what is in the hand as it is; it goes with the case."""
    viewer, strokes = context.viewer, context.bridge.annotation
    active = viewer.layers.selection.active
    layer.metadata = {**layer.metadata, ROLE: {"role": role, "case": context.workspace.case}}
    layer.editable = False
    context.bridge._keep(role, viewer.add_layer(layer))
    if strokes is not None and strokes in viewer.layers:
        viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(strokes))
    if active in viewer.layers:
        viewer.layers.selection.active = active


def go_to(context: Context, case: str, index: int | None, box: Any) -> bool:
    """Take a case in hand and look at a box ``((y0, y1), (x0, x1))`` of its plane `index`; whether that went well."""
    workspace, viewer = context.workspace, context.viewer
    if case != workspace.case:
        context.bridge.remember_view()
        if not context.do(workspace.select_case, case):
            return False
    layer = context.bridge.annotation or context.bridge.mask
    if layer is None:
        return False
    (top, bottom), (left, right) = box
    middle = ((top + bottom) / 2, (left + right) / 2)
    if layer.ndim == 3:
        world = layer.data_to_world((index or 0, *middle))
        viewer.dims.set_point(viewer.dims.ndim - 3, world[0])
    else:
        world = layer.data_to_world(middle)
    camera = viewer.scene.camera
    height, width = layer.data.shape[-2:]
    camera.center = (*camera.center[:-2], *world[-2:]) if len(camera.center) > 2 else tuple(world[-2:])
    closer = min(height / max(1, bottom - top), width / max(1, right - left)) / _AROUND
    camera.zoom = max(1.0, closer) * context.bridge.fit
    return True
