"""The workspace without a window: what it says, what it keeps, and what it refuses with which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unetseg.errors import AnnotationError, ProjectError, ReadError, UnetSegError
from napari_unetseg.events import View
from napari_unetseg.io import write
from napari_unetseg.project import Project
from napari_unetseg.scores import Scores
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.workspace import ACTIONS, Workspace
from napari_unetseg.workspace.rounds import not_worse


class Desk:
    """Jobs that wait for the test to say what happens."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, dict]] = []
        self.listeners: list = []
        self.stopped: list[int] = []
        self.views: list[View | None] = []

    def submit(self, verb, args, on_event) -> int:
        json.dumps(args)  # what travels must be plain
        self.submitted.append((verb, dict(args)))
        self.listeners.append(on_event)
        return len(self.listeners)

    def stop(self, job: int) -> None:
        self.stopped.append(job)

    def look(self, view: View | None) -> None:
        self.views.append(view)

    def tell(self, event: str, job: int = -1, **values) -> None:
        number = job if job > 0 else len(self.listeners)
        self.listeners[number - 1]({"id": number, "event": event, **values})


@pytest.fixture
def jobs():
    return Desk()


@pytest.fixture
def work(jobs, tmp_path):
    workspace = Workspace(jobs)
    workspace.said = []
    workspace.message.connect(workspace.said.append)
    workspace.create_project(tmp_path / "cells.unetseg", ["background", "nucleus", "wall"])
    yield workspace
    workspace.close_project()


def image(shape=(20, 30), seed=0):
    data = np.random.default_rng(seed).integers(0, 255, (1, *shape)).astype(np.uint8)
    return Volume(data, Geometry((0.5,) * len(shape), "um"))


def paint(workspace, label, at=(slice(2, 5), slice(2, 9))):
    labels = workspace.annotation()
    labels[at] = label
    return workspace.sync_strokes(labels)


def scores(dice, rule="1 held-out image", voxels=100):
    return Scores({"nucleus": dice / 2}, {"nucleus": dice}, rule, ("a",), voxels, "m")


def make_model(workspace, dice, folder=None, net="unet", **given):
    folder = Path(folder or workspace.project.new_model_folder())
    folder.mkdir(parents=True)
    facts = {"plan": {"net": {"name": net, "width": 0.5}}, "classes": [c.name for c in workspace.classes]}
    (folder / "model.json").write_text(json.dumps({**facts, "scores": scores(dice).to_dict()}))
    return folder


def trained(workspace, jobs, dice, previous=None):
    """A round that a worker would have run."""
    workspace.train()
    folder = make_model(workspace, dice, jobs.submitted[-1][1]["folder"])
    result = {"model": str(folder), "scores": scores(dice).to_dict(), "previous": previous and previous.to_dict()}
    jobs.tell("Done", result=result)
    return folder


def test_every_action_has_an_answer_before_there_is_a_project(jobs):
    workspace = Workspace(jobs)
    for action in ACTIONS:
        assert workspace.why_not(action), action
    assert workspace.why_not("train") == "Open or create a project first."


def test_train_says_which_strokes_are_missing(work):
    assert work.why_not("train") == "Add an image first."
    work.add_array("a", image())
    assert work.why_not("train") == (
        "Paint at least one stroke of background and one of nucleus or wall; there are none yet."
    )
    paint(work, 1)
    assert work.why_not("train") == (
        "Paint at least one stroke of background and one of nucleus or wall; nucleus and wall have none yet."
    )
    paint(work, 3, (slice(10, 12), slice(0, 4)))
    assert work.why_not("train") == ""
    assert work.why_not("predict") == "Train a model first."
    assert work.why_not("accept").startswith("There is no mask of this image yet")
    assert work.why_not("stop") == "Nothing is running."


def test_a_refused_method_says_the_same_reason(work):
    with pytest.raises(UnetSegError, match="Add an image first"):
        work.train()


def test_strokes_are_on_disk_when_sync_returns(work, tmp_path):
    work.add_array("a", image())
    assert paint(work, 2) == (slice(2, 5), slice(2, 9))
    other = Project.open(tmp_path / "cells.unetseg", read_only=True)
    assert (other.annotation("a").data == work.annotation()).all()
    assert (other.annotation("a").data[2:5, 2:9] == 2).all()
    assert work.stroke_counts() == {"background": 0, "nucleus": 21, "wall": 0}


def test_undo_is_journalled_like_a_stroke(work):
    work.add_array("a", image())
    before = work.annotation()
    paint(work, 2)
    assert work.sync_strokes(before) == (slice(2, 5), slice(2, 9))
    assert work.sync_strokes(before) is None
    assert work.stroke_counts()["nucleus"] == 0
    assert not work.project.annotation("a").data.any()


