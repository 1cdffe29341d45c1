"""Entries of the command palette: each leads to the workbench that is open, or says that none is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from npe2 import PluginManifest

import napari_unetseg
from napari_unetseg.widgets import commands

pytestmark = pytest.mark.window

MANIFEST = Path(napari_unetseg.__file__).with_name("napari.yaml")


def test_every_entry_does_something():
    manifest = PluginManifest(**yaml.safe_load(MANIFEST.read_text(encoding="utf-8")))
    offered = {one.python_name.rpartition(":")[2] for one in manifest.contributions.commands}
    assert set(commands.__all__) <= offered


def test_entries_work_in_the_workbench_that_is_open(bench, notes):
    commands.next_image()
    assert bench.workspace.case == "plane-b"
    commands.previous_image()
    assert bench.workspace.case == "plane-a"
    commands.toggle_mask()
    assert not bench.context.bridge.mask.visible
    bench.context.bridge.annotation.paint((10, 10), 2)
    commands.done()
    assert np.all(bench.context.bridge.annotation.data)
    commands.train()
    assert bench.workspace.stage == "training"
    commands.train()
    assert "running" in notes[-1].message


def test_without_a_workbench_they_say_so(qapp, notes):
    commands.next_image()
    assert "not open" in notes[-1].message
