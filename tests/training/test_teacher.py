"""The first seconds: the instant model answers, teaches, and is overtaken."""

import contextlib
import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.data.hints import encode_hints
from napari_unetseg.errors import Stopped
from napari_unetseg.events import Control, Leads, PreviewReady, Running, StepDone, TileDone, Validated, View
from napari_unetseg.instant import Lesson, earlier_net, instant_plan, learn_lesson
from napari_unetseg.losses import class_logits
from napari_unetseg.scores import Scores
from napari_unetseg.training import fine_tune
from napari_unetseg.training.job import prepare_job
from napari_unetseg.training.lead import Lead
from napari_unetseg.training.teacher import _near_strokes, learn_hints, teach


def plan(**training) -> nus.Plan:
    small = {"epochs": 2, "steps_per_epoch": 8, "patch": (32, 32), "batch_size": 2, "device": "cpu"}
    return nus.Plan(net={"width": 0.1}, training={**small, **training})


def test_the_instant_model_answers_before_the_first_step(project):
    control = Control(View("image 0"))
    events = list(fine_tune.events(project, plan(), control=control))
    kinds = [type(event) for event in events]
    assert kinds.index(Leads) < kinds.index(PreviewReady) < kinds.index(StepDone)
    first = next(event for event in events if isinstance(event, Leads))
    assert first.who == "instant"
    assert first.scores.mean_dice > 0.7
    _, truth = blobs((64, 64), seed=0)
    shown = next(event for event in events if isinstance(event, PreviewReady)).mask
    assert 2 * (shown & truth).sum() / (shown.sum() + truth.sum()) > 0.7


def test_the_better_of_the_two_is_kept_unless_a_net_was_asked_for(project):
    hopeless = {"epochs": 1, "steps_per_epoch": 1, "learning_rate": 10.0, "average": 0.0, "schedule": "constant"}
    run = Running(fine_tune.events(project, plan(**hopeless)))
    events = list(run)
    model = run.result
    assert [event.who for event in events if isinstance(event, Leads)] == ["instant"]
    assert model.plan.net.name == "instant"
    assert model.scores.mean_dice > max(e.scores.mean_dice for e in events if isinstance(e, Validated))
    asked = fine_tune(project, plan(**hopeless).change(net={"name": "unet"}))
    assert asked.plan.net.name == "unet"
    assert "instant" in asked.plan.net.parts


def test_the_net_takes_the_lead_once_it_is_not_clearly_worse(project):
    events = list(fine_tune.events(project, plan(epochs=10)))
    leads = [event for event in events if isinstance(event, Leads)]
    assert [event.who for event in leads] == ["instant", "unet"]
    assert leads[1].scores.mean_dice >= leads[0].scores.mean_dice - 0.1


def scored(dice, voxels, rule="a part of 1 image"):
    return Scores({"cell": dice}, {"cell": dice}, rule, ("a",), voxels)


@pytest.mark.parametrize(
    ("dice", "steps", "voxels", "leads"),
    [
        (0.90, 1, 500, True),  # as good
        (0.80, 200, 500, True),  # few voxels say little
        (0.80, 20, 500, False),  # so early the net knows nothing
        (0.50, 5000, 500, False),  # that is clear even so
        (0.80, 5000, 50_000, False),  # many voxels say more
    ],
)
def test_how_much_worse_is_clearly_worse_depends_on_voxels_and_steps(dice, steps, voxels, leads):
    lead = Lead(torch.nn.Identity())
    assert not lead.overtaken(scored(1.0, voxels), 1000)  # from nobody
    lead.instant = SimpleNamespace(scores=scored(0.9, voxels))
    assert lead.overtaken(scored(dice, voxels), steps) == leads
    lead.start = SimpleNamespace(facts={"steps": 400})  # of the rounds before
    assert lead.overtaken(scored(dice, voxels), steps) == (leads or steps == 20)
    lead.hand_over()
    assert not lead.overtaken(scored(1.0, voxels), 1000)


