"""The drawer *Against the truth*: where the mask errs, and scores of every image and class, sorted, a click away."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QCheckBox, QFileDialog

from napari_unetseg.errors import UnetSegError
from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.differences import GAINED, LOST, OTHER
from napari_unetseg.widgets.drawer import Drawer
from napari_unetseg.widgets.layers import labels_of, placement, role_of
from napari_unetseg.widgets.overlays import add_overlay, remove_overlays
from napari_unetseg.widgets.parts import Action, Actions, Bar, Choice, label, row
from napari_unetseg.widgets.tables import Cell, Table
from napari_unetseg.workspace import Difference
from napari_unetseg.workspace.truths import ON, Truths

__all__ = ["TruthPanel"]

_ROLE = "errors"
_KEY = "Yellow: only in the mask (too much). Pink: only in the truth (missed). Red: another class."
_COLUMNS = (
    ("Image", "Click a row to go to the image; click a head to sort"),
    ("Class", ""),
    ("Dice", "2 · overlap / (mask + truth), 0 to 1; 1 is perfect. The worst come first"),
    ("Jaccard", "overlap / union, 0 to 1; 1 is perfect"),
    ("HD95", "95th percentile of the distance between the outlines, in the unit of the image; less is better"),
    ("Model", "held out: kept for measuring. new: never seen. learned: it was trained on strokes of this image"),
)


class TruthPanel(Drawer):
    """Truth from files or an open layer, the error map and the table.

    Parameters
    ----------
    context : Context
        Whose viewer shows the errors.
    truths : Truths
        Who knows and compares.
    """

    def __init__(self, context: Context, truths: Truths) -> None:
        super().__init__("Scores and errors", "Every image and class scored, and where the mask differs from the truth")
        self.context, self.truths = context, truths
        self.on = Choice(
            [(f"on {said}", key) for key, said in ON.items()], "What the model is held against", "Held against"
        )
        self.score = Action("Score", "Segment those images with the model in use and score them, one after the other")
        self.stop = Action("Stop", "Score no more images")
        self.bar = Bar("How many images are scored")
        self.said = label("", "muted")
        self.table = Table(_COLUMNS, self._go, "Scores of every image and class")
        self.table.sortItems(2)
        self.table.narrow({2: 52, 3: 62, 4: 52, 5: 64})
        self.files = Action("Truth files …", "Masks known to be right: named as their images, or one for this image")
        self.layer = Action("Truth from the selected layer", "A labels layer on the grid of this image, of any plugin")
        self.errors = QCheckBox("Show errors")
        self.errors.setToolTip("A layer that shows where the mask differs from the truth of this image")
        self.outline = QCheckBox("As outline")
        self.outline.setToolTip("Only the borders of the differences")
        self.key = label("", "muted")
        shown = row(self.errors, self.outline)
        shown.addStretch(1)
        self.add(row(self.on, stretch=(1,)), Actions(self.score, self.stop), self.bar, self.said, self.table)
        self.add(Actions(self.files, self.layer), shown, self.key)
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        context, truths = self.context, self.truths
        self.on.chosen.connect(self.refresh)
        self.score.clicked.connect(lambda: context.do(truths.score, self.on.value))
        self.stop.clicked.connect(truths.stop)
        self.files.clicked.connect(self.choose_files)
        self.layer.clicked.connect(self._take_layer)
        self.errors.clicked.connect(self._show_errors)
        self.outline.toggled.connect(lambda _: self._draw(truths.errors))
        truths.errors_changed.connect(self._draw)
        truths.rows_changed.connect(self._fill)
        truths.changed.connect(self.refresh)
        context.viewer.layers.selection.events.changed.connect(self.refresh)

    # -- what the user does -----------------------------------------------------------------------------------

    def choose_files(self) -> None:
        """Ask for truth files."""
        paths, _ = QFileDialog.getOpenFileNames(self, "Masks known to be right")
        if paths:
            self.take_files(paths)

    def take_files(self, paths: list[str]) -> None:
        """Take these as truth, and show the errors of the image in hand."""
        if self.context.do(self.truths.take_files, paths):
            self.on.set_value("truth")
            self._show_errors(not self.truths.why_not_show())

    def _take_layer(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        try:
            labels = labels_of(chosen)
        except UnetSegError as error:
            self.context.complain(error)
            return
        if self.context.do(self.truths.take_labels, labels):
            self._show_errors(not self.truths.why_not_show())

    def _show_errors(self, shown: bool) -> None:
        self.context.do(self.truths.show, bool(shown))
        self.refresh()

    def _go(self, case: str) -> None:
        workspace = self.context.workspace
        if case in workspace.cases and case != workspace.case:
            self.context.bridge.remember_view()
            self.context.do(workspace.select_case, case)

    def _chosen(self) -> Labels | None:
        """The labels layer that is selected, unless it is one of the workbench."""
        layers = [layer for layer in self.context.viewer.layers.selection if isinstance(layer, Labels)]
        return next((layer for layer in layers if not role_of(layer)), None)

    # -- shown ------------------------------------------------------------------------------------------------

    def _fill(self, rows: Any = None) -> None:
        self.table.fill(
            [
                [
                    Cell(one["case"]),
                    Cell(one["class"]),
                    *(Cell(one[key]) for key in ("dice", "jaccard", "hausdorff95")),
                    Cell(one["seen"]),
                ]
                for one in self.truths.rows
            ]
        )
        for column, key in ((1, "class"), (4, "hausdorff95"), (5, "seen")):  # what says nothing takes no room
            values = {one[key] for one in self.truths.rows}
            self.table.setColumnHidden(column, len(values) < 2 and (key != "hausdorff95" or values == {None}))
        unit = {one["unit"] for one in self.truths.rows}
        distance = (
            ""
            if self.truths.rows and all(one["hausdorff95"] is None for one in self.truths.rows)
            else (f" HD95 in {', '.join(sorted(unit)).replace('um', 'µm')}." if unit else "")
        )
        one_class = {one["class"] for one in self.truths.rows}
        about = f" Class {next(iter(one_class))}." if len(one_class) == 1 else ""
        self.said.setText(self.truths.said + about + distance)
        self.refresh()

    def _draw(self, errors: Difference | None) -> None:
        remove_overlays(self.context, _ROLE)
        self.key.setText("")
        if errors is not None and errors.case == self.context.workspace.case:
            share = errors.voxels / max(1, errors.data.size)
            self.key.setText(f"The mask differs in {share:.1%} of {errors.case}. {_KEY}")
            colours: dict[int | None, Any] = {0: "transparent", None: "transparent", 1: GAINED, 2: LOST, 3: OTHER}
            layer = Labels(
                errors.data,
                name=f"{errors.case} · errors",
                colormap=DirectLabelColormap(color_dict=colours),
                opacity=0.8,
                **placement(errors.geometry),
            )
            layer.contour = 2 if self.outline.isChecked() else 0
            add_overlay(self.context, layer, _ROLE)
        self.refresh()

    def refresh(self, _: Any = None) -> None:
        """Bring buttons and sentences up to date."""
        truths, workspace = self.truths, self.context.workspace
        running = truths.errand.running
        self.score.set_why("" if running else truths.why_not_score(self.on.value))
        self.score.setVisible(not running)
        self.stop.setVisible(running)
        self.bar.setVisible(running)
        self.bar.setValue(round(1000 * truths.errand.fraction))
        self.table.setVisible(bool(truths.rows))
        self.said.setVisible(bool(truths.said))
        here = workspace.why_not("annotate") if workspace.case is None else ""
        self.files.set_why(here)
        self.layer.set_why(here or ("" if self._chosen() else "Select a labels layer in napari's list first."))
        reason = truths.why_not_show()
        self.errors.setEnabled(not reason or truths.shown)
        self.errors.setToolTip(reason or "A layer that shows where the mask differs from the truth of this image")
        self.errors.setChecked(truths.shown)
        self.outline.setVisible(truths.shown)
        self.key.setVisible(bool(self.key.text()))
        worst = min((one["dice"] for one in truths.rows if one["dice"] is not None), default=None)
        self.say("" if worst is None else f"worst Dice {worst:.2f}")
