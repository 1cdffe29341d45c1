"""Entries of napari's command palette, each for the workbench in the window at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QApplication, QWidget

if TYPE_CHECKING:
    from napari_unetseg.widgets.workbench import Workbench

__all__ = [
    "accept",
    "copy_mask",
    "done",
    "fill_between",
    "next_image",
    "next_place",
    "predict",
    "previous_image",
    "stop",
    "toggle_mask",
    "train",
]


def train() -> None:
    """Train a net from the strokes."""
    _do(lambda bench: bench.workspace.train())


def stop() -> None:
    """Stop what is running."""
    _do(lambda bench: bench.workspace.stop())


def predict() -> None:
    """Compute the mask of the image in hand."""
    _do(lambda bench: bench.workspace.predict_current())


def accept() -> None:
    """Accept the mask of the image in hand."""
    _do(lambda bench: bench.workspace.accept())


def copy_mask() -> None:
    """Take the mask on screen as strokes."""
    _do(lambda bench: bench.context.bridge.edits.copy_mask())


def done() -> None:
    """Say that the slice on screen is painted completely."""
    _do(lambda bench: bench.context.bridge.edits.finish())


def fill_between() -> None:
    """Paint the slices between painted ones."""
    _do(lambda bench: bench.context.bridge.edits.fill_between())


def toggle_mask() -> None:
    """Show or hide the mask."""
    _do(lambda bench: bench.context.bridge.toggle_mask())


def next_place() -> None:
    """Go where it is worth painting next."""
    _do(lambda bench: bench.context.bridge.place_wanted.emit())


def next_image() -> None:
    """Take the next image in hand."""
    _do(lambda bench: bench.images.go_further(1))


def previous_image() -> None:
    """Take the image before in hand."""
    _do(lambda bench: bench.images.go_further(-1))


def _do(task: Callable[[Workbench], None]) -> None:
    bench = _bench()
    if bench is None:
        show_info("The workbench is not open.\nOpen it first: Plugins > U-Net Segmentation.")
    else:
        bench.context.do(task, bench)


def _bench() -> Workbench | None:
    """The workbench of the active window, else any that is to be seen."""
    from napari_unetseg.widgets.workbench import Workbench

    tops: list[QWidget] = QApplication.topLevelWidgets()
    benches = {id(bench): bench for top in tops for bench in [top, *top.findChildren(Workbench)]}
    seen = [bench for bench in benches.values() if isinstance(bench, Workbench) and bench.isVisible()]
    return next((bench for bench in seen if bench.window().isActiveWindow()), seen[-1] if seen else None)
