"""Slices and classes that were accepted stay as they are, in every mask that is shown, until they are taken back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unetseg.errors import PlanError, UnetSegError
from napari_unetseg.volume import Geometry, LabelVolume, Volume
from napari_unetseg.workspace import Prediction, Preview, Workspace

SHAPE = (4, 8, 10)


class Idle:
    def submit(self, verb, args, on_event):
        json.dumps(args)
        return 1

    def stop(self, job):
        pass

    def look(self, view):
        pass


@pytest.fixture
def work(tmp_path):
    workspace = Workspace(Idle())
    workspace.said = []
    workspace.message.connect(workspace.said.append)
    workspace.create_project(tmp_path / "scans.unetseg", ["background", "liver", "tumour"])
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        workspace.add_array(name, Volume(rng.integers(0, 255, (1, *SHAPE)).astype(np.uint8), Geometry((2.0, 1.0, 1.0))))
    yield workspace
    workspace.close_project()


def says(workspace, seed):
    """The model says something; what is shown of it, and what it said."""
    mask = np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8)
    folder = workspace.project.path / "models" / "round-001"
    workspace._show(prediction=Prediction("a", folder, LabelVolume(mask, workspace.image().geometry)))
    return workspace.prediction.mask.data, mask


def test_a_slice_stays_and_is_taken_back(work):
    _, first = says(work, 1)
    work.accept_part("slice", 2)
    assert str(work.said[-1]) == "Slice 2 of a stays as it is from now on."
    shown, second = says(work, 2)
    np.testing.assert_array_equal(shown[2], first[2])
    np.testing.assert_array_equal(np.delete(shown, 2, 0), np.delete(second, 2, 0))
    work._show(preview=Preview(5, "a", 2, second[2]))
    np.testing.assert_array_equal(work.preview.mask, first[2])
    work._show(preview=Preview(5, "a", 1, second[1]))
    np.testing.assert_array_equal(work.preview.mask, second[1])
    work.undo_part()
    np.testing.assert_array_equal(work.prediction.mask.data, second)
    assert work.why_not("undo_part") == "No slice or class of this image was accepted yet."


def test_a_class_neither_grows_nor_shrinks(work):
    _, first = says(work, 1)
    work.accept_part("class", 1)
    shown, second = says(work, 2)
    np.testing.assert_array_equal(shown == 1, first == 1)
    np.testing.assert_array_equal((shown == 2), (second == 2) & (first != 1))
    work._show(preview=Preview(5, "a", 3, second[3]))
    np.testing.assert_array_equal(work.preview.mask == 1, first[3] == 1)


def test_strokes_overrule_what_is_accepted(work):
    says(work, 1)
    labels = work.annotation()
    labels[1, 0] = 3
    work.sync_strokes(labels)
    says(work, 1)
    work.accept_part("slice", 1)
    assert (work.prediction.mask.data[1, 0] == 2).all()


def test_it_survives_the_window_and_another_image(work):
    _, first = says(work, 1)
    work.accept_part("slice", 0)
    work.accept_part("class", 2)
    work.select_case("b")
    assert work.accepted_parts == ()
    path = work.project.path
    work.close_project()
    work.open_project(path)
    work.select_case("a")
    assert [work.part_name(part) for part in work.accepted_parts] == ["Slice 0", "Class tumour"]
    shown, _ = says(work, 2)
    np.testing.assert_array_equal(shown[0], first[0])
    np.testing.assert_array_equal(shown == 2, first == 2)
    (work.project.path / "masks" / "parts" / "a" / "0001-slice-0.npz").write_bytes(b"torn")
    work.select_case("b")
    work.select_case("a")
    assert [part.kind for part in work.accepted_parts] == ["class"]


def test_the_whole_image_can_be_accepted_and_taken_back_too(work):
    _, first = says(work, 1)
    work.accept_part("slice", 2)
    _, second = says(work, 2)
    work.accept()
    np.testing.assert_array_equal(work.project.mask("a").data[2], first[2])
    assert work.why_not("accept_part") == "All of the mask is accepted already."
    assert work.why_not("undo_part") == "All of the mask is accepted: undo that first."
    work.undo_accept()
    np.testing.assert_array_equal(work.prediction.mask.data[2], first[2])
    work.undo_part()
    np.testing.assert_array_equal(work.prediction.mask.data, second)


def test_what_cannot_be_is_refused(work):
    with pytest.raises(UnetSegError, match="no mask of this image"):
        work.accept_part("slice", 0)
    says(work, 1)
    with pytest.raises(PlanError, match="no slice 4"):
        work.accept_part("slice", 4)
    with pytest.raises(PlanError, match="no class 3"):
        work.accept_part("class", 3)
