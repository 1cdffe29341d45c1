"""Folders in the workspace: what is asked for, the worst sent back to annotation, and taken back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unetseg.errors import UnetSegError
from napari_unetseg.io import write
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.workspace import Workspace

MICRO = Geometry((0.5, 0.5), "um")


class Jobs:
    def __init__(self):
        self.asked, self.listener = [], None

    def submit(self, verb, args, on_event):
        self.asked.append((verb, json.loads(json.dumps(args))))
        self.listener = on_event
        return len(self.asked)

    def stop(self, job):
        pass

    def look(self, view):
        pass

    def tell(self, event, **values):
        self.listener({"id": len(self.asked), "event": event, **values})


@pytest.fixture
def work(tmp_path):
    work = Workspace(Jobs())
    work.said = []
    work.message.connect(work.said.append)
    work.create_project(tmp_path / "cells.unetseg", ["background", "nucleus"])
    yield work
    work.close_project()


@pytest.fixture
def scan(tmp_path):
    """An image and its mask, in folders of their own."""
    pixels = np.random.default_rng(0).integers(0, 4000, (1, 20, 30)).astype(np.uint16)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:9] = 1
    write(tmp_path / "scans" / "a.tif", Volume(pixels, MICRO))
    write(tmp_path / "out" / "a.tif", LabelVolume(mask, MICRO))
    return tmp_path / "scans" / "a.tif", tmp_path / "out" / "a.tif", mask


def first(work, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 4000, (1, 10, 10)).astype(np.uint16)
    return work.add_array("first", Volume(pixels, MICRO))


def test_a_file_goes_back_to_annotation_with_its_mask_and_out_again(work, scan, tmp_path):
    file, mask, found = scan
    assert "Nothing was sent back" in work.why_not("undo_send_back")
    assert first(work, tmp_path) == work.case
    case = work.send_back(file, mask)
    assert (work.case, work.cases) == (case, ("first", case))
    np.testing.assert_array_equal(work.prediction.mask.data, found)
    assert work.project.image_path(case).samefile(file)
    assert work.sent_back == (str(file),)
    work.undo_send_back()
    assert work.said[-1].text.startswith("a.tif is taken back"), "the line no longer says that it is in hand"
    assert (work.case, work.cases) == ("first", ("first",))
    with pytest.raises(UnetSegError, match="Nothing was sent back"):
        work.undo_send_back()


def test_strokes_on_a_file_that_was_taken_out_come_back_with_it(work, scan):
    file, mask, _ = scan
    case = work.send_back(file, mask)
    strokes = work.annotation()
    strokes[2, 2:9] = 2
    work.sync_strokes(strokes)
    work.undo_send_back()
    assert work.cases == ()
    assert work.send_back(file, mask) == case
    np.testing.assert_array_equal(work.annotation(), strokes)


def test_an_image_of_the_project_is_only_taken_in_hand(work, scan, tmp_path):
    file, mask, _ = scan
    first(work, tmp_path)
    work.add_images([file])
    assert work.send_back(file, mask) == "a"
    assert (work.case, work.cases) == ("a", ("first", "a"))
    work.undo_send_back()
    assert (work.case, work.cases) == ("first", ("first", "a"))


def test_a_mask_that_is_gone_or_of_another_grid_is_said_and_the_image_is_in_hand(work, scan, tmp_path):
    file, _, _ = scan
    write(tmp_path / "other.tif", LabelVolume(np.ones((4, 4), np.uint8), MICRO))
    for mask in (tmp_path / "gone.tif", tmp_path / "other.tif"):
        assert work.send_back(file, mask) == "a"
        assert work.prediction is None
        assert any(said.level == "warning" for said in work.said)


def test_numbered_objects_are_shown_as_the_class_they_are_of(work, scan, tmp_path):
    file, _, found = scan
    write(tmp_path / "numbers.tif", LabelVolume((found * 7).astype(np.uint8), MICRO))
    work.send_back(file, tmp_path / "numbers.tif")
    np.testing.assert_array_equal(work.prediction.mask.data, found)


def test_rows_say_why_to_look_and_progress_how_fast(work, tmp_path):
    folder = work.project.new_model_folder()
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"plan": {}, "classes": ["background", "nucleus"], "scores": None}))
    work.project.set_current_model(folder)
    work.segment_folder([tmp_path], tmp_path / "out", failed_only=True)
    assert work._jobs.asked[-1][1]["failed_only"] is True
    more = {"flags": ["empty"], "doubt": 0.2, "mask": "/x/out/a.tif", "rate": 0.05}
    work._jobs.tell(
        "FileDone", index=0, total=2, file="/x/a.tif", status="done", error="", seconds=1.0, left=20.0, **more
    )
    assert work.folder_rows[0]["flags"] == ["empty"]
    assert work.folder_rows[0]["mask"] == "/x/out/a.tif"
    assert "3.0 files a minute" in work.progress.sentence
    assert work.progress.left == 20.0
    work._jobs.tell("Done", result={"rows": [], "out": "", "stopped": False})
    assert "worst come first" in work.said[-1].hint
