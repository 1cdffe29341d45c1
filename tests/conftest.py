"""What all tests share: those that need a window run under Xvfb where there is no screen, or say why they cannot."""

from __future__ import annotations

import os
import sys

import pytest


def _why_no_screen() -> str:
    """One sentence on why no window can be opened; pytest-xvfb has started Xvfb by now where it is installed."""
    if os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "minimal"):
        return "QT_QPA_PLATFORM draws nothing"
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "DISPLAY is not set and Xvfb is not installed"
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = _why_no_screen()
    if not reason:
        return
    skip = pytest.mark.skip(reason=f"no screen: {reason}")
    for item in items:
        if item.get_closest_marker("window"):
            item.add_marker(skip)
