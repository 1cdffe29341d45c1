"""The drawer *Why?*: what the model looks at, on the slice on screen or for the object that is clicked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.drawer import ColourBar, Drawer
from napari_unetseg.widgets.maps import MAP_COLOURS, map_layer, outline_layer
from napari_unetseg.widgets.overlays import add_overlay, remove_overlays
from napari_unetseg.widgets.parts import Action, Actions, Bar, Choice, label
from napari_unetseg.workspace.explaining import Explained, Explaining

__all__ = ["METHODS", "ExplainPanel"]

_ROLE = "explanation"
METHODS = {
    "saliency": "Saliency: pixels that matter",
    "decoder-saliency": "Decoder saliency: places, all levels",
    "gradcam": "Grad-CAM: features for the class",
}
_TIP = (
    "Saliency: which pixels of each channel matter. Decoder saliency: which places matter to all levels of the net, as "
    "MILDNet has it. Grad-CAM: which features speak for the class, as Sharp U-Net has it. Each map is stretched by "
    "itself, 0 to 1"
)
_AS_IT_IS = "the class that is clicked"


class ExplainPanel(Drawer):
    """Method, class, the slice or a clicked spot, and which of the maps is shown.

    Parameters
    ----------
    context : Context
        Whose viewer shows the maps and is clicked.
    explaining : Explaining
        Who has them computed.
    """

    def __init__(self, context: Context, explaining: Explaining) -> None:
        super().__init__("Why does it say so?", "What the answer of the model depends on; not whether it is right")
        self.context, self.explaining = context, explaining
        self.method = Choice([(said, name) for name, said in METHODS.items()], _TIP, "Method of explaining")
        self.label = Choice(
            ((_AS_IT_IS, None),),
            "The class whose answer is explained; without a click, of a whole slice, the last class",
            "Class to explain",
        )
        time = "Takes about as long as a few masks of the slice"
        self.slice = Action("This slice", f"Explain the class on all of the slice. {time}")
        self.pick = Action("Click a spot …", f"Then click an object in the picture: it is explained alone. {time}")
        self.stop = Action("Stop", "Explain no further; at most a tile is finished")
        self.hide_maps = Action("Hide", "Take the layers away")
        self.bar = Bar("The explanation is being computed", endless=True)
        self.map = Choice((("", 0),), "Which map is shown; compare places within a map, not maps", "Map")
        self.legend = ColourBar(MAP_COLOURS)
        self.legend.set_words("matters least", "most")
        self.says = label("", "muted")
        self.add(self.method, self.label, Actions(self.slice, self.pick, self.stop, stretch=(1, 1)), self.bar)
        self.add(self.map, self.legend, self.says, Actions(self.hide_maps))
        self._picking = False
        self._tool = "paint"  # in the hand before a spot was to be clicked
        self._connect()
        self._take_classes()

    def _connect(self) -> None:
        context, explaining = self.context, self.explaining
        self.slice.clicked.connect(lambda: self._ask(None))
        self.pick.clicked.connect(lambda: self.set_picking(not self._picking))
        self.stop.clicked.connect(explaining.stop)
        self.hide_maps.clicked.connect(explaining.forget)
        self.map.chosen.connect(lambda _: self._draw(explaining.explained))
        explaining.explained_changed.connect(self._take_maps)
        explaining.changed.connect(self.refresh)
        context.workspace.classes_changed.connect(self._take_classes)
        context.workspace.case_changed.connect(lambda _: self.set_picking(False))

    # -- what the user does -----------------------------------------------------------------------------------

    def set_picking(self, picking: bool) -> None:
        """Wait for a click into the picture, with nothing in the hand that would paint; or wait no more."""
        if picking == self._picking:
            return
        self._picking = picking
        callbacks, layer = self.context.viewer.mouse_drag_callbacks, self.context.bridge.annotation
        if picking:
            self._tool = str(layer.mode) if layer is not None else "paint"
            self.context.bridge.select_tool("pan_zoom")
            callbacks.append(self._on_press)
        else:
            if self._on_press in callbacks:
                callbacks.remove(self._on_press)
            self.context.bridge.select_tool(self._tool)
        self.refresh()

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        moved = False
        yield
        while event.type == "mouse_move":
            moved = True
            yield
        layer = self.context.bridge.annotation or self.context.bridge.mask
        if moved or layer is None:
            return
        at = np.round(np.asarray(layer.world_to_data(event.position[-layer.ndim :]))).astype(int)
        if all(0 <= place < size for place, size in zip(at[-2:], layer.data.shape[-2:], strict=True)):
            self.set_picking(False)
            self._ask((int(at[-2]), int(at[-1])))

    def _ask(self, point: tuple[int, int] | None) -> None:
        index = self.context.bridge.slice_index()
        self.context.do(self.explaining.ask, self.method.value, self.label.value, index, point)

    # -- shown ------------------------------------------------------------------------------------------------

    def _take_classes(self, _: Any = None) -> None:
        value, classes = self.label.value, self.context.workspace.classes
        names = [(f"class: {one.name}", one.label - 1) for one in classes]
        self.label.set_options(((_AS_IT_IS, None), *names))
        if value is not None and value < len(classes):
            self.label.set_value(value)
        self.refresh()

    def _take_maps(self, explained: Explained | None) -> None:
        if explained is not None:
            self.map.set_options([(name, index) for index, name in enumerate(explained.names)])
            self.map.set_value(len(explained.names) - 1 if "level" in explained.names[-1] else 0)  # the finest level
            self.says.setText(explained.says)
        self._draw(explained)

    def _draw(self, explained: Explained | None) -> None:
        remove_overlays(self.context, _ROLE)
        if explained is not None and explained.case == self.context.workspace.case:
            name = explained.names[self.map.value]
            layer = map_layer(
                explained.maps[self.map.value], explained.geometry, explained.index, f"{explained.case} · why: {name}"
            )
            add_overlay(self.context, layer, _ROLE)
            if explained.region is not None:
                around = outline_layer(
                    explained.region, explained.geometry, explained.index, f"{explained.case} · explained"
                )
                add_overlay(self.context, around, _ROLE)
        self.refresh()

    def refresh(self, _: Any = None) -> None:
        """Bring buttons and legend up to date."""
        explaining = self.explaining
        running, shown = explaining.errand.running, explaining.explained is not None
        reason = explaining.why_not()
        self.slice.set_why(reason)
        self.pick.set_why(reason)
        self.pick.setText("Click into the picture (cancel)" if self._picking else "Click a spot …")
        for one in (self.slice, self.pick):
            one.setVisible(not running)
        self.stop.setVisible(running)
        self.bar.setVisible(running)
        self.map.setVisible(shown and self.map.count() > 1)
        for widget in (self.legend, self.says, self.hide_maps):
            widget.setVisible(shown)
