"""Under *Accept mask*: accept the slice on screen or one class alone, and take the last of them back."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unetseg.widgets.context import Context
from napari_unetseg.widgets.parts import Action, Actions, Choice, label, row

__all__ = ["AcceptParts"]

_NAMED = 6


class AcceptParts(QWidget):
    """Buttons for slice and class, and what was accepted so far.

    Parameters
    ----------
    context : Context
        Whose workspace has the mask.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        stays = "stays as it is, whatever is trained afterwards; strokes still overrule it"
        self.slice = Action("Accept slice", f"The mask of the slice on screen {stays}")
        self.by_class = Action("Accept class", f"All of one class in this image {stays}")
        self.classes = Choice((("", 1),), "The class that Accept class accepts", "Class to accept")
        self.done = label("", "muted")
        self.undo = Action("Undo", "The model may change it again")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self.classes.setMinimumContentsLength(6)
        layout.addWidget(Actions(self.slice))
        layout.addLayout(row(Actions(self.by_class), self.classes, stretch=(1, 1)))
        layout.addWidget(self.done)
        layout.addWidget(Actions(self.undo))
        workspace = context.workspace
        self.slice.clicked.connect(self._accept_slice)
        self.by_class.clicked.connect(lambda: context.do(workspace.accept_part, "class", self.classes.value))
        self.undo.clicked.connect(lambda: context.do(workspace.undo_part))
        context.bridge.view_moved.connect(self.refresh)
        workspace.classes_changed.connect(self._take_classes)
        workspace.actions_changed.connect(self.refresh)
        workspace.case_changed.connect(self.refresh)
        self._take_classes()

    def _accept_slice(self) -> None:
        index = self.context.bridge.slice_index()
        if index is not None:
            self.context.do(self.context.workspace.accept_part, "slice", index)

    def _take_classes(self, _: Any = None) -> None:
        classes = self.context.workspace.classes[1:]
        self.classes.set_options([(one.name, one.label - 1) for one in classes] or [("", 1)])
        self.refresh()

    def refresh(self, _: Any = None) -> None:
        """Bring buttons and sentences up to date."""
        workspace = self.context.workspace
        reason = workspace.why_not("accept_part")
        image, several = workspace.image(), len(workspace.classes) > 2
        deep = image is not None and image.ndim == 3
        index = self.context.bridge.slice_index() if deep else None
        taken = {part.which for part in workspace.accepted_parts if part.kind == "slice"}
        self.slice.setText(f"Accept slice {index}" if index is not None else "Accept slice")
        self.slice.set_why(reason or ("This slice is accepted already." if index in taken else ""))
        self.by_class.set_why(reason)
        self.slice.setVisible(deep)
        self.by_class.setVisible(several)
        self.classes.setVisible(several)
        self.setVisible((deep or several) and workspace.prediction is not None and not workspace.accepted)
        parts = workspace.accepted_parts
        names = [workspace.part_name(part).lower() for part in parts]
        more = f"{len(names) - _NAMED} more, " if len(names) > _NAMED else ""
        count = f" ({len(taken)} of {image.shape[0]} slices)" if taken and image is not None else ""
        self.done.setText(f"Accepted: {more}{', '.join(names[-_NAMED:])}{count}." if names else "")
        self.done.setVisible(bool(names))
        self.undo.setVisible(bool(names))
        self.undo.setText(f"Undo {names[-1]}" if names else "Undo")
        self.undo.set_why(workspace.why_not("undo_part") if names else "")
