"""SIGKILL to a real napari at random moments of painting, undoing, filling, training, accepting and saving.

    xvfb-run -a -s "-screen 0 1280x720x24" python benchmarks/kill_napari.py [--kills 100] [--minutes 8] [--seed 0]

One project, killed over and over, and opened again each time. Strokes are real mouse events on the canvas of a real
window. The window tells over a pipe what it begins and what is finished: a stroke is, when the mouse was released and
that event was handled. After each kill the project is opened by this process, and

* every finished stroke is there, voxel by voxel; of what was under way, each voxel is as before or as after;
* accepted masks are whole, the last or the one that was being written;
* every model that is listed can be read, the project opens, and the worker of the dead window has ended.

The window is forked from a process that has imported napari already, which only saves time. Linux.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import random
import select
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_unetseg.data.annotation import overrule
from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.widgets.workbench import open_workbench
from napari_unetseg.workspace import Prediction

SHAPE = (96, 128)
LEFT = Qt.MouseButton.LeftButton


# -- the window that is killed ----------------------------------------------------------------------------------


class Window:
    """Paints, undoes, fills, trains, accepts and saves at random, and tells what it does."""

    def __init__(self, path: Path, pipe: int, seed: int) -> None:
        self.pipe, self.random = pipe, random.Random(seed)
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 720)
        _, self.bench = open_workbench(path, self.viewer)
        QTest.qWait(300)
        self.bench.workspace.change_plan(training={"minutes": 0.2})
        self.before: list[np.ndarray] = [self.labels]
        self.tell("ready", labels=self.labels, case=self.case)

    @property
    def case(self) -> str:
        return self.bench.workspace.case

    @property
    def labels(self) -> np.ndarray:
        return self.bench.context.bridge.annotation.data.copy()

    def tell(self, what: str, **facts: Any) -> None:
        data = pickle.dumps({"what": what, "training": self.bench.workspace.stage == "training", **facts})
        data = struct.pack("<Q", len(data)) + data
        while data:
            data = data[os.write(self.pipe, data) :]

    def run(self) -> None:
        while True:
            kinds = {"stroke": 12, "undo": 2, "fill": 1, "train": 3, "accept": 2, "save": 2, "image": 1}
            getattr(self, self.random.choices(list(kinds), list(kinds.values()))[0])()

    def change(self, kind: str, after: np.ndarray | None, label: int = 0) -> None:
        """Tell of a change of the strokes that begins: what each voxel may be while it is under way."""
        allowed = np.full(SHAPE, label, np.uint8) if after is None else after
        self.tell("begin", kind=kind, case=self.case, allowed=allowed)

    def changed(self) -> None:
        self.tell("end", case=self.case, labels=self.labels)
        self.before.append(self.labels)

    def stroke(self) -> None:
        bridge = self.bench.context.bridge
        bridge.select_class(self.random.randint(1, 3))
        self.change("stroke", None, bridge.annotation.selected_label)
        shown = [w for w in QApplication.allWidgets() if type(w).__name__.startswith("CanvasBackend")]
        canvas = next(w for w in shown if w.window() is self.bench.window() and w.isVisible())
        start = np.array([self.random.uniform(5, size - 5) for size in SHAPE])
        end = np.clip(start + [self.random.uniform(-25, 25) for _ in SHAPE], 3, np.array(SHAPE) - 3)
        QTest.mousePress(canvas, LEFT, pos=self._at(canvas, start))
        for share in np.linspace(0.1, 1, 10):
            QTest.mouseMove(canvas, self._at(canvas, start * (1 - share) + end * share))
            QTest.qWait(3)
        QTest.mouseRelease(canvas, LEFT, pos=self._at(canvas, end))
        QTest.qWait(1)
        self.changed()

    def _at(self, canvas: QWidget, point: np.ndarray) -> QPoint:
        camera = self.viewer.scene.camera
        world = np.array(self.bench.context.bridge.annotation.data_to_world(point)[-2:])
        y, x = (world - np.array(camera.center[-2:])) * camera.zoom
        return QPoint(round(canvas.width() / 2 + x), round(canvas.height() / 2 + y))

    def undo(self) -> None:
        if len(self.before) > 1:
            self.change("undo", self.before[-2])
            self.bench.context.bridge.undo()
            QTest.qWait(500)
            self.before.pop()
            self.tell("end", case=self.case, labels=self.labels)

    def fill(self) -> None:
        mask = np.zeros(SHAPE, np.uint8)
        mask[20:40, 30:60] = 1
        self._predict(mask)
        now = self.labels
        self.change("fill", np.where((now == 0) & (mask > 0), 2, now))
        self.bench.context.bridge.edits.copy_mask()
        self.changed()

    def train(self) -> None:
        if not self.bench.workspace.why_not("train"):
            self.tell("begin", kind="train", case=self.case, allowed=None)
            self.bench.context.do(self.bench.workspace.train)

    def accept(self) -> None:
        if self.bench.workspace.saving:
            return
        mask = np.random.default_rng(self.random.randrange(2**30)).integers(0, 3, SHAPE).astype(np.uint8)
        self._predict(mask)
        if self.bench.workspace.why_not("accept"):
            return
        accepted = overrule(mask, self.labels)
        self.tell("begin", kind="accept", case=self.case, allowed=None, mask=accepted)
        self.bench.context.do(self.bench.workspace.accept)
        for _ in range(200):
            QTest.qWait(5)
            if not self.bench.workspace.saving:
                break
        self.tell("accepted", case=self.case, mask=accepted)

    def _predict(self, mask: np.ndarray) -> None:
        workspace = self.bench.workspace
        workspace.prediction = Prediction(self.case, None, LabelVolume(mask, workspace.image().geometry))
        workspace.prediction_changed.emit(workspace.prediction)

    def save(self) -> None:
        self.tell("begin", kind="save", case=self.case, allowed=None)
        self.bench.workspace.project.snapshot()
        self.tell("saved")

    def image(self) -> None:
        self.tell("begin", kind="image", case=self.case, allowed=None)
        self.bench.images.go_further(1)
        QTest.qWait(50)
        self.before = [self.labels]
        self.tell("now", case=self.case, labels=self.labels)


# -- who kills it -----------------------------------------------------------------------------------------------


class Known:
    """What must be on the disk."""

    def __init__(self) -> None:
        self.labels: dict[str, np.ndarray] = {}
        self.masks: dict[str, np.ndarray] = {}
        self.open: dict[str, Any] | None = None
        self.counts: collections.Counter[str] = collections.Counter()
        self.training = False
        self.workers: list[int] = []  # of dead windows

    def take(self, news: dict[str, Any]) -> None:
        kind, self.training = news["what"], news["training"]
        if kind == "begin":
            self.open = news
            return
        if kind in ("ready", "now"):
            before = self.labels.get(news["case"])
            assert before is None or np.array_equal(before, news["labels"]), f"the window shows other strokes ({kind})"
        if kind == "accepted":
            self.masks[news["case"]] = news["mask"]
            self.counts["accepted masks"] += 1
        if "labels" in news:
            self.labels[news["case"]] = news["labels"]
            if kind == "end":
                self.counts[f"{self.open['kind']}s"] += 1
        self.open = None


def read_news(pipe: int, until: float) -> list[dict[str, Any]] | None:
    """What comes until then; None when the pipe was closed before: the window died by itself."""
    news = []
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        one = read_one(pipe)
        if one is None:
            return None
        news.append(one)
    return news


def rest_of_news(pipe: int) -> list[dict[str, Any]]:
    """What a window that is dead by now had told; half a message is none."""
    news = []
    while (one := read_one(pipe)) is not None:
        news.append(one)
    return news


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(one) for one in task.read_text().split()]
    return found


def going_on(pids: list[int], seconds: float) -> list[int]:
    """Those of the processes that are alive still, at the latest after so long."""
    end = time.monotonic() + seconds
    while (alive := [pid for pid in pids if _alive(pid)]) and time.monotonic() < end:
        time.sleep(0.2)
    return alive


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def check(path: Path, known: Known) -> list[str]:
    """What is wrong on the disk; takes what was under way as it is, from now on."""
    wrong: list[str] = []
    with Project.open(path) as project:
        under_way = known.open if known.open and known.open["allowed"] is not None else None
        for case in project.cases:
            found, before = project.annotation(case).data, known.labels.get(case, np.zeros(SHAPE, np.uint8))
            right = found == before
            if under_way is not None and under_way["case"] == case:
                right |= found == under_way["allowed"]
            if not right.all():
                wrong.append(f"{(~right).sum()} voxels of {case} are neither as before nor as after")
            known.labels[case] = found
            mask = project.mask(case)
            masks = [known.masks.get(case)]
            if known.open and known.open["kind"] == "accept" and known.open["case"] == case:
                masks.append(known.open["mask"])
            if not any(
                one is None if mask is None else one is not None and np.array_equal(one, mask.data) for one in masks
            ):
                wrong.append(f"the mask of {case} is not one that was accepted")
            known.masks |= {case: mask.data} if mask is not None else {}
        for folder in project.models:
            json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if project.models and project.current_model is not None and project.current_model not in project.models:
            wrong.append("the model in use is not in the project")
    known.open = None
    return wrong


def kill_once(path: Path, number: int, rng: random.Random, known: Known) -> tuple[str, list[str]]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        quiet = os.open(path.parent / "window.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        Window(path, writing, number).run()
    os.close(writing)
    began = read_one(reading, patience=120)
    if began is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return "start", [f"the window did not open: {(path.parent / 'window.log').read_text()[-1500:]}"]
    known.take(began)
    news = read_news(reading, time.monotonic() + rng.uniform(0.05, rng.choice((1.0, 3.0, 8.0))))
    workers = children(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    died = news is None
    for one in [*(news or []), *rest_of_news(reading)]:
        known.take(one)
    os.close(reading)
    moment = known.open["kind"] if known.open else "between"
    moment += " while training" if known.training else ""
    wrong = check(path, known)
    if died:
        wrong.append(f"the window died by itself: {(path.parent / 'window.log').read_text()[-1500:]}")
    known.workers += workers
    return moment, wrong


def read_one(pipe: int, patience: float = 10) -> dict[str, Any] | None:
    """One message, or None when there is no whole one."""
    head = _exactly(pipe, 8, time.monotonic() + patience)
    data = _exactly(pipe, struct.unpack("<Q", head)[0], time.monotonic() + 10) if head else None
    return pickle.loads(data) if data else None


def _exactly(pipe: int, size: int, until: float) -> bytes | None:
    data = b""
    while len(data) < size:
        if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        part = os.read(pipe, size - len(data))
        if not part:
            return None
        data += part
    return data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, known, moments = random.Random(asked.seed), Known(), collections.Counter()
    end, failures, kills = time.monotonic() + 60 * asked.minutes, 0, 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "killed.unetseg"
        noise = np.random.default_rng(asked.seed).integers(0, 255, (2, 1, *SHAPE), dtype=np.uint8)
        with Project.create(path, ["background", "cell", "nucleus"]) as project:
            for name, data in zip("ab", noise, strict=True):
                project.add_array(name, Volume(data, Geometry((1.0, 1.0), "um")))
        while kills < asked.kills and time.monotonic() < end:
            moment, wrong = kill_once(path, 1000 * asked.seed + kills, rng, known)
            kills, failures = kills + 1, failures + bool(wrong)
            moments[moment] += 1
            print(f"{kills:4} killed in {moment:22} {'; '.join(wrong) or 'all found'}", flush=True)
            if wrong and moment == "start":
                break
    if left := going_on(known.workers, 60):
        failures += 1
        print(f"workers of dead windows that go on after a minute: {len(left)}")
    print(f"{kills} kills, {failures} with a loss; killed in: {dict(moments)}; finished before: {dict(known.counts)}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
