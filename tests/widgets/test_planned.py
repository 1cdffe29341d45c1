"""What the next training will do and cost, told in the drawer before Train is pressed."""

from __future__ import annotations

import pytest

from napari_unetseg.events import Control
from napari_unetseg.worker import loop
from napari_unetseg.worker.verbs import Bench

pytestmark = pytest.mark.window


@pytest.fixture
def planned(bench):
    return bench.train.advanced.planned


def choose(box, value):
    index = box._values.index(value)
    box.setCurrentIndex(index)
    box.activated.emit(index)


def test_patches_and_augmentation_go_into_the_plan_and_back(bench, planned):
    drawer, work = bench.train.advanced, bench.workspace
    for name, value in {"patch": (96, 96, 96), "batch_size": 4, "augment": 0.5}.items():
        choose(planned.fields[name], value)
    training = work.plan.training
    assert (training.patch, training.batch_size, training.augment) == ((96, 96, 96), 4, 0.5)
    assert "patch given" in drawer.button.text()
    drawer.reset.click()
    assert not work.plan.training.model_fields_set & {"patch", "batch_size", "augment"}
    assert planned.fields["patch"].value is None


def test_what_will_be_done_is_told_before_it_is(bench, planned, jobs, tmp_path):
    assert not planned.ask.isEnabled()
    assert planned.ask.why == bench.workspace.why_not("train")
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 1)
    layer.paint((30, 40), 2)
    bench.context.bridge.flush()
    bench.refresh()
    bench.workspace.change_plan(net={"width": 0.1})
    planned.ask.click()
    assert "measuring" in planned.told.text()
    verb, args = jobs.submitted[-1]
    assert verb == "plan"
    jobs.tell("Done", result=loop.VERBS["plan"](args, Control(), Bench(tmp_path)))
    lines = planned.told.text().splitlines()
    assert lines[0].startswith("A first mask in about")
    assert "this plan takes 2 minutes" in lines[0]
    assert any(line.startswith("· Patches of ") for line in lines)
    bench.workspace.change_plan(training={"minutes": 3})
    assert not planned.told.text()  # it was about another plan


def test_why_there_is_no_answer_is_told(bench, planned, jobs):
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 1)
    layer.paint((30, 40), 2)
    bench.context.bridge.flush()
    bench.refresh()
    planned.ask.click()
    late = len(jobs.listeners) - 1
    jobs.tell("Failed", message="Nothing is annotated.", hint="Paint a stroke.")
    assert planned.told.text() == "Nothing is annotated. Paint a stroke."
    bench.workspace.change_plan(training={"minutes": 3})
    jobs.listeners[late]({"id": 1, "event": "Failed", "message": "Late.", "hint": ""})
    assert not planned.told.text()
