"""One run at a time in an output folder; a second is refused and told who is at work."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from napari_unetseg.errors import ProjectError, WriteError
from napari_unetseg.project.lock import Lock, ProjectLocked

__all__ = ["only_run"]

NAME = ".unetseg-run"


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Hold the output folder; the lock of a run that was killed on this computer is taken over.

    Raises
    ------
    WriteError
        When another run is writing there.
    """
    try:
        lock = Lock(folder / NAME, folder.name)
    except ProjectLocked as error:
        raise WriteError(_said(folder, error.holder), hint=_HINT.format(name=NAME)) from error
    except ProjectError as error:
        raise WriteError(f"The output folder {folder} cannot be written.", hint="Choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


_HINT = "Wait for it or choose another folder; if that computer was switched off meanwhile, remove {name} there."


def _said(folder: Path, holder: dict[str, object]) -> str:
    here = holder.get("host") == socket.gethostname()
    where = "this computer" if here else str(holder.get("host") or "an unknown computer")
    return (
        f"Another run is writing to {folder}: process {holder.get('pid')} of {holder.get('user') or 'somebody'} "
        f"on {where}, since {holder.get('since')}."
    )
