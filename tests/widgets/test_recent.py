"""The last project is offered when the workbench opens, and called lost when napari died with it open."""

from __future__ import annotations

import json
import shutil

import pytest

from napari_unetseg.widgets import recent

pytestmark = pytest.mark.window


def test_the_last_project_is_offered_and_recovered_after_a_crash(bench):
    images, path = bench.images, bench.workspace.project.path
    assert images.go_on.isHidden()
    bench.context.bridge.annotation.paint((10, 10), 2)
    bench.context.bridge.flush()
    lock = json.loads((path / "project.lock").read_text())
    bench.workspace.close_project()
    assert images.go_on.text() == "Go on with cells"
    assert images.lost.isHidden()
    (path / "project.lock").write_text(json.dumps({**lock, "pid": 2**22 + 1}))  # of a process that is no more
    images._on_project()
    assert images.go_on.text() == "Recover cells"
    assert not images.lost.isHidden()
    images.go_on.click()
    assert bench.workspace.project.path == path
    assert (bench.context.bridge.annotation.data == 2).any()
    assert images.go_on.isHidden()
    assert images.lost.isHidden()


def test_a_project_that_is_gone_is_not_offered(bench, monkeypatch):
    path = bench.workspace.project.path
    assert recent.last() == path
    bench.workspace.close_project()
    shutil.rmtree(path)
    bench.images._on_project()
    assert bench.images.go_on.isHidden()
    bench.workspace.create_project(path.with_name("new.unetseg"), ("background", "a"))
    assert recent.last() == path.with_name("new.unetseg")
