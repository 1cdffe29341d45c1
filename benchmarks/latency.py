"""Does the window stutter? Gaps of the event loop while the worker trains and a simulated hand paints.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/latency.py [--shape 512 512] [--seconds 40] [--profile]

A real napari window with the workbench; strokes are real mouse events on the canvas, in the order of a person: 25
points, and half a second between strokes. A timer of 5 ms is due all the time; what it comes late is the latency.
First napari alone, with an image and a label layer in a window as large: what it takes to draw its canvas (long, where
the processor has to do it) no plugin can take away. On a computer that does other things besides, what others take is
in all of them; so the processor time that the window's own thread took in each gap is given too. With ``--profile`` a
second thread looks what the window is at whenever it is late by its own work, and the places are printed.
"""

from __future__ import annotations

import argparse
import collections
import functools
import gc
import os
import platform
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_unetseg.io import write
from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, Volume
from napari_unetseg.widgets.workbench import open_workbench

TICK = 0.005
LATE = 0.05
WINDOW = (1280, 800)


class Clock:
    """Times between the ticks of the event loop, and what it was at when one was late."""

    def __init__(self, profile: bool) -> None:
        self.late: list[float] = []
        self.own: list[float] = []
        self.places: dict[str, float] = collections.defaultdict(float)
        self._last, self._worked, self._seen = time.perf_counter(), time.thread_time(), ""
        self._main = threading.get_ident()
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)
        self._watching = profile

    def start(self) -> None:
        self._last, self._worked = time.perf_counter(), time.thread_time()
        self.timer.start(round(1000 * TICK))
        if self._watching:
            threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        self.timer.stop()
        self._watching = False

    def _tick(self) -> None:
        now, worked = time.perf_counter(), time.thread_time()
        self.late.append(max(0.0, now - self._last - TICK))
        self.own.append(worked - self._worked)
        if self._seen and self.own[-1] > LATE / 2:
            self.places[self._seen] += self.own[-1]
        self._last, self._worked, self._seen = now, worked, ""

    def _watch(self) -> None:
        while self._watching:
            time.sleep(0.005)
            if time.perf_counter() - self._last > LATE / 2:
                stack = traceback.extract_stack(sys._current_frames()[self._main])
                ours = [frame for frame in stack if "napari_unetseg" in frame.filename]
                frames = [*ours[-3:], *[frame for frame in stack[-4:] if frame not in ours[-3:]]]
                self._seen = " < ".join(f"{Path(f.filename).stem}.{f.name}:{f.lineno}" for f in reversed(frames))


