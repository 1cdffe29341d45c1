"""Step 4, train: choose an architecture and a time, start, and watch it learn."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QWidget

from napari_unetseg.widgets.advanced import AdvancedDrawer
from napari_unetseg.widgets.context import Context, duration
from napari_unetseg.widgets.fields import Form, Minutes
from napari_unetseg.widgets.net_picker import NetPicker
from napari_unetseg.widgets.outlook import Outlook
from napari_unetseg.widgets.parts import Action, Actions, Bar, Choice, Panel, label, lock, set_role
from napari_unetseg.widgets.path import named
from napari_unetseg.widgets.plots import Plots

__all__ = ["TrainPanel"]

_DIMS = (
    ("decided for me", None),
    ("2D: plane by plane", 2),
    ("3D: whole volumes", 3),
)

_LOCKED = {
    "segmenting": "A folder is being segmented: architecture, time and size can be changed afterwards.",
    "comparing": "Architectures are being compared: the plan can be changed afterwards.",
}


class TrainPanel(Panel):
    """Architecture, time budget, Train and Stop, curves."""

    title = "Train"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        workspace = context.workspace
        self.picker = NetPicker(context.look)
        self.picker.chosen.connect(lambda name: context.do(workspace.change_plan, net={"name": name}))
        self.advanced = AdvancedDrawer(context)
        self.train = Action("Train", "Learn from all strokes; you can go on painting meanwhile", role="primary")
        self.stop = Action("Stop", "Finish now and keep the best model so far", role="primary")
        self.train.clicked.connect(lambda: context.do(workspace.train))
        self.stop.clicked.connect(lambda: context.do(workspace.stop))
        self.bar = Bar("How far the training is")
        self.sentence = label("", "muted")
        self.curves = Plots(context.look)
        self.resume = Action(
            "", "Go on where the training was interrupted, with the strokes and the time it began with", role="primary"
        )
        self.resume.clicked.connect(lambda: context.do(workspace.resume))
        form = self._make_form()
        self.locked = label("", "why")
        inside = (*self.advanced.fields.values(), *self.advanced.parts.values())
        self._choices = (self.picker.button, self.minutes, self.dims, self.advanced.button, *inside)
        self._settings = (self.picker, form, self.advanced)
        self.add(*self._settings, self.locked, Actions(self.resume))
        self.add(Actions(self.train, self.stop, stretch=(1, 1)))
        self.outlook = Outlook(context)
        self.add(self.outlook, self.bar, self.sentence, self.curves)
        workspace.plan_changed.connect(self._show_plan)
        workspace.nets_changed.connect(self.picker.set_nets)
        workspace.case_changed.connect(self._show_plan)
        workspace.classes_changed.connect(self._show_colours)
        workspace.curves_changed.connect(self._show_curves)
        workspace.progress_changed.connect(self._show_progress)
        workspace.rounds_changed.connect(self._show_rounds)
        workspace.corrections_changed.connect(self._show_worth)
        workspace.actions_changed.connect(self.refresh)
        context.look_changed.connect(self.curves.set_look)
        context.look_changed.connect(self.picker.set_look)
        self.picker.set_nets(workspace.nets)
        self._show_plan()
        self._show_colours()
        self._show_curves()
        self._show_progress()
        self._show_rounds()
        self._show_worth()
        self.refresh()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        if workspace.stage == "training":
            left = duration(workspace.progress.left)
            return f"training, {left} left" if left else "training …", "next"
        if left := workspace.unfinished:
            return f"{named(left).lower()} interrupted", "next"
        count = len(workspace.rounds)
        if count:
            return f"{count} round{'s' * (count != 1)}", "done"
        return ("ready", "next") if not workspace.why_not("train") else ("", "")

    def _make_form(self) -> QWidget:
        self.minutes = Minutes(
            "Time for the training, in minutes",
            "Training ends after this time; 2 minutes for a first look, 10 to 60 for a good model",
        )
        self.minutes.valueChanged.connect(self._on_minutes)
        self.dims = Choice(
            _DIMS,
            "Without a graphics card planes are learned far sooner; with one, thin slices are taken as volumes, thick "
            "ones (more than about six times the pixel) or few of them plane by plane. Decided for you by that",
            "Planes or volumes",
        )
        self.dims.chosen.connect(self._choose_dims)
        box = QWidget()
        form = Form(box)
        form.field("Time", self.minutes)
        self._dims_label = form.field("Planes or volumes", self.dims)
        return box

    # -- plan -------------------------------------------------------------------------------------------------

    def _on_minutes(self, minutes: float) -> None:
        if self.context.workspace.plan.training.minutes != minutes:
            self.context.do(self.context.workspace.change_plan, training={"minutes": minutes})

    def _choose_dims(self, dims: int | None) -> None:
        workspace = self.context.workspace
        if dims is None:
            self.context.do(workspace.decide_for_me, "net", "dims")
        else:
            self.context.do(workspace.change_plan, net={"dims": dims})

    def _show_plan(self, plan: Any = None) -> None:
        workspace = self.context.workspace
        plan = workspace.plan
        image = workspace.image()
        given = (plan.net.dims,) if plan.given("net", "dims") else ()
        solid = image is None or image.ndim == 3
        self.minutes.blockSignals(True)
        if plan.training.minutes:
            self.minutes.setValue(plan.training.minutes)
        self.minutes.blockSignals(False)
        self.dims.set_value(given[0] if given else None)
        self.dims.setVisible(solid or given == (3,))
        self._dims_label.setVisible(solid or given == (3,))
        self.picker.set_choice(plan.net.name, given or ((2, 3) if solid else (2,)))

    # -- shown ------------------------------------------------------------------------------------------------

    def _show_colours(self, classes: Any = None) -> None:
        self.curves.set_colours({c.name: c.colour for c in self.context.workspace.classes})

    def _show_curves(self, curves: Any = None) -> None:
        curves = self.context.workspace.curves
        self.curves.training.show_curves(curves)
        self._offer_curves()

    def _show_rounds(self, rounds: Any = None) -> None:
        self.curves.rounds.show_rounds(self.context.workspace.rounds)
        self._offer_curves()

    def _show_worth(self, corrections: Any = None) -> None:
        workspace = self.context.workspace
        self.curves.worth.show_worth(workspace.corrections, workspace.forecast, workspace.forecast_of)
        self._offer_curves()

    def _offer_curves(self) -> None:
        workspace = self.context.workspace
        self.curves.setVisible(bool(workspace.curves.number or workspace.rounds))
        self.curves.offer(1, len(workspace.rounds) > 1)
        self.curves.offer(2, bool(workspace.rounds))

    def _show_progress(self, progress: Any = None) -> None:
        workspace = self.context.workspace
        training = workspace.stage == "training"
        self.bar.setVisible(training)
        self.sentence.setVisible(training)
        if training:
            left = duration(workspace.progress.left)
            self.bar.setValue(round(1000 * workspace.progress.fraction))
            self.bar.setFormat(f"{left} left" if left else "preparing")
            self.sentence.setText(workspace.progress.sentence)

    def refresh(self) -> None:
        """Bring the buttons up to date."""
        workspace = self.context.workspace
        self.train.set_why(workspace.why_not("train"))
        self.train.setText("Train again" if workspace.rounds else "Train")
        training = workspace.stage == "training"
        left = workspace.unfinished
        set_role(self.train, "" if left else "primary")  # one coloured button at a time
        self.resume.setVisible(bool(left))
        self.resume.setText(f"Resume {named(left).lower()}" if left else "Resume")
        self.resume.set_why(workspace.why_not("resume") if left else "")
        self.stop.set_why(workspace.why_not("stop") if training else "")
        self.train.setVisible(not training)
        self.stop.setVisible(training)
        idle = workspace.stage in ("idle", "predicting")  # a mask being computed makes way for Train
        reason = "" if idle else _LOCKED.get(workspace.stage, "")
        if training:
            net, minutes = workspace.begun
            reason = f"{workspace.title_of(net)}, {duration(60 * minutes)} in all: press Stop to change that."
        for widget in self._settings:
            widget.setVisible(not training)  # the curves need the room
        for widget in (self.picker, self.minutes, self.dims, self.advanced):
            widget.setEnabled(idle)
        for choice in self._choices:
            lock(choice, reason)
        self.locked.setText(reason)
        self.locked.setVisible(bool(reason))
        self._show_progress()