def test_where_nothing_is_held_out_the_net_leads_after_its_steps():
    lead = Lead(torch.nn.Identity())
    lead.instant = SimpleNamespace(scores=scored(0.9, 500, rule=""))
    assert not lead.overtaken(scored(0.99, 500, rule=""), 199)
    assert lead.overtaken(scored(0.10, 500, rule=""), 200)


def test_going_on_from_the_instant_model_begins_the_net_anew(project, tmp_path):
    instant = fine_tune(project, plan(epochs=None, minutes=1e-6), folder=tmp_path / "one")  # no time for a step
    assert instant.plan.net.name == "instant"
    steps = [e for e in fine_tune.events(project, plan(), start=tmp_path / "one") if isinstance(e, StepDone)]
    assert len(steps) == 16


def test_a_net_goes_on_with_the_normalisation_it_has_learned_with(project, tmp_path):
    first = fine_tune(
        project, plan(epochs=1).change(data={"normalisation": {"kind": "percentile"}}, net={"name": "unet"})
    )
    assert prepare_job(project, plan(), 1.0, first, Control()).plan.normalisation.kind == "percentile"
    assert prepare_job(project, plan(), 1.0, None, Control()).plan.normalisation.kind == "zscore"


def test_a_taught_net_is_gone_on_from_without_its_old_instant_model(project, tmp_path):
    first = fine_tune(project, plan(epochs=10), folder=tmp_path / "one")
    assert first.plan.net.parts.keys() == {"instant"}
    events = list(fine_tune.events(project, plan(), start=tmp_path / "one"))
    start = next(event for event in events if isinstance(event, Validated))
    assert (start.step, start.scores.mean_dice) == (0, pytest.approx(first.scores.mean_dice, abs=0.05))


def test_two_outputs_for_two_classes_are_saved_and_read(project, tmp_path):
    fine_tune(project, plan().change(net={"outputs": 2}), folder=tmp_path / "m")
    assert nus.Model.load(tmp_path / "m").plan.net.outputs == 2


def test_stopped_while_it_is_taught_a_model_gone_on_from_is_left_alone(project, tmp_path):
    first = fine_tune(project, plan(), folder=tmp_path / "one")
    control = Control()
    run = fine_tune.events(project, plan(), start=tmp_path / "one", control=control)
    while not isinstance(next(run), TileDone):
        pass
    control.stop()
    with pytest.raises(Stopped):
        list(run)
    control = Control()
    control.stop()
    with contextlib.suppress(Stopped):
        assert fine_tune(project, plan(), start=tmp_path / "one", control=control).id == first.id


def test_a_round_that_gains_nothing_gives_back_the_model_it_went_on_from(project, tmp_path):
    first = fine_tune(project, plan(epochs=10), folder=tmp_path / "one")
    hopeless = plan(epochs=1, steps_per_epoch=1, learning_rate=10.0, average=0.0, schedule="constant")
    run = Running(fine_tune.events(project, hopeless, start=tmp_path / "one"))
    events = list(run)
    assert run.result.id == first.id
    floor = next(event.scores for event in events if isinstance(event, Validated))
    assert floor.mean_dice == pytest.approx(first.scores.mean_dice)


def test_few_voxels_of_many_channels(tmp_path):
    with nus.Project.create(tmp_path / "p.unetseg", classes=["background", "cell"]) as made:
        values = np.random.default_rng(0).normal(size=(12, 8, 8)).astype(np.float32)
        strokes = np.zeros((8, 8), np.uint8)
        strokes[2], strokes[5] = 1, 2
        made.annotate(made.add_array("tiny", nus.Volume(values)), strokes)
        assert fine_tune(made, plan(epochs=1)).plan.net.in_channels == 12


def test_dense_labels_need_no_teacher(project):
    for case in project.cases:
        _, mask = blobs((64, 64), seed=int(case[-1]))
        project.annotate(case, mask + 1)
    assert not any(isinstance(event, Leads) for event in fine_tune.events(project, plan()))


