"""The engine and a real worker process: start, events, stop, crash, the end."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import blobs

from napari_unetseg.data.annotation import from_mask
from napari_unetseg.engine import Engine
from napari_unetseg.errors import EngineError
from napari_unetseg.events import View
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume
from napari_unetseg.workspace import Workspace

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="signals")
TINY = {
    "net": {"name": "unet", "width": 0.05, "depth": 2},
    "training": {"epochs": 100, "steps_per_epoch": 20, "patch": (32, 32), "batch_size": 2, "device": "cpu"},
}


class Ear:
    """Keeps events, and waits for them."""

    def __init__(self) -> None:
        self.heard: list[dict] = []
        self.threads: set[str] = set()
        self._news = threading.Condition()

    def __call__(self, event) -> None:
        with self._news:
            self.heard.append(event)
            self.threads.add(threading.current_thread().name)
            self._news.notify_all()

    def wait(self, *names: str, seconds: float = 240) -> dict:
        """First event of one of these names."""

        def found():
            return next((e for e in self.heard if e["event"] in names), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._over(), seconds)
            assert found(), f"none of {names} in {self.heard[-3:]}"
            return found()

    def _over(self) -> bool:
        return bool(self.heard) and self.heard[-1]["event"] in ("Done", "Failed")

    def end(self, seconds: float = 240) -> dict:
        return self.wait("Done", "Failed", seconds=seconds)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def engine(_one_thread):
    engine = Engine(on_ready=Ear(), on_crash=Ear())
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Four 64 x 64 images, all annotated, held open for work as a window does."""
    project = Project.create(tmp_path_factory.mktemp("p") / "blobs.unetseg", ["background", "blob"])
    for index in range(4):
        image, mask = blobs((64, 64), index)
        case = project.add_array(f"case{index}", Volume(image[None]))
        project.annotate(case, from_mask(mask, np.random.default_rng(index).random(mask.shape) < 0.3))
    yield project
    project.close()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def submit(engine, verb, **args) -> tuple[int, Ear]:
    ear = Ear()
    return engine.submit(verb, args, ear), ear


def training(project, engine, **more) -> tuple[int, Ear, Path]:
    folder = project.new_model_folder()
    args = {"project": str(project.path), "folder": str(folder), "plan": TINY, **more}
    return *submit(engine, "train", **args), folder


def test_a_worker_is_ready_and_answers(engine):
    facts = engine.on_ready.wait("Ready")
    assert facts["pid"] != os.getpid()
    assert facts["threads"] == 1
    assert engine.ready
    _, doctor = submit(engine, "doctor")
    _, nets = submit(engine, "nets", dims=2, in_channels=3, outputs=2)
    assert doctor.end()["result"]["torch"] == facts["torch"]
    unet = next(net for net in nets.end()["result"]["nets"] if net["name"] == "unet")
    assert (unet["in_channels"], unet["outputs"]) == (3, 2)
    assert doctor.threads != {threading.current_thread().name}


def test_mistakes_become_sentences_and_the_worker_goes_on(engine, caplog, tmp_path):
    _, unknown = submit(engine, "trian")
    assert "did you mean train" in str(unknown.end()["hint"]).lower()
    _, lacking = submit(engine, "train", project=str(tmp_path))
    assert lacking.end()["message"] == "The request lacks 'folder'."
    _, missing = submit(engine, "predict", image=str(tmp_path / "no.tif"), model=str(tmp_path))
    assert "no.tif" in missing.end()["message"]
    with caplog.at_level(logging.WARNING, "napari_unetseg.engine"):
        engine._worker._in.write('garbage\n{"look": 5}\n[1]\n{"what": 1}\n\n')
        engine._worker.send({"id": "x", "verb": "doctor"})
        _, doctor = submit(engine, "doctor")
        assert doctor.end()["event"] == "Done"
    assert caplog.text.count("does not understand") == 5


def test_a_callback_that_fails_does_not_silence_the_others(engine):
    def broken(event):
        raise RuntimeError("a mistake in a window")

    engine.submit("doctor", {}, broken)
    _, doctor = submit(engine, "doctor")
    assert doctor.end()["event"] == "Done"


