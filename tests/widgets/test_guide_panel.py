"""Where to paint next is ready when the user asks; a slip is shown, kept or erased, and the erased one comes back."""

from __future__ import annotations

import numpy as np
import pytest
from asking import answer, arrays, asked, model_folder

from napari_unetseg.widgets.overlays import overlays

BOX = [[10, 20], [30, 40]]


def place(tmp_path, case="plane-b", index=None, number=0, **more):
    mask = np.zeros((40, 60), np.uint8)
    mask[12:15, 32:35] = 1
    (path,) = arrays(tmp_path, **{f"proposal-{number}": mask}).values()
    window = [[0, 40], [0, 60]]
    found = {"case": case, "index": index, "point": [13, 33], "box": BOX, "reason": "Least sure of 'a' here."}
    return {**found, "window": window, "mask": path, **more}


@pytest.fixture
def guide(bench, jobs, qtbot, tmp_path):
    """A bench whose first model was just trained and has segmented the image in hand."""
    bench.workspace._use(model_folder(bench))
    bench.workspace.predict_current()
    assert not asked(jobs, "propose")
    answer(jobs, "predict", {**arrays(tmp_path, mask=np.zeros((40, 60), np.uint8)), "objects": None})
    return bench.guide


def test_places_are_ready_when_the_user_asks(guide, bench, jobs, tmp_path, qtbot):
    (request,) = asked(jobs, "propose")
    assert request["model"].endswith("round-001")
    answer(jobs, "propose", {"suggestions": [place(tmp_path), place(tmp_path, "volume", 4, 1)]})
    bench.context.bridge.place_wanted.emit()
    assert bench.workspace.case == "plane-b"
    assert "Least sure of 'a' here." in guide.reason.text()
    assert bench.context.bridge.mask.data[13, 33] == 1, "its mask is there before the whole image is segmented"
    (frame,) = overlays(bench.context, "pointer")
    np.testing.assert_array_equal(frame.data[0].min(axis=0), [9.5, 29.5])
    assert bench.context.viewer.layers.selection.active is bench.context.bridge.annotation
    centre = bench.context.viewer.scene.camera.center[-2:]
    np.testing.assert_allclose(centre, [15 * 0.5, 35 * 0.5])
    guide.next.click()
    assert (bench.workspace.case, bench.context.bridge.slice_index()) == ("volume", 4)
    assert len(asked(jobs, "propose")) == 2, "the next ones are looked for"
    bench.workspace.select_case("plane-a")
    assert overlays(bench.context, "pointer") == []


def test_asked_too_early_it_goes_there_when_it_is_found(guide, bench, jobs, tmp_path):
    guide.next.click()
    assert guide.next.why == "Looking for a place."
    assert len(asked(jobs, "propose")) == 1
    answer(jobs, "propose", {"suggestions": [place(tmp_path)]})
    assert bench.workspace.case == "plane-b"
    assert guide.next.why == ""


def test_a_search_that_fails_does_not_keep_the_user_waiting(guide, jobs):
    guide.next.click()
    answer(jobs, "propose", {"message": "The model is gone.", "hint": "Train again."}, "Failed")
    assert guide.next.why == ""


def test_it_makes_way_for_what_the_user_starts(guide, bench, jobs, tmp_path):
    index = next(i for i, (verb, _) in enumerate(jobs.submitted) if verb == "propose")
    bench.workspace.predict_current()
    assert jobs.stopped == [index + 1]
    answer(jobs, "propose", {"suggestions": [place(tmp_path)]})
    answer(jobs, "predict", {**arrays(tmp_path, mask=np.zeros((40, 60), np.uint8)), "objects": None})
    assert len(asked(jobs, "propose")) == 1, "what was found until then is enough"


def test_no_model_is_said(bench):
    assert bench.guide.next.why == "Train a model first."


@pytest.fixture
def slips(bench, jobs):
    labels = bench.workspace.annotation()
    labels[12:15, 31:39] = 2
    labels[20:25, 3:9] = 1
    bench.context.bridge.annotation.data[...] = labels
    bench.context.bridge.flush()
    bench.guide.drawer.button.setChecked(True)
    bench.guide.search.click()
    stroke = {"case": "plane-a", "index": None, "point": [13, 34], "box": [[12, 15], [31, 39]], "painted": 1}
    other = {**stroke, "case": "volume", "index": 2, "box": [[0, 5], [0, 5]], "painted": 0, "predicted": 1}
    more = {"confidence": 0.9, "by": "model", "reason": "Painted as 'a', but taken for 'background'."}
    found = [{**stroke, "predicted": 0, "voxels": 24, **more}, {**other, "voxels": 9, **more}]
    answer(jobs, "doubtful_strokes", {"strokes": found})
    return bench.guide


def test_a_slip_is_shown_and_erased_and_undo_brings_it_back(slips, bench, qtbot):
    assert slips.slips.rowCount() == 2
    slips.slips.cellClicked.emit(0, 0)
    assert "taken for 'background'" in slips.why.text()
    assert len(overlays(bench.context, "pointer")) == 1
    slips.erase.click()
    assert bench.workspace.stroke_counts("plane-a") == {"background": 30, "object": 0, "class 2": 0}
    assert slips.slips.rowCount() == 1
    bench.context.bridge.undo()
    bench.context.bridge.flush()
    assert bench.workspace.stroke_counts("plane-a")["object"] == 24


def test_a_stroke_that_is_kept_is_not_named_again(slips, bench, jobs):
    slips.slips.cellClicked.emit(1, 0)
    assert (bench.workspace.case, bench.context.bridge.slice_index()) == ("volume", 2)
    slips.keep.click()
    assert [one.case for one in slips.guiding.slips] == ["plane-a"]
    slips.search.click()
    stroke = {"case": "volume", "index": 2, "point": [2, 2], "box": [[0, 5], [0, 5]], "painted": 0, "predicted": 1}
    answer(jobs, "doubtful_strokes", {"strokes": [{**stroke, "voxels": 9, "reason": "Odd."}]})
    assert slips.guiding.slips == ()
    assert slips.drawer.button.text() == "▾  Suspicious strokes"
    assert "No stroke is contradicted" in slips.found.text()


def test_checking_needs_strokes_of_two_classes(bench):
    assert "Paint at least one stroke" in bench.guide.search.why
