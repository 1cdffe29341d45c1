"""How long from a finished stroke to its instant mask? In a real window, with the worker in its own process.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/first_answer.py [--strokes 5] [--pause 1] [--picture FILE]

For an image of 512 x 512 and a volume of 256³: seconds from the end of a stroke to the moment its mask is in the layer,
the pause of the window (0.2 s) included; first of a stroke that ends --pause seconds after the window opened, then the
median and the longest of the next strokes, and of going to another plane. `worker` is the part that the worker took.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_unetseg.project import Project
from napari_unetseg.volume import Volume
from napari_unetseg.widgets.workbench import Workbench, open_workbench


def scene(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Smooth blobs with noise, and where they are."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape).astype(np.float32), 8)
    truth = smooth > smooth.std()
    return (1000 + 400 * truth + 150 * rng.normal(size=shape)).astype(np.uint16), truth


def wait(until, seconds: float = 120.0) -> float:
    """Let the window live until something is so; the seconds that took."""
    begin = time.perf_counter()
    while not until():
        QApplication.processEvents()
        time.sleep(0.002)
        if time.perf_counter() - begin > seconds:
            raise TimeoutError
    return time.perf_counter() - begin


def stroke(bench: Workbench, truth: np.ndarray, number: int) -> float:
    """Paint along a line of the plane on screen, each side in its class; seconds until the mask is there."""
    bridge, workspace = bench.context.bridge, bench.workspace
    layer, plane = bridge.annotation, bridge.slice_index()
    row = (37 * number + 20) % (truth.shape[-2] - 4)
    rows = (slice(row, row + 3),) if plane is None else (plane, slice(row, row + 3))
    before = workspace.preview
    layer.data[rows] = truth[rows] + 1
    layer.refresh()
    bridge.flush()
    return wait(lambda: workspace.preview is not before and workspace.preview is not None)


def turn(bench: Workbench) -> float:
    """Go to another plane; seconds until its mask is there."""
    before = bench.workspace.preview
    bench.context.bridge.step_slice(9)
    return wait(lambda: bench.workspace.preview is not before)


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=5)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds from the open window to the first stroke")
    parser.add_argument("--picture", help="where a picture of the window goes")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp())
    print(f"{'image':12} {'first':>6} {'median':>7} {'longest':>8} {'worker':>7} {'plane':>6}   seconds")
    for name, shape in (("512 x 512", (512, 512)), ("256^3", (256, 256, 256))):
        pixels, truth = scene(shape)
        project = Project.create(place / f"{name[:3]}.unetseg", ["background", "blob"])
        project.add_array("blobs", Volume(pixels[None]))
        project.close()
        begin = time.perf_counter()
        viewer, bench = open_workbench(project.path)
        viewer.window._qt_window.resize(1280, 720)
        opened = time.perf_counter() - begin
        with contextlib.suppress(TimeoutError):
            wait(lambda: False, given.pause)
        first = stroke(bench, truth, 0)
        times, worker = [], []
        for number in range(1, given.strokes + 1):
            times.append(stroke(bench, truth, number))
            worker.append(bench.answer.answers.seconds)
        plane = float("nan")
        if len(shape) == 3:
            plane = turn(bench)
        longest, median = max(times), statistics.median(times)
        row = f"{first:6.2f} {median:7.2f} {longest:8.2f} {statistics.median(worker):7.2f} {plane:6.2f}"
        print(f"{name:12} {row}   (opened in {opened:.1f})", flush=True)
        if given.picture:
            bench.window().grab().save(given.picture.replace(".png", f"-{len(shape)}d.png"))
        bench.shutdown()
        viewer.close()


if __name__ == "__main__":
    main()
