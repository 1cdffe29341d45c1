"""The command line, ``napari-unetseg``: the same verbs as in the window.

Results go to standard output (with ``--json`` as one JSON document), progress to standard error. Exit codes: 0 done,
1 some files failed, 2 bad input.
"""

from __future__ import annotations

from napari_unetseg.cli import calibrate, compare, explain, export, measure, plan, segment  # noqa: F401 - they register
from napari_unetseg.cli.main import app, main

__all__ = ["app", "main"]