def test_sync_looks_only_where_it_is_told(work):
    work.add_array("a", image((4, 20, 30)))
    labels = work.annotation()
    labels[1, 3:5, 6] = 2
    labels[3, 0, 0] = 1
    assert work.sync_strokes(labels, (slice(1, 2), slice(None), slice(None))) == (
        slice(1, 2),
        slice(3, 5),
        slice(6, 7),
    )
    assert work.stroke_counts()["background"] == 0
    assert work.sync_strokes(labels) == (slice(3, 4), slice(0, 1), slice(0, 1))


def test_a_label_without_class_is_refused_and_the_strokes_stay(work):
    work.add_array("a", image())
    paint(work, 1)
    with pytest.raises(AnnotationError):
        paint(work, 9, (slice(0, 1), slice(0, 1)))
    assert work.stroke_counts() == {"background": 21, "nucleus": 0, "wall": 0}
    with pytest.raises(AnnotationError, match="shape"):
        work.sync_strokes(np.zeros((3, 3), np.uint8))


def test_counts_of_all_images_survive_reopening(work, tmp_path):
    work.add_array("a", image())
    paint(work, 1)
    work.add_array("b", image(seed=1))
    work.next_case()
    assert work.case == "b"
    paint(work, 2)
    work.remember(zoom=2.5)
    work.open_project(tmp_path / "cells.unetseg")
    assert work.case == "b"
    assert work.recall("zoom") == 2.5
    assert work.stroke_counts() == {"background": 21, "nucleus": 21, "wall": 0}
    assert work.stroke_counts("a") == {"background": 21, "nucleus": 0, "wall": 0}


def test_a_bad_file_is_named_and_the_others_are_added(work, tmp_path):
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"nothing")
    good = work.add_array("good", image())
    assert work.add_images([bad]) == []
    assert work.cases == (good,)
    assert work.said[-1].level == "error"
    assert "bad.tif" in work.said[-1].text


def test_images_nothing_can_be_learned_from_are_refused_or_doubted(work, tmp_path):
    def saved(name, pixels):
        return write(tmp_path / name, Volume(np.asarray(pixels)[None], Geometry((1.0, 1.0), "um")))

    paths = [
        saved("nan.tif", np.full((20, 20), np.nan, np.float32)),
        saved("flat.tif", np.full((20, 20), 7, np.uint8)),
        saved("dot.tif", np.arange(4, dtype=np.uint8).reshape(2, 2)),
        saved("good.tif", np.arange(400, dtype=np.uint16).reshape(20, 20)),
    ]
    assert work.add_images(paths) == ["flat", "dot", "good"]
    assert [(said.level, said.text.split()[0]) for said in work.said] == [
        ("error", "nan.tif"),
        ("warning", "flat.tif"),
        ("warning", "dot.tif"),
    ]
    with pytest.raises(ReadError, match="no numbers"):
        work.add_array("layer", Volume(np.full((1, 20, 20), np.nan), Geometry((1.0, 1.0), "um")))
    assert work.cases == ("flat", "dot", "good")


def test_a_project_that_does_not_open_leaves_the_one_in_hand(work, tmp_path):
    work.add_array("a", image())
    with pytest.raises(ProjectError):
        work.open_project(tmp_path / "missing.unetseg")
    assert work.case == "a"
    paint(work, 1)


def test_the_events_of_a_training_become_curves_progress_and_preview(work, jobs, tmp_path):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    stages, answers = [], []
    work.stage_changed.connect(stages.append)
    work.actions_changed.connect(lambda: answers.append(work.why_not("train")))
    work.train()
    verb, args = jobs.submitted[-1]
    assert (verb, args["start"], work.stage) == ("train", None, "training")
    assert answers[-1].startswith("Training is running")
    assert work.project.revisions("a") == [1]  # the strokes were snapshotted
    jobs.tell("StepDone", step=1, loss=0.5, seconds=10.0, left=30.0, epoch=0, memory=3 * 2**30)
    assert work.progress.sentence == ("Round 1: step 1. Strokes on 1 image. Processor, 3 GiB of memory.")
    jobs.tell("Validated", step=1, scores=scores(0.6).to_dict(), best=True, seconds=1.0)
    assert (work.curves.number, work.curves.steps, work.curves.losses) == (1, [1], [0.5])
    assert work.curves.validations[0][1].mean_dice == 0.6
    jobs.tell("TileDone", done=3, total=3, left=0.0)  # of a preview
    assert work.progress.fraction == pytest.approx(0.25)
    np.save(tmp_path / "mask.npy", np.ones((20, 30), np.uint8))
    shown = {"case": "a", "index": None}
    jobs.tell("PreviewReady", step=1, view=shown, mask=str(tmp_path / "mask.npy"))
    assert work.preview.mask.all()
    jobs.tell("PreviewReady", step=2, view=shown, mask=str(tmp_path / "gone.npy"))  # overtaken: no error
    assert work.preview.step == 1
    work.look(3)
    assert jobs.views[-1] == View("a", 3)
    work.stop()
    assert jobs.stopped == [len(jobs.listeners)]
    assert work.why_not("stop").startswith("Stopping")
    jobs.tell("Failed", message="Training was stopped before its first step.", hint="", stopped=True)
    assert stages == ["training", "idle"]
    assert work.said[-1].level == "info"


