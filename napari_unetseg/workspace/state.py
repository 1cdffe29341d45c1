"""Values that the workspace shows: small and frozen, so that a widget may keep them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from napari_unetseg.events import View
from napari_unetseg.scores import Scores
from napari_unetseg.volume import LabelVolume

__all__ = ["ACTIONS", "Class", "Curves", "Jobs", "Message", "Prediction", "Preview", "Progress", "Round"]

ACTIONS = (
    "add_images",
    "annotate",
    "train",
    "stop",
    "predict",
    "accept",
    "undo_accept",
    "correct",
    "go_back",
    "segment_folder",
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


@dataclass(frozen=True)
class Message:
    """One sentence for the user and what to do; `level` is ``info``, ``warning`` or ``error``."""

    text: str
    hint: str = ""
    level: str = "info"

    def __str__(self) -> str:
        return f"{self.text} {self.hint}".strip()