class Hand:
    """Paints with the mouse, a few points every 15 ms."""

    def __init__(self, select, rng) -> None:
        self.select, self.rng = select, rng
        shown = [w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")]
        self.canvas: QWidget = next(w for w in shown if w.isVisible())

    def paint(self, seconds: float) -> int:
        """Stroke after stroke for so long; how many they were."""
        end, strokes = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            strokes += 1
            self.stroke(1 + strokes % 2)
            wait(0.5)
        return strokes

    def stroke(self, label: int) -> None:
        self.select(label)
        size = self.canvas.width(), self.canvas.height()
        start = self.rng.uniform(0.3, 0.7, 2) * size
        end = start + self.rng.uniform(-0.08, 0.08, 2) * size
        places = [QPoint(*(int(v) for v in start + share * (end - start))) for share in np.linspace(0, 1, 25)]
        left = Qt.MouseButton.LeftButton
        QTest.mousePress(self.canvas, left, pos=places[0])
        for place in places[1:]:
            QTest.mouseMove(self.canvas, place)
            wait(0.015)
        QTest.mouseRelease(self.canvas, left, pos=places[-1])


def wait(seconds: float) -> None:
    """Let the event loop run, without burning the processor that the worker shares."""
    QTest.qWait(max(1, round(1000 * seconds)))


def wait_until(done, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        wait(0.02)


def make_project(place: Path, shape: list[int], rng) -> Path:
    from scipy import ndimage

    blobs = ndimage.gaussian_filter(rng.random(shape, dtype=np.float32), 4)
    truth = blobs > np.percentile(blobs[:: max(1, shape[0] // 64)], 80)
    image = (truth * 800 + rng.integers(0, 900, shape)).astype(np.uint16)[None]
    with Project.create(place / "latency.unetseg", ["background", "cell"]) as project:
        for name in ("a", "b"):
            path = place / f"{name}.tif"
            write(path, Volume(image, Geometry((1.0,) * len(shape), "um")))
            case = project.add(path)
            strokes = np.zeros(shape, np.uint8)
            middle = (shape[0] // 2,) if len(shape) == 3 else ()
            plane, here = strokes[middle], truth[middle]
            for index in range(8):
                row = (index + 1) * plane.shape[0] // 10
                plane[row : row + 3] = here[row : row + 3] + 1
            project.annotate(case, strokes)
        return project.path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", type=int, nargs="+", default=[512, 512])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    if given.profile:  # what the second thread collects may be a widget that is being painted
        gc.disable()
    rng = np.random.default_rng(0)
    napari_alone(given, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = make_project(Path(folder), given.shape, rng)
        viewer, bench = open_workbench(path)
        viewer.window.resize(*WINDOW)
        space = bench.workspace
        wait_until(lambda: bool(space.nets), 120)
        space.change_plan(training={"minutes": given.seconds / 60 * 2 + 0.3})
        hand = Hand(bench.context.bridge.select_class, rng)
        wait(1.0)
        hand.stroke(2)
        wait(2.0)
        clock = Clock(given.profile)
        clock.start()
        report("painting", given.shape, clock, hand.paint(given.seconds / 2), space)
        wait_until(lambda: not space.why_not("train"), 60)
        for what, paint in (("training", False), ("training and painting", True)):
            clock = Clock(given.profile)
            clock.start()
            if not paint:
                QTest.mouseClick(bench.train.train, Qt.MouseButton.LeftButton)
                wait_until(lambda: len(space.curves.steps) > 2, 120)
                wait(given.seconds)
            report(what, given.shape, clock, hand.paint(given.seconds) if paint else 0, space)
        clock = Clock(given.profile)
        clock.start()
        space.stop()
        wait_until(lambda: space.prediction is not None, 120)
        wait(1.0)
        QTest.mouseClick(bench.review.accept, Qt.MouseButton.LeftButton)
        wait_until(lambda: space.accepted, 60)
        report("round ends, mask shown and accepted", given.shape, clock, 0, space)
        bench.shutdown()
        viewer.close()


def napari_alone(given: argparse.Namespace, rng) -> None:
    """The same painting in a napari without us."""
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    viewer.add_image(rng.integers(0, 900, given.shape).astype(np.uint16))
    layer = viewer.add_labels(np.zeros(given.shape, np.uint8))
    layer.mode, layer.brush_size = "paint", 10
    wait(2.0)
    hand, clock = Hand(functools.partial(setattr, layer, "selected_label"), rng), Clock(given.profile)
    clock.start()
    report("napari alone, painting", given.shape, clock, hand.paint(given.seconds / 2))
    viewer.close()
    wait(1.0)


def report(what, shape, clock: Clock, strokes: int, space=None) -> None:
    clock.stop()
    late, own = 1000 * np.array(clock.late), 1000 * np.array(clock.own)
    middle, high = np.percentile(late, (50, 99))
    of_middle, of_high = np.percentile(own, (50, 99))
    size = " x ".join(map(str, shape))
    print(
        f"{size} | {what} | {len(late):,} ticks, {strokes} strokes, "
        f"{len(space.curves.steps) if space else 0} step events | "
        f"late: p50 {middle:.1f} ms, p99 {high:.1f} ms, longest {late.max():.0f} ms | "
        f"own work: p50 {of_middle:.1f} ms, p99 {of_high:.1f} ms, longest {own.max():.0f} ms, "
        f"over 50 ms {(own > 50).sum()}",
        flush=True,
    )
    for place, seconds in sorted(clock.places.items(), key=lambda one: -one[1])[:12]:
        print(f"    {1000 * seconds:5.0f} ms  {place}")


if __name__ == "__main__":
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    main()
