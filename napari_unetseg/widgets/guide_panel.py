"""Where to paint next, and strokes that look like slips of the hand: a button, a sentence why, a list to go through."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtWidgets import QVBoxLayout, QWidget
from scipy import ndimage

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.drawer import Drawer
from napari_unetseg.widgets.layers import placement
from napari_unetseg.widgets.overlays import add_overlay, go_to, remove_overlays
from napari_unetseg.widgets.parts import Action, Actions, Bar, label
from napari_unetseg.widgets.tables import Cell, Table
from napari_unetseg.workspace.guiding import Guiding, Place, Slip

__all__ = ["GuidePanel", "erase"]

_POINTER = "pointer"
_COLOUR = "#F0E442"
_COLUMNS = (
    ("No.", "Click a row to go to the stroke"),
    ("Image", ""),
    ("Slice", "Along Z, counted from 0 as the slider does"),
    ("Painted → looks", "Class of the stroke; what models that have not learned it, or the next slice, take it for"),
    ("Voxels", "Size of what is contradicted"),
)


class GuidePanel(QWidget):
    """*Next place*, and the drawer of suspicious strokes.

    Parameters
    ----------
    context : Context
        Whose viewer is moved.
    guiding : Guiding
        Who knows where to go.
    """

    def __init__(self, context: Context, guiding: Guiding) -> None:
        super().__init__()
        self.context, self.guiding = context, guiding
        self._chosen: Slip | None = None
        self.next = Action(
            "Where to paint next",
            "Go to an image, slice and place where strokes would teach the model most (key J). Places are found in "
            "the background after every training; one in three is drawn at random",
        )
        self.reason = label("", "muted")
        self.drawer = Drawer(
            "Suspicious strokes", "Strokes that may be slips of the hand: painted as one class, looking like another"
        )
        self.search = Action(
            "Check my strokes",
            "Small models learn two thirds of the strokes and judge the rest, in turn: some seconds. About half of "
            "all slips are found, and few good strokes are named",
        )
        self.stop = Action("Stop", "Check no further")
        self.bar = Bar("The strokes are being checked", endless=True)
        self.found = label("", "muted")
        self.slips = Table(_COLUMNS, self._go, "Strokes that may be slips")
        self.why = label("")
        self.keep = Action("Keep it", "The stroke is as it should be: do not name it again")
        self.erase = Action("Erase it", "Make the stroke unlabelled; Ctrl-Z brings it back")
        self.slips.sortItems(0)
        header = self.slips.horizontalHeader()
        header.setSectionResizeMode(1, header.ResizeMode.Stretch)
        self.slips.narrow({0: 34, 2: 40, 4: 58})
        self._choice = Actions(self.keep, self.erase, stretch=(1, 1))
        self.drawer.add(Actions(self.search, self.stop), self.bar, self.found, self.slips, self.why, self._choice)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for part in (Actions(self.next), self.reason, self.drawer):
            layout.addWidget(part)
        self._connect()
        self._fill()

    def _connect(self) -> None:
        context, guiding = self.context, self.guiding
        self.next.clicked.connect(self.go_next)
        context.bridge.place_wanted.connect(self.go_next)
        self.search.clicked.connect(lambda: context.do(guiding.search))
        self.stop.clicked.connect(guiding.stop_search)
        self.keep.clicked.connect(self._keep)
        self.erase.clicked.connect(self._erase)
        self.drawer.button.toggled.connect(self.refresh)
        guiding.arrived.connect(self._arrive)
        guiding.slips_changed.connect(self._fill)
        guiding.changed.connect(self.refresh)
        context.workspace.case_changed.connect(self._leave)

    # -- the next place ---------------------------------------------------------------------------------------

    def go_next(self) -> None:
        """Go where strokes would teach most, now or once a place is found."""
        self.context.do(self.guiding.next)

    def _arrive(self, place: Place) -> None:
        if not go_to(self.context, place.case, place.index, place.box):
            return
        self.guiding.show(place)
        self._point_at(place.index, place.box)
        where = place.case if place.index is None else f"{place.case}, slice {place.index}"
        self.reason.setText(f"{where}: {place.reason} Paint in the yellow frame.")
        self.context.bridge.annotate()
        self.refresh()

    def _point_at(self, index: int | None, box: Any) -> None:
        remove_overlays(self.context, _POINTER)
        image = self.context.workspace.image()
        if image is None:
            return
        (top, bottom), (left, right) = box
        corners = np.array([[top, left], [top, right], [bottom, right], [bottom, left]], float) - 0.5
        if image.ndim == 3:
            corners = np.column_stack([np.full(4, float(index or 0)), corners])
        frame = Shapes(
            [corners],
            shape_type="polygon",
            edge_color=_COLOUR,
            face_color="transparent",
            edge_width=max(1.0, (bottom - top) / 60),
            name=f"{self.context.workspace.case} · look here",
            **placement(image.geometry),
        )
        add_overlay(self.context, frame, _POINTER)

    def _leave(self, _: Any = None) -> None:
        self.reason.setText("")
        self.refresh()

    # -- slips ------------------------------------------------------------------------------------------------

    def _fill(self, _: Any = None) -> None:
        names = [one.name for one in self.context.workspace.classes]
        self.slips.fill(
            [
                [
                    Cell(number),
                    Cell(slip.case),
                    Cell("" if slip.index is None else slip.index),
                    Cell(" → ".join(names[one] if one < len(names) else "?" for one in (slip.painted, slip.predicted))),
                    Cell(slip.voxels),
                ]
                for number, slip in enumerate(self.guiding.slips, start=1)
            ]
        )
        self.slips.setColumnHidden(2, all(slip.index is None for slip in self.guiding.slips))
        if self._chosen not in self.guiding.slips:
            self._chosen = None
        self.refresh()

    def _go(self, number: str) -> None:
        slip = self.guiding.slips[int(number) - 1]
        if go_to(self.context, slip.case, slip.index, slip.box):
            self._chosen = slip
            self._point_at(slip.index, slip.box)
            self.why.setText(slip.reason)
            self.refresh()

    def _keep(self) -> None:
        if self._chosen is not None:
            self.context.do(self.guiding.keep, self._chosen)
            remove_overlays(self.context, _POINTER)

    def _erase(self) -> None:
        slip, layer = self._chosen, self.context.bridge.annotation
        if slip is None or layer is None or slip.case != self.context.workspace.case:
            return
        erase(layer, slip)
        remove_overlays(self.context, _POINTER)
        self.context.do(self.guiding.erased, slip)

    # -- shown ------------------------------------------------------------------------------------------------

    def refresh(self, _: Any = None) -> None:
        """Bring buttons and sentences up to date."""
        guiding = self.guiding
        self.next.set_why(guiding.why_not_next())
        self.reason.setVisible(bool(self.reason.text()))
        count = len(guiding.slips)
        found = f"{count} to look at" if count else "none found"
        self.drawer.say(found if guiding.searched else "not checked")
        self.search.set_why("" if guiding.searching else guiding.why_not_search())
        self.search.setVisible(not guiding.searching)
        self.stop.setVisible(guiding.searching)
        self.bar.setVisible(guiding.searching)
        self.slips.setVisible(bool(count))
        here = "Click a row to see the stroke." if count else "No stroke is contradicted by the others."
        self.found.setText(here if guiding.searched and not guiding.searching else "")
        self.found.setVisible(bool(self.found.text()) and self._chosen is None)
        self.why.setVisible(self._chosen is not None)
        self._choice.setVisible(self._chosen is not None)
        away = self._chosen is not None and self._chosen.case != self.context.workspace.case
        reason = self.context.workspace.why_not("annotate") or ("Click its row to go there first." if away else "")
        self.erase.set_why(reason if self._chosen else "")


def erase(layer: Any, slip: Slip) -> None:
    """Make a stroke unlabelled on its layer, as the eraser would, so that undo brings it back."""
    (top, bottom), (left, right) = slip.box
    region: tuple[slice, ...] = (slice(top, bottom), slice(left, right))
    if layer.ndim == 3:
        region = (slice(None), *region)
    part = np.asarray(layer.data[region]) == slip.painted + 1
    parts, _ = ndimage.label(part, np.ones((3,) * part.ndim))
    here = parts if slip.index is None else parts[slip.index]
    sizes = np.bincount(here.ravel())
    sizes[0] = 0
    if not sizes.any():
        return
    where = np.nonzero(parts == int(sizes.argmax()))
    starts = [part.start or 0 for part in region]
    layer.data_setitem(tuple(axis + start for axis, start in zip(where, starts, strict=True)), 0)
