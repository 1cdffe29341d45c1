"""Truth from files and layers: where the mask errs, and a table of scores that leads to the images."""

from __future__ import annotations

import numpy as np
import pytest
from asking import answer, asked, model_folder, segmented

from napari_unetseg.errors import AnnotationError
from napari_unetseg.io import write
from napari_unetseg.scores import Scores
from napari_unetseg.volume import Geometry, LabelVolume
from napari_unetseg.widgets.overlays import overlays
from napari_unetseg.workspace.truths import _held_whole


def square(where, value=1):
    labels = np.zeros((40, 60), np.uint8)
    labels[where] = value
    return labels


RIGHT = (slice(10, 20), slice(10, 30))
MADE = (slice(10, 20), slice(20, 40))


@pytest.fixture
def truth(bench, jobs, tmp_path):
    bench.workspace._use(model_folder(bench))
    segmented(bench, jobs, tmp_path, mask=square(MADE))
    bench.review.show()
    bench.truth.button.setChecked(True)
    return bench.truth


def test_a_file_shows_where_the_mask_errs(truth, bench, tmp_path):
    path = tmp_path / "plane-a_mask.png"
    write(path, LabelVolume(square(RIGHT), Geometry((1.0, 1.0))))
    truth.take_files([str(path)])
    (layer,) = overlays(bench.context, "errors")
    expected = np.zeros((40, 60))
    expected[10:20, 30:40], expected[10:20, 10:20] = 1, 2
    np.testing.assert_array_equal(layer.data, expected)
    assert "differs in 8.3% of plane-a" in truth.key.text()
    truth.outline.setChecked(True)
    assert overlays(bench.context, "errors")[0].contour == 2
    bench.workspace.select_case("plane-b")
    assert overlays(bench.context, "errors") == []
    assert "no mask of this image yet" in truth.errors.toolTip()
    assert bench.workspace.recall("truths") == {"plane-a": str(path)}


def test_a_layer_of_another_plugin_is_truth_too(truth, bench):
    from napari.layers import Labels

    assert "Select a labels layer" in truth.layer.why
    layer = Labels(square(RIGHT), name="from elsewhere")
    bench.context.viewer.add_layer(layer)
    bench.context.viewer.layers.selection = {layer}
    assert truth.layer.why == ""
    truth.layer.click()
    assert (overlays(bench.context, "errors")[0].data > 0).sum() == 200
    truth.errors.click()
    assert overlays(bench.context, "errors") == []


def test_truth_that_does_not_fit_is_refused_with_words(truth, bench, tmp_path, notes):
    path = tmp_path / "other.png"
    write(path, LabelVolume(np.ones((8, 8), np.uint8), Geometry((1.0, 1.0))))
    truth.take_files([str(path)])
    assert any("has the shape (8, 8)" in str(note.message) for note in notes)
    assert overlays(bench.context, "errors") == []
    with pytest.raises(AnnotationError, match="shape"):
        truth.truths.truth("plane-a")


def test_the_table_says_on_what_and_leads_to_the_image(truth, bench, jobs, tmp_path):
    files = []
    for case in ("plane-a", "plane-b"):
        files.append(str(tmp_path / f"{case}.png"))
        write(files[-1], LabelVolume(square(RIGHT), Geometry((1.0, 1.0))))
    bench.workspace.remember(trained_on={"round-001": {"plane-a": 1}})
    assert truth.score.why == "Choose truth files first."
    truth.take_files(files)
    truth.score.click()
    (request,) = asked(jobs, "score_cases")
    assert (request["on"], request["cases"], list(request["truths"])) == (
        "truth",
        ["plane-a", "plane-b"],
        request["cases"],
    )
    shared = {"class": "object", "jaccard": 0.5, "hausdorff95": 3.0, "voxels": 2400, "unit": "um"}
    rows = [{**shared, "case": "plane-a", "dice": 0.9}, {**shared, "case": "plane-b", "dice": 0.4}]
    answer(jobs, "score_cases", {"rows": rows, "failed": {"volume": "It is damaged."}})
    assert [truth.table.item(i, 0).text() for i in range(2)] == ["plane-b", "plane-a"], "the worst first"
    assert [truth.table.item(i, 5).text() for i in range(2)] == ["new", "learned"]
    assert "Round 1 against the truth of 2 images. It has learned from 1 of them" in truth.said.text()
    assert "HD95 in µm" in truth.said.text()
    assert "volume (It is damaged.)" in truth.said.text()
    truth.table.cellClicked.emit(0, 0)
    assert bench.workspace.case == "plane-b"


def test_an_image_of_which_a_part_was_held_out_is_not_called_held_out():
    held = {"jaccard": {}, "dice": {}, "images": ("a", "b")}
    for rule in ("2 held-out images", "strokes of 2 held-out images", "fold 0 of 5 (2 images)"):
        assert _held_whole(Scores(**held, rule=rule)) == {"a", "b"}
    for rule in (
        "strokes of a held-out strip of each of 2 images",
        "3 held-out planes of a",
        "fold 0 of 5 (a block of a)",
    ):
        assert _held_whole(Scores(**held, rule=rule)) == set()


def test_scoring_is_stopped_by_what_the_user_begins(truth, bench, jobs):
    truth.on.set_value("strokes")
    truth.refresh()
    assert truth.score.why == "Paint strokes first."
    bench.context.bridge.annotation.data[2:5, 2:5] = 1
    bench.context.bridge.flush()
    truth.score.click()
    assert truth.stop.isVisibleTo(truth)
    bench.workspace.predict_current()
    assert len(jobs.stopped) >= 1
    assert not truth.truths.errand.running
