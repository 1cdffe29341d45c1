"""Images that are taken out, moved or gone: one sentence, nothing lost, and the way on is open."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from napari_unetseg.errors import WriteError
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace import Prediction
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


def test_an_image_added_again_is_no_longer_one_taken_out(bench, images):
    bench.images.remove.click()
    assert bench.workspace.removed == ("plane-a",)
    bench.images.add_paths([str(images / "plane-a.tif")])
    assert "plane-a" in bench.workspace.cases
    assert bench.images.undo_remove.isHidden()


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


def test_a_project_where_nothing_can_be_written_is_offered_to_look_at(bench, tmp_path, monkeypatch):
    from napari_unetseg.project import Project
    from napari_unetseg.project.lock import Lock

    other = tmp_path / "other.unetseg"
    Project.create(other, ["background", "cell"]).close()

    def refused(lock):
        raise lock._cannot(OSError(errno.EROFS, "Read-only file system"))

    monkeypatch.setattr(Lock, "_create", refused)
    assert not bench.images.open_project(str(other))
    assert "Read-only file system" in bench.images.locked.text()
    assert bench.images.take_over.isHidden()
    bench.images.look_only.click()
    assert bench.workspace.read_only
    assert bench.workspace.project.path == other


def test_a_mask_that_cannot_be_saved_is_told_in_the_users_words(bench, notes, monkeypatch):
    space = bench.workspace
    mask = LabelVolume(np.ones((40, 60), np.uint8), space.image().geometry)
    space._show(prediction=Prediction(space.case, None, mask))

    def full(*_):
        raise WriteError("somewhere/.1234-0001.tif could not be written: the disk is full.", hint="Free some space.")

    with monkeypatch.context() as broken:
        broken.setattr(space.project, "accept", full)
        bench.review.accept.click()
    assert notes[-1].message == "The mask of plane-a could not be saved: the disk is full.\nFree some space."
    assert bench.review.accept.isEnabled()
    bench.review.accept.click()
    assert space.accepted
