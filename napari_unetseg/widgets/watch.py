"""Watches one annotation layer and journals what is painted on it, looking only where something changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer

from napari_unetseg.errors import UnetSegError
from napari_unetseg.workspace import Workspace
from napari_unetseg.workspace.strokes import slabs

__all__ = ["StrokeWatch", "slice_of", "timer"]

PART = 2**23  # voxels that are compared without a pause, in a few milliseconds
SETTLE_MS = 300  # undo and scripts tell nothing but "the data was set": look once they have settled

Region = tuple[slice, ...]


class StrokeWatch(QObject):
    """Keeps the journal of the workspace in step with an annotation layer.

    A finished stroke, fill or polygon is journalled as soon as napari is done with it, and only its bounding box is
    compared. Undo, redo and scripts do not say where they wrote; then the whole layer is compared, a moment
    later and part by part.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Tells which slice is on screen.
    workspace : Workspace
        Journals.
    on_error : callable
        Takes the `UnetSegError` of a stroke that could not be kept.
    """

    def __init__(self, viewer: Viewer, workspace: Workspace, on_error: Callable[[UnetSegError], None]) -> None:
        super().__init__()
        self._viewer, self._workspace, self._on_error = viewer, workspace, on_error
        self._layer: Labels | None = None
        self._case: str | None = None
        self._near: Region | None = None
        self._everywhere = False
        self._place: tuple[float, ...] = ()
        self._left: list[Region] = []  # to be compared when there is time
        self._soon = timer(self, 0, self._sync_near)
        self._settled = timer(self, SETTLE_MS, self._compare_all)
        self._next = timer(self, 0, self._compare_next)

    def watch(self, layer: Labels, case: str) -> None:
        """Watch `layer`, which holds the strokes of `case`, and no other from now on."""
        self.leave()
        self._layer, self._case = layer, case
        self._place = tuple(self._viewer.dims.point)
        layer.events.labels_update.connect(self._on_labels_update)
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)

    def leave(self) -> None:
        """Journal the last stroke and watch nothing."""
        self._sync(None)
        with contextlib.suppress(RuntimeError):  # Qt may have taken the timers with it already
            for waiting in (self._soon, self._settled, self._next):
                waiting.stop()
        if self._layer is not None:
            self._layer.events.labels_update.disconnect(self._on_labels_update)
            self._layer.events.paint.disconnect(self._on_paint)
            self._layer.events.data.disconnect(self._on_paint)
            self._layer.events.set_data.disconnect(self._on_set_data)
        self._layer = self._case = self._near = None

    def flush(self) -> None:
        """Journal whatever the layer has and the journal has not."""
        self._everywhere, self._near, self._left = False, None, []
        self._sync(None)
        for waiting in (self._soon, self._settled, self._next):
            waiting.stop()

    def _compare_all(self) -> None:
        """Compare the whole layer, but part by part, that the window may draw in between."""
        if self._layer is not None:
            self._everywhere, self._near = False, None
            self._left = slabs(self._layer.data.shape, PART)
            self._next.start()

    def _compare_next(self) -> None:
        if self._left:
            self._sync(self._left.pop(0))
        if self._left:
            self._next.start()

    def sync(self, region: Region) -> None:
        """Journal what was just written into a region."""
        self._sync(region)

    def _sync_near(self) -> None:
        near, self._near = self._near, None
        if self._everywhere or near is None:
            self._compare_all()
        else:
            self._sync(near)

    def _sync(self, near: Region | None) -> None:
        if self._layer is None or self._case is None or self._case != self._workspace.case:
            return
        try:
            self._workspace.sync_strokes(np.asarray(self._layer.data), near)
        except UnetSegError as error:
            self._on_error(error)

    def _on_labels_update(self, event: Any) -> None:
        layer, dims = self._layer, self._viewer.dims
        if layer is None:
            return
        shown = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
        if layer.n_edit_dimensions > len(shown) or len(shown) != len(event.offset) or min(shown) < 0:
            self._everywhere = True
            return
        region = [slice(None)] * layer.ndim
        for axis, start, size in zip(shown, event.offset, event.data.shape, strict=False):
            region[axis] = slice(int(start), int(start) + int(size))
        for hidden in set(range(layer.ndim)) - set(shown):
            index = slice_of(layer, self._viewer, hidden)
            region[hidden] = slice(index, index + 1)
        self._near = tuple(region) if self._near is None else _union(self._near, tuple(region))

    def _on_paint(self, event: Any = None) -> None:
        # napari tells of a fill before it writes it: look when the call is over
        self._soon.start()

    def _on_set_data(self, event: Any = None) -> None:
        place = tuple(self._viewer.dims.point)
        if place == self._place:  # not a mere change of slice: undo, redo, or a script
            self._settled.start()
        self._place = place


def slice_of(layer: Labels, viewer: Viewer, axis: int) -> int:
    """Index along `axis` of the layer that is on screen."""
    index = round(layer.world_to_data(viewer.dims.point[-layer.ndim :])[axis])
    return int(np.clip(index, 0, layer.data.shape[axis] - 1))


def timer(owner: QObject, interval: int, slot: Callable[[], object]) -> QTimer:
    """A timer that fires once, `interval` milliseconds after its last start."""
    made = QTimer(owner)
    made.setSingleShot(True)
    made.setInterval(interval)
    made.timeout.connect(slot)
    return made


def _union(a: Region, b: Region) -> Region:
    return tuple(slice(min(x.start, y.start), max(x.stop, y.stop)) for x, y in zip(a, b, strict=True))
