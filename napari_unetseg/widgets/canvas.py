"""The canvas of the window, kept from drawing with shaders that are no longer there."""

from __future__ import annotations

import contextlib
from typing import Any

from napari.components import ViewerModel
from qtpy.QtWidgets import QOpenGLWidget, QWidget

__all__ = ["Canvas"]


class Canvas:
    """Makes the canvas's OpenGL context current before a layer is removed.

    vispy deletes a layer's shaders in whatever context is current, and between two paints that is the one Qt puts the
    window together with. Mesa (seen with 22.3 and llvmpipe) then takes the shader in use from the canvas as well, and
    when nothing else is on it the next paint but one ends the process.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Whose layers are removed.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._widget: QOpenGLWidget | None = None
        viewer.layers.events.removing.connect(self._before_removal)

    def find(self, window: QWidget | None) -> None:
        """Remember the canvas of `window`; a dock that floats has none, and the one known before stays."""
        if window is not None:
            self._widget = window.findChild(QOpenGLWidget) or self._widget

    def _before_removal(self, event: Any = None) -> None:
        if self._widget is not None:
            with contextlib.suppress(RuntimeError):  # the window is gone
                self._widget.makeCurrent()
