"""The worker in this process: its verbs, its pipes, and what it says when something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.data.annotation import from_mask
from napari_unetseg.errors import ReadError, Stopped
from napari_unetseg.events import PreviewReady, StepDone, TileDone, View
from napari_unetseg.project import Project
from napari_unetseg.registry import Registry
from napari_unetseg.scores import Scores
from napari_unetseg.training import fine_tune
from napari_unetseg.volume import Volume
from napari_unetseg.worker import loop
from napari_unetseg.worker.loop import Worker
from napari_unetseg.worker.verbs import Bench

ROOT = Path(__file__).parents[1]
PLAN = nus.Plan(
    net={"name": "unet", "width": 0.1, "depth": 3},
    training={"epochs": 8, "steps_per_epoch": 10, "patch": (32, 32), "batch_size": 2, "device": "cpu"},
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project.create(tmp_path_factory.mktemp("p") / "blobs.unetseg", ["background", "blob"])
    for index in range(4):
        image, mask = blobs((64, 64), index)
        case = project.add_array(f"case{index}", Volume(image[None]))
        project.annotate(case, from_mask(mask, np.random.default_rng(index).random(mask.shape) < 0.3))
    yield project
    project.close()


@pytest.fixture(scope="module")
def model(project):
    folder = project.new_model_folder()
    fine_tune(project, PLAN, folder=folder)
    return folder


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.probe = lambda: ()
    return bench


class Wire:
    """Both pipes of a worker: commands stay open until the job has ended."""

    def __init__(self, *commands) -> None:
        self.commands, self.events = commands, []
        self._ended = threading.Event()

    def __iter__(self):
        for command in self.commands:
            if callable(command):
                assert command(60)  # a moment to wait for
            else:
                yield json.dumps(command) + "\n"
        assert self._ended.wait(120)

    def write(self, line: str) -> None:
        self.events.append(json.loads(line))
        if self.events[-1]["event"] in ("Done", "Failed"):
            self._ended.set()

    def flush(self) -> None:
        pass


def run(bench, verb, **args):
    """Last event of a job, and the ones before it, as they travel."""
    wire = Wire({"id": 1, "verb": verb, "args": args})
    Worker(wire, wire, bench).run()
    assert all(event["id"] == 1 for event in wire.events)
    return wire.events[-1], wire.events[:-1]


@pytest.fixture
def own(monkeypatch):
    """Registry of verbs for the test's own."""
    verbs = Registry("verb")
    monkeypatch.setattr(loop, "VERBS", verbs)
    return verbs


def test_an_instant_answer_is_served_between_the_steps_of_another_job(bench, own):
    order = []

    @own.register("long")
    def long(args, control, bench):
        worker._obey({"id": 2, "verb": "instant", "args": {}})
        for step in range(3):
            order.append(step)
            yield TileDone(step + 1, 3)
        return {}

    own.register("instant")(lambda args, control, bench: order.append("answer") or {})
    wire = Wire({"id": 1, "verb": "long", "args": {}})
    worker = Worker(wire, wire, bench)
    worker.run()
    assert order == [0, "answer", 1, 2]
    assert [event["id"] for event in wire.events if event["event"] == "Done"] == [2, 1]


def test_a_case_is_predicted_and_the_mask_handed_over(bench, project, model):
    done, events = run(bench, "predict", project=str(project.path), case="case0", model=str(model))
    mask = np.load(done["result"]["mask"])
    assert (mask.shape, mask.dtype) == ((64, 64), np.uint8)
    assert 0.02 < mask.mean() < 0.6
    assert events[-1]["event"] == "TileDone"
    other, _ = run(bench, "predict", image=str(project.image_path("case0")), model=str(model))
    assert (np.load(other["result"]["mask"]) == mask).all()


def test_a_model_is_loaded_once_until_its_folder_changes(bench, model):
    first = bench.model(str(model))
    assert bench.model(str(model)) is first
    os.utime(model / "model.json", ns=(1, 1))
    assert bench.model(str(model)) is not first


