"""Step 3, annotate: the brush is in the hand; choose a class and paint a few strokes of each, or fill whole areas."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QCheckBox, QGridLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.drawer import Drawer
from napari_unetseg.widgets.fields import tab_after
from napari_unetseg.widgets.keys import HELP
from napari_unetseg.widgets.parts import Action, Actions, Choice, Panel, label, row, set_role, swatch
from napari_unetseg.widgets.theme import icon, readable_on

__all__ = ["AnnotatePanel"]

_TOOLS = (
    ("paint", "paint", "Brush (key P)"),
    ("erase", "erase", "Eraser: back to unlabelled (key E)"),
    ("fill", "fill", "Fill a closed region with the class (key F)"),
    ("polygon", "polygon", "Polygon: click its corners, double-click to close it (key G)"),
    ("pan_zoom", "pan_arrows", "Move and zoom the picture (key Z, or hold Space)"),
)


class AnnotatePanel(Panel):
    """Classes to paint with, tools, brush size, and the way through the images."""

    title = "Annotate"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.classes: list[QPushButton] = []
        self.tools: dict[str, QPushButton] = {}
        self._hint = label(
            "Paint a few short strokes of every class, background too. What you leave unpainted is not learned from.",
            "muted",
        )
        self._grid = QGridLayout()
        self._grid.setSpacing(5)
        self.start = Action("Brush in hand", "Make the annotation layer active and take the brush", role="")
        self.start.clicked.connect(lambda: context.do(context.bridge.annotate))
        self.add(self._hint, self._grid, self._make_tools(), self._make_brush(), self._make_shown())
        self.add(self._make_fills(), self._make_walk(), Actions(self.start))
        self.add(self._make_keys())
        workspace, bridge = context.workspace, context.bridge
        workspace.classes_changed.connect(self._fill)
        workspace.actions_changed.connect(self.refresh)
        context.look_changed.connect(lambda _: self._draw_icons())
        bridge.class_changed.connect(self._on_class)
        bridge.tool_changed.connect(self._on_tool)
        bridge.brush_changed.connect(self._on_brush)
        bridge.layers_changed.connect(self.refresh)
        self._draw_icons()
        self._fill()

    def summary(self) -> tuple[str, str]:
        """State of this step, for its header; see `Panel.summary`."""
        workspace = self.context.workspace
        if workspace.project is None or not workspace.cases:
            return "", ""
        missing = [name for name, count in workspace.stroke_counts().items() if not count]
        if not missing:
            painted = len(workspace.annotated)
            return f"strokes in {painted} image{'s' * (painted != 1)}", "done"
        if len(missing) == len(workspace.classes):
            return "no strokes yet", "next"
        return f"none yet: {', '.join(missing)}", "next"

    # -- parts ------------------------------------------------------------------------------------------------

    def _make_tools(self) -> QWidget:
        for tool, _, tooltip in _TOOLS:
            button = QPushButton()
            set_role(button, "tool")
            button.setCheckable(True)
            button.setToolTip(tooltip)
            button.setAccessibleName(tooltip)
            button.setIconSize(QSize(18, 18))
            button.clicked.connect(lambda _=False, tool=tool: self.context.do(self.context.bridge.select_tool, tool))
            self.tools[tool] = button
        self.undo = Action("Undo", "Undo the last stroke (Ctrl-Z)", role="tool")
        self.redo = Action("Redo", "Redo what was undone (Ctrl-Shift-Z)", role="tool")
        self.undo.clicked.connect(lambda: self.context.do(self.context.bridge.undo))
        self.redo.clicked.connect(lambda: self.context.do(self.context.bridge.redo))
        line = row(*self.tools.values(), spacing=4)
        line.addStretch(1)
        line.addWidget(self.undo)
        line.addWidget(self.redo)
        box = QWidget()
        box.setLayout(line)
        return box

    def _make_brush(self) -> QWidget:
        self.brush = QSlider(Qt.Orientation.Horizontal)
        self.brush.setRange(1, 60)
        self.brush.setToolTip("Diameter of the brush, in pixels of the image (keys [ and ]); 3 to 10 are usual")
        self.brush.setAccessibleName("Diameter of the brush")
        self.brush.valueChanged.connect(self._on_slider)
        self._brush_text = label("", "muted", wrap=False)
        self._brush_text.setMinimumWidth(42)
        box = QWidget()
        box.setLayout(row(label("Brush", wrap=False), self.brush, self._brush_text, stretch=(0, 1, 0)))
        return box

    def _make_shown(self) -> QWidget:
        self.mask_shown = QCheckBox("Show mask")
        self.mask_shown.setToolTip("Show the mask under the strokes (key T)")
        self.mask_shown.setChecked(True)
        self.mask_shown.clicked.connect(lambda: self.context.bridge.toggle_mask())
        self.outline = QCheckBox("As outline")
        self.outline.setToolTip("Show only the border of the mask, to see the image under it (key O)")
        self.outline.clicked.connect(lambda on: self.context.bridge.set_mask_contour(on))
        line = row(self.mask_shown, self.outline)
        line.addStretch(1)
        box = QWidget()
        box.setLayout(line)
        return box

    def _make_fills(self) -> QWidget:
        edits = self.context.bridge.edits
        self.where = Choice(
            (("on this slice", False), ("on all slices", True)),
            "Where Copy mask and Done work: on the slice on screen, or in the whole volume (the keys with Shift)",
            "Where Copy mask and Done work",
        )
        self.copy_mask = Action(
            "Copy mask",
            "Take the mask's classes as strokes where nothing is painted yet, to be corrected by hand (key C).\n"
            "Its background stays unlabelled until you press Done.",
        )
        self.done = Action(
            "Done",
            "All objects here are painted: what is unlabelled becomes background, and the net learns from all of it "
            "(key D).\nErase where you are not sure; that is ignored. Undo takes it back.",
        )
        self.between = Action(
            "Fill between slices",
            "Paint the slices between two painted ones in the class in hand: the shape of one is changed step by step "
            "into that of the other (key I)",
        )
        self.copy_mask.clicked.connect(lambda: self.context.do(edits.copy_mask, self.where.value))
        self.done.clicked.connect(lambda: self.context.do(edits.finish, self.where.value))
        self.between.clicked.connect(lambda: self.context.do(edits.fill_between))
        self._volume_only = (self.where, self.between)
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(row(self.copy_mask, self.done, stretch=(1, 1)))
        layout.addLayout(row(self.where, self.between, stretch=(1, 1)))
        return box

    def _make_keys(self) -> QWidget:
        self.keys = Drawer("Keys", "What the keyboard does while a layer of the workbench is chosen")
        self.keys.add(_key_help())
        return self.keys

    def _make_walk(self) -> QWidget:
        step = self.context.bridge.step_wanted.emit
        self.previous = Action("‹ Previous image", "The image before (Shift-N)")
        self.next = Action("Next image ›", "The next image (key N)")
        self.previous.clicked.connect(lambda: step(-1))
        self.next.clicked.connect(lambda: step(1))
        return Actions(self.previous, self.next, stretch=(1, 1))

    # -- shown ------------------------------------------------------------------------------------------------

    def _draw_icons(self) -> None:
        colour = self.context.look.icon
        for tool, name, _ in _TOOLS:
            self.tools[tool].setIcon(icon(name, colour, readable_on(self.context.look.accent)))

    def _fill(self, classes: Any = None) -> None:
        classes = self.context.workspace.classes
        if len(classes) != len(self.classes):
            for button in self.classes:
                self._grid.removeWidget(button)
                button.deleteLater()
            self.classes = []
            for index, one in enumerate(classes):
                button = QPushButton()
                set_role(button, "class")
                button.setCheckable(True)
                button.clicked.connect(
                    lambda _=False, label=one.label: self.context.do(self.context.bridge.select_class, label)
                )
                self._grid.addWidget(button, index // 2, index % 2)
                self.classes.append(button)
            tab_after(self._hint, *self.classes)
        for button, one in zip(self.classes, classes, strict=True):
            button.setIcon(swatch(one.colour))
        self.refresh()

    def _on_class(self, label_value: int) -> None:
        for button, one in zip(self.classes, self.context.workspace.classes, strict=False):
            button.setChecked(one.label == label_value)

    def _on_tool(self, tool: str) -> None:
        for name, button in self.tools.items():
            button.setChecked(name == tool)

    def _on_brush(self, size: int) -> None:
        self.brush.blockSignals(True)
        self.brush.setValue(size)
        self.brush.blockSignals(False)
        self._brush_text.setText(f"{size} px")

    def _on_slider(self, size: int) -> None:
        self.context.bridge.set_brush(size)
        self._brush_text.setText(f"{size} px")

    def refresh(self) -> None:
        """Bring counts and buttons up to date."""
        workspace, bridge = self.context.workspace, self.context.bridge
        reason = workspace.why_not("annotate")
        counts = workspace.stroke_counts()
        for index, (button, one) in enumerate(zip(self.classes, workspace.classes, strict=False), start=1):
            count = counts.get(one.name, 0)
            key = f"   [{index}]" if index < 10 else ""
            button.setText(f"{one.name}{key}")
            button.setToolTip(reason or f"Paint {one.name}: {count:,} voxels painted in the project")
            button.setEnabled(not reason)
        layer = bridge.annotation
        for widget in (*self.tools.values(), self.undo, self.redo, self.brush):
            widget.setEnabled(not reason)
        self.mask_shown.setChecked(bridge.mask is not None and bridge.mask.visible)
        self.outline.setChecked(bridge.contour)
        for action in (self.copy_mask, self.done, self.between):
            action.set_why(reason)
        image = workspace.image()
        for widget in self._volume_only:
            widget.setVisible(image is not None and image.ndim == 3)
        self.previous.set_why(workspace.why_not("next"))
        self.next.set_why(workspace.why_not("next"))
        self.start.set_why(reason)
        active = self.context.viewer.layers.selection.active
        in_hand = layer is not None and active is layer and str(layer.mode) != "pan_zoom"
        self.start.setVisible(bool(reason) or not in_hand)
        if layer is not None:
            self._on_class(int(layer.selected_label))
            self._on_tool(str(layer.mode) if active is layer else "")


def _key_help() -> QWidget:
    box = QWidget()
    grid = QGridLayout(box)
    grid.setContentsMargins(0, 2, 0, 0)
    grid.setHorizontalSpacing(10)
    grid.setVerticalSpacing(1)
    for index, (key, words) in enumerate(HELP):
        grid.addWidget(label(key, "title", wrap=False), index, 0)
        grid.addWidget(label(words, "muted"), index, 1)
    grid.setColumnStretch(1, 1)
    return box
