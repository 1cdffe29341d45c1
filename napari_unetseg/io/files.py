"""Files and folders: writing so that nothing is ever half there, and listing images in the order people expect."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from napari_unetseg.errors import WriteError

__all__ = ["atomic_write", "natural_key", "written_beside"]

_WHY = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another folder."),
    errno.EDQUOT: ("your quota on this disk is used up", "Free some space, or choose another folder."),
    errno.EROFS: ("the disk is read-only", "Choose a folder you may write to."),
    errno.EACCES: ("this folder may not be written to", "Choose a folder you may write to."),
    errno.EPERM: ("this folder may not be written to", "Choose a folder you may write to."),
    errno.ENOTDIR: ("its folder is a file", "Choose another folder."),
    errno.EEXIST: ("its folder is a file", "Choose another folder."),
    errno.ENAMETOOLONG: ("its name is too long", "Choose a shorter name."),
}


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object], folder: bool = False) -> None:
    """Write a file so that at any moment `path` is the old file or the whole new one.

    Parameters
    ----------
    path : path
        The file wanted; missing folders above it are made.
    write : callable
        Called with a path beside it that ends in the same suffix; writes (and may check) the file there.
    folder : bool
        Whether `write` makes a folder, which may take the place of an older folder.

    Raises
    ------
    WriteError
        When the disk is full, the folder read-only and the like; what lay at `path` is untouched.
    """
    with written_beside(path, folder) as beside:
        write(beside)


@contextlib.contextmanager
def written_beside(path: str | os.PathLike[str], folder: bool = False) -> Iterator[Path]:
    """Context for `atomic_write`: what is written at the path that it gives takes the name `path` at its end."""
    path = Path(path)
    # a link stays a link: the file it leads to is the one to renew
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path
    beside = target.with_name(f".{secrets.token_hex(4)}-{target.name[-60:]}")
    try:
        if target.is_dir() and not folder:
            raise WriteError(f"{path} could not be written: it is a folder.", hint="Choose another name.")
        if folder and target.exists() and not target.is_dir():
            raise WriteError(f"{path} could not be written: it is a file.", hint="Choose another name.")
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _fsync(beside)
        if folder and target.exists():
            _exchange(beside, target)
        else:
            beside.replace(target)
        _fsync_folder(target.parent)
    except OSError as error:
        why, hint = _WHY.get(error.errno or 0, (error.strerror or str(error), "Choose another folder, or try again."))
        raise WriteError(f"{path} could not be written: {why}.", hint=hint) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(beside) if beside.is_dir() else beside.unlink(missing_ok=True)


def _exchange(beside: Path, target: Path) -> None:
    """Put a folder in the place of an older one; no system renames over a folder that holds something."""
    old = beside.with_name(f"{beside.name}.old")
    target.replace(old)
    try:
        beside.replace(target)
    except OSError:
        old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fsync(path: Path) -> None:
    for one in (each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        with one.open("rb+") as file:
            os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows has no such call, and some network disks refuse it."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts ``scan2`` before ``scan10``, and ignores case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
