"""The canvas's OpenGL context is current while a layer goes, whatever was current before."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtGui import QOffscreenSurface, QOpenGLContext
from qtpy.QtWidgets import QOpenGLWidget

from napari_unetseg.widgets.workbench import Workbench

pytestmark = pytest.mark.window


@pytest.fixture
def foreign():
    """Another context on a surface of its own, as Qt has one to put the window together with."""
    surface, context = QOffscreenSurface(), QOpenGLContext()
    surface.create()
    assert context.create()
    yield lambda: context.makeCurrent(surface)
    context.doneCurrent()


def test_a_layer_goes_in_the_context_of_the_canvas(make_napari_viewer, qtbot, jobs, foreign):
    viewer = make_napari_viewer(show=True)
    bench = Workbench(viewer, jobs)
    viewer.window.add_dock_widget(bench, area="right")
    canvas = bench.window().findChild(QOpenGLWidget)
    qtbot.waitUntil(lambda: canvas.isValid() and bench.isVisible())
    seen = []
    viewer.layers.events.removed.connect(lambda event: seen.append(QOpenGLContext.currentContext() is canvas.context()))

    viewer.add_image(np.zeros((8, 8)))
    assert foreign()
    viewer.layers.pop()
    assert seen == [True]
    bench.shutdown()
