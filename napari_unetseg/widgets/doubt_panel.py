"""The drawer *How sure is it?*: doubt, disagreement or probability over the slice or the image, with a legend."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QCheckBox

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.drawer import ColourBar, Drawer
from napari_unetseg.widgets.maps import MAP_COLOURS, map_layer, outline_layer
from napari_unetseg.widgets.overlays import add_overlay, overlays, remove_overlays
from napari_unetseg.widgets.parts import Action, Actions, Bar, Choice, label, row
from napari_unetseg.widgets.watch import timer
from napari_unetseg.workspace.doubting import ROUNDS, Doubting, DoubtMap

__all__ = ["DoubtPanel"]

_ROLE = "doubt"
_SETTLE_MS = 350
_WIDEST = 300  # pixels of the picture of reliability
_TITLES = {
    "entropy": "Doubt (entropy)",
    "disagreement": "Disagreement of mirrored copies",
    ROUNDS: "Disagreement of the last rounds",
}
_ENDS = {
    "entropy": ("0  sure", "1  undecided"),
    "disagreement": ("0  agree", "1  contradict"),
    ROUNDS: ("0  agree", "1  contradict"),
}


class DoubtPanel(Drawer):
    """What to show, of the slice or the whole image, as areas or outlines.

    Parameters
    ----------
    context : Context
        Whose viewer shows the map.
    doubting : Doubting
        Who has it computed.
    """

    def __init__(self, context: Context, doubting: Doubting) -> None:
        super().__init__("How sure is it?", "Where the model doubts: look there first, and paint there")
        self.context, self.doubting = context, doubting
        self.kind = Choice((("", "entropy"),), "What the map shows; values from 0 to 1", "What the map shows")
        self.whole = QCheckBox("All slices")
        self.whole.setToolTip("Compute it for the whole volume: as long as a mask takes; else the slice on screen only")
        self.outline = QCheckBox("As outline")
        self.outline.setToolTip("Only the border of what has 0.5 or more, to see the image under it")
        self.show_map = Action("Show", "A layer over the image; it follows the slice and the model")
        self.hide_map = Action("Hide", "Take the layer away")
        self.stop = Action("Stop", "Compute it no further")
        self.bar = Bar("How far the map is")
        self.says = label("", "muted")
        self.legend = ColourBar(MAP_COLOURS)
        line = row(self.whole, self.outline)
        line.addStretch(1)
        self.add(self.kind, line, Actions(self.show_map, self.stop, self.hide_map), self.bar, self.legend, self.says)
        self.check = Action(
            "Does 0.8 mean 0.8?", "Compare what the model said with what was, where its score was measured"
        )
        self.picture, self.checked = label("", wrap=False), label("", "muted")
        self.add(Actions(self.check), self.picture, self.checked)
        self._moved = timer(self, _SETTLE_MS, self._follow)
        self._connect()
        self._take_kinds()

    def _connect(self) -> None:
        context, doubting = self.context, self.doubting
        self.show_map.clicked.connect(self._want)
        self.hide_map.clicked.connect(lambda: context.do(doubting.want, None))
        self.stop.clicked.connect(doubting.stop)
        self.kind.chosen.connect(lambda _: self._change())
        self.whole.toggled.connect(self._change)
        self.outline.toggled.connect(lambda _: self._draw(doubting.map))
        self.check.clicked.connect(lambda: context.do(doubting.ask_reliability))
        doubting.reliability_changed.connect(self._show_reliability)
        doubting.map_changed.connect(self._draw)
        doubting.changed.connect(self.refresh)
        workspace = context.workspace
        workspace.classes_changed.connect(self._take_kinds)
        workspace.case_changed.connect(self.refresh)
        workspace.rounds_changed.connect(self._on_rounds)
        context.bridge.view_moved.connect(self._on_moved)

    # -- what the user does -----------------------------------------------------------------------------------

    def _index(self) -> int | None:
        return None if self.whole.isChecked() else self.context.bridge.slice_index()

    def _want(self) -> None:
        self.context.do(self.doubting.want, self.kind.value, self._index())

    def _change(self, _: Any = None) -> None:
        if self.doubting.kind is not None:
            self._want()

    def _on_moved(self, _: Any = None) -> None:
        if self.doubting.kind is not None:
            self._moved.start()

    def _follow(self) -> None:
        self.doubting.look(self._index())

    # -- shown ------------------------------------------------------------------------------------------------

    def _take_kinds(self, _: Any = None) -> None:
        value = self.kind.value
        kinds = self.doubting.kinds
        self.kind.set_options([(_TITLES.get(kind, kind.capitalize()), kind) for kind in kinds])
        if value in kinds:
            self.kind.set_value(value)
        self.refresh()

    def _draw(self, shown: DoubtMap | None) -> None:
        visible = all(layer.visible for layer in overlays(self.context, _ROLE))
        remove_overlays(self.context, _ROLE)
        if shown is not None and shown.case == self.context.workspace.case:
            make = outline_layer if self.outline.isChecked() else map_layer
            layer = make(shown.data, shown.geometry, shown.index, f"{shown.case} · {shown.kind}")
            layer.visible = visible
            add_overlay(self.context, layer, _ROLE)
            self.says.setText(shown.says)
            self.legend.set_words(*_ENDS.get(shown.kind, ("0", "1")))
        self.refresh()

    def _on_rounds(self, _: Any = None) -> None:
        self._show_reliability((None, ""))
        self._take_kinds()

    def _show_reliability(self, answer: Any) -> None:
        picture, said = answer
        self.picture.setVisible(picture is not None)
        self.checked.setText(said)
        self.checked.setVisible(bool(said))
        if picture is not None:
            height, width = picture.shape[:2]
            data = np.ascontiguousarray(picture).tobytes()
            shown = QPixmap.fromImage(QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888).copy())
            wide = min(width, _WIDEST)
            self.picture.setPixmap(shown.scaledToWidth(wide, Qt.TransformationMode.SmoothTransformation))

    def refresh(self, _: Any = None) -> None:
        """Bring buttons and legend up to date."""
        doubting = self.doubting
        running, image = doubting.errand.running, self.context.workspace.image()
        self.whole.setVisible(image is not None and image.ndim == 3)
        self.show_map.set_why(doubting.why_not())
        self.show_map.setVisible(doubting.kind is None)
        self.check.set_why(self.context.workspace.why_not("segment_folder"))
        self.stop.setVisible(running)
        self.hide_map.setVisible(doubting.kind is not None and not running)
        self.bar.setVisible(running)
        self.bar.setValue(round(1000 * doubting.errand.fraction))
        shown = doubting.map is not None
        self.says.setVisible(shown)
        self.legend.setVisible(shown and not self.outline.isChecked())
        self.say(_TITLES.get(doubting.kind or "", doubting.kind or "").lower())
