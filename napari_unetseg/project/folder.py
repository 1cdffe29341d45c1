"""The folder under a project: opening, locking, and changing `project.json` in one step or not at all."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from napari_unetseg.errors import ProjectError, WriteError
from napari_unetseg.io import atomic_write
from napari_unetseg.project.document import CaseEntry, Document
from napari_unetseg.project.lock import Lock, ProjectLocked
from napari_unetseg.project.names import check_classes

__all__ = ["ProjectFolder"]

logger = logging.getLogger(__name__)

# what a killed `atomic_write` leaves, and where
_LEFT_OVER = ".????????-*"
_SWEPT = (".", "images", "annotations/*", "masks", "masks/history/*")


class ProjectFolder:
    """A project's folder, its lock and its document; the storey under `Project`."""

    def __init__(self, path: Path, document: Document, lock: Lock | None) -> None:
        self.path = path
        self.read_only = lock is None
        self.taken: ProjectLocked | None = None  # by whom, since when: from then on it is read-only
        self._doc = document
        self._lock = lock
        self._closed = False
        self._mutex = threading.RLock()

    # ---- opening and closing -----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        classes: Sequence[str],
        name: str | None = None,
        colours: Sequence[str] | None = None,
    ) -> Self:
        """Make a new project folder and open it.

        Parameters
        ----------
        path : path
            A folder that does not exist yet, or is empty; by custom its name ends in ``.unetseg``.
        classes : sequence of str
            Names of the classes, background first.
        name : str, optional
            What the project is called; the folder's name when omitted.
        colours : sequence of str, optional
            One ``#rrggbb`` for each class.

        Raises
        ------
        ProjectError
            If there is something at `path`, or the classes cannot be.
        WriteError
            If the folder cannot be written.
        """
        path = Path(os.path.abspath(Path(path).expanduser()))
        names, tints = check_classes(classes, colours)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            what = "is already a project" if (path / "project.json").exists() else "exists already"
            raise ProjectError(f"{path} {what}.", hint="Open it, or choose another name for the new project.")
        created = _now()
        document = Document(name=name or path.name.removesuffix(".unetseg"), created=created, classes=names,
                            colours=tints)  # fmt: skip
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(
                f"The project {path} could not be made: {error.strerror or error}.", hint="Choose another folder."
            ) from error
        lock = Lock(path / "project.lock", path.name)
        try:
            document.save(path / "project.json")
        except WriteError:
            lock.release()
            raise
        project = cls(path, document, lock)
        project.log("created", classes=list(names))
        return project

    @classmethod
    def open(cls, path: str | os.PathLike[str], steal_lock: bool = False, read_only: bool = False) -> Self:
        """Open a project folder.

        Parameters
        ----------
        path : path
            The folder, or the ``project.json`` in it.
        steal_lock : bool
            Open it even if it is open elsewhere; the other side can then save nothing more.
        read_only : bool
            Open it for reading, which needs no lock: the worker process does, while the window holds the project.

        Raises
        ------
        ProjectError
            If there is no project, if it is damaged or made by a newer version; `ProjectLocked` when it is open
            elsewhere.
        """
        path = Path(os.path.abspath(Path(path).expanduser()))
        path = path.parent if path.name == "project.json" else path
        document = Document.load(path / "project.json")
        if read_only:
            return cls(path, document, None)
        lock = Lock(path / "project.lock", path.name, steal=steal_lock)
        try:
            project = cls(path, Document.load(path / "project.json"), lock)
            project._sweep()
        except BaseException:
            lock.release()
            raise
        return project

    def close(self) -> None:
        """Give the project free for others; harmless when it is closed already."""
        self._closed = True
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Raise `ProjectError` unless the project may be changed through this object; `ProjectLocked` once taken.

        Who lost the lock never gets it back: what is in memory here may be older than the folder. Open it again.
        """
        if self._closed or self._lock is None:
            raise ProjectError(
                f"The project {self.name} is {'closed' if self._closed else 'open for reading only'}.",
                hint="Open it for work first.",
            )
        if self.taken is not None:
            raise self.taken
        try:
            self._lock.check()
        except ProjectLocked as error:
            self.taken, self.read_only = error, True
            raise

    # ---- what the document says --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the project is called."""
        return self._doc.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, background first; an annotation holds their index + 1."""
        return self._doc.classes

    @property
    def colours(self) -> tuple[str, ...]:
        """One ``#rrggbb`` for each class."""
        return self._doc.colours

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the images, in the order in which they were added."""
        return tuple(self._doc.cases)

    @property
    def crashed(self) -> str:
        """Since when it was open in a process that died without closing it; empty when it was closed as it should."""
        left = self._lock.left if self._lock is not None else None
        return str(left.get("since") or "an unknown time") if left else ""

    # ---- the window's memory, and the log ----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """What the window wants to remember (last image, slice, zoom); any JSON. A damaged file counts as none."""
        try:
            state = json.loads((self.path / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("The window's memory of %s was not readable: %s", self.path.name, error)
            return {}
        return state if isinstance(state, dict) else {}

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        self.check()
        text = json.dumps(dict(values), indent=1)
        atomic_write(self._inside("state.json"), lambda beside: _write_text(beside, text))

    def log(self, kind: str, **facts: Any) -> None:
        """Append a line to `log.jsonl`: when, what `kind` of thing happened, and the `facts`.

        A log that cannot be written is no reason to fail: it is told to `logging`.
        """
        self.check()
        line = json.dumps({"time": _now(), "kind": kind, **facts}, default=str)
        try:
            with open(self._inside("log.jsonl"), "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            logger.warning("The log of %s could not be written: %s", self.path.name, error)

    # ---- for the storeys above ---------------------------------------------------------------------------------

    def _entry(self, case: str) -> CaseEntry:
        try:
            return self._doc.cases[case]
        except KeyError as error:
            raise ProjectError(
                f"The project has no image called {case!r}.", hint=f"It has: {', '.join(self.cases[:10]) or 'none'}."
            ) from error

    def _change(self, case: str, **facts: Any) -> None:
        """Save new `facts` of one image."""
        with self._mutex:
            self._commit(self._doc.with_case(case, self._entry(case).model_copy(update=facts)))

    def _commit(self, document: Document) -> None:
        """Save a changed document; what is in memory changes only once that is done."""
        with self._mutex:
            self.check()
            document.save(self._inside("project.json"))
            self._doc = document

    def _inside(self, *parts: str) -> Path:
        """Path of something to write; never outside the project, not even through a link."""
        path = self.path.joinpath(*parts)
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ProjectError(
                f"{path} leads outside the project.", hint="Replace the link in the project folder by a plain folder."
            )
        return path

    def _sweep(self) -> None:
        """Remove what writers that were killed left beside their files."""
        for place in _SWEPT:
            for left in self.path.glob(f"{place}/{_LEFT_OVER}"):
                if left.is_file():
                    logger.info("Removing %s, left by a process that was killed.", left)
                    left.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
