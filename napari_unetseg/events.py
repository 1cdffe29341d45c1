"""What a long-running verb says while it runs, and what it may be told.

A verb (`fine_tune`, `predict`, `segment_folder`, ...) is a generator of the small frozen events below; its return
value is the result. The window, the command line and the tests iterate the same generator. `verb` also makes it
callable like a plain function: ``fine_tune(...)`` runs to the end and returns the result, ``fine_tune.events(...)`` is
the generator. `Running` is for who wants both, the events in a loop and the result after it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from napari_unetseg.errors import Stopped
from napari_unetseg.scores import Scores

__all__ = [
    "Control",
    "Event",
    "FileDone",
    "Leads",
    "Note",
    "PreviewReady",
    "Running",
    "Started",
    "StepDone",
    "TileDone",
    "Validated",
    "View",
    "finish",
    "until_stopped",
    "verb",
]

P = ParamSpec("P")
E = TypeVar("E")
R = TypeVar("R")


@dataclass(frozen=True)
class Event:
    """Base of all events; `to_json` gives plain values, arrays left out."""

    def to_json(self) -> dict[str, Any]:
        """Name and plain fields of the event, ready for one line of JSON."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {"event": type(self).__name__, **{k: v for k, v in values.items() if not isinstance(v, np.ndarray)}}


@dataclass(frozen=True)
class Started(Event):
    """Work begins: what, on which device, and a sentence for every decision that was taken."""

    what: str
    device: str = "cpu"
    total: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note(Event):
    """One sentence for the user (a fallback taken, a file skipped)."""

    text: str
    level: str = "info"


@dataclass(frozen=True)
class StepDone(Event):
    """One optimiser step: its loss, seconds since the start, and the estimated seconds left."""

    step: int
    loss: float
    seconds: float
    left: float
    epoch: int = 0


@dataclass(frozen=True)
class Validated(Event):
    """The net was scored on what was held out; `best` says whether it is now the one to keep."""

    step: int
    scores: Scores
    best: bool
    seconds: float = 0.0


@dataclass(frozen=True)
class Leads(Event):
    """Whose masks are shown from now on: ``instant`` or the name of the net; its held-out scores, and a sentence."""

    who: str
    scores: Scores | None
    text: str
    seconds: float = 0.0


@dataclass(frozen=True)
class PreviewReady(Event):
    """Mask of the region the user is looking at, by the net as it is now.

    `mask` is ``(Y, X)`` or ``([Z,] Y, X)`` uint8 with 0 background, 1.. classes, of `view`.
    """

    step: int
    view: View
    mask: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class TileDone(Event):
    """One more tile of an image is segmented."""

    done: int
    total: int
    left: float = 0.0


@dataclass(frozen=True)
class FileDone(Event):
    """One file of a folder is over: ``done``, ``done before``, ``kept`` (corrected by hand) or ``failed``.

    `rate` counts files a second, those done before left out; `flags` are reasons to look at the mask, `doubt` is that
    of the net, 0 sure to 1 undecided, and `mask` the file that was written.
    """

    index: int
    total: int
    file: str
    status: str
    error: str = ""
    seconds: float = 0.0
    left: float = 0.0
    rate: float = 0.0
    flags: tuple[str, ...] = ()
    doubt: float | None = None
    mask: str = ""


@dataclass(frozen=True)
class View:
    """Where the user is looking: a case and, in a volume shown slice by slice, the slice index along Z."""

    case: str
    index: int | None = None


class Control:
    """What the outside may tell a running verb: stop, and where the user is looking.

    Polled by the verb, at least once a step or tile. Setting it is safe from any thread.

    Examples
    --------
    >>> control = Control()
    >>> control.stop(); control.stopped
    True
    """

    def __init__(self, view: View | None = None) -> None:
        self.stopped = False
        self.left = False  # stopped, and nobody waits for what comes of it
        self.view = view

    def stop(self) -> None:
        """Ask the verb to finish at its next step, keeping the best result so far."""
        self.stopped = True

    def leave(self) -> None:
        """Ask the verb to end at its next step, and only to keep what it needs to go on another time."""
        self.left = True
        self.stop()

    def poll(self) -> None:
        """Raise `Stopped` once told to stop."""
        if self.stopped:
            raise Stopped("It was stopped.", hint="Nothing was changed.")

    def look(self, view: View | None) -> None:
        """Ask for previews of `view` from now on."""
        self.view = view


def until_stopped(things: Iterable[E], control: Control | None) -> Iterator[E]:
    """Pass on `things` one by one; raises `Stopped` between two of them once `control` says so."""
    for thing in things:
        if control is not None:
            control.poll()
        yield thing


class Running(Generic[E, R]):
    """A generator for a plain loop; `result` is what it returned, once the loop has come to its end.

    Leaving the loop early closes the generator.

    Examples
    --------
    >>> def count(n):
    ...     yield from range(n)
    ...     return "done"
    >>> run = Running(count(2))
    >>> [number for number in run], run.result
    ([0, 1], 'done')
    """

    result: R

    def __init__(self, generator: Generator[E, None, R]) -> None:
        self._generator = generator

    def __iter__(self) -> Generator[E, None, None]:
        self.result = yield from self._generator


def finish(generator: Generator[Any, None, R]) -> R:
    """Run a generator to its end, heedless of what it yields, and return its result."""
    run = Running(generator)
    for _ in run:
        pass
    return run.result


class verb(Generic[P, R]):
    """Make a generator of events also a plain function.

    Examples
    --------
    >>> @verb
    ... def count(n):
    ...     for i in range(n):
    ...         yield TileDone(i + 1, n)
    ...     return n
    >>> count(2), [event.done for event in count.events(2)]
    (2, [1, 2])
    """

    def __init__(self, generator: Callable[P, Generator[Event, None, R]]) -> None:
        self.events = generator
        functools.update_wrapper(self, generator)
        self.__signature__ = inspect.signature(generator)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run to the end and return the result."""
        return finish(self.events(*args, **kwargs))


def _plain(value: Any) -> Any:
    if isinstance(value, Scores):
        return value.to_dict()
    if isinstance(value, View):
        return {"case": value.case, "index": value.index}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value
