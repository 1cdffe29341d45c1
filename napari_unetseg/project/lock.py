"""The lock that keeps two windows on one project apart, and says who holds it.

The file names host, process and user. A lock whose process has died on this computer is taken over in silence; one from
another computer cannot be checked and is left for the user to decide.
"""

from __future__ import annotations

import atexit
import ctypes
import getpass
import json
import logging
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Any

from napari_unetseg.errors import ProjectError

__all__ = ["Lock", "ProjectLocked", "birth"]

logger = logging.getLogger(__name__)


_OPEN = "Close it there or open it read-only; take the lock over only if you are sure it is not in use there."
_TAKEN = (
    "Nothing more is saved from here; a stroke that could not be saved stays on screen. Take the project back to go on "
    "here with it, or close it here."
)


class ProjectLocked(ProjectError):
    """The project is open elsewhere; `holder` has the keys ``host, pid, user, since``.

    With `taken` it was ours until somebody took it over; there is no `holder` where they have closed it again.
    """

    def __init__(self, project: str, holder: dict[str, Any], *, taken: bool = False) -> None:
        here = holder.get("host") == socket.gethostname()
        where = "on this computer" if here else f"on {holder.get('host') or 'an unknown computer'}"
        user = holder.get("user") or "an unknown user"
        rest = f"process {holder.get('pid')}, since {holder.get('since')}"
        if not taken:
            message = f"is already open {where} (by {user}, {rest})."
        elif holder:
            message = f"was taken over by {user} {where} ({rest})."
        else:
            message = "was meanwhile opened elsewhere, and closed again."
        super().__init__(f"The project {project} {message}", hint=_TAKEN if taken else _OPEN)
        self.holder = holder


class ProjectReadOnly(ProjectError):
    """The project lies where nothing can be written; it can be looked at all the same."""


class Lock:
    """A lock file, held until `release` or the end of the process.

    Parameters
    ----------
    path : Path
        The lock file.
    project : str
        Name for messages.
    steal : bool
        Take the lock whoever holds it.

    Raises
    ------
    ProjectLocked
        If a living process holds it, or one on another computer.
    """

    def __init__(self, path: Path, project: str, *, steal: bool = False) -> None:
        self.path = path
        self.project = project
        self.left: dict[str, Any] | None = None  # what a dead process that held it says of itself
        self._pid = os.getpid()
        self._mine = {
            "host": socket.gethostname(),
            "pid": self._pid,
            "user": _user(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "birth": birth(self._pid) or "",
            "token": secrets.token_hex(8),
        }
        for _ in range(10):
            if self._create():
                atexit.register(self.release)
                return
            holder = _read(path)
            if holder is not None and not steal and _alive(holder):
                raise ProjectLocked(project, holder)
            self.left = holder if holder is not None and not _alive(holder) else None
            self._clear(holder)
        raise ProjectLocked(project, _read(path) or {})

    def check(self) -> None:
        """Raise `ProjectLocked` when somebody has taken the lock over, also when they have given it back since."""
        holder = _read(self.path) or {}
        if holder.get("token") != self._mine["token"]:
            raise ProjectLocked(self.project, holder, taken=True)

    def release(self) -> None:
        """Give the lock back; harmless when it is not held any more."""
        atexit.unregister(self.release)
        # a forked child inherits this object, but not the lock
        if os.getpid() == self._pid and (_read(self.path) or {}).get("token") == self._mine["token"]:
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise self._cannot(error) from error
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._mine, file)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise self._cannot(error) from error
        return True

    def _cannot(self, error: OSError) -> ProjectReadOnly:
        return ProjectReadOnly(
            f"The project {self.project} cannot be opened for work: {error.strerror or error}.",
            hint="Open it read-only, or move it to a folder that you may write to, with space left.",
        )

    def _clear(self, holder: dict[str, Any] | None) -> None:
        """Remove the lock of `holder`, and no other that may have been made meanwhile."""
        aside = self.path.with_name(f"{self.path.name}.{self._mine['token']}")
        try:
            os.replace(self.path, aside)
        except OSError:
            return
        if _read(aside, patience=0) == holder:
            logger.info("Took over the lock of project %s from %s.", self.project, holder)
            aside.unlink(missing_ok=True)
        else:
            os.replace(aside, self.path)


def _read(path: Path, patience: float = 0.5) -> dict[str, Any] | None:
    """What a lock says; None when there is none, or when it stays unreadable (its maker died writing it)."""
    end = time.monotonic() + patience
    while True:
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        else:
            return facts if isinstance(facts, dict) else None


def left_open(project: Path) -> bool:
    """Whether the process that worked in a project folder died without closing it."""
    holder = _read(project / "project.lock", patience=0)
    return holder is not None and not _alive(holder)


def _alive(holder: dict[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname():
        return True
    try:
        born = birth(int(holder["pid"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    # a number that another process has got since is told by its time of birth
    return born is not None and not (born and holder.get("birth") and born != holder["birth"])


def birth(pid: int) -> str | None:
    """When a process was born, in a form that only compares; "" when that is unknown, None when it is dead."""
    if pid <= 0:
        return None
    if sys.platform == "win32":
        return _birth_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # somebody else's, and alive
    try:
        # the name of the process is in parentheses and may hold anything; state and start time come after it
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _birth_windows(pid: int) -> str | None:
    # os.kill(pid, 0) would end the process here
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        denied = 5  # ERROR_ACCESS_DENIED: it lives, under another user
        return "" if ctypes.get_last_error() == denied else None  # type: ignore[attr-defined]
    code, times = ctypes.c_ulong(), [ctypes.c_ulonglong() for _ in range(4)]
    try:
        kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
        kernel.GetProcessTimes(ctypes.c_void_p(handle), *(ctypes.byref(moment) for moment in times))
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))
    running = 259  # STILL_ACTIVE
    return str(times[0].value) if code.value == running else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # no such user in this container
        return ""