def test_train_does_not_wait_for_a_mask_being_computed(work, jobs):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    work.project.set_current_model(make_model(work, 0.5))
    work.predict_current()
    mask = len(jobs.listeners)
    assert work.stage == "predicting"
    assert work.why_not("train") == ""
    work.train()
    assert jobs.stopped == [mask]
    assert (jobs.submitted[-1][0], work.stage) == ("train", "training")
    jobs.tell("Failed", job=mask, message="It was stopped.", hint="", stopped=True)
    assert work.stage == "training"
    assert not any("stopped" in str(said) for said in work.said)
    assert work.why_not("train").startswith("Training is running")


def test_a_crash_ends_the_stage_with_a_message(work, jobs):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    work.train()
    jobs.tell("Failed", message="It was killed.", hint="Your strokes are safe.", crashed=True)
    assert work.stage == "idle"
    assert (work.said[-1].level, str(work.said[-1])) == ("error", "It was killed. Your strokes are safe.")
    assert work.why_not("train") == ""


def test_a_trained_model_becomes_current_and_predicts(work, jobs, tmp_path):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    folder = trained(work, jobs, 0.7)
    assert work.model == folder
    assert [(r.number, r.net, r.current) for r in work.rounds] == [(1, "unet", True)]
    assert "Dice 0.70" in work.said[-1].text
    verb, args = jobs.submitted[-1]
    assert (verb, args["case"], args["model"]) == ("predict", "a", str(folder))
    np.save(tmp_path / "mask.npy", np.full((20, 30), 2, np.uint8))
    jobs.tell("Done", result={"mask": str(tmp_path / "mask.npy")})
    assert work.prediction.mask.geometry.spacing == (0.5, 0.5)

    work.accept()
    accepted = work.project.mask("a").data
    assert (work.prediction.mask.data == accepted).all(), "what is shown is what was saved"
    assert (accepted[2:5, 2:9] == 0).all()  # the background stroke overrules the net
    assert (accepted[10:12, :4] == 1).all()
    assert accepted[15, 15] == 2
    assert work.why_not("undo_accept") == ""
    work.undo_accept()
    assert "accepted no longer" in work.said[-1].text, "the line no longer says that it is saved"
    assert work.why_not("undo_accept") != ""
    assert (work.prediction.mask.data == 2).all(), "the mask of the net is shown again"


def test_the_next_round_goes_on_from_a_model_of_the_same_kind(work, jobs):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    first = trained(work, jobs, 0.7)
    jobs.tell("Failed", message="x", hint="", stopped=True)  # the prediction
    work.train()
    args = jobs.submitted[-1][1]
    assert (args["start"], args["plan"]["net"]) == (str(first), {"name": "unet", "width": 0.5})
    assert jobs.submitted[-2] == (
        "score_strokes",
        {"project": str(work.project.path), "revisions": {"a": 1}, "model": str(first), "seen": {"a": 1}},
    )
    jobs.tell("Done", job=len(jobs.listeners) - 1, result={"scores": scores(0.4, "new strokes").to_dict()})
    assert work.corrections[0].scores.mean_dice == 0.4
    jobs.tell("Failed", message="x", hint="", stopped=True)
    work.change_plan(net={"name": "multiresunet"})
    work.train()
    assert jobs.submitted[-1][1]["start"] is None
    assert jobs.submitted[-1][1]["previous"] == str(first)


def test_a_new_round_says_what_the_one_before_has_on_the_same_strokes(work, jobs):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    trained(work, jobs, 0.8)
    assert not work.said[-1].hint, "there was none before"
    for before, hint in ((scores(0.5), "Round 1 has 0.50 there."), (scores(0.5, voxels=200), "")):
        jobs.tell("Failed", message="x", hint="", stopped=True)
        trained(work, jobs, 0.7, previous=before)
        assert work.said[-1].hint == hint


