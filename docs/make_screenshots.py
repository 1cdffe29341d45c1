"""Make the pictures of the window: the demo project, a simulated annotator's strokes, two rounds, a folder.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshots.py

Takes about three minutes; writes ``docs/images/window-{annotate,train,review,folder}.png``.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from qtpy.QtWidgets import QApplication
from skimage.io import imsave

from napari_unetseg.data.annotator import correct, scribble
from napari_unetseg.io import read_labels
from napari_unetseg.samples import demo_project, sample
from napari_unetseg.widgets.layers import role_of
from napari_unetseg.widgets.workbench import open_workbench

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Play the main job in a real window, and take its picture at four moments."""
    place = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(0)
    truths = {image.stem: read_labels(mask).data for image, mask in sample("nuclei-2d").pairs}
    with demo_project(place / "nuclei.unetseg") as project:
        painted = project.cases[:4]
        for case in painted:
            project.annotate(case, scribble(truths[case], 2, rng, fraction=0.08))
        path = project.path
    viewer, bench = open_workbench(path)
    viewer.window.resize(1280, 800)
    workspace = bench.workspace

    def wait(until, seconds=200.0):
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def take(name, panel):
        bench.show_step(panel)
        wait(lambda: False, 0.8)
        imsave(IMAGES / f"window-{name}.png", viewer.screenshot(canvas_only=False, flash=False)[..., :3])

    def round_of(minutes):
        begin = time.monotonic()
        workspace.change_plan(training={"minutes": minutes})
        wait(lambda: not workspace.why_not("train"))
        workspace.train()
        wait(lambda: time.monotonic() - begin > 40 * minutes)

    wait(lambda: bool(workspace.nets), 60)
    workspace.select_case(painted[0])
    take("annotate", bench.annotate)
    round_of(1.0)
    take("train", bench.train)
    wait(lambda: workspace.stage == "idle")
    wait(lambda: False, 4)
    for case in painted:
        workspace.select_case(case)
        wait(lambda: workspace.stage == "idle", 20)
        wait(lambda: False, 1)
        mask = workspace.prediction.mask.data if workspace.prediction else np.zeros_like(truths[case])
        layer = next(one for one in viewer.layers if role_of(one).get("role") == "annotation")
        layer.data[...] = correct(np.asarray(layer.data), mask, truths[case], 2, rng)
        layer.refresh()
        wait(lambda: False, 1)
    workspace.select_case(painted[0])
    round_of(1.0)
    wait(lambda: workspace.stage == "idle")
    wait(lambda: False, 4)
    take("review", bench.review)
    workspace.segment_folder([path / "images"], place / "masks")
    wait(lambda: workspace.stage == "idle")
    take("folder", bench.folder)
    bench.shutdown()
    viewer.close()


if __name__ == "__main__":
    main()
