"""What the terminal shows while a verb runs: a line of progress with time left, notes above it, on standard error."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from napari_unetseg.events import (
    Control,
    Event,
    FileDone,
    Leads,
    Note,
    Running,
    Started,
    StepDone,
    TileDone,
    Validated,
)

__all__ = ["errors", "run", "table"]

R = TypeVar("R")

_FEW = 50  # files that are named one by one
_NAMED = 5  # of those that failed for the same reason

errors = Console(stderr=True, highlight=False, soft_wrap=True)
_out = Console(highlight=False, soft_wrap=True)


def run(events: Generator[Event, None, R], control: Control) -> R:
    """Iterate a verb to its end, showing its events; Ctrl+C asks it to stop, a second one breaks it off."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=errors, transient=True, refresh_per_second=4) as progress, _interruptible(control):
        bar = progress.add_task("starting", total=1.0, left="")
        line = _Line(progress, bar)
        for event in (run := Running(events)):
            line.show(event)
        line.say_alike()
        return run.result


class _Line:
    """Turns events into the state of the progress line; without a terminal into a plain line every ten seconds."""

    def __init__(self, progress: Progress, bar: TaskID) -> None:
        self.progress, self.bar = progress, bar
        self._said = 0.0
        self._begin = time.monotonic()
        self._alike: dict[str, list[str]] = {}  # errors, and the files that have them

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Started():
                self._said = 0.0
                self._begin = time.monotonic()
                for note in event.notes:
                    errors.print(f"  {note}", markup=False)
                errors.print(f"{event.what} on {event.device}", markup=False)
            case Note():
                errors.print(event.text, markup=False, style="yellow" if event.level == "warning" else None)
            case Leads():
                errors.print(f"  {event.seconds:4.0f} s  {event.text}", markup=False)
            case StepDone():
                share = event.seconds / max(event.seconds + event.left, 1e-9)
                self._set(f"step {event.step}, loss {event.loss:.3f}", share, event.left, event.seconds)
            case Validated():
                mark = " (kept)" if event.best else ""
                errors.print(f"  {event.seconds:4.0f} s  {event.scores.sentence()}{mark}", markup=False)
            case TileDone():
                self._set(f"tile {event.done}/{event.total}", event.done / event.total, event.left, None)
            case FileDone():
                self._show_file(event)
            case _:
                pass

    def _show_file(self, event: FileDone) -> None:
        """Show a file that is over: named where there is something to be said, or where files are few."""
        done, name = event.index + 1, event.file.replace("\\", "/").rsplit("/", 1)[-1]
        alike = self._alike.setdefault(event.error.replace(name, ""), []) if event.error else []
        alike.append(name)
        if (event.error or event.flags or event.total <= _FEW) and len(alike) == 1:
            said = f" - {event.error}" if event.error else f" ({', '.join(event.flags)})" if event.flags else ""
            errors.print(f"  {done}/{event.total} {name}: {event.status}{said}", markup=False)
        rate = f", {event.rate:.3g} files/s" if event.rate else ""
        self._set(f"file {done}/{event.total}{rate}", done / event.total, event.left, time.monotonic() - self._begin)

    def say_alike(self) -> None:
        """Say how many more files failed for a reason that was said of the first of them."""
        for first, *others in self._alike.values():
            if others:
                names = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
                errors.print(f"  {len(others)} more failed as {first} did: {names}", markup=False)
        self._alike.clear()

    def _set(self, what: str, share: float, left: float, seconds: float | None) -> None:
        self.progress.update(self.bar, description=what, completed=share, left=_time_left(left))
        if seconds is not None and not errors.is_terminal and seconds - self._said >= 10:
            self._said = seconds
            errors.print(f"  {seconds:4.0f} s  {what}, {_time_left(left)}", markup=False)


def _time_left(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02d} left"


@contextlib.contextmanager
def _interruptible(control: Control) -> Iterator[None]:
    def ask(number: int, frame: Any) -> None:
        if control.stopped:
            raise KeyboardInterrupt
        errors.print("Stopping at the next step; Ctrl+C again breaks off.")
        control.stop()

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table to standard output."""
    if not _out.is_terminal:
        _out.width = 200
    shown = Table(title=title or None, box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    _out.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
