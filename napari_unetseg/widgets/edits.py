"""What the workbench itself writes into the strokes: seen and journalled at once, and undone like a stroke."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_unetseg.errors import UnetSegError
from napari_unetseg.workspace import Message
from napari_unetseg.workspace.filling import Fill, between, copied, finished, gaps

if TYPE_CHECKING:
    from napari_unetseg.widgets.bridge import Bridge

__all__ = ["Edits"]

SMALL = 2**21  # voxels that napari's own history takes well: it keeps the place of every single one
STEPS = 8  # large steps that can be taken back


class Edits:
    """Fills the annotation layer of a bridge, and takes back what was done, in order.

    Small fills go into napari's history of the layer. Large ones are packed and kept here, with how many strokes were
    painted after them, so that both come back in the order in which they were done.

    Parameters
    ----------
    bridge : Bridge
        Has the layers.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._layer: Labels | None = None
        self._done: list[_Step] = []
        self._undone: list[_Step] = []

    def watch(self, layer: Labels) -> None:
        """Fill `layer` from now on."""
        self.leave()
        self._layer = layer
        layer.events.paint.connect(self._on_paint)

    def leave(self) -> None:
        """Fill nothing, and forget what was done."""
        if self._layer is not None:
            self._layer.events.paint.disconnect(self._on_paint)
        self._layer, self._done, self._undone = None, [], []

    # -- fills ------------------------------------------------------------------------------------------------

    def copy_mask(self, whole: bool = False) -> None:
        """Take the mask of the slice on screen, or of the whole image, as strokes where nothing is painted."""
        layer, mask, index = self._ready(), self._bridge.mask, self._index(whole)
        shown = None if mask is None else mask.data if index is None else mask.data[index]
        if shown is None or not shown.any():
            raise UnetSegError("There is no mask here yet.", hint="Train, or predict this image, first.")
        count = self._apply(copied(layer.data, mask.data, index))
        self._tell(
            f"{count:,} voxels of the mask are strokes now{self._on(index)}."
            if count
            else "It is all painted already.",
            "Correct them with brush and eraser; Ctrl-Z takes them back.",
        )

    def finish(self, whole: bool = False) -> None:
        """Say that the slice on screen, or the whole image, is painted completely: the rest of it is background."""
        layer, index = self._ready(), self._index(whole)
        if not (layer.data if index is None else layer.data[index]).any():
            raise UnetSegError("Nothing is painted here yet.", hint="Paint the objects, or copy the mask, first.")
        count = self._apply(finished(layer.data, index))
        where = self._on(index) or " in the image"
        self._tell(
            f"Done: {count:,} unlabelled voxels{where} are background now." if count else "It was done already.",
            "Erase where you are not sure: that is ignored. Ctrl-Z takes it back.",
        )

    def fill_between(self) -> None:
        """Paint the slices between the painted ones next to the one on screen, in the class in hand."""
        layer, index = self._ready(), self._index(False)
        if index is None:
            raise UnetSegError("This image is a plane.", hint="Slices can be filled in volumes only.")
        label = int(layer.selected_label)
        name = next((one.name for one in self._bridge.workspace.classes if one.label == label), "the class")
        pairs = gaps(layer.data, label, index)
        if not pairs:
            raise UnetSegError(
                f"There is no gap between slices with {name} here.",
                hint=f"Paint {name} on two slices, one or more apart, and go to a slice between them.",
            )
        fills = [fill for low, high in pairs if (fill := between(layer.data, label, low, high)) is not None]
        with layer.block_history():  # one step to take back, whether one gap or two
            count = sum(self._apply(fill) for fill in fills)
        slices = sum(high - low - 1 for low, high in pairs)
        self._tell(
            f"{name} is filled in on {slices} slice{'s' * (slices != 1)}: {count:,} voxels.", "Look them through."
        )

    def _ready(self) -> Labels:
        if reason := self._bridge.workspace.why_not("annotate"):
            raise UnetSegError(reason)
        if self._layer is None or self._bridge.annotation is None:
            self._bridge.annotate()
        assert self._layer is not None
        return self._layer

    def _index(self, whole: bool) -> int | None:
        """Slice on screen; None for all of them, or for a plane."""
        if whole or self._layer is None or self._layer.ndim == 2:
            return None
        dims = self._bridge.viewer.dims
        if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
            raise UnetSegError(
                "The slices on screen are not those of the image.", hint="Turn the view back to slices along Z, in 2D."
            )
        return self._bridge.slice_index()

    @staticmethod
    def _on(index: int | None) -> str:
        return "" if index is None else f" on slice {index}"  # as the slider counts, and all of the window

    def _tell(self, text: str, hint: str) -> None:
        self._bridge.workspace.message.emit(Message(text, hint))

    def _apply(self, fill: Fill) -> int:
        """Write a fill into the layer, and journal it; how many voxels it changed."""
        layer = self._layer
        assert layer is not None
        region, values = fill
        changed = layer.data[region] != values
        count = int(np.count_nonzero(changed))
        if not count:
            return 0
        if count <= SMALL:
            starts = [part.start for part in region]
            where = np.nonzero(changed)
            places = tuple(axis + start for axis, start in zip(where, starts, strict=True))
            layer.data_setitem(places, values[changed])
        else:
            self._undone.clear()
            self._done = [*self._done[1 - STEPS :], _Step(region, _pack(layer.data[region]))]
            self._write(region, values)
        self._bridge.journal(region)
        return count

    # -- back and forth ---------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the last stroke or fill."""
        if self._layer is None:
            return
        if self._done and not self._done[-1].strokes:
            self._swap(self._done, self._undone)
            return
        for step in self._done[-1:]:
            step.strokes -= 1
        for step in self._undone[-1:]:
            step.strokes += 1
        self._layer.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        if self._layer is None:
            return
        if self._undone and not self._undone[-1].strokes:
            self._swap(self._undone, self._done)
            return
        for step in self._undone[-1:]:
            step.strokes -= 1
        for step in self._done[-1:]:
            step.strokes += 1
        self._layer.redo()

    def _swap(self, source: list[_Step], target: list[_Step]) -> None:
        assert self._layer is not None
        step = source.pop()
        now = self._layer.data[step.region]
        target.append(_Step(step.region, _pack(now)))
        self._write(step.region, _unpack(step.packed, now))
        self._bridge.journal(step.region)

    def _write(self, region: tuple[slice, ...], values: np.ndarray) -> None:
        assert self._layer is not None
        self._layer.data[region] = values
        self._layer.refresh()

    def _on_paint(self, event: object = None) -> None:
        self._undone.clear()
        for step in self._done[-1:]:
            step.strokes += 1


@dataclass
class _Step:
    region: tuple[slice, ...]
    packed: bytes  # what was there before
    strokes: int = 0  # in napari's history: painted after it was done, or taken back after it was undone


def _pack(values: np.ndarray) -> bytes:
    return zlib.compress(np.ascontiguousarray(values).tobytes(), 1)


def _unpack(packed: bytes, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(zlib.decompress(packed), like.dtype).reshape(like.shape)
