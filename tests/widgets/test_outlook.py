"""The time a training takes is told before Train is pressed, and asked for only when it may have changed."""

from __future__ import annotations

import pytest
from asking import answer, asked

pytestmark = pytest.mark.window

TOLD = {"first_mask": 2.4, "estimate_seconds": 120.0, "steps": 1234, "sentence": "", "notes": []}


def test_it_is_told_once_and_again_when_the_plan_is_another(bench, jobs):
    outlook = bench.train.outlook
    outlook.ask()
    assert not asked(jobs, "plan")  # nothing is painted
    layer = bench.context.bridge.annotation
    layer.data[4, :20], layer.data[8, :20] = 1, 2
    bench.context.bridge.flush()
    outlook.ask()
    answer(jobs, "plan", TOLD)
    assert outlook.text() == "First mask after about 2 s, then about 1,200 steps in 2 min."
    outlook.ask()
    assert len(asked(jobs, "plan")) == 1
    bench.workspace.change_plan(training={"minutes": 5})
    assert outlook.isHidden()
    outlook.ask()
    assert len(asked(jobs, "plan")) == 2
    answer(jobs, "plan", {"message": "Cannot be.", "hint": ""}, event="Failed")
    assert outlook.isHidden()


def test_nothing_is_asked_while_training(bench, jobs):
    layer = bench.context.bridge.annotation
    layer.data[4, :20], layer.data[8, :20] = 1, 2
    bench.context.bridge.flush()
    bench.workspace.train()
    bench.train.outlook.ask()
    assert not asked(jobs, "plan")
