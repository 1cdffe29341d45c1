"""The last run over a folder taken back: its masks go, what they replaced returns, what was changed since stays."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_unetseg.batch.ledger import NAME as LEDGER
from napari_unetseg.batch.ledger import REFRESHED, Ledger, hash_file
from napari_unetseg.batch.lock import only_run
from napari_unetseg.batch.objects import NAME as OBJECTS
from napari_unetseg.batch.objects import rows_of_mask
from napari_unetseg.batch.outputs import FLOATS, beside, thumbnail
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io import atomic_write

__all__ = ["Undone", "keep_before", "undo_run"]

logger = logging.getLogger(__name__)

BEFORE = ".before"
_TABLES = ("table.csv", "run.json", "report.html", "contact-sheet.png", OBJECTS)


@dataclass(frozen=True)
class Undone:
    """What became of the masks of a run that was taken back.

    Attributes
    ----------
    removed : int
        Masks that are gone.
    restored : int
        Masks that are again as they were before the run.
    kept : tuple of str
        Masks that stay: somebody changed them since, or this disk could not keep what they replaced.
    """

    removed: int
    restored: int
    kept: tuple[str, ...]


def keep_before(folder: Path, again: Iterable[Mapping[str, Any]]) -> None:
    """Keep what an output folder holds, so that the run that begins now can be taken back.

    Masks are linked, which takes neither room nor time, for they are only ever replaced as a whole; a disk without
    links keeps none. The run before this one can be taken back no more.

    Parameters
    ----------
    folder : Path
        The output folder.
    again : iterable of mapping
        Entries of the ledger whose masks the run makes again.

    Raises
    ------
    WriteError
        When the disk is full.
    """
    before, part = folder / BEFORE, folder / f"{BEFORE}.part"
    try:
        if part.is_dir():
            shutil.rmtree(part)
        part.mkdir()
        for name in (LEDGER, *_TABLES):
            if (folder / name).is_file():
                _copy(folder / name, part / name)
        _keep_masks(again, folder, part)
        _forget(before)
        part.rename(before)  # whole, for without its ledger all that is there would seem to be of the run that begins
    except OSError as error:
        raise WriteError(
            f"The output folder {folder} cannot be written: {error.strerror or error}.",
            hint="Choose another folder or free some space.",
        ) from error


def _forget(before: Path) -> None:
    """Remove what was kept; not in place, for half of it would say that the last run made all that is there."""
    old = before.with_name(f"{BEFORE}.old")
    shutil.rmtree(old, ignore_errors=True)
    if before.is_dir():
        before.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _keep_masks(entries: Iterable[Mapping[str, Any]], folder: Path, before: Path) -> None:
    for entry in entries:
        masks, others = _files_of(entry, folder)
        if not all(_link(path, before / path.relative_to(folder)) for path in masks):
            return
        for path in others:
            _copy(path, before / path.relative_to(folder))


def undo_run(folder: str | Path) -> Undone:
    """Take the last run back: the folder is as it was before it, but for masks that were changed since.

    Parameters
    ----------
    folder : path
        Output folder of `segment_folder`.

    Raises
    ------
    ReadError
        When nothing was segmented into it, or its last run was taken back already.
    WriteError
        When it cannot be written, or a run is at work in it.
    """
    folder = Path(os.path.abspath(folder))
    if not (folder / LEDGER).is_file():
        raise ReadError(f"Nothing was segmented into {folder.name}.", hint="There is no run to take back.")
    if not (folder / BEFORE).is_dir():
        raise ReadError(
            f"What was in {folder.name} before the last run is not known: nothing is taken back.",
            hint="Only the last run can be taken back, and only once; remove by hand the masks that you do not want.",
        )
    try:
        with only_run(folder):
            return _undo(folder)
    except OSError as error:
        raise WriteError(
            f"Not all of the run in {folder.name} could be taken back: {error.strerror or error}.",
            hint="Close other programs that use the folder, and press Undo again.",
        ) from error


def _undo(folder: Path) -> Undone:
    before = folder / BEFORE
    now, then = Ledger(folder, "").entries, Ledger(before, "").entries
    made = {file: entry for file, entry in now.items() if _made(entry) != _made(then.get(file, {}))}
    stay = {file: entry for file, entry in made.items() if _stays(entry, then.get(file, {}), before, folder)}
    removed = restored = 0
    done: set[str] = set()
    try:
        for file in made.keys() - stay.keys():
            for path in itertools.chain(*_files_of(made[file], folder)):
                if not (before / path.relative_to(folder)).exists():
                    removed += str(path) == made[file]["mask"]
                    _remove(path, folder)
            for path in _named(then.get(file, {}), folder):
                restored += _put_back(before, path, folder) and str(path) == then[file]["mask"]
            done.add(file)
    finally:  # where a mask is open elsewhere the next try goes on from here
        _write_ledger(folder, {**then, **{file: entry for file, entry in now.items() if file not in done}})
    for name in _TABLES:
        (folder / name).unlink(missing_ok=True)
        _put_back(before, folder / name, folder)
    _forget(before)
    return Undone(removed, restored, tuple(sorted(entry["mask"] for entry in stay.values())))


def _made(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says of a mask; a run that only looked at its files leaves it the same."""
    return {key: value for key, value in entry.items() if key not in REFRESHED}


