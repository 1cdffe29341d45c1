"""What all tests share: threads that do not get in each other's way, and a screen or the reason why there is none."""

from __future__ import annotations

import os
import sys

# before torch is imported, and for the processes that tests start: two threads on two busy cores wait for one another,
# and sums in another order are other numbers
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from napari_unetseg.cli.screen import why_no_window


def _why_no_screen() -> str:
    """One sentence on why no window can be opened; pytest-xvfb has started Xvfb by now where it is installed."""
    if os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "minimal"):
        return "QT_QPA_PLATFORM draws nothing."
    return why_no_window()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("window")]
    reason = _why_no_screen() if needing else ""
    if reason:
        skip = pytest.mark.skip(reason=f"no screen: {reason}")
        for item in needing:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def state_of_this_test(tmp_path_factory, monkeypatch):
    """Where the window remembers the last project: not among the user's own files."""
    monkeypatch.setattr("platformdirs.user_state_path", lambda *_, **__: tmp_path_factory.getbasetemp() / "state")


@pytest.fixture
def cli(monkeypatch, capsys):
    """The command line: call it with words, get exit code, standard output and standard error."""
    from napari_unetseg.cli import main

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["napari-unetseg", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call
