"""What became of each file: one JSON line a file, appended as it happens.

A kill at any moment loses nothing. A power failure may lose the rows of the last second: their files are done again.

Image and mask are known by their hash, and without reading them by their state: size and time of change.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from napari_unetseg.batch.outputs import all_beside
from napari_unetseg.errors import WriteError
from napari_unetseg.io import atomic_write

__all__ = ["REFRESHED", "Ledger", "file_state", "hash_file"]

NAME, _STARTED = "ledger.jsonl", ".started.jsonl"
REFRESHED = ("image_state", "mask_state", "recipe")  # fields that a run may change of a file that was done before
_SYNCED = 1.0  # seconds between two orders to bring the ledger to the disk, which take longer than a small file


def hash_file(path: Path) -> str:
    """Sixteen hexadecimal digits of the hash of a file, or of all that is in a folder."""
    digest = hashlib.sha256()
    for part in _parts(path) if path.is_dir() else [path]:
        if part != path:
            digest.update(os.fsencode(part.relative_to(path)) + b"\0")
        with part.open("rb", buffering=0) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def file_state(path: Path) -> str:
    """Bytes and time of change of a file, or of all that is in a folder; empty where there is none."""
    try:
        found = path.stat()
        if not stat.S_ISDIR(found.st_mode):
            return f"{found.st_size} {found.st_mtime_ns}"
        parts = [(os.fsencode(part.relative_to(path)), part.stat()) for part in _parts(path)]
    except OSError:
        return ""
    listed = repr([(name, one.st_size, one.st_mtime_ns) for name, one in parts]).encode()
    return f"{sum(one.st_size for _, one in parts)} {hashlib.sha256(listed).hexdigest()[:16]}"


def _parts(folder: Path) -> list[Path]:
    return sorted(part for part in folder.rglob("*") if part.is_file())


class Ledger:
    """``ledger.jsonl`` in an output folder: what happened to each file; where a file has two lines, the last counts.

    A second, hidden file says which files were begun: their masks are ours to write again after a kill.

    Parameters
    ----------
    folder : Path
        The output folder.
    recipe : str
        Hash of all that decides a mask besides its image.
    earlier : str
        The same as an earlier version took it.
    verify : bool
        Hash every file to know whether it is as it was, be its size and time of change the same.
    """

    def __init__(self, folder: Path, recipe: str, earlier: str = "", *, verify: bool = False) -> None:
        self.path, self.recipe, self.earlier, self.verify = folder / NAME, recipe, earlier or recipe, verify
        self._starts = folder / _STARTED
        self.written: set[str] = set()  # every file of an earlier run
        self.doubtful: set[str] = set()  # the same, of lines that are nonsense: never written over
        self.entries: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, list[dict[str, Any]]] = {}
        self._synced = 0.0
        for entry in _lines(self.path):
            if _makes_sense(entry):
                self.entries[entry["file"]] = entry
                self._claim(entry["mask"])
            elif entry["mask"]:
                self.doubtful.update((entry["mask"], *all_beside(entry["mask"])))
        for line in _lines(self._starts):
            self._claim(line["mask"])
            if self.entries.get(line["file"], {}).get("start") != line.get("start"):
                self._begun.setdefault(line["file"], []).append(line)
            else:
                self._begun.pop(line["file"], None)

    def _claim(self, mask: str) -> None:
        if mask:
            self.written.update((mask, *all_beside(mask)))

    def finished(self, file: Path, target: Path) -> dict[str, Any] | None:
        """Entry of a file that was done with this recipe, is unchanged, and whose mask is still there."""
        entry = self.entries.get(str(file))
        if not entry or entry["status"] != "done" or entry["mask"] != str(target):
            return None
        if entry["recipe"] not in (self.recipe, self.earlier):
            return None
        if not self._same(entry, "mask", target) or not self._same(entry, "image", file):
            return None
        entry["recipe"] = self.recipe
        return entry

    def corrected(self, file: Path, target: Path) -> bool:
        """Whether the mask that was written for a file is no longer what was written: somebody's work, to be kept."""
        entry = self.entries.get(str(file), {})
        if entry.get("status") != "done" or entry["mask"] != str(target) or not target.exists():
            return False
        return not self._same(entry, "mask", target)

    def _same(self, entry: dict[str, Any], which: str, path: Path) -> bool:
        """Whether an image or a mask is as the entry has it: by its state or, where that is another, by its hash."""
        now, then = file_state(path), entry.get(f"{which}_state", "")
        if now == then and now and not self.verify:
            return True
        if not now or (then and now.split()[0] != then.split()[0]):  # gone, or of another size
            return False
        try:
            if hash_file(path) != entry[f"{which}_hash"]:
                return False
        except OSError:  # what cannot be read fails by itself, not the run
            return False
        entry[f"{which}_state"] = now  # copied, or touched, or written by an earlier version: not read the next time
        return True

    def failed(self, file: Path) -> bool:
        """Whether the last that happened to a file was a failure."""
        return self.entries.get(str(file), {}).get("status") == "failed"

    def starts(self, file: Path) -> int:
        """How often a file was begun since it was last done or failed."""
        return len(self._begun.get(str(file), ()))

    def sweep(self) -> None:
        """Remove what a kill left half-written beside the masks that were begun."""
        for line in itertools.chain.from_iterable(self._begun.values()):
            for target in map(Path, (line["mask"], *all_beside(line["mask"]))):
                for part in target.parent.glob(f".????????-{glob.escape(target.name[-60:])}"):
                    remove = shutil.rmtree if part.is_dir() else os.unlink
                    with contextlib.suppress(OSError):
                        remove(part)

    def start(self, file: Path, target: Path) -> None:
        """Say that a file is begun, so that a kill leaves no mask unclaimed."""
        line = {"file": str(file), "mask": str(target), "start": secrets.token_hex(4)}
        self._begun.setdefault(str(file), []).append(line)
        # handed to the system, which a kill of this process does not undo; power loss costs a mask's name at worst
        self._append(self._starts, line, sync=False)

    def add(self, file: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Append what became of `file`."""
        begun = self._begun.pop(str(file), [])
        whole = {
            "file": str(file),
            **entry,
            "recipe": self.recipe,
            "start": begun[-1]["start"] if begun else "",
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        self._append(self.path, whole, sync=time.monotonic() - self._synced > _SYNCED)
        self.entries[str(file)] = whole
        return whole

    def tidy(self) -> None:
        """Leave one line a file, and forget the beginnings that came to an end."""
        if self.path.is_file():
            atomic_write(self.path, lambda path: _write_lines(path, self.entries.values()))
        open_ends = [line for lines in self._begun.values() for line in lines]
        if open_ends:
            atomic_write(self._starts, lambda path: _write_lines(path, open_ends))
        else:
            self._starts.unlink(missing_ok=True)

    def _append(self, path: Path, line: Mapping[str, Any], *, sync: bool) -> None:
        try:
            with path.open("ab") as stream:
                if stream.tell() and not _ends_whole(path):
                    stream.write(b"\n")  # the last line was cut short by a kill
                stream.write(json.dumps(line).encode() + b"\n")
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
                    self._synced = time.monotonic()
        except OSError as error:
            raise WriteError(
                f"The ledger {path} cannot be written: {error.strerror or error}.",
                hint="Free some space and run the same command again; finished files are not done again.",
            ) from error


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _write_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(entry) + "\n" for entry in entries)


_TOLD = {"status", "recipe", "error", "classes", "seconds"}
_DONE = {"image_hash", "mask_hash"}
_TEXTS = {"status", "recipe", "error", "start", "image_state", "mask_state", *_DONE}


def _makes_sense(entry: Mapping[str, Any]) -> bool:
    """Whether a line says what became of a file, in values that others can work with: other hands may change it."""
    if not entry.keys() >= (_TOLD | _DONE if entry.get("status") == "done" else _TOLD):
        return False
    texts = [*(entry[key] for key in _TEXTS & entry.keys()), *_list(entry.get("flags", []))]
    numbers = [entry["seconds"], entry.get("doubt") or 0]
    return (
        all(isinstance(one, str) for one in texts)
        and all(isinstance(one, (int, float)) for one in numbers)
        and all(isinstance(one, dict) for one in _list(entry["classes"]))
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of a ledger; one cut short by a kill is left out."""
    if not path.is_file():
        return
    read = json.JSONDecoder(object_pairs_hook=_sharing_keys).decode
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                entry = read(line)
                if isinstance(entry["file"], str) and isinstance(entry["mask"], str):
                    yield entry
            except (ValueError, KeyError, TypeError):
                continue


def _sharing_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Every entry with the same texts for its keys, which take less room than each its own."""
    return {sys.intern(key): value for key, value in pairs}
