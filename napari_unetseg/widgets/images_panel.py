"""Step 1, project and images: open or make a project, add images, choose one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView, QMenu, QTreeWidget, QTreeWidgetItem

from napari_unetseg.io import is_image
from napari_unetseg.project import ProjectLocked, ProjectReadOnly
from napari_unetseg.widgets import files, recent
from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.layers import pictures, role_of, volume_of_channels
from napari_unetseg.widgets.parts import Action, Actions, Panel, label

__all__ = ["ImagesPanel"]

CLASSES = ("background", "object")


class ImagesPanel(Panel):
    """Project and images."""

    title = "Project and images"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        workspace = context.workspace
        self.project_name = label("", "title")
        self.project_path = label("", "muted")
        self.new = Action("New…", "Make a folder that will keep images, strokes, models and masks together")
        self.open = Action("Open…", "Go on where you left a project (a folder that ends in .unetseg)")
        self.sample = Action("Sample…", "Try everything on images that come with the plugin")
        self.new.clicked.connect(self.ask_new)
        self.open.clicked.connect(self.ask_open)
        self.sample.clicked.connect(self.choose_sample)
        self.go_on = Action("", "Open the project that was open last on this computer", role="primary")
        self.go_on.clicked.connect(lambda: self.open_project(str(recent.last() or "")))
        self._locked_path = ""
        self.locked = label("", "warning")
        self.look_only = Action("Open to look", "Look at images, strokes and masks; nothing can be changed")
        self.take_over = Action(
            "Take over", "Open it for work all the same: the window that has it open can then save nothing more"
        )
        self.look_only.clicked.connect(lambda: self.open_project(self._locked_path, read_only=True))
        self.take_over.clicked.connect(lambda: self.open_project(self._locked_path, steal_lock=True))
        self._unlock = Actions(self.look_only, self.take_over, stretch=(1, 1))
        self.take_back = Action(
            "Take back",
            "Go on here, with the stroke that could not be saved: whoever took it over can then save nothing more",
            role="primary",
        )
        self.take_back.clicked.connect(lambda: context.do(workspace.take_back))
        self.list = self._make_list()
        self.add_files = Action(
            "Add files…",
            "TIFF, NIfTI, DICOM, PNG or JPEG, 2D or 3D; or drop files or folders onto this panel. They stay where they "
            "are.",
        )
        self.add_layers = Action(
            "Add open layers",
            "Take the images that are open in napari into the project, channels of one picture together; of a time "
            "series, the time on screen",
        )
        self.remove = Action("Remove", "Take the chosen image out of the project; its file is not touched")
        self.undo_remove = Action("Undo remove", "Take it back into the project, with its strokes")
        self.add_files.clicked.connect(self.ask_files)
        self.add_layers.clicked.connect(self.take_open_layers)
        self.remove.clicked.connect(lambda: context.do(workspace.remove_case, workspace.case))
        self.undo_remove.clicked.connect(lambda: context.do(workspace.undo_remove))
        self._projects = Actions(self.new, self.open, self.sample, stretch=(1, 1, 1))
        self._files = Actions(self.add_files, self.add_layers, self.remove, stretch=(1, 1, 0))
        self.lost = label("", "warning")
        self.add(self.project_name, self.project_path, self.lost, Actions(self.go_on), self._projects)
        self.add(self.locked, self._unlock, self.take_back)
        self.add(self.list, self._files, Actions(self.undo_remove))
        workspace.project_changed.connect(self._on_project)
        workspace.cases_changed.connect(self._fill)
        workspace.case_changed.connect(self._mark)
        workspace.actions_changed.connect(self.refresh)
        context.look_changed.connect(self.refresh)
        context.viewer.layers.events.inserted.connect(self._on_layers)
        context.viewer.layers.events.removed.connect(self._on_layers)
        self._on_project()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        if workspace.project is None:
            return "no project open", "next"
        count = len(workspace.cases)
        return (f"{count} image{'s' * (count != 1)}", "done") if count else ("no images yet", "next")

    # -- project ----------------------------------------------------------------------------------------------

    def ask_new(self) -> None:
        """Ask where the new project goes."""
        files.ask_new(self, "New project", "my project.unetseg", self.create_project)

    def create_project(self, path: str) -> None:
        """Make a project with two classes to be renamed in the next step."""
        self.context.do(self.context.workspace.create_project, path, CLASSES)

    def ask_open(self) -> None:
        """Ask which project to open."""
        files.ask_folder(self, "Open project", self.open_project)

    def open_project(self, path: str, **how: bool) -> bool:
        """Open a project where it was left; one that is open elsewhere is offered to look at, or to take over."""
        self._offer("", "")

        def opened() -> None:
            try:
                self.context.workspace.open_project(path, **how)
            except (ProjectLocked, ProjectReadOnly) as error:
                self._offer(path, error.message)
                self.take_over.setVisible(isinstance(error, ProjectLocked))
                self.context.complain(error)

        return self.context.do(opened) and not self._locked_path

    def _offer(self, path: str, why: str) -> None:
        """Say who has a project open, and offer what can be done; nothing when there is no such project."""
        self._locked_path = path
        self.locked.setText(why)
        for widget in (self.locked, self._unlock):
            widget.setVisible(bool(path))

    def _offer_back(self) -> None:
        """Say who has taken the project over, and offer to take it back."""
        taken = self.context.workspace.taken
        if taken and self.take_back.isHidden():
            self.locked.setText(taken)
        self.locked.setVisible(bool(taken or self._locked_path))
        self.take_back.setVisible(bool(taken))

    def _offer_last(self) -> None:
        """Offer the project that was open last; say so when napari died with it open."""
        project = self.context.workspace.project
        if project is not None and not project.read_only:
            recent.keep(project.path)
        found = recent.last() if project is None else None
        died = found is not None and recent.left_open(found)
        if found is not None:
            self.go_on.setText(f"{'Recover' if died else 'Go on with'} {found.stem}")
            self.lost.setText(f"napari ended without closing {found.stem}. Every finished stroke is on the disk.")
        self.go_on.setVisible(found is not None)
        self.lost.setVisible(died)

    def choose_sample(self) -> None:
        """Offer the sample data sets."""
        from napari_unetseg.samples import SAMPLES

        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for name in SAMPLES:
            title = SAMPLES.describe(name).removesuffix(".") or name
            menu.addAction(title, lambda name=name: self.open_sample(name))
        menu.popup(self.sample.mapToGlobal(self.sample.rect().bottomLeft()))

    def open_sample(self, name: str) -> None:
        """Open the sample project `name`, making it the first time."""
        from platformdirs import user_data_path

        from napari_unetseg.samples import demo_project

        def opened() -> None:
            path = user_data_path("napari-unetseg", appauthor=False) / f"{name}.unetseg"
            if not (path / "project.json").exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                demo_project(path, name).close()
            self.context.workspace.open_project(path)

        self.context.do(opened)

    # -- images -----------------------------------------------------------------------------------------------

    def ask_files(self) -> None:
        """Ask which images to add."""
        files.ask_files(self, "Add images", self.add_paths)

    def add_paths(self, paths: Sequence[str]) -> None:
        """Add image files, and the images of folders; the files of a DICOM series are one image."""
        from napari_unetseg.io import find_images

        def added() -> None:
            self.context.workspace.add_images(find_images(paths))

        self.context.do(added)

    def open_layers(self) -> list[Image]:
        """Image layers in the viewer that are not of this project."""
        return [layer for layer in self.context.viewer.layers if isinstance(layer, Image) and not role_of(layer)]

    def take_open_layers(self) -> None:
        """Add the images open in napari; the layers make way for the project's own view of them."""
        workspace, viewer = self.context.workspace, self.context.viewer

        def add(layers: list[Image]) -> None:
            first = layers[0]
            path = first.source.path
            if path and is_image(path) and Path(path).exists() and not first.source.parent:
                added = bool(workspace.add_images([path]))
            else:
                volume = volume_of_channels(layers, viewer.dims.current_step)
                added = bool(workspace.add_array(first.name, volume))
            for layer in layers if added else ():
                if layer in viewer.layers:
                    viewer.layers.remove(layer)

        for layers in pictures(self.open_layers()):
            self.context.do(add, layers)  # one that cannot be taken does not keep the others out

    def _make_list(self) -> QTreeWidget:
        made = QTreeWidget()
        made.setHeaderHidden(True)
        made.setColumnCount(2)
        made.setRootIsDecorated(False)
        made.setUniformRowHeights(True)
        made.header().setStretchLastSection(False)
        made.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        made.header().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        made.setToolTip("Click an image to show it; at its right, what is painted and whether a mask was accepted")
        made.setAccessibleName("Images of the project")
        made.itemSelectionChanged.connect(self._on_chosen)
        return made

    def _on_chosen(self) -> None:
        chosen = self.list.selectedItems()
        if chosen and chosen[0].text(0) != self.context.workspace.case:
            self.go_to(chosen[0].text(0))

    def go_to(self, case: str) -> None:
        """Take another image in hand."""
        self.context.bridge.remember_view()
        self.context.do(self.context.workspace.select_case, case)

    def go_further(self, step: int) -> None:
        """Take the next image in hand, or with a negative step the one before."""
        self.context.bridge.remember_view()
        self.context.do(self.context.workspace.next_case, step)

    # -- shown ------------------------------------------------------------------------------------------------

    def _on_project(self, project: Any = None) -> None:
        project = self.context.workspace.project
        self._offer("", "")
        self._offer_last()
        looking = " (open to look, not to change)" if self.context.workspace.read_only else ""
        self.project_name.setText(f"{project.name}{looking}" if project else "")
        self.project_path.setText(
            _short(project.path)
            if project
            else "A project is a folder that keeps images, strokes, models and masks together."
        )
        self.project_name.setVisible(project is not None)
        self.project_path.setToolTip(str(project.path) if project else "")
        self.list.setVisible(project is not None)
        self._files.setVisible(project is not None)
        self._fill()
        self.refresh()

    def _fill(self, cases: Any = None) -> None:
        self.list.blockSignals(True)
        self.list.clear()
        for case in self.context.workspace.cases:
            item = QTreeWidgetItem([case, ""])
            item.setToolTip(0, case)
            self.list.addTopLevelItem(item)
        self.list.blockSignals(False)
        shown = min(max(2, self.list.topLevelItemCount()), 6)
        self.list.setFixedHeight(shown * max(22, self.list.sizeHintForRow(0)) + 8)
        self._mark()
        self.refresh()

    def _mark(self, case: Any = None) -> None:
        self.list.blockSignals(True)
        for index in range(self.list.topLevelItemCount()):
            item = self.list.topLevelItem(index)
            chosen = item.text(0) == self.context.workspace.case
            item.setSelected(chosen)
            if chosen:
                self.list.scrollToItem(item)
        self.list.blockSignals(False)

    def _on_layers(self, event: Any = None) -> None:
        self._refresh_layers()

    def _refresh_layers(self) -> None:
        reason = self.context.workspace.why_not("add_images")
        self.add_layers.set_why(reason or ("" if self.open_layers() else "No other image is open in napari."))

    def refresh(self, _: Any = None) -> None:
        """Bring states and buttons up to date."""
        workspace = self.context.workspace
        self._refresh_layers()
        self._offer_back()
        self.add_files.set_why(workspace.why_not("add_images"))
        self.remove.set_why(workspace.why_not("annotate"))
        self.undo_remove.setVisible(bool(workspace.removed))
        self.undo_remove.setText(f"Undo remove {workspace.removed[-1]}" if workspace.removed else "Undo remove")
        self.undo_remove.set_why(workspace.why_not("undo_remove") if workspace.removed else "")
        if workspace.project is None:
            return
        painted = set(workspace.annotated)
        accepted = set(workspace.project.accepted())
        good, muted = QColor(self.context.look.good), QColor(self.context.look.muted)
        for index in range(self.list.topLevelItemCount()):
            item = self.list.topLevelItem(index)
            name = item.text(0)
            words = [_share(workspace.painted_share(name))] * (name in painted) + ["mask ✓"] * (name in accepted)
            if item.text(1) != " · ".join(words):
                item.setText(1, " · ".join(words))
            item.setForeground(1, good if name in accepted else muted)


def _share(painted: float) -> str:
    """How much of an image is painted, in words; nearly all of it is worth a number, for what is erased is ignored."""
    return "done" if painted == 1 else f"{min(99, int(100 * painted))} % painted" if painted > 0.5 else "strokes"


def _short(path: Path) -> str:
    try:
        return f"~/{Path(path).relative_to(Path.home()).as_posix()}"
    except ValueError:
        return str(path)
