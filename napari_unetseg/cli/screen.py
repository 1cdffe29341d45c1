"""Whether a window can be opened here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

__all__ = ["why_no_window"]

_PROBE = "from qtpy.QtWidgets import QApplication; QApplication([])"
_PACKAGES = (
    "libegl1 libgl1 libglib2.0-0 libfontconfig1 libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 "
    "libxcb-keysyms1 libxcb-shape0"
)


def why_no_window() -> str:
    """One sentence on why no window can be opened; empty when one can.

    Qt aborts the whole process where a system library is missing, so it is tried in another one.
    """
    if importlib.util.find_spec("napari") is None or importlib.util.find_spec("qtpy") is None:
        return 'napari is not installed (pip install "napari-unetseg[app]").'
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "There is no screen (DISPLAY is not set)."
    try:
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "Qt does not start."
    if probe.returncode:
        return f"Qt does not start here; on Debian or Ubuntu these packages are needed: {_PACKAGES}."
    return ""
