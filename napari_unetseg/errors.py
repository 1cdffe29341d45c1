"""Errors that speak to the user.

Every error a user can meet is a `UnetSegError`: one sentence on what happened to *their* thing, one on what to do.
The command line prints both and exits 2; napari shows them as a notification (it reads ``message`` and ``actions``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = [
    "AnnotationError",
    "EngineError",
    "GeometryError",
    "ModelError",
    "OutOfMemory",
    "PlanError",
    "ProjectError",
    "ReadError",
    "Stopped",
    "UnetSegError",
    "UnknownName",
    "WriteError",
]

Action = tuple[str, Callable[[], None]]


class UnetSegError(Exception):
    """Base of every error meant for the user.

    Parameters
    ----------
    message : str
        What happened to the user's thing, in one sentence.
    hint : str
        What to do about it, in one sentence.
    actions : sequence of (str, callable)
        Buttons that a window may offer.
    """

    def __init__(self, message: str, *, hint: str = "", actions: Sequence[Action] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.actions = tuple(actions)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ReadError(UnetSegError):
    """A file could not be read as an image or a mask."""


class WriteError(UnetSegError):
    """A file could not be written; nothing half-written is left behind."""


class GeometryError(UnetSegError):
    """Two things that should lie on one grid do not."""


class AnnotationError(UnetSegError):
    """Strokes or labels from which nothing can be learned."""


class PlanError(UnetSegError):
    """A plan with a field that cannot be."""


class UnknownName(UnetSegError, KeyError):
    """A name that no registry knows; the hint says which come near."""

    def __str__(self) -> str:
        return UnetSegError.__str__(self)


class ModelError(UnetSegError):
    """A model folder that is incomplete or does not fit."""


class ProjectError(UnetSegError):
    """A project folder that is missing, damaged or in use."""


class EngineError(UnetSegError):
    """The worker process failed; strokes are not affected."""


class OutOfMemory(UnetSegError):
    """The device has too little memory for the work asked for."""


class Stopped(UnetSegError):
    """The user stopped the work before there was a result to keep."""
