"""What every panel is given: the workspace, the layers, the look, and a safe way to do things."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from napari.utils.notifications import show_error, show_info, show_warning
from napari.viewer import Viewer
from psygnal import EmitLoopError
from qtpy.QtCore import QObject, Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.project import ProjectLocked
from napari_unetseg.widgets.bridge import Bridge
from napari_unetseg.widgets.differences import DifferenceLayer
from napari_unetseg.widgets.theme import Look, look
from napari_unetseg.workspace import Message, Workspace

__all__ = ["Context", "duration"]


class Context(QObject):
    """Shared by the panels of one workbench.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The window.
    workspace : Workspace
        The state.
    """

    look_changed = Signal(object)

    def __init__(self, viewer: Viewer, workspace: Workspace) -> None:
        super().__init__()
        self.viewer, self.workspace = viewer, workspace
        self.look: Look = look(viewer.theme)
        self.bridge = Bridge(viewer, workspace, self.complain)
        self.differences = DifferenceLayer(viewer, workspace)
        viewer.events.theme.connect(self._on_theme)

    def do(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Journal the strokes, do the task, and show its error if it has one; whether it went well."""
        self.bridge.flush()
        try:
            task(*args, **kwargs)
        except UnetSegError as error:
            self.complain(error)
            return False
        except EmitLoopError as error:  # one of those who listen to the workspace failed
            if not isinstance(error.__cause__, UnetSegError):
                raise
            self.complain(error.__cause__)
            return False
        return True

    def complain(self, error: UnetSegError) -> None:
        """Show an error as a napari notification."""
        show_error(_lines(str(error)))
        if isinstance(error, ProjectLocked):  # nothing can be changed any more
            self.workspace.actions_changed.emit()

    def tell(self, message: Message) -> None:
        """Show a sentence of the workspace as a napari notification, as loud as it deserves."""
        {"error": show_error, "warning": show_warning}.get(message.level, show_info)(_lines(str(message)))

    def close(self) -> None:
        """Let go of the viewer."""
        self.viewer.events.theme.disconnect(self._on_theme)
        self.differences.close()
        self.bridge.close()

    def _on_theme(self, event: Any = None) -> None:
        self.look = look(self.viewer.theme)
        self.look_changed.emit(self.look)


def _lines(text: str) -> str:
    """First sentence on a line of its own: a folded notification shows just one, and not that it goes on."""
    return text.replace(". ", ".\n", 1)


def duration(seconds: float) -> str:
    """Seconds in words: ``"about 3 min left"`` reads ``f"about {duration(180)} left"``; empty while unknown."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    if seconds < 3600:
        whole = seconds >= 600 or round(seconds) % 60 == 0
        return f"{seconds / 60:.0f} min" if whole else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:02.0f} min"
