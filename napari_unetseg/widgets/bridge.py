"""The bridge between napari's layers and the workspace: shows the case in hand, and journals what is painted.

The layers of the workbench carry their role in ``layer.metadata["unetseg"]``; users may rename, reorder, hide and
delete them. The mask layer is written in place and refreshed, so that nothing flickers and the brush stays in the hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from napari.layers import Labels, Layer
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.widgets.edits import Edits
from napari_unetseg.widgets.keys import bind_keys
from napari_unetseg.widgets.layers import (
    GEOMETRY,
    ROLE,
    agree_on_units,
    brush_for,
    image_layers,
    label_colours,
    placement,
    role_of,
)
from napari_unetseg.widgets.views import Views
from napari_unetseg.widgets.watch import StrokeWatch, slice_of, timer
from napari_unetseg.workspace import Prediction, Preview, Workspace

__all__ = ["Bridge"]

TOOLS = ("paint", "erase", "fill", "polygon", "pan_zoom")


class Bridge(QObject):
    """Keeps the layers of one viewer and one workspace in step.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layers are.
    workspace : Workspace
        The state they show.
    on_error : callable
        Takes the `UnetSegError` of a stroke that could not be kept.
    """

    tool_changed = Signal(str)
    class_changed = Signal(int)
    brush_changed = Signal(int)
    layers_changed = Signal()
    step_wanted = Signal(int)
    place_wanted = Signal()
    view_moved = Signal()

    def __init__(self, viewer: Viewer, workspace: Workspace, on_error: Callable[[UnetSegError], None]) -> None:
        super().__init__()
        self.viewer, self.workspace = viewer, workspace
        self._own: dict[str, list[Layer]] = {}
        self._removing = False
        self._brush_in_hand = False
        self._mask_shown, self._contour, self._label = True, 0, 2
        self._watch = StrokeWatch(viewer, workspace, on_error)
        self._on_error = on_error
        self.edits = Edits(self)
        self._moved = timer(self, 100, self.tell_view)
        self._views = Views(self)
        self._heard: tuple[tuple[Any, Callable[..., None]], ...] = (
            (workspace.project_changed, self._on_project),
            (workspace.case_changed, self.show_case),
            (workspace.classes_changed, self._recolour),
            (workspace.preview_changed, self._show_preview),
            (workspace.prediction_changed, self._show_prediction),
            (workspace.actions_changed, self._lock),
        )
        self._seen: tuple[tuple[Any, Callable[..., None]], ...] = (
            (viewer.dims.events.current_step, self._on_dims),
            (viewer.layers.events.removed, self._on_removed),
            (viewer.layers.events.inserted, self._agree_on_units),
        )
        for signal, slot in (*self._heard, *self._seen):
            signal.connect(slot)

    # -- layers of the case in hand ---------------------------------------------------------------------------

    @property
    def annotation(self) -> Labels | None:
        """The layer that is painted on."""
        return self._find("annotation")

    @property
    def mask(self) -> Labels | None:
        """The layer that shows the mask."""
        return self._find("mask")

    def own_layers(self, role: str | None = None) -> list[Any]:
        """Layers of the case in hand that are still there; those of one role, or all."""
        found = [layer for name, layers in self._own.items() if role in (None, name) for layer in layers]
        return [layer for layer in found if layer in self.viewer.layers]

    def _find(self, role: str) -> Any:
        return next((layer for layer in self._own.get(role, ()) if layer in self.viewer.layers), None)

    def show_case(self, case: str | None) -> None:
        """Replace the layers of the case before by those of `case`."""
        self._remove_own()
        volume = self.workspace.image()
        if case is None or volume is None:
            self.layers_changed.emit()
            return
        for data, options in image_layers(volume, case, self._metadata("image", case)):
            self._keep("image", self.viewer.add_image(data, **options))
        self._add_mask(case)
        self._add_annotation(case)
        self.restore_view()
        if self._brush_in_hand:
            self.annotate()
        self.layers_changed.emit()

    def annotate(self, tool: str = "paint") -> None:
        """Put the brush in the hand, on the annotation layer of the case; make that layer again if it was deleted."""
        self._brush_in_hand = True
        if self.workspace.case is None:
            return
        if self.mask is None:
            self._add_mask(self.workspace.case)
        layer = self.annotation or self._add_annotation(self.workspace.case)
        layer.visible = True
        self.viewer.layers.selection.active = layer
        if layer.editable:
            layer.mode = tool

    def select_class(self, label: int) -> None:
        """Paint with the class of `label` from now on."""
        layer = self.annotation
        if layer is None or not 1 <= label <= len(self.workspace.classes):
            return
        layer.selected_label = label
        keep = layer.mode if layer.mode in ("paint", "fill", "polygon") else "paint"
        self.annotate(str(keep))

    def select_tool(self, tool: str) -> None:
        """Take another tool, one of `TOOLS`."""
        self.annotate(tool)

    def set_brush(self, size: int) -> None:
        """Diameter of the brush, in voxels."""
        if self.annotation is not None and self.annotation.brush_size != size:
            self.annotation.brush_size = size

    def toggle_mask(self) -> None:
        """Show or hide the mask."""
        if self.mask is not None:
            self._mask_shown = self.mask.visible = not self.mask.visible
            self.layers_changed.emit()

    def set_mask_contour(self, contour: bool) -> None:
        """Show the mask as outlines instead of areas."""
        self._contour = 1 if contour else 0
        if self.mask is not None:
            self._draw_mask(self.mask)
        self.layers_changed.emit()

    @property
    def contour(self) -> bool:
        """Whether the mask is shown as outlines."""
        return bool(self._contour)

    def toggle_contour(self) -> None:
        """Show the mask as outlines, or as areas again."""
        self.set_mask_contour(not self._contour)

    def undo(self) -> None:
        """Take the last stroke or fill back."""
        self.edits.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.edits.redo()

    def try_to(self, task: Callable[[], None]) -> None:
        """Do what a key asks for, and say why when it cannot be done."""
        try:
            task()
        except UnetSegError as error:
            self._on_error(error)

    def step_slice(self, step: int) -> None:
        """Go `step` slices up or down in the volume in hand."""
        volume, index = self.workspace.image(), self.slice_index()
        if volume is not None and index is not None:
            self.go_to_slice(index + step)

    def go_to_slice(self, index: int) -> None:
        """Show a slice of the volume in hand; the nearest there is."""
        layer = self.annotation or self.mask
        within = min(max(index, 0), layer.data.shape[0] - 1)
        self.viewer.dims.set_point(self.viewer.dims.ndim - 3, layer.data_to_world((within, 0, 0))[0])

    def slice_index(self) -> int | None:
        """Slice along Z that is on screen; None for a plane."""
        volume = self.workspace.image()
        layer = self.annotation or self.mask
        if volume is None or volume.ndim < 3 or layer is None:
            return None
        return slice_of(layer, self.viewer, 0)

    # -- what the user does on the layer ----------------------------------------------------------------------

    def flush(self) -> None:
        """Journal whatever the annotation layer has and the journal has not."""
        self._watch.flush()

    def journal(self, region: tuple[slice, ...]) -> None:
        """Journal what was just written into a region of the annotation layer."""
        self._watch.sync(region)

    def _on_selected_label(self, event: Any = None) -> None:
        layer, most = self.annotation, len(self.workspace.classes)
        if layer is None:
            return
        if layer.selected_label > most:  # napari's own key M goes beyond the classes
            layer.selected_label = most
        if layer.selected_label:
            self._label = int(layer.selected_label)
        self.class_changed.emit(int(layer.selected_label))

    def _on_mode(self, event: Any = None) -> None:
        if self.annotation is not None:
            self.tool_changed.emit(str(self.annotation.mode))

    def _on_brush(self, event: Any = None) -> None:
        if self.annotation is not None:
            self.brush_changed.emit(int(self.annotation.brush_size))

    # -- shown: from the workspace ----------------------------------------------------------------------------

    def _show_preview(self, preview: Preview | None) -> None:
        layer = self.mask
        if layer is None or preview is None or preview.case != role_of(layer).get("case"):
            return
        part = layer.data if preview.index is None else layer.data[preview.index]
        if part.shape == preview.mask.shape:
            part[...] = preview.mask
            layer.refresh()

    def _show_prediction(self, prediction: Prediction | None) -> None:
        # no prediction: what is shown stays until there is a new one, lest the mask flicker
        if prediction is None or prediction.case != self.workspace.case:
            return
        layer = self.mask
        if layer is None and self._own:  # it was deleted, and now there is something to see
            layer = self._add_mask(prediction.case)
        if layer is None or prediction.case != role_of(layer).get("case"):
            return
        layer.data[...] = prediction.mask.data
        layer.refresh()

    def _on_project(self, project: Any = None) -> None:
        self._mask_shown = bool(self.workspace.recall("mask_shown", True))
        self._contour = int(self.workspace.recall("contour", False))

    def _lock(self) -> None:
        if self.workspace.taken and self.annotation is not None:  # nothing is painted that could not be saved
            self.annotation.editable = False

    def _recolour(self, classes: Any = None) -> None:
        classes = self.workspace.classes
        if self.annotation is not None:
            self.annotation.colormap = label_colours(classes, mask=False)
        if self.mask is not None:
            self.mask.colormap = label_colours(classes, mask=True)

    # -- making and removing layers ---------------------------------------------------------------------------

    def _metadata(self, role: str, case: str) -> dict[str, Any]:
        image = self.workspace.image()
        return {ROLE: {"role": role, "case": case}, **({GEOMETRY: image.geometry} if image is not None else {})}

    def _keep(self, role: str, layer: Any) -> Any:
        self._own.setdefault(role, []).append(layer)
        bind_keys(layer, self)
        return layer

    def _add_mask(self, case: str) -> Labels:
        volume = self.workspace.image()
        layer = Labels(
            self.workspace.mask_so_far(),
            name=f"{case} · mask",
            metadata=self._metadata("mask", case),
            colormap=label_colours(self.workspace.classes, mask=True),
            **placement(volume.geometry),
        )
        layer.editable = False
        layer.visible = self._mask_shown
        self._draw_mask(layer)
        active, strokes = self.viewer.layers.selection.active, self.annotation
        self._keep("mask", self.viewer.add_layer(layer))
        if strokes is not None:
            self.viewer.layers.move(self.viewer.layers.index(layer), self.viewer.layers.index(strokes))
        if active in self.viewer.layers:
            self.viewer.layers.selection.active = active
        return layer

    def _draw_mask(self, layer: Labels) -> None:
        layer.contour = self._contour
        layer.opacity = 0.9 if self._contour else 0.4  # an area must let the image through, a line must not

    def _add_annotation(self, case: str) -> Labels:
        volume = self.workspace.image()
        layer = Labels(
            self.workspace.annotation(),
            name=f"{case} · strokes",
            opacity=0.85,
            metadata=self._metadata("annotation", case),
            colormap=label_colours(self.workspace.classes, mask=False),
            **placement(volume.geometry),
        )
        layer.locked = True
        layer.editable = not self.workspace.read_only
        layer.brush_size = int(self.workspace.recall("brush", 0)) or brush_for(volume.shape)
        layer.selected_label = min(self._label, len(self.workspace.classes))
        self._keep("annotation", self.viewer.add_layer(layer))
        self._watch.watch(layer, case)
        self.edits.watch(layer)
        layer.events.selected_label.connect(self._on_selected_label)
        layer.events.mode.connect(self._on_mode)
        layer.events.brush_size.connect(self._on_brush)
        self._on_selected_label()
        self._on_brush()
        return layer

    def _remove_own(self) -> None:
        self._watch.leave()
        self.edits.leave()
        own, self._own = self._own, {}
        self._removing = True
        try:
            for layer in [layer for layers in own.values() for layer in layers]:
                if layer in self.viewer.layers:
                    layer.locked = False
                    self.viewer.layers.remove(layer)
        finally:
            self._removing = False

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if self._removing or not any(layer in layers for layers in self._own.values()):
            return
        if role_of(layer).get("role") == "annotation":
            self.edits.leave()
            self._watch.leave()  # what it held is journalled; the layer comes back with the brush
        for layers in self._own.values():
            if layer in layers:
                layers.remove(layer)
        self.layers_changed.emit()

    def _agree_on_units(self, event: Any = None) -> None:
        agree_on_units(self.viewer.layers)

    # -- where the user looks ---------------------------------------------------------------------------------

    def _on_dims(self, event: Any = None) -> None:
        self._moved.start()

    def tell_view(self) -> None:
        """Say which slice is on screen, for the previews."""
        if self.workspace.case is not None:
            self.workspace.look(self.slice_index())
            self.view_moved.emit()

    @property
    def fit(self) -> float:
        """Zoom that shows all of the image."""
        return self._views.fit

    def restore_view(self) -> None:
        """Show the image as the user left it, or all of it."""
        self._views.restore()

    def remember_view(self) -> None:
        """Keep slice, zoom, brush and contrast with the project."""
        self.try_to(self._views.remember)

    def close(self) -> None:
        """Journal the last stroke and let go of viewer and workspace."""
        self._watch.leave()
        self.edits.leave()
        with contextlib.suppress(RuntimeError):  # Qt may have taken the timer with it already
            self._moved.stop()
        for signal, slot in self._seen:
            signal.disconnect(slot)
        self._views.close()
        for heard, slot in self._heard:
            heard.disconnect(slot, missing_ok=True)
