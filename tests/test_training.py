"""The training loop: it learns, stops, resumes, and never makes a model worse."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import torch
from tiny import blobs, folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.data.augment import roughen
from napari_unetseg.errors import AnnotationError, ModelError, PlanError, Stopped
from napari_unetseg.events import Control, Note, PreviewReady, Running, Started, StepDone, Validated, View
from napari_unetseg.nets import build
from napari_unetseg.training import fine_tune, loop
from napari_unetseg.volume import LabelVolume


def quick(**training) -> nus.Plan:
    training = {"epochs": 3, "steps_per_epoch": 6, "patch": (32, 32), "batch_size": 2, "device": "cpu", **training}
    return nus.Plan(net={"name": "unet", "width": 0.1}, training=training)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("blobs"), number=4)


def test_learns_bright_blobs_and_says_what_it_was_measured_on(folder):
    model = fine_tune(folder, quick(epochs=10, steps_per_epoch=8))
    assert model.scores.mean_dice > 0.8
    assert "held-out image" in model.scores.rule
    assert model.scores.voxels == 64 * 64
    assert set(model.scores.images) & set(model.facts["images"]) == set()
    assert model.scores.model == model.id


def test_events_tell_the_run(folder):
    events = list(fine_tune.events(folder, quick()))
    assert isinstance(events[0], Started)
    assert all(note.endswith((".", "!")) for note in events[0].notes)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 19))
    assert steps[-1].left == 0
    assert [event.step for event in events if isinstance(event, Validated)] == [6, 12, 18]


def test_same_seed_same_curve(folder):
    first, second, other = (
        [e.loss for e in fine_tune.events(folder, quick(seed=seed)) if isinstance(e, StepDone)] for seed in (3, 3, 4)
    )
    assert first == second
    assert first != other


def test_loss_never_looks_at_unlabelled_voxels(tmp_path):
    """Strokes in one corner: what the rest of the image holds changes no gradient where windows do not reach."""
    image, mask = blobs((64, 64))
    project = nus.Project.create(tmp_path / "p.unetseg", classes=["background", "cell"])
    case = project.add_array("one", nus.Volume(image[None]))
    strokes = np.zeros((64, 64), np.uint8)
    strokes[::7, ::7] = mask[::7, ::7] + 1
    project.annotate(case, strokes)
    model = fine_tune(project, quick(epochs=1))
    assert model.scores.voxels <= int((strokes > 0).sum())
    project.close()


def test_stop_keeps_the_best_so_far(folder, tmp_path):
    control = Control()
    events = fine_tune.events(folder, quick(epochs=500), control=control, folder=tmp_path / "m")
    for event in events:
        if isinstance(event, Validated):
            control.stop()
            break
    after = list(events)
    assert sum(isinstance(event, StepDone) for event in after) == 0
    assert nus.Model.load(tmp_path / "m").scores is not None


def test_stop_before_the_first_step_leaves_nothing(folder, tmp_path):
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        fine_tune(folder, quick(), control=control, folder=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_killed_run_goes_on_with_the_same_curve(folder, tmp_path):
    whole = [e.loss for e in fine_tune.events(folder, quick()) if isinstance(e, StepDone)]
    run = fine_tune.events(folder, quick(), folder=tmp_path / "m")
    for event in itertools.islice(run, 16):  # past the checkpoint of step 12, as a kill would
        reached = event
    assert isinstance(reached, (StepDone, Validated))
    run.close()
    rest = [e for e in fine_tune.events(folder, quick(), folder=tmp_path / "m", resume=True) if isinstance(e, StepDone)]
    assert rest[0].step in (7, 13)
    np.testing.assert_allclose([e.loss for e in rest], whole[rest[0].step - 1 :], rtol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    steps = [row["step"] for row in nus.Model.load(tmp_path / "m").history if "loss" in row]
    assert steps == list(range(1, 19))


def test_who_leaves_finds_every_step_in_the_checkpoint(folder, tmp_path):
    whole = [e.loss for e in fine_tune.events(folder, quick()) if isinstance(e, StepDone)]
    control = Control()
    run = fine_tune.events(folder, quick(), folder=tmp_path / "m", control=control)
    next(event for event in run if isinstance(event, StepDone) and event.step == 9)
    control.leave()
    with pytest.raises(Stopped, match="broken off"):
        list(run)
    assert not (tmp_path / "m").exists()
    rest = [e for e in fine_tune.events(folder, quick(), folder=tmp_path / "m", resume=True) if isinstance(e, StepDone)]
    assert rest[0].step == 10
    np.testing.assert_allclose([e.loss for e in rest], whole[9:], rtol=1e-5)


class Leaving(Control):
    """Leaves when it is polled, once told to."""

    ready = False

    def poll(self):
        if self.ready:
            self.leave()
        super().poll()


@pytest.mark.parametrize("validating", [False, True])
def test_who_leaves_after_the_last_step_has_it_scored_on_return(validating, folder, tmp_path):
    control = Leaving()
    run = fine_tune.events(folder, quick(), folder=tmp_path / "m", control=control)
    next(event for event in run if isinstance(event, StepDone) and event.step == 18)
    control.ready, control.left, control.stopped = validating, not validating, not validating
    with pytest.raises(Stopped, match="broken off"):
        list(run)
    rest = list(fine_tune.events(folder, quick(), folder=tmp_path / "m", resume=True))
    assert [event.step for event in rest if isinstance(event, Validated)] == [18]


@pytest.mark.parametrize("gone", ["state.json", "state.safetensors"])
def test_a_kill_while_the_last_checkpoint_makes_room_costs_nothing(gone, folder, tmp_path):
    run = fine_tune.events(folder, quick(), folder=tmp_path / "m")
    next(event for event in run if isinstance(event, StepDone) and event.step == 13)
    run.close()
    old = tmp_path / ".m.training"
    shutil.copytree(old, tmp_path / ".m.training.part")
    (old / gone).unlink()
    rest = [e for e in fine_tune.events(folder, quick(), folder=tmp_path / "m", resume=True) if isinstance(e, StepDone)]
    assert rest[0].step == 13
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_checkpoint_that_cannot_be_written_is_said_and_costs_nothing(folder, tmp_path):
    (tmp_path / ".m.training.part").write_text("in the way")
    run = fine_tune.events(folder, quick(), folder=tmp_path / "m")
    notes = [event.text for event in run if isinstance(event, Note)]
    assert notes
    assert all("No checkpoint could be written" in note for note in notes)
    assert (tmp_path / "m" / "model.json").exists()


def test_going_on_from_a_model_never_returns_a_worse_one(folder):
    good = fine_tune(folder, quick(epochs=8))
    spoiled = quick(epochs=1, steps_per_epoch=2, learning_rate=5.0, optimiser="sgd", schedule="constant")
    after = fine_tune(folder, spoiled, start=good)
    assert after.scores.mean_dice >= good.scores.mean_dice
    assert (after.id, after.parents) == (good.id, good.parents)  # it is that model, not its child


def test_previews_what_the_user_looks_at(folder):
    control = Control(View("case2"))
    previews = [e for e in fine_tune.events(folder, quick(), control=control) if isinstance(e, PreviewReady)]
    assert previews
    assert previews[0].mask.shape == (64, 64)
    assert previews[0].view == View("case2")


@pytest.mark.parametrize("dims", [2, 3])
def test_volumes_by_plane_and_by_volume(tmp_path, dims):
    folder = folder_of_blobs(tmp_path, number=2, shape=(12, 32, 32), suffix=".nii.gz", classes=3)
    plan = nus.Plan(
        net={"name": "unet", "width": 0.1, "dims": dims, "depth": 3},
        training={"epochs": 1, "steps_per_epoch": 2, "device": "cpu"},
    )
    model = fine_tune(folder, plan)
    assert model.plan.net.outputs == 3
    mask = nus.predict(model, nus.read(folder / "images" / "case0.nii.gz"))
    assert mask.shape == (12, 32, 32)


def test_a_plan_saved_with_a_model_has_no_decision_left_open(folder):
    plan = fine_tune(folder, nus.Plan(net={"width": 0.1}, training={"epochs": 1, "steps_per_epoch": 1})).plan
    assert None not in (plan.training.patch, plan.training.batch_size, plan.data.normalisation)
    assert plan.data.labels == "mask"


def test_what_cannot_be_learned_is_refused(tmp_path):
    image, _ = blobs((32, 32))
    project = nus.Project.create(tmp_path / "p.unetseg", classes=["background", "cell"])
    case = project.add_array("one", nus.Volume(image[None]))
    with pytest.raises(AnnotationError):
        fine_tune(project, quick())
    project.annotate(case, LabelVolume(np.ones((32, 32), np.uint8)))
    with pytest.raises(AnnotationError, match="background"):
        fine_tune(project, quick())
    project.close()


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("net", {"name": "unett"}),
        ("training", {"loss": "dise"}),
        ("training", {"optimiser": "adm"}),
        ("training", {"schedule": "platteau"}),
        ("training", {"recipe": {"rotationn": 1}}),
        ("training", {"recipe": {"shear": -1}}),
        ("training", {"patch": (0, 32)}),
        ("training", {"patch": (-32, 32)}),
        ("inference", {"tile": (0, 0)}),
        ("post", {"steps": (("fill-hole", {}),)}),
        ("post", {"steps": (("fill-holes", {"sise": 3}),)}),
        ("data", {"normalisation": {"kind": "ct", "low": float("nan")}}),
        ("net", {"parts": {"block": {"a": 1}}}),
        ("net", {"dims": 3}),
    ],
)
def test_plans_that_cannot_be_are_one_line_errors(folder, section, values):
    with pytest.raises((PlanError, nus.UnetSegError)) as caught:
        fine_tune(folder, quick().change(**{section: values}))
    assert "\n" not in str(caught.value)


def test_a_model_of_another_shape_cannot_be_gone_on_from(folder):
    model = fine_tune(folder, quick(epochs=1))
    with pytest.raises(ModelError, match="shape"):
        fine_tune(folder, quick(epochs=1).change(net={"width": 0.2}), start=model)


def test_an_early_lucky_score_on_a_few_strokes_does_not_win():
    from napari_unetseg.scores import Scores
    from napari_unetseg.training.clock import Progress

    def scored(dice, voxels):
        return Scores({"cell": dice}, {"cell": dice}, "1 held-out image", ("a",), voxels)

    few, many = Progress(step=5), Progress(step=5)
    assert few.keeps(scored(0.96, 500))
    assert few.keeps(scored(0.84, 500))
    assert not few.keeps(scored(0.40, 500))
    assert many.keeps(scored(0.96, 500_000))
    assert not many.keeps(scored(0.84, 500_000))


def test_the_model_gone_on_from_is_a_floor_without_tolerance():
    from napari_unetseg.scores import Scores
    from napari_unetseg.training.clock import Progress

    progress = Progress(step=0)
    assert progress.keeps(Scores({}, {"cell": 0.8}, "", (), 100))
    progress.step = 9
    assert not progress.keeps(Scores({}, {"cell": 0.79}, "", (), 100))


def test_ends_early_when_nothing_is_gained_and_says_so(folder):
    plan = quick(epochs=50, steps_per_epoch=1, learning_rate=1e-9, validate_every=1, stop_after=3, average=0.0)
    events = list(fine_tune.events(folder, plan))
    assert max(e.step for e in events if isinstance(e, StepDone)) < 20
    assert [e.text for e in events if isinstance(e, Note)] == ["Ended early: nothing gained in 3 validations."]


def test_the_rate_falls_on_a_plateau_also_after_a_resume(folder, tmp_path, monkeypatch):
    plan = quick(
        epochs=6, steps_per_epoch=1, learning_rate=1e-9, validate_every=1, schedule="plateau", patience=2, average=0.0
    )
    from napari_unetseg.training import loop

    seen, real = [], loop._learn

    def watching(job):
        seen.append(job.optimiser.param_groups[0]["lr"])
        return real(job)

    monkeypatch.setattr(loop, "_learn", watching)

    def rates(steps=6, **options):
        seen.clear()
        for event in fine_tune.events(folder, plan, **options):
            if isinstance(event, StepDone) and event.step == steps < 6:
                break
        return list(seen)

    whole = rates()
    assert whole[0] == pytest.approx(1e-9)
    assert whole[-1] == pytest.approx(1e-11)
    rates(5, folder=tmp_path / "m")
    assert rates(folder=tmp_path / "m", resume=True) == pytest.approx(whole[4:])


def test_keeping_the_best_has_no_tolerance():
    from napari_unetseg.scores import Scores
    from napari_unetseg.training.clock import Progress

    progress = Progress(step=1)
    first, second = (Scores({}, {"cell": dice}, "", (), 100) for dice in (0.80, 0.79))
    assert progress.keeps(first, 0.0)
    assert not progress.keeps(second, 0.0)


def test_a_training_that_diverges_keeps_what_was_best_before(folder, monkeypatch):
    from napari_unetseg.training import loop

    real = loop._learn

    def learn(job):
        loss = real(job)
        return float("nan") if job.progress.step == 9 else loss

    monkeypatch.setattr(loop, "_learn", learn)
    run = Running(fine_tune.events(folder, quick()))
    notes = [event.text for event in run if isinstance(event, Note)]
    assert notes == [
        "The training diverged: the loss is not a number. What was best before is kept. Give a smaller learning rate."
    ]
    assert run.result.facts["kept_step"] in (6, 9)
    with pytest.raises(PlanError, match="diverged"):
        fine_tune(folder, quick(epochs=1, steps_per_epoch=10))


def test_patches_of_one_value_leave_a_gradient_that_is_a_number(tmp_path, monkeypatch):
    """Black beside a section: `efficient-unet` with instance normalisation had none there."""
    net = build(nus.Plan(net={"name": "efficient-unet", "width": 0.125, "norm": "instance"}).net).train()
    black, target = torch.zeros(1, 1, 32, 32), (torch.arange(32) % 20 < 7).float().expand(1, 1, 32, 32)
    for image, finite in ((black, False), (roughen(black), True)):
        net.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(net(image), target).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None) == finite
    seen = []
    monkeypatch.setattr(loop, "roughen", lambda image: seen.append(image) or roughen(image))
    fine_tune(folder_of_blobs(tmp_path), quick(epochs=1))
    assert len(seen) == 6
