"""What does a stroke cost on large images? Our share of every paint event, and napari's own.

    xvfb-run -a -s "-screen 0 1280x720x24" python benchmarks/painting.py [--sizes 2048x2048 8192x8192 512x512x512]

A real napari window with the workbench; every stroke is painted through napari's own `Labels.paint`, twenty dabs in a
row, as the mouse does. Given are, in milliseconds: a dab (napari's), what we do after the stroke until the event loop
is idle (comparing, journalling to the disk, counting, the panels), the redraw after it, undo until it is journalled
(the longest hold of the event loop in it too), the flush before every button's task, a preview, and opening the image.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, Volume
from napari_unetseg.widgets.workbench import Workbench, open_workbench
from napari_unetseg.workspace import Preview


def make_project(folder: Path, shape: tuple[int, ...]) -> Path:
    path = folder / f"{'x'.join(map(str, shape))}.unetseg"
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 255, shape[-2:], dtype=np.uint8)
    data = plane if len(shape) == 2 else np.stack([np.roll(plane, shift, 0) for shift in range(shape[0])])
    with Project.create(path, ["background", "object", "other"]) as project:
        project.add_array("image", Volume(data[None], Geometry((1.0,) * len(shape), "um")))
    return path


def timed(task, *args) -> float:
    start = time.perf_counter()
    task(*args)
    return 1000 * (time.perf_counter() - start)


def settle(wait: int = 0) -> None:
    """Handle what is due, redrawing included."""
    if wait:
        QTest.qWait(wait)
    for _ in range(3):
        QApplication.processEvents()


def stroke(bench: Workbench, number: int) -> dict[str, float]:
    layer, viewer = bench.context.bridge.annotation, bench.context.viewer
    rng = np.random.default_rng(number)
    size = layer.data.shape[-1]
    y, x = rng.integers(100, size - 300, 2)
    front = tuple(int(v) for v in layer.world_to_data(viewer.dims.point)[:-2])
    layer.selected_label = 1 + number % 3
    dabs = []
    with layer.block_history():
        for step in range(20):
            dabs.append(timed(layer.paint, (*front, y + 4 * step, x + 6 * step), layer.selected_label))
    ours: list[float] = []
    sync = bench.workspace.sync_strokes
    bench.workspace.sync_strokes = lambda *args: ours.append(timed(sync, *args))
    drawn = timed(settle)
    del bench.workspace.sync_strokes
    refreshed = timed(bench.refresh)
    return {"dab": float(np.median(dabs)), "journal": sum(ours), "refresh": refreshed, "redraw": drawn - sum(ours)}


class Gaps:
    """Longest hold of the event loop."""

    def __init__(self) -> None:
        self.worst, self._last = 0.0, time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(1)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.worst, self._last = max(self.worst, now - self._last), now

    def stop(self) -> float:
        self._timer.stop()
        return 1000 * self.worst


def undo(bench: Workbench) -> dict[str, float]:
    bridge = bench.context.bridge
    gaps = Gaps()
    called = timed(bridge.undo)
    settle(1500)
    worst = gaps.stop()
    assert np.array_equal(bench.workspace.annotation(), bridge.annotation.data), "undo is journalled"
    return {"undo": called, "longest hold after undo": worst}


def preview(bench: Workbench, number: int) -> float:
    shape = bench.workspace.image().shape
    mask = np.zeros(shape[-2:], np.uint8)
    mask[100 : 200 + number, 100:300] = 1
    index = bench.context.bridge.slice_index()
    start = time.perf_counter()
    bench.workspace.preview_changed.emit(Preview(number, "image", index, mask))
    settle()
    return 1000 * (time.perf_counter() - start)


def measure(folder: Path, shape: tuple[int, ...], strokes: int) -> dict[str, Any]:
    path = make_project(folder, shape)
    viewer = napari.Viewer()
    viewer.window.resize(1280, 720)
    _, bench = open_workbench(viewer=viewer)
    settle(500)
    opened = timed(bench.images.open_project, str(path))
    settle(1000)
    rows = [stroke(bench, number) for number in range(strokes)]
    undone = [undo(bench) for _ in range(3)]
    flushes = [timed(bench.context.bridge.flush) for _ in range(3)]
    previews = [preview(bench, number) for number in range(4)][1:]
    found: dict[str, Any] = {"shape": "x".join(map(str, shape)), "open": opened}
    for name in rows[0]:
        values = [row[name] for row in rows[1:]]
        found[name], found[f"{name} p95"] = float(np.median(values)), float(np.percentile(values, 95))
    found |= {name: float(np.median([one[name] for one in undone])) for name in undone[0]}
    found |= {"flush": float(np.median(flushes)), "preview": float(np.median(previews))}
    bench.shutdown()
    viewer.close()
    settle(200)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["2048x2048", "8192x8192", "512x512x512"])
    parser.add_argument("--strokes", type=int, default=25)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    asked = parser.parse_args()
    print(f"napari {napari.__version__}, Python {platform.python_version()}, milliseconds", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in asked.sizes:
            rows.append(measure(Path(folder), tuple(map(int, size.split("x"))), asked.strokes))
            print("\n".join(f"  {k:24} {v:>9.1f}" if k != "shape" else str(v) for k, v in rows[-1].items()), flush=True)
    if asked.out:
        asked.out.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
