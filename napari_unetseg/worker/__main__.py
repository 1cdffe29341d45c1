"""The process: takes the pipes to itself, lowers its priority, loads torch, and serves."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TextIO

__all__ = ["main"]

_GRACE = 10.0  # seconds to finish a step and save the model, once nobody listens any more


def main() -> None:
    """Serve standard input until it ends."""
    folder = Path(sys.argv[1])
    commands, events = _take_pipes()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    _step_back()
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in the terminal is for the window, which ends us
    try:
        # only now, so that nothing they print or read while they load touches the pipes
        from napari_unetseg.worker.loop import Worker
        from napari_unetseg.worker.verbs import Bench

        bench = Bench(folder)
        worker = Worker(commands, events, bench, partial(_exit_soon, folder))
        worker.say(0, "Ready", pid=os.getpid(), **bench.warm_up())
        worker.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exit_soon(folder: Path) -> None:
    """Be gone in a while, and the arrays too, even if some library does not come back."""

    def exit_now() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    last = threading.Timer(_GRACE, exit_now)
    last.daemon = True
    last.start()


def _take_pipes() -> tuple[TextIO, TextIO]:
    """Keep the pipes to ourselves: what a library prints goes to standard error, what it reads is empty."""
    commands = os.fdopen(os.dup(0), "r", encoding="utf-8", errors="replace")
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # on Windows some libraries hang while they load if another thread waits on their standard input
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return commands, events


def _step_back() -> None:
    """Lower our priority, so that painting stays fluent."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), 0x4000)  # BELOW_NORMAL_PRIORITY_CLASS
    else:
        os.nice(10)


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)  # nothing is left to save, and taking torch down politely costs seconds at our priority