def test_training_sends_curves_scores_and_previews_and_stops_within_a_second(engine, project):
    engine.on_ready.wait("Ready")
    job, ear, folder = training(project, engine, view={"case": "case0", "index": None})
    ear.wait("Started")
    assert ear.wait("StepDone")["loss"] > 0
    assert ear.wait("Validated")["scores"]["voxels"] > 0
    preview = ear.wait("PreviewReady")
    assert preview["view"] == {"case": "case0", "index": None}
    assert np.load([e for e in ear.heard if e["event"] == "PreviewReady"][-1]["mask"]).shape == (64, 64)
    engine.look(View("case2"))
    end = time.monotonic() + 30
    while time.monotonic() < end and not any(e.get("view") == {"case": "case2", "index": None} for e in ear.heard):
        time.sleep(0.05)
    assert any(e.get("view") == {"case": "case2", "index": None} for e in ear.heard)
    engine.stop(job)
    done = ear.end()
    assert done["event"] == "Done", done
    result = done["result"]
    assert (result["model"], (folder / "model.json").is_file()) == (str(folder), True)
    kept = [e for e in ear.heard if e["event"] == "Validated" and e["best"]][-1]
    assert result["scores"]["dice"] == pytest.approx(kept["scores"]["dice"])

    _, ear = submit(engine, "predict", project=str(project.path), case="case1", model=str(folder))
    mask = np.load(ear.end()["result"]["mask"])
    assert (mask.shape, mask.dtype) == ((64, 64), np.uint8)


def test_jobs_wait_for_each_other_and_one_that_waits_can_be_stopped(engine, project):
    first, ear, _ = training(project, engine)
    second, waiting = submit(engine, "doctor")
    ear.wait("StepDone")
    assert waiting.heard == []
    engine.stop(second)
    engine.stop(first)
    assert ear.end()["event"] == "Done"
    assert waiting.end()["stopped"] is True


@posix
def test_a_killed_worker_costs_a_message_and_a_new_one_takes_over(engine, project):
    pid = engine.on_ready.wait("Ready")["pid"]
    _, ear, _ = training(project, engine)
    ear.wait("StepDone")
    arrays = engine._worker._folder
    engine.on_ready.heard.clear()
    os.kill(pid, signal.SIGKILL)
    failed = ear.wait("Failed", seconds=10)
    assert failed["crashed"] is True
    assert "killed" in failed["message"]
    assert "Your strokes and models are safe." in failed["hint"]
    fresh = engine.on_ready.wait("Ready")
    assert fresh["pid"] != pid
    assert [message for message in engine.on_crash.heard if "killed" in message]
    _, doctor = submit(engine, "doctor")
    assert doctor.end()["event"] == "Done"
    assert not arrays.exists()


@posix
def test_a_worker_that_dies_again_and_again_is_not_started_for_ever(monkeypatch):
    monkeypatch.setenv("NAPARI_UNETSEG_PYTHON", "/bin/false")
    crashes = Ear()
    engine = Engine(on_crash=crashes)
    engine.start()
    end = time.monotonic() + 20
    while len(crashes.heard) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(crashes.heard) == 3
    assert "3 times in a row" in crashes.heard[-1]
    monkeypatch.delenv("NAPARI_UNETSEG_PYTHON")
    _, doctor = submit(engine, "doctor")  # asked for again: a new one is started
    assert doctor.end()["event"] == "Done"
    engine.close()


def test_a_python_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_UNETSEG_PYTHON", str(tmp_path / "python"))
    with pytest.raises(EngineError, match="NAPARI_UNETSEG_PYTHON"):
        Engine().start()


@posix
def test_closing_ends_the_process_and_removes_its_arrays(project):
    engine = Engine(on_ready=Ear())
    engine.start()
    pid = engine.on_ready.wait("Ready")["pid"]
    arrays = engine._worker._folder
    assert os.getpriority(os.PRIO_PROCESS, pid) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    _, ear, folder = training(project, engine)
    ear.wait("Validated")
    engine.close(grace=30)
    assert not alive(pid)
    assert not arrays.exists()
    assert not folder.exists()
    assert (folder.with_name(f".{folder.name}.training") / "state.json").is_file()  # it can be gone on with
    with pytest.raises(EngineError):
        engine.submit("doctor", {}, Ear())
    engine.close()


