"""The workbench: the one dock *U-Net Segmentation*, with one panel for each task of the user, from top to bottom."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import Any

import napari
import numpy as np
from psygnal import Signal
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget

from napari_unetseg.errors import UnetSegError
from napari_unetseg.widgets.after_panel import AfterPanel
from napari_unetseg.widgets.annotate_panel import AnnotatePanel
from napari_unetseg.widgets.answer_bar import AnswerBar
from napari_unetseg.widgets.canvas import Canvas
from napari_unetseg.widgets.classes_panel import ClassesPanel
from napari_unetseg.widgets.compare_panel import ComparePanel
from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.doubt_panel import DoubtPanel
from napari_unetseg.widgets.explain_panel import ExplainPanel
from napari_unetseg.widgets.folder_panel import FolderPanel
from napari_unetseg.widgets.guide_panel import GuidePanel
from napari_unetseg.widgets.images_panel import ImagesPanel
from napari_unetseg.widgets.jobs import QtJobs
from napari_unetseg.widgets.parts import Column, Section, label, set_role
from napari_unetseg.widgets.path import next_thing, steps
from napari_unetseg.widgets.review_panel import ReviewPanel
from napari_unetseg.widgets.theme import stylesheet
from napari_unetseg.widgets.train_panel import TrainPanel
from napari_unetseg.widgets.truth_panel import TruthPanel
from napari_unetseg.widgets.watch import timer
from napari_unetseg.workspace import Message, Workspace
from napari_unetseg.workspace.after import AfterNet
from napari_unetseg.workspace.doubting import Doubting
from napari_unetseg.workspace.explaining import Explaining
from napari_unetseg.workspace.first_answer import FirstAnswer
from napari_unetseg.workspace.guiding import Guiding
from napari_unetseg.workspace.truths import Truths

__all__ = ["TITLE", "Workbench", "open_workbench"]

TITLE = "U-Net Segmentation"
WIDTH = 370
QUICK = 2_000_000  # voxels that take a few seconds on a processor
SIGNALS = tuple(name for name in dir(Workspace) if isinstance(getattr(Workspace, name), Signal))


class Workbench(QWidget):
    """Everything from images to masks, in steps.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The window it is docked in.
    jobs : QtJobs, optional
        Who trains and segments; an engine of its own when omitted.
    """

    def __init__(self, viewer: napari.viewer.Viewer, jobs: QtJobs | None = None) -> None:
        super().__init__()
        self.setObjectName("unetsegBench")
        self.setAcceptDrops(True)
        self.jobs = jobs or QtJobs()
        with contextlib.suppress(UnetSegError):  # said again, aloud, when something is asked of it
            self.jobs.start()  # before all else: it loads while the window is made
        self.workspace = Workspace(self.jobs, self.jobs.aside)
        self.context = Context(viewer, self.workspace)
        self._canvas = Canvas(viewer)
        self.images = ImagesPanel(self.context)
        self.classes = ClassesPanel(self.context)
        self.annotate = AnnotatePanel(self.context)
        self.guide = GuidePanel(self.context, Guiding(self.workspace, self.jobs))
        self.annotate.add(self.guide)
        self.train = TrainPanel(self.context)
        self.review = ReviewPanel(self.context)
        self.after = AfterPanel(self.context, AfterNet(self.workspace, self.jobs))
        self.review.add(self.after)
        self.doubt = DoubtPanel(self.context, Doubting(self.workspace, self.jobs))
        self.truth = TruthPanel(self.context, Truths(self.workspace, self.jobs))
        self.why = ExplainPanel(self.context, Explaining(self.workspace, self.jobs))
        self.review.add(self.doubt, self.truth, self.why)
        self.folder = FolderPanel(self.context)
        self.compare = ComparePanel(self.context)
        self.panels = (self.images, self.classes, self.annotate, self.train, self.review, self.folder, self.compare)
        self.sections = [Section(n, panel.title, panel) for n, panel in enumerate(self.panels, start=1)]
        self.answer = AnswerBar(self.context, FirstAnswer(self.workspace, self.jobs))
        self._log: list[str] = []
        self._crash = ""  # what the worker died of, until the user does the next thing
        self._taken = ""  # who has taken the project over
        self._ready = ""  # what it said when the worker was warm
        self._at_home = False  # whether the project's first image was brought into view
        self._stage = self.workspace.stage
        self._lay_out()
        self._connect()
        self._on_look(self.context.look)
        self._section(self.images).set_open(True)
        self.refresh()
        self._shut = _Shut(self.context, self.jobs, self.workspace)
        self.destroyed.connect(self._shut)
        QApplication.instance().aboutToQuit.connect(self._shut)
        with contextlib.suppress(UnetSegError):
            self.workspace.ask_nets()  # before anything that takes long can be asked

    # -- looks ------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.next = QLabel()
        set_role(self.next, "next")
        self.next.setWordWrap(True)
        self.next.setTextFormat(Qt.TextFormat.PlainText)
        page = QWidget()
        page.setObjectName("unetsegPage")
        column = QVBoxLayout(page)
        column.setContentsMargins(6, 4, 6, 6)
        column.setSpacing(5)
        for section in self.sections:
            column.addWidget(section)
        column.addStretch(1)
        self.column = Column(page)
        self.status = label("Starting the engine …", "muted")
        self.status.setContentsMargins(8, 2, 8, 4)
        top = QWidget()
        inner = QVBoxLayout(top)
        inner.setContentsMargins(6, 6, 6, 0)
        inner.setSpacing(4)
        inner.addWidget(self.next)
        inner.addWidget(self.answer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(top)
        layout.addWidget(self.column, 1)
        layout.addWidget(self.status)

    def sizeHint(self):
        """Wide enough for the curves, as high as there is room."""
        hint = super().sizeHint()
        hint.setWidth(WIDTH)
        return hint

    def _on_look(self, look: Any) -> None:
        self.setStyleSheet(stylesheet(look))

    def _connect(self) -> None:
        workspace, context = self.workspace, self.context
        self._refresh_soon = timer(self, 0, self.refresh)
        context.look_changed.connect(self._on_look)
        context.bridge.step_wanted.connect(self.images.go_further)
        self.jobs.ready.connect(self._on_ready)
        self.jobs.crashed.connect(self._on_crash)
        workspace.message.connect(self._on_message)
        workspace.project_changed.connect(self._on_project)
        workspace.cases_changed.connect(self._on_cases)
        workspace.case_changed.connect(self._on_case)
        workspace.stage_changed.connect(self._on_stage)
        workspace.prediction_changed.connect(self._on_prediction)
        workspace.actions_changed.connect(self.refresh_soon)
        workspace.progress_changed.connect(self.refresh_soon)
        workspace.rounds_changed.connect(self.refresh_soon)
        for done in (workspace.strokes_changed, workspace.case_changed, workspace.plan_changed):
            done.connect(self._move_on)

    def _section(self, panel: QWidget) -> Section:
        return self.sections[self.panels.index(panel)]

    def show_step(self, panel: QWidget) -> None:
        """Open the section of a panel and scroll to it."""
        section = self._section(panel)
        section.set_open(True)
        QTimer.singleShot(60, partial(_scroll_to, self.column, section))

    # -- what happens -----------------------------------------------------------------------------------------

    def _on_ready(self, facts: dict[str, Any]) -> None:
        self._note(f"Device {facts.get('device', 'cpu')} ({facts.get('name', '?')}), torch {facts.get('torch', '?')}.")
        self._ready = f"Ready: trains on {_device(facts)}."
        self._say(self._ready, over=not self._crash)
        if not self.workspace.nets and not self.workspace.asking:
            self.context.do(self.workspace.ask_nets)

    def _on_crash(self, why: str) -> None:
        told = self.status.text() == why  # by the job that it ended
        self._crash, self._ready = why, ""
        self._say(why)
        self.refresh_soon()
        if not told:
            self.context.tell(Message(why, level="warning"))

    def _move_on(self, _: Any = None) -> None:
        """The user does the next thing: what the worker died of was read."""
        if self._crash:
            if self._ready and self.status.text() == self._crash:
                self.status.setText(self._ready)
            self._crash = ""
            self.refresh_soon()

    def _on_message(self, message: Message) -> None:
        self._say(str(message), over=message.level != "log")
        if message.level not in ("info", "log"):
            self.context.tell(message)

    def _say(self, text: str, *, over: bool = True) -> None:
        """Put a sentence into the log, and unless not `over` into the line where the last one stands."""
        self._note(text)
        if over:
            self.status.setText(text)

    def _note(self, text: str) -> None:
        self._log = [*self._log[-30:], f"{time.strftime('%H:%M:%S')}  {text}"]
        self.status.setToolTip("\n".join(self._log))

    def _on_project(self, project: Any) -> None:
        self._move_on()
        self._at_home = False
        if project is None:
            for section in self.sections:
                section.set_open(section is self.sections[0])

    def _on_cases(self, cases: Any) -> None:
        ready = bool(self.workspace.cases)
        for panel in (self.annotate, self.train):
            self._section(panel).set_open(ready)
        if ready:
            self.context.bridge.annotate()
            if self.workspace.rounds:
                self._section(self.review).set_open(True)
            if not self._at_home:
                self._at_home = True
                self.show_step(self.train if self.workspace.unfinished else self.annotate)
        elif self.workspace.project is not None:
            self._section(self.classes).set_open(True)

    def _on_case(self, case: Any) -> None:
        QTimer.singleShot(0, self._predict_if_quick)

    def _predict_if_quick(self) -> None:
        """Show what the model makes of an image just taken in hand, unless that would keep the user waiting."""
        workspace = self.workspace
        image = workspace.image()
        if image is None or workspace.prediction is not None or workspace.accepted or workspace.why_not("predict"):
            return
        if np.prod(image.shape) <= QUICK:
            self.context.do(workspace.predict_current)

    def _on_stage(self, stage: str) -> None:
        before, self._stage = self._stage, stage
        if before == "training" and stage == "idle":
            self.show_step(self.review)
        if stage != "idle":
            self._move_on()
        if stage == "training":
            self.context.bridge.tell_view()
            self.show_step(self.train)

    def _on_prediction(self, prediction: Any) -> None:
        if prediction is not None and self.workspace.rounds:
            self._section(self.review).set_open(True)

    def refresh_soon(self, _: Any = None) -> None:
        """Bring them up to date once this burst of changes is over."""
        self._refresh_soon.start()

    def refresh(self) -> None:
        """Bring the headers and the next thing to do up to date."""
        taken, self._taken = self._taken, self.workspace.taken
        if self._taken and not taken:
            self.show_step(self.images)
        states = steps(self.workspace, [panel.summary() for panel in self.panels])
        for section, state in zip(self.sections, states, strict=True):
            section.set_state(*state)
        crash = "The engine crashed; your strokes are safe, and it starts again. " if self._crash else ""
        self.next.setText(crash + next_thing(self.workspace))

    # -- files dropped on it ----------------------------------------------------------------------------------

    def dragEnterEvent(self, event: Any) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Open a dropped project, add dropped images."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        event.acceptProposedAction()
        if len(paths) == 1 and (Path(paths[0]) / "project.json").exists():
            self.images.open_project(paths[0])
        elif paths:
            self.images.add_paths(paths)

    # -- the end ----------------------------------------------------------------------------------------------

    def showEvent(self, event: Any) -> None:
        """Watch the window it is docked in, to journal the last stroke before it closes."""
        super().showEvent(event)
        self.window().removeEventFilter(self)
        self.window().installEventFilter(self)
        self._canvas.find(self.window())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Journal the last stroke when the window closes; look who has the project when it is turned to."""
        if event.type() == QEvent.Type.Close and not self._shut.done:
            self.context.bridge.remember_view()
            self.context.bridge.flush()
        elif event.type() == QEvent.Type.WindowActivate and not self._shut.done:
            self.context.do(self.workspace.check_held)
        return False

    def changeEvent(self, event: Any) -> None:
        """Close the project, and all else, when napari takes the widget out of its dock: its × was pressed."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and not self._shut.done:
            self.context.bridge.remember_view()
            self.context.do(self.workspace.close_project)  # and its layers go, for nobody would keep what is painted
            self.shutdown()

    def shutdown(self) -> None:
        """Journal the last stroke, release the project and end the engine; the widget is of no use afterwards."""
        with contextlib.suppress(RuntimeError):  # Qt may have taken the timer with it already
            self._refresh_soon.stop()
        self._shut()


class _Shut:
    """Ends everything once; knows no widget, so that it may run while the widget is destroyed."""

    def __init__(self, context: Context, jobs: QtJobs, workspace: Workspace) -> None:
        self._parts: list[Any] = [context, jobs, workspace]
        self.done = False

    def __call__(self, *_: object) -> None:
        if self.done:
            return
        self.done = True
        context, jobs, workspace = self._parts
        self._parts.clear()
        with contextlib.suppress(RuntimeError, TypeError):  # it may be gone already
            QApplication.instance().aboutToQuit.disconnect(self)
        context.close()
        for name in SIGNALS:
            getattr(workspace, name).disconnect()
        workspace.close_project()
        jobs.close()


def _device(facts: dict[str, Any]) -> str:
    """Where it trains, in plain words."""
    kind, threads = str(facts.get("device", "cpu")).partition(":")[0], facts.get("threads")
    if kind != "cpu":
        return f"the graphics card ({facts.get('name', kind)})"
    return "the processor" + (f" ({threads} thread{'s' * (threads != 1)})" if threads else "")


def _scroll_to(column: Column, section: Section) -> None:
    with contextlib.suppress(RuntimeError):  # the window was closed meanwhile
        column.scroll_to(section)


def open_workbench(
    project_path: str | Path | None = None, viewer: napari.viewer.Viewer | None = None
) -> tuple[napari.viewer.Viewer, Workbench]:
    """Open napari with the workbench docked at its right, and a project in it.

    Parameters
    ----------
    project_path : path, optional
        Project folder to open.
    viewer : napari.viewer.Viewer, optional
        Window to dock in; a new one when omitted.

    Returns
    -------
    viewer : napari.viewer.Viewer
        The window; ``napari.run()`` lets it live.
    workbench : Workbench
        The dock's content.
    """
    jobs = QtJobs()
    with contextlib.suppress(UnetSegError):
        jobs.start()  # napari takes seconds to open, and the worker as many to load
    viewer = viewer or napari.Viewer(title="napari-unetseg")
    bench = Workbench(viewer, jobs)
    viewer.window.add_dock_widget(bench, name=TITLE, area="right")
    if project_path is not None:
        bench.images.open_project(str(project_path))
        # the canvas gets its size when the window is laid out, and only then can the image fit it
        timer(bench, 100, bench.context.bridge.restore_view).start()
    return viewer, bench
