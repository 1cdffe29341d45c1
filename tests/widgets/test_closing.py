"""The end of a workbench: what napari takes out of its dock lets go of everything."""

from __future__ import annotations

import collections
import gc

import pytest
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QDockWidget

from napari_unetseg.project import Project

pytestmark = pytest.mark.window


def test_a_workbench_taken_out_of_its_dock_closes_project_and_engine(bench, jobs, qtbot):
    dock, viewer, path = QDockWidget(), bench.context.viewer, bench.workspace.project.path
    qtbot.addWidget(dock)
    dock.setWidget(bench)
    assert bench.workspace.project is not None, "to be docked is no end"
    bench.context.bridge.annotation.paint((10, 10), 2)
    bench.setParent(None)  # as napari does when the × is pressed
    assert not (path / "project.lock").exists()
    assert list(viewer.layers) == [], "nobody would keep what is painted"
    assert jobs._closed
    with Project.open(path) as project:
        assert project.annotation("plane-a").data[10, 10] == 2


def test_one_workbench_after_another_leaves_nothing_behind(jobs, tmp_path, images, qtbot):
    from napari.components import ViewerModel

    from napari_unetseg.widgets.workbench import Workbench

    viewer, found = ViewerModel(), []
    for number in range(4):
        made = Workbench(viewer, jobs=type(jobs)())
        made.images.create_project(str(tmp_path / f"{number}.unetseg"))
        made.images.add_paths([str(images / "plane-a.tif")])
        made.shutdown()
        made.deleteLater()
        del made
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        qtbot.wait(10)
        viewer.layers.clear()
        gc.collect()
        names = (type(one).__name__ for one in gc.get_objects() if _ours(one))
        found.append(collections.Counter(names))
    grown = {name: [each[name] for each in found] for name in found[3] if found[3][name] > found[1][name]}
    assert not grown


def _ours(one: object) -> bool:
    return str(type(one).__module__).startswith("napari_unetseg")
