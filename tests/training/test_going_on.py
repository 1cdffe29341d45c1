"""Going on: from a model with all strokes replayed, from a kill, and stopping at once in every phase."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import blobs, folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.errors import Stopped
from napari_unetseg.events import Control, Started, StepDone, Validated
from napari_unetseg.training import fine_tune, job, loop


def quick(**training) -> nus.Plan:
    training = {"epochs": 3, "steps_per_epoch": 4, "patch": (32, 32), "batch_size": 2, "device": "cpu", **training}
    return nus.Plan(net={"name": "unet", "width": 0.1, "depth": 3}, training=training)


@pytest.fixture
def project(tmp_path):
    project = nus.Project.create(tmp_path / "p.unetseg", classes=["background", "cell"])
    for number in range(2):
        image, mask = blobs((64, 64), number)
        case = project.add_array(f"case{number}", nus.Volume(image[None]))
        if number == 0:
            project.annotate(case, _strokes(mask, 0))
    yield project
    project.close()


def _strokes(mask, seed):
    return np.where(np.random.default_rng(seed).random(mask.shape) < 0.2, mask + 1, 0).astype(np.uint8)


def test_a_round_replays_all_strokes_with_rate_and_patience_afresh(project, monkeypatch):
    rates, jobs, real = [], [], loop._learn

    def watched(here):
        rates.append(here.optimiser.param_groups[0]["lr"])
        jobs.append(here)
        return real(here)

    monkeypatch.setattr(loop, "_learn", watched)
    plan = quick(schedule="polynomial", stop_after=2, validate_every=1)
    first = fine_tune(project, plan)
    begun = list(rates)
    project.annotate("case1", _strokes(blobs((64, 64), 1)[1], 1))
    rates.clear()
    jobs.clear()
    second = fine_tune(project, plan, start=first)
    assert rates[: len(begun)] == begun[: len(rates)]  # where the first round had begun, not where it had ended
    assert second.parents == (first.id,)
    assert set(second.facts["images"]) == {"case0", "case1"}
    drawn = {sample.name: int(sample.known.sum()) for sample in jobs[0].feed.sampler.samples}
    held = sum(int(image.known.sum()) for image in jobs[0].heldout)
    painted = sum(int((project.annotation(case).data > 0).sum()) for case in project.cases)
    assert 0.7 * painted < sum(drawn.values()) + held <= painted  # but for the margin around what is held out


def test_strokes_added_after_a_kill_start_rate_and_patience_afresh(project, tmp_path):
    plan = quick(epochs=6)
    run = fine_tune.events(project, plan, folder=tmp_path / "m", resume=True)
    for event in run:
        if isinstance(event, Started):
            assert "No training was broken off here: this one begins anew." in event.notes
        if isinstance(event, StepDone) and event.step == 10:
            break
    run.close()
    project.annotate("case1", _strokes(blobs((64, 64), 1)[1], 1))
    events = list(fine_tune.events(project, plan, folder=tmp_path / "m", resume=True))
    assert any("start afresh" in note for note in events[0].notes)
    assert not any("begins anew" in note for note in events[0].notes)
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 25))


def test_the_step_kept_is_in_the_facts_and_in_the_history(project, tmp_path):
    events, run = [], fine_tune.events(project, quick(), folder=tmp_path / "m")
    events.extend(run)
    kept = [e for e in events if isinstance(e, Validated) and e.best][-1]
    model = nus.Model.load(tmp_path / "m")
    assert model.facts["kept_step"] == kept.step
    assert model.facts["kept_seconds"] == pytest.approx(kept.seconds, abs=0.1)
    assert [row["step"] for row in model.history if row.get("kept")] == [kept.step]


def _after_stop(at, run, control, calls):
    """Run to the end with a stop at call number `at` of what `calls` counts; calls that came after it."""
    calls.stop_at = (at, control)
    try:
        for _ in run:
            pass
    except Stopped:
        pass
    return calls.number - at


class Calls:
    """Counts calls, and says stop in the middle of one, as a person does from another thread."""

    def __init__(self):
        self.number, self.stop_at = 0, (0, Control())

    def __call__(self, *_):
        self.number += 1
        if self.number == self.stop_at[0]:
            self.stop_at[1].stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("blobs"), number=4, shape=(96, 96))


def test_stops_in_the_middle_of_a_step(folder):
    def count(module, args, output):
        calls()
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(calls)

    def begin():
        control, steps = Control(), []
        run = fine_tune.events(folder, quick(), control=control)
        next(run)  # planned, and the processor probed
        calls.number = 0
        return run, control, steps

    calls = Calls()
    handle = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        run, _, _ = begin()
        next(event for event in run if isinstance(event, StepDone))
        run.close()
        whole = calls.number
        for share in (0.2, 0.8):  # within the forward, within the backward pass
            run, control, steps = begin()
            left = _after_stop(int(share * whole), (steps.append(e) for e in run), control, calls)
            assert left <= 0.1 * whole
            assert not [e for e in steps if isinstance(e, StepDone)]
    finally:
        handle.remove()


def test_stops_while_images_are_read_and_prepared(folder, monkeypatch):
    real, calls, control = job.prepare, Calls(), Control()

    def counted(*args):
        calls()
        return real(*args)

    monkeypatch.setattr(job, "prepare", counted)
    assert _after_stop(2, fine_tune.events(folder, quick(), control=control), control, calls) == 0


def test_dropout_is_the_same_after_a_kill(project, tmp_path):
    """With the instant model teaching, whose own random numbers come between, too."""
    plan = quick().change(net={"dropout": 0.4})
    whole = [e.loss for e in fine_tune.events(project, plan) if isinstance(e, StepDone)]
    run = fine_tune.events(project, plan, folder=tmp_path / "m")
    for event in run:
        if isinstance(event, StepDone) and event.step == 6:
            break
    run.close()
    rest = fine_tune.events(project, plan, folder=tmp_path / "m", resume=True)
    losses = [e.loss for e in rest if isinstance(e, StepDone)]
    assert len(losses) == 8
    np.testing.assert_allclose(losses, whole[4:], rtol=1e-5)


def test_images_of_all_rounds_are_counted_as_learned_from(project, tmp_path):
    first = fine_tune(project, quick(), folder=tmp_path / "one")
    assert first.facts["images"] == ["case0"]
    assert first.facts["held_out"].keys() == {"case0"}
    project.annotate("case1", _strokes(blobs((64, 64), 1)[1], 1))
    second = fine_tune(project, quick(), start=tmp_path / "one")
    assert second.facts["images"] == ["case0", "case1"]
    assert second.facts["held_out"] == first.facts["held_out"]


def test_a_class_that_nothing_shows_is_named(tmp_path):
    with nus.Project.create(tmp_path / "p.unetseg", classes=["background", "cell", "rare"]) as made:
        image, mask = blobs((64, 64), 0)
        made.annotate(made.add_array("one", nus.Volume(image[None])), _strokes(mask, 0))
        notes = next(fine_tune.events(made, quick())).notes
    assert "Nothing to learn from shows 'rare': it will not be found in any image." in notes


def test_a_temperature_of_other_weights_is_not_taken_over(project):
    plan = quick().change(inference={"temperature": 3.0}, data={"heldout": 0.0})
    assert fine_tune(project, plan).plan.inference.temperature == 1.0
