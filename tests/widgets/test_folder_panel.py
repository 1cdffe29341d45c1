"""The folder panel: worst first, one click back to annotation, failed ones again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unetseg.io import write
from napari_unetseg.volume import Geometry, LabelVolume


@pytest.fixture
def run(bench, jobs, images, tmp_path):
    """A run over three files has ended: one failed, one is flagged, one is in doubt."""
    space, out = bench.workspace, tmp_path / "masks"
    folder = space.project.new_model_folder()
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"plan": {}, "classes": ["b", "o"], "scores": None}))
    space.project.set_current_model(folder)
    for case in list(space.cases):
        space.remove_case(case)
    bench.folder.inputs.setText(str(images))
    bench.folder.out.setText(str(out))
    bench.folder.start()
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:20] = 1
    write(out / "plane-b.tif", LabelVolume(mask, Geometry((0.5, 0.5), "um")))
    (out / "report.html").write_text("<p>")
    files = [("plane-a.tif", [], 0.1), ("volume.nii.gz", None, None), ("plane-b.tif", ["unlike"], 0.2)]
    for index, (name, flags, doubt) in enumerate(files):
        status = "failed" if flags is None else "done"
        jobs.tell(
            "FileDone", index=index, total=3, file=str(images / name), status=status, seconds=1.0, left=1.0, rate=2.0,
            error="" if flags is not None else "It is cut short.", flags=flags or [], doubt=doubt, mask=str(out / name),
        )  # fmt: skip
    jobs.tell("Done", result={"rows": [], "out": str(out), "stopped": False})
    return bench.folder


def names(panel):
    return [panel.rows.topLevelItem(i).text(0) for i in range(panel.rows.topLevelItemCount())]


def test_the_worst_come_first_and_say_why(run):
    assert names(run) == ["volume.nii.gz", "plane-b.tif", "plane-a.tif"]
    assert run.rows.topLevelItem(1).text(1) == "unlike the training images"
    assert "1 deserve a look" in run.sentence.text()
    assert run.report.isEnabled()


def test_one_click_sends_a_file_back_and_another_takes_it_out(run, bench):
    assert run.send_back.why == "Choose a file in the list."
    run.rows.setCurrentItem(run.rows.topLevelItem(0))
    assert "no mask" in run.send_back.why
    run.rows.setCurrentItem(run.rows.topLevelItem(1))
    assert not run.send_back.why
    assert run.undo.isHidden()
    run.send_back.click()
    assert bench.workspace.case == "plane-b"
    assert int(bench.workspace.prediction.mask.data.sum()) == 100
    assert not run.undo.isHidden()
    run.undo.click()
    assert bench.workspace.cases == ()
    assert run.undo.isHidden()


def test_failed_ones_are_tried_again_alone(run, jobs):
    assert not run.again.isHidden()
    run.again.click()
    verb, args = jobs.submitted[-1]
    assert (verb, args["failed_only"]) == ("segment", True)
    assert run.again.isHidden()


def test_patterns_and_lists_are_inputs_too(run, tmp_path):
    (tmp_path / "list.txt").write_text("a.tif\n")
    for text, possible in ((str(tmp_path / "*.tif"), True), (str(tmp_path / "list.txt"), True), ("nowhere", False)):
        run.inputs.setText(text)
        assert run.segment.isEnabled() is possible, text


def test_the_list_is_read_by_row_not_by_place(run, bench):
    item = run.rows.topLevelItem(2)
    assert bench.workspace.folder_rows[item.data(0, Qt.ItemDataRole.UserRole)]["file"].endswith("plane-a.tif")


def test_a_row_costs_the_same_however_many_there_are(bench):
    looks = []

    class Row(dict):
        def __getitem__(self, key):
            looks.append(key)
            return super().__getitem__(key)

    rows, counts = bench.workspace.folder_rows, []
    for index in range(20):
        looks.clear()
        rows.append(Row(index=index, file=f"{index}.tif", status="done", seconds=1.0, flags=["empty"]))
        bench.workspace.folder_changed.emit(rows)
        counts.append(len(looks))
    assert counts == [counts[0]] * 20


def test_a_run_is_taken_back_and_says_what_became_of_it(run, bench, jobs, notes):
    assert not run.undo_run.isHidden()
    assert run.undo_run.isEnabled()
    run.undo_run.click()
    verb, args = jobs.submitted[-1]
    assert (verb, args) == ("undo_segment", {"out": str(bench.workspace.folder_out)})
    assert "taken back" in run.segment.why
    jobs.tell("Done", result={"removed": 2, "restored": 1, "kept": ["a.tif"]})
    assert bench.workspace.folder_rows == []
    assert run.undo_run.isHidden()
    said = bench.status.text()
    assert said.startswith("The run is taken back: 2 masks are removed, 1 mask is as before it. 1 mask stays")
    assert run.segment.isEnabled()