def test_a_worse_model_is_kept_but_not_used_until_asked_for(work, jobs):
    work.add_array("a", image())
    paint(work, 1)
    paint(work, 2, (slice(10, 12), slice(0, 4)))
    first = trained(work, jobs, 0.7)
    jobs.tell("Failed", message="x", hint="", stopped=True)
    second = trained(work, jobs, 0.5, previous=scores(0.7))
    jobs.tell("Failed", message="x", hint="", stopped=True)
    assert work.model == first
    assert [r.current for r in work.rounds] == [True, False]
    assert any("round 1 is kept" in m.text and m.level == "warning" for m in work.said)
    work.go_back_to_round(2)
    assert work.model == second
    with pytest.raises(UnetSegError):  # its prediction is running
        work.go_back_to_round(1)
    jobs.tell("Failed", message="x", hint="", stopped=True)
    with pytest.raises(ProjectError, match="no round 9"):
        work.go_back_to_round(9)


@pytest.mark.parametrize(
    ("new", "old", "answer"),
    [
        (scores(0.5), scores(0.6), False),
        (scores(0.6), scores(0.6), True),
        (scores(0.5), None, True),
        (None, None, True),
        (None, scores(0.6), False),  # stopped before its first score
        (scores(0.5, voxels=200), scores(0.6), True),  # measured on other voxels: not comparable
        (scores(0.5, rule=""), scores(0.6, rule=""), True),  # nothing held out
        (scores(float("nan")), scores(0.6), True),
    ],
)
def test_not_worse(new, old, answer):
    assert not_worse(new, old) is answer


def test_a_folder_is_segmented_row_by_row(work, jobs, tmp_path):
    work.add_array("a", image())
    assert work.why_not("segment_folder") == "Train a model first."
    work.project.set_current_model(make_model(work, 0.7))
    work.segment_folder([tmp_path], tmp_path / "out")
    rows = work.folder_rows
    for index, (status, error) in enumerate([("done", ""), ("failed", "It is empty.")]):
        jobs.tell(
            "FileDone", index=index, total=2, file=f"/x/{index}.tif", status=status, error=error, seconds=1.0, left=1.0
        )
    assert work.progress.fraction == 1.0
    jobs.tell("Done", result={"rows": [], "out": str(tmp_path / "out"), "stopped": False})
    assert [row["status"] for row in work.folder_rows] == ["done", "failed"]
    assert work.folder_rows is rows  # never copied, for a copy a file is quadratic
    assert (work.said[-1].text, work.said[-1].level) == ("1 file is segmented into out, 1 failed.", "warning")


def test_events_of_a_closed_project_are_not_heard(work, jobs, tmp_path):
    work.add_array("a", image())
    work.project.set_current_model(make_model(work, 0.7))
    work.segment_folder([tmp_path], tmp_path / "out")
    work.close_project()
    assert jobs.stopped
    jobs.tell("FileDone", index=0, total=1, file="x", status="done", error="", seconds=0.0, left=0.0)
    assert work.folder_rows == []
    assert work.stage == "idle"


def test_an_accepted_mask_is_found_again(work, tmp_path):
    work.add_array("a", image())
    mask = LabelVolume(np.ones((20, 30), np.uint8), work.image().geometry)
    work.project.accept("a", mask)
    work.open_project(tmp_path / "cells.unetseg")
    assert work.prediction.mask.data.all()
    assert work.prediction.model is None


def test_an_image_that_was_moved_does_not_keep_the_project_shut(work, tmp_path):
    import tifffile

    path = tmp_path / "moved.tif"
    tifffile.imwrite(path, np.zeros((9, 9), np.uint8) + np.arange(9, dtype=np.uint8))
    work.add_images([path])
    path.unlink()
    work.open_project(tmp_path / "cells.unetseg")
    assert work.cases == ("moved",)
    assert work.case is None
    assert work.said[-1].level == "error"


def test_the_workspace_loads_neither_torch_nor_a_window():
    code = (
        "import sys, napari_unetseg.workspace, napari_unetseg.engine;"
        "print([m for m in ('torch', 'napari', 'qtpy', 'matplotlib') if m in sys.modules])"
    )
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "[]"


def test_a_project_that_cannot_be_taken_back_stays_with_its_stroke(work, tmp_path):
    path = work.project.path
    work.project.add_array("cell", Volume(np.zeros((1, 8, 8), np.float32)))
    work.select_case("cell")
    with Project.open(path, steal_lock=True), pytest.raises(ProjectError, match="taken over"):
        work.sync_strokes(np.eye(8, dtype=np.uint8))
    path.rename(tmp_path / "away")
    with pytest.raises(ProjectError):
        work.take_back()
    assert (work.case, bool(work.taken)) == ("cell", True)
    (tmp_path / "away").rename(path)
    work.take_back()
    assert np.array_equal(work.project.annotation("cell").data, np.eye(8))
