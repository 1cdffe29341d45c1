"""A training taken back: what was in use before answers again, after the first round the instant model."""

from __future__ import annotations

import numpy as np
import pytest
from asking import answer, arrays, asked, model_folder

from napari_unetseg.errors import UnetSegError

pytestmark = pytest.mark.window


def trained(bench, jobs, number):
    """A training that has ended with a model."""
    bench.workspace.train()
    folder = model_folder(bench, number)
    answer(jobs, "train", {"model": str(folder), "scores": None, "previous": None})
    return folder


@pytest.fixture
def painted(bench):
    layer = bench.context.bridge.annotation
    for label in (1, 2, 3):
        layer.data[4 * label, :20] = label
    bench.context.bridge.flush()
    return bench


def test_the_second_round_is_undone_and_gone_forward_to_again(painted, jobs, tmp_path):
    bench, review = painted, painted.review
    assert review.undo_round.isHidden()
    trained(bench, jobs, 1)
    second = trained(bench, jobs, 2)
    assert review.undo_round.text() == "Undo round 2"
    bench.workspace.stop()
    jobs.tell("Failed", message="Stopped.", stopped=True)
    review.undo_round.click()
    assert bench.workspace.model.name == "round-001"
    assert asked(jobs, "predict")[-1]["model"].endswith("round-001")
    answer(jobs, "predict", {**arrays(tmp_path, mask=np.ones((40, 60), np.uint8)), "objects": None})
    bench.workspace.go_back_to_round(2)
    assert bench.workspace.model == second


def test_after_the_first_round_the_instant_model_answers_again(painted, jobs, tmp_path, qtbot):
    bench, review = painted, painted.review
    trained(bench, jobs, 1)
    answer(jobs, "predict", {**arrays(tmp_path, mask=np.ones((40, 60), np.uint8)), "objects": None})
    assert bench.context.bridge.mask.data.all()
    before = len(asked(jobs, "instant"))
    review.undo_round.click()
    assert bench.workspace.model is None
    assert not bench.context.bridge.mask.data.any(), "the mask of a round that is not in use is not left standing"
    qtbot.waitUntil(lambda: len(asked(jobs, "instant")) > before)
    assert bench.next.text().startswith("Press Train")
    assert bench.answer.switch.isVisible()
    assert review.undo_round.isHidden()
    with pytest.raises(UnetSegError):
        bench.workspace.undo_round()
    review.rounds.setCurrentItem(review.rounds.topLevelItem(0))
    review.go_back.click()
    assert bench.workspace.model.name == "round-001"


def test_it_is_known_after_the_project_was_closed(painted, jobs, tmp_path):
    bench = painted
    trained(bench, jobs, 1)
    trained(bench, jobs, 2)
    path = bench.workspace.project.path
    bench.workspace.close_project()
    bench.images.open_project(str(path))
    assert bench.workspace.round_before == "round-001"
