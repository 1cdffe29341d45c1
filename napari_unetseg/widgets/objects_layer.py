"""The layer with the numbers of the objects, a colour each; what was measured stands in its table of features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Labels

from napari_unetseg.postprocess import features
from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.layers import ROLE, placement, role_of
from napari_unetseg.workspace.after import AfterNet, Measured, Objects

__all__ = ["ObjectsLayer"]


class ObjectsLayer:
    """Keeps one labels layer in step with the objects of the image in hand; there is none while there are none.

    Parameters
    ----------
    context : Context
        Whose viewer it is in.
    after : AfterNet
        Who numbers and measures the objects.
    """

    def __init__(self, context: Context, after: AfterNet) -> None:
        self.context = context
        after.objects_changed.connect(self._show)
        after.measured.connect(self._take)
        context.workspace.case_changed.connect(self._remove)

    @property
    def layer(self) -> Labels | None:
        """The layer, where there is one."""
        layers = (layer for layer in self.context.viewer.layers if role_of(layer).get("role") == "objects")
        return next(layers, None)

    def _show(self, objects: Objects) -> None:
        if objects.numbers is None:
            self._remove()
            return
        layer = self.layer or self._add(objects.case)
        part = layer.data if objects.index is None else layer.data[objects.index]
        if part.shape == objects.numbers.shape:
            part[...] = objects.numbers
            layer.refresh()

    def _take(self, measured: Measured) -> None:
        """Put rows beside the labels they are of: objects here, classes at the mask."""
        self._show(Objects(measured.case, None, measured.numbers))
        for layer, objects in ((self.layer, True), (self.context.bridge.mask, False)):
            columns = features(measured.rows, objects=objects)
            if layer is not None and columns:
                layer.features = pd.DataFrame(columns)

    def _add(self, case: str) -> Labels:
        viewer, image = self.context.viewer, self.context.workspace.image()
        assert image is not None
        active = viewer.layers.selection.active
        layer = Labels(
            np.zeros(image.shape, np.int32),
            name=f"{case} · objects",
            opacity=0.6,
            metadata={ROLE: {"role": "objects", "case": case}},
            **placement(image.geometry),
        )
        layer.editable = False
        strokes = self.context.bridge.annotation
        self.context.bridge._keep("objects", viewer.add_layer(layer))  # it goes before another image comes
        if strokes is not None and strokes in viewer.layers:  # strokes stay on top
            viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(strokes))
        if active in viewer.layers:
            viewer.layers.selection.active = active
        return layer

    def _remove(self, _: Any = None) -> None:
        layer = self.layer
        if layer is not None:
            self.context.viewer.layers.remove(layer)
