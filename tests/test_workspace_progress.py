"""The workspace: worth of more strokes, comparing nets, going on after a kill, what differs between rounds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unetseg.project import Project
from napari_unetseg.workspace import Workspace
from tests.test_workspace import Desk, image, make_model, paint, scores, trained


@pytest.fixture
def jobs():
    return Desk()


@pytest.fixture
def work(jobs, tmp_path):
    workspace = Workspace(jobs)
    workspace.said = []
    workspace.message.connect(workspace.said.append)
    workspace.create_project(tmp_path / "cells.unetseg", ["background", "nucleus", "wall"])
    workspace.add_array("a", image())
    paint(workspace, 1)
    paint(workspace, 2, (slice(10, 12), slice(0, 4)))
    yield workspace
    workspace.close_project()


def show_mask(work, jobs, tmp_path, value):
    np.save(tmp_path / "mask.npy", np.full((20, 30), value, np.uint8))
    jobs.tell("Done", result={"mask": str(tmp_path / "mask.npy")})


def score_round(jobs, dice, seen, new):
    result = {
        "scores": scores(dice, "new strokes").to_dict(),
        "seen": seen,
        "strokes": {"background": 3, "nucleus": new},
    }
    jobs.tell("Done", job=len(jobs.listeners) - 1, result=result)


def test_scored_rounds_become_a_forecast_that_survives_reopening(work, jobs, tmp_path):
    trained(work, jobs, 0.7)
    assert work.forecast.sentence().startswith("Too early")
    for number, dice in enumerate((0.5, 0.65, 0.72, 0.76)):
        jobs.tell("Failed", message="x", hint="", stopped=True)  # the prediction
        work.train()
        score_round(jobs, dice, 10 + 10 * number, 7)
        folder = make_model(work, 0.7, jobs.submitted[-1][1]["folder"])
        jobs.tell("Done", result={"model": str(folder), "scores": scores(0.7).to_dict(), "previous": None})
    told = work.forecast.sentence()
    assert told.startswith("Another 20 strokes: Dice on new strokes 0.7")
    assert work.forecast_of("nucleus").rounds == 4
    assert work.forecast_of("wall").early
    path = work.project.path
    work.open_project(path)
    assert work.forecast.sentence() == told
    assert work.corrections[-1].seen == 40


def test_a_killed_training_is_offered_and_goes_on_with_its_own_strokes_and_plan(work, jobs, tmp_path):
    work.change_plan(training={"minutes": 7.0})
    work.train()
    args = jobs.submitted[-1][1]
    assert args["revisions"] == {"a": 1}
    path = work.project.path
    paint(work, 2, (slice(15, 17), slice(0, 4)))
    assert work.why_not("resume") == "Training is running: stop it first, or wait."
    work.close_project()  # as a kill would, for nobody heard of its end
    work.open_project(path)
    assert work.unfinished == "", "it was killed before its first checkpoint"
    checkpoint = path / "models" / ".round-001.training"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    assert work.unfinished == "round-001"
    work.change_plan(training={"minutes": 1.0})
    work.resume()
    verb, again = jobs.submitted[-1]
    assert (verb, again["resume"], again["minutes"], again["revisions"]) == ("train", True, 7.0, {"a": 1})
    assert again["folder"] == args["folder"]
    folder = make_model(work, 0.7, again["folder"])
    jobs.tell("Done", result={"model": str(folder), "scores": scores(0.7).to_dict(), "previous": None})
    assert work.unfinished == ""
    assert work.recall("trained_on")["round-001"] == {"a": 1}


def test_a_training_that_ended_when_nobody_listened_is_used(work, jobs):
    trained(work, jobs, 0.7)
    work.train()
    args, path = jobs.submitted[-1][1], work.project.path
    work.close_project()
    make_model(work, 0.8, args["folder"])
    work.open_project(path, read_only=True)
    assert (work.unfinished, work.model.name) == ("", "round-001"), "somebody who only looks changes nothing"
    work.open_project(path)
    assert (work.unfinished, work.model.name) == ("", "round-002")
    assert work.round_before == "round-001"
    assert work.recall("trained_on")["round-002"] == args["revisions"]
    assert any(str(said).startswith("Round 2: Dice 0.80") for said in work.said)
    work.open_project(path)
    assert sum(str(said).startswith("Round 2: Dice") for said in work.said) == 1, "once"


def test_a_round_after_the_instant_model_is_the_nets_again(work, jobs):
    work.project.set_current_model(make_model(work, 0.7, net="instant"))
    work.train()
    args = jobs.submitted[-1][1]
    assert args["plan"].get("net", {}).get("name", "unet") == "unet"
    assert args["start"] == str(work.model), "its successor hears what it said"
    assert args["previous"] == str(work.model)


@pytest.mark.parametrize("leads", [True, False])
def test_a_net_that_took_over_from_the_instant_model_is_used_though_a_few_strokes_score_it_lower(work, jobs, leads):
    work.train()
    first = make_model(work, 0.9, jobs.submitted[-1][1]["folder"], net="instant")
    jobs.tell("Done", result={"model": str(first), "scores": scores(0.9).to_dict(), "previous": None})
    jobs.tell("Failed", message="x", hint="", stopped=True)  # the prediction
    work.train()
    second = make_model(work, 0.82, jobs.submitted[-1][1]["folder"])
    if leads:
        jobs.tell("Leads", who="unet", text="The net answers from now on.")
    told = {"scores": scores(0.82).to_dict(), "previous": scores(0.9).to_dict()}
    jobs.tell("Done", result={"model": str(second), **told})
    assert work.model == (second if leads else first)
    assert any("Round 1 has 0.90 there" in str(said) for said in work.said) == leads
    assert any("round 1 is kept" in str(said) for said in work.said) != leads


def test_stop_while_the_strokes_are_being_saved_begins_no_training(jobs, tmp_path):
    class Slow:
        def __init__(self):
            self.ends = []

        def __call__(self, work, finished):
            self.ends.append((finished, work()))

        def wait(self):
            pass

    slow = Slow()
    work = Workspace(jobs, slow)
    work.create_project(tmp_path / "cells.unetseg", ["background", "nucleus", "wall"])
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    work.train()
    assert (work.stage, jobs.submitted) == ("training", [])
    work.stop()
    assert work.stage == "idle"
    finished, revisions = slow.ends.pop()
    finished(revisions, None)
    assert (work.stage, jobs.submitted) == ("idle", [])
    work.close_project()


def test_nets_are_compared_and_the_result_is_found_again(work, jobs):
    assert work.usual_folds == 5
    assert work.comparison_seconds(["unet", "instant"], 2, 1.0) == pytest.approx(2 * (69 + 5))
    work.compare(["unet", "unet:dice"], 2, 0.5)
    verb, args = jobs.submitted[-1]
    assert (verb, args["nets"], args["folds"]) == ("compare", ["unet", "unet:dice"], 2)
    assert (args["revisions"], args["plan"]["training"]["minutes"]) == ({"a": 1}, 0.5)
    assert work.stage == "comparing"
    assert "being compared" in work.why_not("train")
    jobs.tell("StepDone", step=1, loss=0.5, seconds=15.0, left=15.0, epoch=0)
    assert work.progress.fraction == pytest.approx(1 / 8)
    assert not work.curves.steps, "these are not the curves of a round"
    facts = {
        "index": 0,
        "total": 4,
        "file": "unet, fold 0",
        "status": "done",
        "error": "",
        "seconds": 30.0,
        "left": 90.0,
    }
    jobs.tell("FileDone", **facts)
    assert (work.progress.fraction, work.progress.left, work.folder_rows) == (0.25, 90.0, [])
    out = work.project.path / "comparison"
    out.mkdir()
    found = {"report": str(out / "report.html"), "runs": 3, "expected": 4, "table": [], "tests": [], "rows": []}
    (out / "summary.json").write_text(json.dumps(found))
    jobs.tell("Done", result=found)
    assert work.said[-1].text == "3 of 4 trainings are compared; the report is in comparison."
    path = work.project.path
    work.close_project()
    assert work.comparison is None
    work.open_project(path)
    assert work.comparison["runs"] == 3


def test_going_back_to_a_round_shows_where_it_differs(work, jobs, tmp_path):
    trained(work, jobs, 0.7)
    show_mask(work, jobs, tmp_path, 1)
    trained(work, jobs, 0.8)
    show_mask(work, jobs, tmp_path, 0)
    work.go_back_to_round(1)
    assert work.difference is None
    show_mask(work, jobs, tmp_path, 1)
    assert (work.difference.data == 1).all()
    assert work.difference.sentence() == "Round 1 differs from round 2 in 100.0% of a (600 voxels)."
    work.go_back_to_round(2)
    show_mask(work, jobs, tmp_path, 0)
    assert (work.difference.data == 2).all()
    work.select_case("a")
    assert work.difference is None


def test_undoing_an_acceptance_shows_the_mask_that_was_accepted_before(work, jobs, tmp_path):
    trained(work, jobs, 0.7)
    show_mask(work, jobs, tmp_path, 1)
    work.accept()
    trained(work, jobs, 0.8)
    show_mask(work, jobs, tmp_path, 2)
    work.accept()
    work.undo_accept()
    assert work.prediction.mask.data[15, 15] == 1
    assert work.accepted


def test_a_project_that_is_only_looked_at_is_not_changed(work, jobs):
    path, before = work.project.path, {f: f.read_bytes() for f in work.project.path.rglob("*.json")}
    other = Workspace(jobs)
    other.open_project(path, read_only=True)
    labels = other.annotation()
    labels[0, 0] = 1
    assert other.sync_strokes(labels) is None
    other.remember(slice=3)
    for action in ("train", "annotate", "add_images", "compare", "resume"):
        assert other.why_not(action) == "The project is open for reading only."
    other.close_project()
    assert {f: f.read_bytes() for f in path.rglob("*.json")} == before
    assert Project.open(path, read_only=True).annotation("a").data[0, 0] == 0