def test_strokes_alone_on_request(project):
    assert not any(isinstance(event, Leads) for event in fine_tune.events(project, plan(teacher=0.0)))


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_hints_count_only_where_nobody_labelled(outputs):
    classes = max(2, outputs)
    logits = torch.randn(2, outputs, 6, 6, requires_grad=True)
    believed = torch.rand(2, classes, 6, 6).softmax(1)
    hints = torch.from_numpy(encode_hints(believed.numpy().swapaxes(0, 1)).astype(np.int64))
    known = torch.rand(2, 6, 6) < 0.5
    hints[:, 0] = 0
    learn_hints(logits, hints, known).backward()
    silent = known | (hints == 0)
    assert (logits.grad.abs().sum(1)[silent] == 0).all()
    assert (logits.grad.abs().sum(1)[~silent] > 0).all()
    assert learn_hints(logits, hints, torch.ones_like(known)) == 0


def test_tiles_of_large_images_are_hinted_where_the_strokes_are():
    known = np.zeros((100, 70), bool)
    known[5:8, 60:66] = True
    known[90, 3] = True
    tiles = _near_strokes(known, 32)
    starts = [tuple(part.start for part in tile) for tile in tiles]
    assert starts[0] == (0, 32)
    assert set(starts[:3]) == {(0, 32), (0, 64), (64, 0)}
    assert len(set(starts)) == len(starts)
    assert (32, 0) in starts


def test_the_teacher_fades_when_a_model_is_gone_on_from(project, tmp_path):
    first = fine_tune(project, plan(), folder=tmp_path / "one")

    def weight(**training) -> float:
        return prepare_job(project, plan(**training), None, first, Control()).plan.training.teacher

    assert weight() == pytest.approx(0.3 * first.plan.training.teacher, abs=1e-3)
    assert weight(teacher=0.8) == 0.8


def test_the_number_of_threads_is_left_as_it_was(project):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        job = prepare_job(project, plan(), None, None, Control())
        control = Control()
        for _ in teach(job, control):
            pass
        assert torch.get_num_threads() == 2
        control.stop()
        with pytest.raises(Stopped):
            list(teach(job, control))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_instant_model_hears_the_round_before(project):
    first = fine_tune(project, plan(epochs=None, minutes=1e-6))
    heard = []

    def listen(lesson, net):
        hear(lesson, net)
        heard.append((lesson, net))

    hear = Lesson.hear
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lesson, "hear", listen)
        second = fine_tune(project, plan(epochs=1), start=first)
        fine_tune(project, plan(epochs=1))
    assert second.parents == (first.id,)
    (lesson, net), (_, nobody) = heard
    said = torch.softmax(class_logits(first.net.net.classify(lesson.other.T[None, :, None]))[0, :, 0].T, dim=1)
    assert torch.allclose(lesson.earlier, said, atol=1e-5)
    assert 0 < lesson.labelled.float().mean() < 0.2, "as little as is painted"
    assert net is not first.net.net
    assert nobody is None


def test_what_was_held_out_from_an_instant_model_stays_so_for_its_successor(project):
    first = fine_tune(project, plan(epochs=None, minutes=1e-6))
    held = {
        seed: [prepare_job(project, plan(seed=seed), 1.0, start, Control()).held_out for start in (first, None)]
        for seed in range(1, 6)
    }
    assert all(after == first.facts["held_out"] for after, _ in held.values())
    assert any(anew != first.facts["held_out"] for _, anew in held.values()), "or this test says nothing"