def _write_ledger(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    if entries:
        text = "".join(json.dumps(entry) + "\n" for entry in entries.values())
        atomic_write(folder / LEDGER, lambda path: path.write_text(text, encoding="utf-8"))
    else:
        (folder / LEDGER).unlink()


def _stays(entry: Mapping[str, Any], earlier: Mapping[str, Any], before: Path, folder: Path) -> bool:
    """Whether a mask is no longer what was written, or took the place of one that is not kept."""
    masks, _ = _files_of(entry, folder)
    if not masks or masks[0] != Path(entry["mask"]):
        return False
    lost = [path for path in _named(earlier, folder)[:1] if not (before / path.relative_to(folder)).exists()]
    return masks[0] in lost or hash_file(masks[0]) != entry.get("mask_hash")


def _named(entry: Mapping[str, Any], folder: Path) -> list[Path]:
    """Mask, floats, thumbnail and rows of an entry; none outside the folder, for a ledger may name anything."""
    mask = Path(entry.get("mask") or "")
    if entry.get("status") != "done" or ".." in mask.parts or folder not in mask.parents:
        return []
    beside_it = [beside(mask, suffix) for suffix in FLOATS]
    return [mask, *beside_it, thumbnail(mask, folder), rows_of_mask(mask, folder)]


def _files_of(entry: Mapping[str, Any], folder: Path) -> tuple[list[Path], list[Path]]:
    """What there is of `_named`: what is replaced as a whole, and small things that are written over."""
    home = folder.resolve()
    there = [path for path in _named(entry, folder) if path.exists() and home in path.resolve().parents]
    small = [path for path in there if path.relative_to(folder).parts[0].startswith(".")]
    return [path for path in there if path not in small], small


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _link(source: Path, target: Path) -> bool:
    """Give a file, or each in a folder, a second name; whether this disk can."""
    parts = [each for each in source.rglob("*") if each.is_file()] if source.is_dir() else [source]
    for part in parts:
        name = target / part.relative_to(source)
        name.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(part, name)
        except OSError as error:
            logger.info("%s keeps no second names (%s): the next run cannot be taken back there.", target, error)
            return False
    return True


def _put_back(before: Path, path: Path, folder: Path) -> bool:
    """Have a file as it was; whether it was another meanwhile."""
    source = before / path.relative_to(folder)
    if not source.exists() or (path.exists() and path.samefile(source)):  # it was not replaced
        return False
    if path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, path)
    return True


def _remove(path: Path, folder: Path) -> None:
    """Remove a file, and the folders above it in which nothing is left."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for parent in itertools.takewhile(lambda one: one != folder, path.parents):
            parent.rmdir()