def test_a_folder_is_segmented(bench, project, model, tmp_path):
    images = [str(project.image_path(case)) for case in project.cases[:2]]
    done, events = run(bench, "segment", inputs=images, model=str(model), out=str(tmp_path / "out"))
    assert [event["status"] for event in events if event["event"] == "FileDone"] == ["done", "done"]
    assert len(done["result"]["rows"]) == 2
    assert (tmp_path / "out" / "table.csv").is_file()


def test_the_next_round_is_compared_with_the_one_before(bench, project, model):
    plan = json.loads(PLAN.to_json(complete=False))
    args = {"project": str(project.path), "plan": plan, "previous": str(model)}
    done, _ = run(bench, "train", **args, folder=str(project.new_model_folder()), start=str(model))
    assert done["result"]["previous"]["dice"] == nus.Model.load(model).scores.dice
    # another architecture does not start from it, and is held to the same voxels all the same
    plan["net"]["width"] = 0.05
    done, _ = run(bench, "train", **args, folder=str(project.new_model_folder()), start=None)
    result = done["result"]
    assert result["previous"]["dice"] == pytest.approx(dict(nus.Model.load(model).scores.dice), abs=0.01)
    assert result["previous"]["voxels"] == result["scores"]["voxels"]
    assert Path(result["model"], "model.json").is_file()


def test_a_round_after_the_instant_model_is_compared_with_it(bench, project):
    plan = json.loads(PLAN.to_json(complete=False))
    quick = {"training": {**plan["training"], "epochs": None, "minutes": 1e-6}}  # no time for a step
    args = {"project": str(project.path), "folder": str(project.new_model_folder())}
    done, _ = run(bench, "train", **args, plan=quick, start=None, previous=None)
    first = done["result"]["model"]
    assert nus.Model.load(first).plan.net.name == "instant"
    args["folder"] = str(project.new_model_folder())
    done, _ = run(bench, "train", **args, plan={**plan, "training": quick["training"]}, start=first, previous=first)
    assert done["result"]["previous"]["dice"] == pytest.approx(dict(nus.Model.load(first).scores.dice), abs=0.01)


def test_only_strokes_the_model_has_not_seen_are_scored(bench, project, model):
    seen = {case: project.revisions(case)[-1] for case in project.cases}
    args = {"project": str(project.path), "model": str(model)}
    done, _ = run(bench, "score_strokes", **args, seen=seen)
    assert done["result"]["scores"] is None
    strokes = np.zeros((3, 5), np.uint8)
    strokes[0] = 1
    before = project.annotation("case1").data[10:13, 20:25]
    project.journal("case1", (slice(10, 13), slice(20, 25)), np.where(strokes, 3 - np.maximum(before, 1), before))
    done, _ = run(bench, "score_strokes", **args, seen=seen)
    scores = Scores.from_dict(done["result"]["scores"])
    assert (scores.voxels, scores.images, scores.rule) == (5, ("case1",), "new strokes")
    assert sum(done["result"]["strokes"].values()) == 1
    assert done["result"]["seen"] > 1
    # what was painted after the revisions of a job is none of its business
    done, _ = run(bench, "score_strokes", **args, seen=seen, revisions=seen)
    assert done["result"]["scores"] is None


def test_previews_travel_as_files_of_which_the_newest_stay(bench, own, tmp_path):
    @own.register("show")
    def show(args, control, bench):
        for step in range(7):
            yield PreviewReady(step, View("a", 1), np.full((2, 2), step, np.uint8))
        return {}

    _, events = run(bench, "show")
    assert events[-1]["view"] == {"case": "a", "index": 1}
    assert np.load(events[-1]["mask"])[0, 0] == 6
    assert len(list(tmp_path.glob("preview-*.npy"))) == 4


