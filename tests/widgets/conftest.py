"""Workbenches without a worker: the model half of napari, real widgets, and jobs that wait for the test to answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_unetseg.io import write
from napari_unetseg.volume import Geometry, Volume


@pytest.fixture
def jobs(qapp):
    """What the workspace asked for, answered by ``jobs.tell``."""
    from napari_unetseg.widgets.jobs import QtJobs
    from napari_unetseg.workspace import AtOnce

    class Patient(QtJobs):
        def __init__(self):
            super().__init__()
            self.aside = AtOnce()
            self.submitted, self.listeners, self.stopped, self.views = [], [], [], []

        def start(self):
            pass

        def submit(self, verb, args, on_event):
            self.submitted.append((verb, json.loads(json.dumps(args))))
            self.listeners.append(on_event)
            return len(self.listeners)

        def stop(self, job):
            self.stopped.append(job)

        def look(self, view):
            self.views.append(view)

        def tell(self, event, **values):
            self.listeners[-1]({"id": len(self.listeners), "event": event, **values})

    return Patient()


@pytest.fixture
def oblique() -> Geometry:
    """A scan turned by 20 degrees, with thick slices."""
    angle = np.deg2rad(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([3.0, 0.8, 0.8])
    affine[:3, 3] = (10, -20, 30)
    return Geometry((3.0, 0.8, 0.8), "mm", affine, "RAS+")


@pytest.fixture
def images(tmp_path) -> Path:
    """Folder with two planes of 40 x 60 voxels and one volume of 6 x 40 x 60."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("plane-a.tif", "plane-b.tif"):
        pixels = rng.integers(0, 4000, (1, 40, 60)).astype(np.uint16)
        write(folder / name, Volume(pixels, Geometry((0.5, 0.5), "um")))
    voxels = rng.integers(0, 4000, (1, 6, 40, 60)).astype(np.int16)
    write(folder / "volume.nii.gz", Volume(voxels, Geometry((3.0, 1.0, 1.0), "mm")))
    return folder


@pytest.fixture
def bench(qtbot, jobs, images, tmp_path):
    """A workbench on a project of the two planes and the volume, in a viewer without a window."""
    from napari.components import ViewerModel

    from napari_unetseg.widgets.workbench import Workbench

    made = Workbench(ViewerModel(), jobs=jobs)
    qtbot.addWidget(made)
    made.images.create_project(str(tmp_path / "cells.unetseg"))
    made.classes.append()
    made.images.add_paths([str(images)])
    made.show()
    yield made
    made.shutdown()


@pytest.fixture
def notes(monkeypatch):
    """Notifications, as napari would show them."""
    from napari.utils.notifications import notification_manager

    seen = []
    notification_manager.notification_ready.connect(seen.append)
    yield seen
    notification_manager.notification_ready.disconnect(seen.append)
