"""Images that are taken out, moved or gone: one sentence, nothing lost, and the way on is open."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetseg.workspace.accepting import AcceptedPart

pytestmark = pytest.mark.window


def paint(bench):
    bench.context.bridge.annotation.paint((10, 10), 2)
    bench.context.bridge.flush()
    return bench.workspace.annotation()


def test_an_image_taken_out_comes_back_with_its_strokes(bench):
    space, images = bench.workspace, bench.images
    case, strokes = space.case, paint(bench)
    assert images.undo_remove.isHidden()
    images.remove.click()
    assert case not in space.cases
    assert space.case is not None
    assert images.undo_remove.text() == f"Undo remove {case}"
    images.undo_remove.click()
    assert space.case == case
    assert np.array_equal(space.annotation(), strokes)
    assert images.undo_remove.isHidden()


def test_images_that_are_gone_are_passed_over_and_named(bench, images, notes):
    space = bench.workspace
    assert space.case == "plane-a"
    (images / "plane-b.tif").unlink()
    bench.images.go_further(1)
    assert space.case == "volume"
    assert "plane-b is missing" in notes[-1].message
    (images / "volume.nii.gz").unlink()
    (images / "plane-a.tif").unlink()
    bench.images.go_further(1)
    assert space.case is None
    assert bench.train.train.why


def test_an_image_that_was_moved_is_found_again_when_it_is_added(bench, images, tmp_path):
    space = bench.workspace
    strokes = paint(bench)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (images / "plane-a.tif").rename(elsewhere / "plane-a.tif")
    bench.images.add_paths([str(elsewhere)])
    assert space.cases == ("plane-a", "plane-b", "volume")
    assert space.case == "plane-a"
    assert np.array_equal(space.annotation(), strokes)
    assert space.project.image_path("plane-a").parent == elsewhere


def test_accepted_parts_stay_where_the_next_image_cannot_be_opened(bench, images):
    space = bench.workspace
    space.select_case("volume")
    part = AcceptedPart.of(np.ones((6, 40, 60), np.uint8), "slice", 2, images / "kept.npz")
    space.accepted_parts = (part,)
    (images / "plane-a.tif").unlink()
    bench.images.go_to("plane-a")
    assert (space.case, space.accepted_parts) == ("volume", (part,))