def test_a_tiny_net_does_not_flood_the_window(bench, own):
    @own.register("race")
    def race(args, control, bench):
        for step in range(1000):
            yield StepDone(step, 0.5, 0.0, 0.0)
        return {}

    _, events = run(bench, "race")
    assert 1 <= len(events) < 500
    assert all(event["memory"] is None or event["memory"] > 2**20 for event in events)


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (MemoryError(), "Memory ran out.", "smaller patch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried ..."), "Memory ran out.", "smaller patch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Memory ran out.", "smaller patch"),
        (ReadError("a.tif is empty.", hint="Copy it again."), "a.tif is empty.", "Copy it again."),
        (ZeroDivisionError("one\ntwo"), "An unexpected error ended this (ZeroDivisionError: one).", "report"),
        (SystemExit(3), "An unexpected error ended this (SystemExit: 3).", "report"),
    ],
)
def test_every_failure_is_a_sentence(bench, own, error, message, hint):
    @own.register("fail")
    def fail(args, control, bench):
        yield StepDone(1, 0.5, 0.0, 0.0)
        raise error

    failed, events = run(bench, "fail")
    assert (failed["event"], failed["message"], len(events)) == ("Failed", message, 1)
    assert hint in failed["hint"]
    assert "stopped" not in failed


def test_stop_and_look_reach_the_running_verb_and_it_is_closed(bench, own):
    began, closed = threading.Event(), threading.Event()

    @own.register("wait")
    def wait(args, control, bench):
        began.set()
        try:
            while not control.stopped:
                time.sleep(0.01)
            raise Stopped(f"Stopped while looking at {control.view.case}.")
            yield
        finally:
            closed.set()

    look, other, stop = {"look": {"case": "b", "index": 2}}, {"stop": 7}, {"stop": 1}
    wire = Wire({"id": 1, "verb": "wait"}, began.wait, look, other, stop)
    Worker(wire, wire, bench).run()
    assert wire.events[-1] == {
        "id": 1,
        "event": "Failed",
        "message": "Stopped while looking at b.",
        "hint": "",
        "stopped": True,
    }
    assert closed.is_set()


def test_what_it_does_not_understand_is_said_and_it_goes_on(bench, own):
    @own.register("answer")
    def answer(args, control, bench):
        return {}

    class Garbled(Wire):
        def __iter__(self):
            yield from ("[" * 100_000 + "\n", '{"id": 1e999, "verb": "answer"}\n', "[1]\n", "\x00\n", '{"stop": [1]}\n')
            yield from super().__iter__()

    wire = Garbled({"id": 1, "verb": "answer"})
    Worker(wire, wire, bench).run()
    assert [event["event"] for event in wire.events] == ["Note"] * 5 + ["Done"]


def test_nobody_listening_ends_the_work(bench, own):
    class Broken(Wire):
        def write(self, line):
            self._ended.set()
            raise BrokenPipeError

    @own.register("talk")
    def talk(args, control, bench):
        while not control.left:
            yield StepDone(1, 0.5, 0.0, 0.0)
        return {}

    left = []
    wire = Broken({"id": 1, "verb": "talk"})
    Worker(wire, wire, bench, lambda: left.append(1)).run()
    assert left


def test_what_a_library_prints_stays_out_of_the_channel():
    code = (
        "import os, sys\n"
        "from napari_unetseg.worker.__main__ import _take_pipes\n"
        "commands, events = _take_pipes()\n"
        "print('noise'); os.write(1, b'more noise'); os.system('echo from a child')\n"
        "events.write('only this'); events.flush()\n"
        "assert sys.stdin.read() == '' and commands.read() == 'a command'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="a command", capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "only this"
    assert {"noise", "more noise", "from a child"} <= set(done.stderr.replace("more noise", "more noise\n").split("\n"))


def test_nets_are_compared_and_go_on_where_they_were_stopped(bench, project, tmp_path):
    out = project.path / "comparison"
    plan = PLAN.change(training={"epochs": 1, "minutes": None})
    args = {"project": str(project.path), "plan": json.loads(plan.to_json(complete=False)), "out": str(out)}
    args |= {"nets": ["unet", "instant"], "folds": 2}
    done, events = run(bench, "compare", **args)
    result = done["result"]
    assert (result["runs"], result["expected"], result["failed"]) == (4, 4, [])
    assert {row["net"] for row in result["table"]} == {"unet", "instant"}
    assert {row["case"] for row in result["rows"]} == set(project.cases)
    assert json.loads((out / "summary.json").read_text())["tests"] == result["tests"]
    assert Path(result["report"]).is_file()
    _, events = run(bench, "compare", **args)
    assert {event["status"] for event in events if event["event"] == "FileDone"} == {"done before"}
