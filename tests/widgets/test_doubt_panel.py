"""A map of doubt lies over the slice in its place, follows the user, and changes its kind without another pass."""

from __future__ import annotations

import numpy as np
import pytest
from asking import answer, arrays, asked, model_folder, segmented

from napari_unetseg.widgets.overlays import overlays


def answered(jobs, tmp_path, shape, index=None, passes=1, value=0.75):
    shown = np.zeros(shape, np.float32)
    shown[..., 3:9, 4:20] = value
    other = shown / 3
    probability = np.stack([1 - shown, shown])
    paths = arrays(tmp_path, probability=probability, entropy=shown, disagreement=other)
    if passes == 1:
        paths["disagreement"] = None
    answer(jobs, "doubt", {**paths, "mask": "", "passes": passes, "index": index})
    return shown


@pytest.fixture
def doubt(bench, jobs, tmp_path):
    held = {"rule": "2 held-out images", "calibration": {"ece_before": 0.1, "ece_after": 0.04}}
    bench.workspace._use(model_folder(bench, scores={"jaccard": {}, "dice": {}, **held}))
    bench.doubt.button.setChecked(True)
    bench.review.show()
    segmented(bench, jobs, tmp_path)
    return bench.doubt


def test_the_slice_gets_its_map_in_its_place_and_it_follows(doubt, bench, jobs, tmp_path, qtbot):
    segmented(bench, jobs, tmp_path, "volume")
    bench.context.viewer.dims.set_point(0, 2 * 3.0)
    doubt.show_map.click()
    assert (asked(jobs, "doubt")[0]["case"], asked(jobs, "doubt")[0]["index"]) == ("volume", 2)
    shown = answered(jobs, tmp_path, (40, 60), 2)
    (layer,) = overlays(bench.context, "doubt")
    assert layer.data.shape == (1, 40, 60)
    assert layer.translate[0] == 6.0
    np.testing.assert_array_equal(layer.data[0], shown)
    assert layer.colormap.colors[0][3] == 0, "where it is sure the image is seen"
    assert "0 sure" in doubt.says.text()
    bench.context.viewer.dims.set_point(0, 4 * 3.0)
    qtbot.waitUntil(lambda: len(asked(jobs, "doubt")) == 2, timeout=3000)
    assert asked(jobs, "doubt")[1]["index"] == 4
    answered(jobs, tmp_path, (40, 60), 4)
    assert [layer.translate[0] for layer in overlays(bench.context, "doubt")] == [12.0]
    doubt.hide_map.click()
    assert overlays(bench.context, "doubt") == []


def test_another_kind_needs_no_second_pass_but_disagreement_needs_several(doubt, bench, jobs, tmp_path):
    doubt.show_map.click()
    shown = answered(jobs, tmp_path, (40, 60))
    doubt.kind.set_value("probability of background")
    doubt.kind.chosen.emit("probability of background")
    assert len(asked(jobs, "doubt")) == 1
    np.testing.assert_allclose(overlays(bench.context, "doubt")[0].data, 1 - shown)
    assert "off by 0.04" in doubt.says.text()
    doubt.kind.set_value("disagreement")
    doubt.kind.chosen.emit("disagreement")
    assert asked(jobs, "doubt")[1]["tta"] == "flips"
    answered(jobs, tmp_path, (40, 60), passes=4)
    np.testing.assert_allclose(overlays(bench.context, "doubt")[0].data, shown / 3)
    assert "4 looks" in doubt.says.text()


def test_as_outline(doubt, bench, jobs, tmp_path):
    doubt.show_map.click()
    shown = answered(jobs, tmp_path, (40, 60))
    doubt.outline.setChecked(True)
    (layer,) = overlays(bench.context, "doubt")
    assert layer.contour
    np.testing.assert_array_equal(layer.data, shown >= 0.5)


def test_it_is_stopped_and_says_why_it_cannot_be(doubt, bench, jobs):
    doubt.show_map.click()
    doubt.stop.click()
    assert len(jobs.stopped) == 1
    assert doubt.show_map.isVisibleTo(doubt)
    bench.workspace.predict_current()
    assert doubt.show_map.why == "A mask is being computed: wait, or stop it first."


def test_the_map_is_made_again_for_the_next_image(doubt, bench, jobs, tmp_path):
    doubt.show_map.click()
    answered(jobs, tmp_path, (40, 60))
    bench.workspace.select_case("plane-b")
    assert overlays(bench.context, "doubt") == []
    assert asked(jobs, "doubt")[-1]["case"] == "plane-b"


def test_the_last_rounds_are_asked_together(doubt, bench, jobs, tmp_path):
    assert "disagreement of rounds" not in doubt.doubting.kinds
    bench.workspace._use(model_folder(bench, 2))
    segmented(bench, jobs, tmp_path)
    doubt.kind.set_value("disagreement of rounds")
    doubt.show_map.click()
    assert [path[-9:] for path in asked(jobs, "doubt")[0]["models"]] == ["round-001", "round-002"]
    shown = answered(jobs, tmp_path, (40, 60), passes=2)
    np.testing.assert_allclose(overlays(bench.context, "doubt")[0].data, shown / 3)
    assert "last 2 rounds" in doubt.says.text()


def test_whether_it_means_what_it_says(doubt, bench, jobs, tmp_path):
    doubt.check.click()
    picture = arrays(tmp_path, picture=np.full((50, 60, 3), 200, np.uint8))
    numbers = {"temperature": 1.3, "ece_before": 0.1, "ece_after": 0.041, "voxels": 1200, "rule": "2 held-out images"}
    answer(jobs, "reliability", {**picture, **numbers})
    assert doubt.picture.pixmap().width() == 60
    assert "on 2 held-out images (1,200 voxels): what is said and what is differ by 0.04" in doubt.checked.text()
    doubt.check.click()
    answer(jobs, "reliability", dict.fromkeys(("picture", *numbers)))
    assert "nothing was held out" in doubt.checked.text()
    assert not doubt.picture.isVisibleTo(doubt)
