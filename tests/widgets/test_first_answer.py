"""Instant answers in the window: asked for after a pause, shown, switched off, and handed over to the net."""

from __future__ import annotations

import numpy as np
import pytest
from asking import answer, arrays, asked, model_folder

from napari_unetseg.workspace.first_answer import FirstAnswer

pytestmark = pytest.mark.window


@pytest.fixture
def answers(bench) -> FirstAnswer:
    return bench.answer.answers


def paint(bench, *labels):
    layer = bench.context.bridge.annotation
    for label in labels:
        layer.data[4 * label, :20] = label
    bench.context.bridge.flush()


def test_it_is_asked_for_after_the_stroke_and_shown(bench, jobs, answers, tmp_path, qtbot):
    paint(bench, 1, 2)
    turns = len(asked(jobs, "instant"))
    qtbot.waitUntil(lambda: len(asked(jobs, "instant")) > turns)
    assert asked(jobs, "instant")[-1]["annotated"] == [bench.workspace.case]
    mask = np.ones(bench.workspace.image().shape, np.uint8)
    answer(jobs, "instant", {**arrays(tmp_path, mask=mask), "index": None, "images": 1, "seconds": 0.5})
    assert (bench.context.bridge.mask.data == 1).all()
    assert bench.answer.sentence.text() == "Instant answer from your strokes (not trained yet)."
    assert bench.answer.badge.text() == "instant"


def test_a_newer_stroke_takes_the_place_of_the_older(bench, jobs, answers):
    paint(bench, 1, 2)
    answers.ask()
    first = len(jobs.listeners)
    paint(bench, 3)
    answers.ask()
    assert first in jobs.stopped
    jobs.listeners[first - 1]({"event": "Done", "result": {"mask": "nowhere"}})  # late, and not looked at
    assert bench.workspace.preview is None


def test_one_class_only_gets_ready_and_says_what_is_missing(bench, jobs, answers):
    paint(bench, 1)
    answers.ask()
    answer(jobs, "instant", {"mask": None, "index": None, "images": 0, "seconds": 0.1})
    assert answers.says() == "An instant answer follows your first strokes of two classes."


def test_switched_off_nothing_is_asked_and_it_stays_so(bench, jobs, answers):
    bench.answer.switch.click()
    before = len(asked(jobs, "instant"))
    paint(bench, 1, 2)
    answers.ask()
    assert len(asked(jobs, "instant")) == before
    assert bench.workspace.recall("live answers") is False
    bench.answer.switch.click()
    answers.ask()
    assert len(asked(jobs, "instant")) == before + 1


def test_it_hands_over_to_the_net(bench, jobs, answers):
    paint(bench, 1, 2)
    bench.workspace.train()
    answers.ask()
    assert jobs.submitted[-1][0] == "train"
    jobs.tell("Leads", who="instant", scores=None, text="The instant model answers until unet is better.", seconds=1.0)
    assert (answers.who, bench.answer.badge.text()) == ("instant", "instant")
    jobs.tell("Leads", who="unet", scores=None, text="unet answers from now on.", seconds=9.0)
    assert bench.answer.badge.text() == "U-Net"
    assert bench.answer.sentence.text() == "unet answers."
    assert bench.answer.sentence.toolTip() == "unet answers from now on."


def test_where_a_net_is_trained_it_answers(bench, jobs, answers):
    bench.workspace._use(model_folder(bench))
    before = len(asked(jobs, "instant"))
    paint(bench, 1, 2)
    answers.ask()
    assert len(asked(jobs, "instant")) == before
    assert bench.answer.switch.isHidden()
