"""`Explaining`: what the model looks at, on the slice on screen or for one object that was clicked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.errors import UnetSegError
from napari_unetseg.volume import Geometry
from napari_unetseg.workspace.errand import Errand
from napari_unetseg.workspace.state import Jobs
from napari_unetseg.workspace.workspace import Workspace

__all__ = ["Explained", "Explaining"]


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps ``(M, Y, X)`` in [0, 1] of plane `index` of a case (None: an image of one plane), and what was explained."""

    case: str
    index: int | None
    names: tuple[str, ...]
    says: str
    maps: np.ndarray = field(repr=False)
    region: np.ndarray | None = field(repr=False)
    geometry: Geometry


class Explaining:
    """One explanation at a time.

    Signals: ``explained_changed(Explained | None)`` and ``changed()``.
    """

    explained_changed = Signal(object)
    changed = Signal()

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self.workspace = workspace
        self.explained: Explained | None = None
        self.errand = Errand(workspace, jobs)
        self.errand.changed.connect(self.changed.emit)
        workspace.actions_changed.connect(self.changed.emit)
        workspace.case_changed.connect(self.forget)

    def why_not(self) -> str:
        """Why nothing can be explained now; ``""`` when it can."""
        return self.workspace.why_not("predict")

    def ask(self, method: str, label: int | None, index: int | None, point: Sequence[int] | None = None) -> None:
        """Explain a class (0 the background; None: as the mask says) on plane `index`, or at ``(y, x)`` of it."""
        if reason := self.why_not():
            raise UnetSegError(reason)
        project, case = self.workspace.project, self.workspace.case
        assert project is not None
        args: dict[str, Any] = {"project": str(project.path), "case": case, "model": str(self.workspace.model)}
        args |= {"method": method, "class_index": label, "index": index}
        if point is not None:
            args["point"] = [int(at) for at in point]
        self.errand.start("explain", args, lambda result: self._on_answer(case, result))

    def stop(self) -> None:
        """Explain no further; the tile at hand is finished."""
        self.errand.stop()

    def forget(self, _: Any = None) -> None:
        """Show no explanation."""
        self.errand.drop()
        self._show(None)

    def _on_answer(self, case: str | None, result: Mapping[str, Any]) -> None:
        image = self.workspace.image()
        if case is None or case != self.workspace.case or image is None:
            return
        region = None if result["region"] is None else np.load(result["region"])
        what = "" if region is None else f" Of {result['voxels']:,} voxels of {result['class']!r} around the click."
        says = f"{result['legend']}{what} It took {self.errand.seconds:.1f} s."
        maps = np.load(result["maps"])
        self._show(Explained(case, result["index"], tuple(result["names"]), says, maps, region, image.geometry))

    def _show(self, explained: Explained | None) -> None:
        if explained is not self.explained:
            self.explained = explained
            self.explained_changed.emit(explained)
        self.changed.emit()
