"""Values that the workspace shows: small and frozen, so that a widget may keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from napari_unetseg.errors import UnetSegError
from napari_unetseg.events import View
from napari_unetseg.scores import Scores
from napari_unetseg.volume import Geometry, LabelVolume

__all__ = [
    "ACTIONS",
    "Aside",
    "AtOnce",
    "Class",
    "Curves",
    "Difference",
    "Jobs",
    "Message",
    "Prediction",
    "Preview",
    "Progress",
    "Round",
]

ACTIONS = (
    "add_images",
    "undo_remove",
    "annotate",
    "train",
    "resume",
    "stop",
    "predict",
    "accept",
    "undo_accept",
    "accept_part",
    "undo_part",
    "correct",
    "go_back",
    "undo_round",
    "segment_folder",
    "undo_segment",
    "send_back",
    "undo_send_back",
    "compare",
    "next",
)
"""Every action that `Workspace.why_not` answers for."""


class Jobs(Protocol):
    """Who runs the verbs: the engine, or whatever a test puts in its place.

    `on_event` must be called on the thread that owns the workspace, and only after `submit` returned.
    """

    def submit(self, verb: str, args: Mapping[str, Any], on_event: Callable[[dict[str, Any]], None]) -> int:
        """Queue a verb; returns the number of the job."""

    def stop(self, job: int) -> None:
        """Ask a job to finish at its next step."""

    def look(self, view: View | None) -> None:
        """Say where the user is looking now."""


Finished = Callable[[Any, BaseException | None], None]


class Aside(Protocol):
    """Who does slow work, such as writing large files, so that the window goes on meanwhile."""

    def __call__(self, work: Callable[[], Any], finished: Finished) -> None:
        """Do `work` on another thread; then `finished` with its result or error, on the workspace's thread."""

    def wait(self) -> None:
        """Return when all work is done; `finished` may be called later."""


class AtOnce:
    """An `Aside` for where nobody watches: the work is done when the call returns."""

    def __call__(self, work: Callable[[], Any], finished: Finished) -> None:
        """Do `work`, then tell."""
        try:
            value = work()
        except (UnetSegError, OSError, MemoryError, ValueError) as error:
            finished(None, error)
        else:
            finished(value, None)

    def wait(self) -> None:
        """There is nothing to wait for."""


@dataclass(frozen=True)
class Class:
    """One class: its name, its colour ``#rrggbb`` and the label it is painted with (background 1, then 2..)."""

    name: str
    colour: str
    label: int


@dataclass(frozen=True)
class Progress:
    """How far the running job is.

    Attributes
    ----------
    fraction : float
        In [0, 1].
    left : float
        Estimated seconds left; not a number while unknown.
    sentence : str
        What is happening, for the user.
    """

    fraction: float = 0.0
    left: float = float("nan")
    sentence: str = ""


@dataclass
class Curves:
    """Learning curves of one training: a live view, extended while it runs.

    Attributes
    ----------
    number : int
        Round that is being trained; 0 before the first.
    steps, losses : list
        One point an optimiser step.
    validations : list of (int, Scores)
        Scores by the step at which they were measured.
    kept : int or None
        Step whose weights are kept so far.
    """

    number: int = 0
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, Scores]] = field(default_factory=list)
    kept: int | None = None


@dataclass(frozen=True)
class Round:
    """One model of the project.

    Attributes
    ----------
    number : int
        1, 2, ... in the order of training.
    folder : Path
        The model folder.
    net : str
        Name of its architecture.
    scores : Scores or None
        As measured when it was trained.
    current : bool
        Whether this is the model that predicts now.
    kept : (int, int) or None
        Step whose weights it has, and the steps that were trained; None where the folder does not say.
    """

    number: int
    folder: Path
    net: str
    scores: Scores | None
    current: bool = False
    kept: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Preview:
    """Mask of the viewed region by the net as it is at `step`; 0 background, 1.. classes.

    `mask` is ``(Y, X)`` of slice `index`, or of the whole image when `index` is None.
    """

    step: int
    case: str
    index: int | None
    mask: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Mask of a whole case, on the grid of its image; 0 background, 1.. classes.

    `model` is the folder of the model it was made by; None for a mask that was accepted earlier.
    """

    case: str
    model: Path | None
    mask: LabelVolume


@dataclass(frozen=True, eq=False)
class Difference:
    """Where two rounds disagree about a case.

    `data` is uint8 on the grid of the image: 0 where they agree, 1 where only `names[1]` sees a class, 2 where only
    `names[0]` does, 3 where both see one, but not the same.
    """

    case: str
    names: tuple[str, str]
    data: np.ndarray = field(repr=False)
    voxels: int
    geometry: Geometry

    @classmethod
    def between(cls, before: Prediction, after: Prediction, names: tuple[str, str]) -> Difference:
        """Compare two masks of one case."""
        a, b = before.mask.data, after.mask.data
        data = np.zeros(a.shape, np.uint8)
        differ = a != b
        data[differ] = np.where(a[differ] == 0, 1, np.where(b[differ] == 0, 2, 3))
        return cls(before.case, names, data, int(np.count_nonzero(differ)), after.mask.geometry)

    def sentence(self) -> str:
        """How much they differ."""
        before, after = self.names
        if not self.voxels:
            return f"{after} and {before} agree about every voxel of {self.case}."
        share = f"{self.voxels / self.data.size:.1%}"
        return f"{after} differs from {before} in {share} of {self.case} ({self.voxels:,} voxels)."


@dataclass(frozen=True)
class Message:
    """One sentence for the user and what to do; `level` is ``log`` (only kept), ``info``, ``warning`` or ``error``."""

    text: str
    hint: str = ""
    level: str = "info"

    def __str__(self) -> str:
        return f"{self.text} {self.hint}".strip()