def test_closing_before_the_worker_has_begun_to_listen_scares_nobody(caplog):
    engine = Engine()
    engine.start()
    process = engine._worker._process
    engine.close(grace=0.0)
    assert process.poll() is not None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@posix
def test_the_worker_ends_when_its_window_is_killed(project):
    code = """
import sys, time
from napari_unetseg.engine import Engine
engine = Engine(on_ready=lambda e: print(e["pid"], engine._worker._folder, flush=True))
engine.start()
args = {"project": sys.argv[1], "folder": sys.argv[2], "minutes": 5}
engine.submit("train", args, lambda e: e["event"] == "StepDone" and print("step", flush=True))
time.sleep(100)
"""
    folder = project.new_model_folder()
    window = subprocess.Popen(
        [sys.executable, "-c", code, str(project.path), str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    pid, arrays = window.stdout.readline().split()
    assert window.stdout.readline() == "step\n"
    window.kill()
    window.wait()
    window.stdout.close()
    assert gone(int(pid), 8)
    assert not Path(arrays).exists()


def test_two_engines_work_side_by_side(engine, project):
    other = Engine()
    with other:
        job, ear, _ = training(project, engine)
        _, doctor = submit(other, "doctor")
        assert doctor.end()["event"] == "Done"
        engine.stop(job)
        assert ear.end()["event"] in ("Done", "Failed")


class Hall:
    """Hands the engine's events over to the test's thread, as a window does to its own."""

    def __init__(self, engine) -> None:
        self._engine, self._events = engine, queue.SimpleQueue()
        self.stop, self.look = engine.stop, engine.look

    def submit(self, verb, args, on_event) -> int:
        return self._engine.submit(verb, args, lambda event: self._events.put((on_event, event)))

    def run_until(self, there: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < end, "it did not come"
            with contextlib.suppress(queue.Empty):
                on_event, event = self._events.get(timeout=0.1)
                on_event(event)


def test_the_whole_loop_runs_through_the_workspace(engine, tmp_path):
    hall = Hall(engine)
    work = Workspace(hall)
    said = []
    work.message.connect(lambda message: said.append(str(message)))
    work.create_project(tmp_path / "loop.unetseg", ["background", "blob"])
    truth = {}
    for index in range(4):
        image, mask = blobs((64, 64), index)
        truth[work.add_array(f"case{index}", Volume(image[None]))] = mask
    work.change_plan(net=TINY["net"], training={**TINY["training"], "epochs": None, "minutes": 0.1})
    work.ask_nets()
    for case in work.cases:
        work.select_case(case)
        work.sync_strokes(from_mask(truth[case], np.random.default_rng(1).random((64, 64)) < 0.2))
    work.select_case("case0")

    work.train()
    hall.run_until(lambda: work.prediction is not None)
    assert [net["name"] for net in work.nets][:1]
    assert (len(work.rounds), work.rounds[0].current, work.stage) == (1, True, "idle")
    assert work.rounds[0].scores.voxels > 0
    assert work.curves.losses
    assert work.curves.validations
    assert work.preview is None  # the whole mask took its place

    labels = work.annotation()
    labels[:4] = 1 + truth["case0"][:4]
    work.sync_strokes(labels)
    work.train()
    hall.run_until(lambda: len(work.curves.losses) > 2)
    work.stop()
    hall.run_until(lambda: work.stage == "idle")
    assert len(work.corrections) == 1
    assert work.corrections[0].scores.rule == "new strokes"
    assert len(work.rounds) == 2
    assert work.rounds[1].scores.mean_dice >= work.curves.validations[0][1].mean_dice
    work.accept()
    assert (work.project.mask("case0").data[:4] == truth["case0"][:4]).all()
    work.segment_folder([work.project.image_path("case1")], tmp_path / "out")
    hall.run_until(lambda: work.stage == "idle")
    assert [row["status"] for row in work.folder_rows] == ["done"]
    work.close_project()
