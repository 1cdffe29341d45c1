"""The steps of the workbench: one is next, the others are done or say what they wait for."""

from __future__ import annotations

import pytest

from napari_unetseg.widgets.path import steps

pytestmark = pytest.mark.window


def kinds(bench):
    return [kind for _, kind, _ in steps(bench.workspace, [panel.summary() for panel in bench.panels])]


def test_one_step_is_next_and_what_is_blocked_says_why(bench):
    assert kinds(bench) == ["done", "done", "next", "blocked", "blocked", "blocked", ""]
    found = steps(bench.workspace, [panel.summary() for panel in bench.panels])
    assert found[3][0] == "needs strokes"
    assert found[3][2] == bench.workspace.why_not("train")
    layer = bench.context.bridge.annotation
    for label, kind in ((1, ["next", "blocked"]), (2, ["", "next"]), (3, ["done", "next"])):
        layer.data[4 * label, :20] = label
        bench.context.bridge.flush()
        assert kinds(bench)[2:4] == kind
    bench.refresh()
    assert bench.sections[4].state == "needs a net"


def test_without_a_project_only_the_first_step_can_be_taken(bench):
    bench.workspace.close_project()
    assert kinds(bench) == ["next", *["blocked"] * 5, ""]
    bench.refresh()
    assert bench.sections[2].state == "needs a project"