def test_an_earlier_round_is_half_of_what_is_learned_of_unlabelled_voxels_and_nothing_of_labelled_ones():
    torch.manual_seed(0)
    how = instant_plan(nus.Plan(), 2, 1, (1.0, 1.0), 1)
    fresh, said = nus.nets.build(how.net).net, {}
    known, other = torch.randn(400, fresh.features.out), torch.randn(2000, fresh.features.out)
    labels = torch.arange(400) % 2
    known[:, :5] = 2.0 * labels[:, None] - 1 + 0.1 * torch.randn(400, 5)
    other[:, :5] = -3 + 0.1 * torch.randn(2000, 5)  # clearly of the first class
    for before in (0.0, 1.0):
        lesson, net = Lesson([known], [labels], [other]), copy.deepcopy(fresh)
        lesson.earlier = torch.tensor([[1 - before, before]]).expand(len(other), 2)
        list(learn_lesson(net, lesson, how, Control()))
        with torch.no_grad():
            said[before] = [net.classify(x.T[None, :, None]).sigmoid().flatten() for x in (known, other)]
    assert said[0.0][1].mean() < 0.1
    assert said[1.0][1].mean() == pytest.approx(0.5, abs=0.1)
    for known_says, _ in said.values():
        assert ((known_says > 0.5).long() == labels).float().mean() > 0.95


def test_where_the_user_has_labelled_the_earlier_round_is_not_asked():
    torch.manual_seed(0)
    how = instant_plan(nus.Plan(), 2, 1, (1.0, 1.0), 1)
    net = nus.nets.build(how.net).net
    known, labels = torch.randn(400, net.features.out), torch.arange(400) % 2
    known[:, :5] = 2.0 * labels[:, None] - 1 + 0.1 * torch.randn(400, 5)
    other = torch.randn(2000, net.features.out)
    other[:, :5] = -3 + 0.1 * torch.randn(2000, 5)
    lesson = Lesson([known], [labels], [other], [torch.ones(2000, dtype=torch.bool)])
    lesson.earlier = torch.tensor([[0.0, 1.0]]).expand(len(other), 2)
    list(learn_lesson(net, lesson, how, Control()))
    with torch.no_grad():
        assert net.classify(other.T[None, :, None]).sigmoid().mean() < 0.1


def test_a_class_that_is_new_to_the_round_before_is_not_held_back_by_it():
    torch.manual_seed(0)
    net = nus.nets.build(instant_plan(nus.Plan(), 2, 1, (1.0, 1.0), 3).net).net
    with torch.no_grad():
        net.perceptron[-1].bias.copy_(torch.tensor([0.0, 0.0, -50.0]))  # it never says the third
    known = torch.randn(300, net.features.out)
    said = net.classify(known.T[None, :, None])[0, :, 0].T.argmax(dim=1)
    assert set(said.tolist()) == {0, 1}
    for labels, heard in ((said, True), (torch.where(torch.arange(300) < 30, 2, said), False)):
        lesson = Lesson([known], [labels], [known])
        lesson.hear(net)
        assert (lesson.earlier is not None) == heard


def test_an_instant_model_that_sees_otherwise_is_not_heard(project):
    first = fine_tune(project, plan(epochs=None, minutes=1e-6))
    spec, classes = first.plan, first.classes
    assert earlier_net(first, spec, classes) is not None
    assert earlier_net(first, spec, (*classes, "another")) is None
    assert earlier_net(first, spec.change(data={"normalisation": {"kind": "percentile"}}), classes) is None
    assert earlier_net(first, instant_plan(spec, 2, 3, (1.0, 1.0), 1), classes) is None
    assert earlier_net(None, spec, classes) is None
    scan = {"kind": "ct", "low": -100.0, "high": 300.0}
    first.plan = spec.change(data={"normalisation": scan})
    for low, near in ((-95.0, True), (-20.0, False)):  # the window follows the strokes
        moved = spec.change(data={"normalisation": {**scan, "low": low}})
        assert (earlier_net(first, moved, classes) is not None) == near


def test_the_instant_model_beside_a_net_is_heard_as_well_also_from_disk(project, tmp_path):
    first = fine_tune(project, plan(epochs=1).change(net={"name": "unet"}), folder=tmp_path / "one")
    assert "instant" in first.plan.net.parts
    how = instant_plan(first.plan, 2, 1, (1.0, 1.0), 1)
    nets = [earlier_net(one, how, first.classes) for one in (first, nus.Model.load(tmp_path / "one"))]
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(nets[0](x), nets[1](x), atol=1e-5)
