"""How much memory this process uses and may use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Peak", "ceiling", "free_memory", "release", "used_memory", "watched"]

_MIB = 2**20
_UNKNOWN_FREE = 4 * 2**30  # where the system does not say how much is free
_UNKNOWN_USED = 512 * _MIB  # Python with torch and a small net
_LOOK = 0.005  # seconds between two looks at the memory in use


def free_memory() -> int:
    """Bytes that could be used without swapping, as far as the system says; a container's limit counts."""
    if sys.platform == "win32":
        return _windows_free()
    free = [_meminfo("MemAvailable"), *_container_free()]
    known = [value for value in free if value is not None]
    if known:
        return max(0, min(known))
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_FREE


def used_memory() -> int | None:
    """Bytes of memory that are this process's own, torch's included; None where the system does not say.

    Pages of mapped files are not counted: the system takes them back when it needs them.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def ceiling(memory: int | None = None) -> int:
    """Most bytes that this process should hold: `memory`, or what it holds now and half of what is free."""
    return memory if memory is not None else (used_memory() or _UNKNOWN_USED) + free_memory() // 2


def release() -> None:
    """Give memory that was freed back to the system, where the allocator (glibc's) would keep it for later."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@dataclass
class Peak:
    """The most bytes that were seen in use; None where the system does not say."""

    bytes: int | None = None


@contextlib.contextmanager
def watched() -> Iterator[Peak]:
    """Watch the memory in use from another thread while the context lasts."""
    peak, over = Peak(used_memory()), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK):
            peak.bytes = max(peak.bytes or 0, used_memory() or 0)

    thread = threading.Thread(target=watch, daemon=True)
    if peak.bytes is not None:
        thread.start()
    try:
        yield peak
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()


def _meminfo(name: str) -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _container_free() -> list[int | None]:
    """What the limits of a container (cgroup, versions 2 and 1) leave."""
    root = Path("/sys/fs/cgroup")
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    found: list[int | None] = []
    for limit, used in pairs:
        # "max" where there is no limit, or no such file
        with contextlib.suppress(OSError, ValueError):
            found.append(int((root / limit).read_text()) - int((root / used).read_text()))
    return found


def _windows_free() -> int:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "c", "d", "e", "f", "g")),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else _UNKNOWN_FREE
