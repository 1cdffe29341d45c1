"""Where the user looks, and how the images look: kept with the project, which opens again as it was left."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.colormaps import AVAILABLE_COLORMAPS
from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari_unetseg.widgets.bridge import Bridge

__all__ = ["Views"]

EVERY_MS = 5000  # what a crash may cost of it; nothing is written while nothing changes


class Views(QObject):
    """Remembers slice, zoom, contrast and what is shown, for each image of the project.

    Parameters
    ----------
    bridge : Bridge
        Has the viewer and the layers.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.fit = 1.0  # zoom that shows all of the image
        self._timer = QTimer(self)
        self._timer.setInterval(EVERY_MS)
        self._timer.timeout.connect(self.remember)
        self._timer.start()

    def close(self) -> None:
        """Remember nothing more."""
        with contextlib.suppress(RuntimeError):  # Qt may have taken the timer with it already
            self._timer.stop()

    def restore(self) -> None:
        """Show the image as the user left it, or all of it."""
        bridge, workspace = self._bridge, self._bridge.workspace
        volume, viewer = workspace.image(), bridge.viewer
        if volume is None or bridge.mask is None:
            return
        own = bridge.own_layers()
        if any(layer.ndim > own[0].ndim for layer in viewer.layers):
            viewer.reset_view()  # napari fits no layers to a viewer of more dimensions
        else:
            viewer.fit_to_view(layers=own)
        kept = workspace.recall("views", {}).get(workspace.case, {})
        if volume.ndim == 3:
            bridge.go_to_slice(int(kept.get("index", volume.shape[0] // 2)))
        camera = viewer.scene.camera
        self.fit = float(camera.zoom)
        zoom = kept.get("zoom", 1.0)  # of the zoom that fits, which depends on the size of the window
        if "centre" in kept and not 0.95 < zoom < 1.05:
            camera.center = tuple(kept["centre"])
            camera.zoom = zoom * self.fit
        for layer, look in zip(bridge.own_layers("image"), kept.get("looks", ()), strict=False):
            _dress(layer, look)

    def remember(self) -> None:
        """Keep slice, zoom, brush, contrast and what is shown with the project."""
        bridge, workspace = self._bridge, self._bridge.workspace
        if workspace.case is None or workspace.project is None or workspace.read_only or bridge.mask is None:
            return
        camera = bridge.viewer.scene.camera
        view = {
            "index": bridge.slice_index() or 0,
            "zoom": round(float(camera.zoom) / self.fit, 6),
            "centre": [round(float(c), 6) for c in camera.center],
            "looks": [_look(layer) for layer in bridge.own_layers("image")],
        }
        brush = {} if bridge.annotation is None else {"brush": int(bridge.annotation.brush_size)}
        views = {**workspace.recall("views", {}), workspace.case: view}
        workspace.remember(views=views, mask_shown=bool(bridge.mask.visible), contour=bridge.contour, **brush)


def _look(layer: Any) -> dict[str, Any]:
    look: dict[str, Any] = {"visible": bool(layer.visible), "opacity": float(layer.opacity)}
    if isinstance(layer, Image) and not layer.rgb:
        look |= {"contrast": [float(limit) for limit in layer.contrast_limits], "gamma": float(layer.gamma)}
        look["colormap"] = str(layer.colormap.name)
    return look


def _dress(layer: Any, look: dict[str, Any]) -> None:
    layer.visible, layer.opacity = look["visible"], look["opacity"]
    if isinstance(layer, Image) and not layer.rgb and "contrast" in look:
        layer.contrast_limits, layer.gamma = look["contrast"], look["gamma"]
        if look["colormap"] in AVAILABLE_COLORMAPS:
            layer.colormap = look["colormap"]
