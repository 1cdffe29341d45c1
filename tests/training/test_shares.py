"""A net that was shown things more often than images hold them is held to how often its teacher finds them."""

import numpy as np
import pytest
import torch

import napari_unetseg as nus
from napari_unetseg.events import Control, Running, StepDone, Validated
from napari_unetseg.training.job import finish_job, prepare_job
from napari_unetseg.training.shares import shift_to
from napari_unetseg.training.teacher import teach


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.5, 0.3, 0.2)])
def test_the_shift_makes_the_mean_what_is_wanted(shares):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(shares), 500)) + 0.5 * np.arange(len(shares))[:, None]
    probability = np.exp(logits) / np.exp(logits).sum(axis=0)
    shift = shift_to(probability, np.array(shares))
    moved = probability * np.exp(shift)[:, None]
    np.testing.assert_allclose((moved / moved.sum(axis=0)).mean(axis=1), shares, atol=1e-3)
    assert shift[0] == 0


def test_shares_that_cannot_be_move_no_logit_far():
    sure = np.array([[1.0, 1.0], [0.0, 0.0]])
    assert np.abs(shift_to(sure, np.array([0.5, 0.5]))).max() <= 3


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_net_that_finds_everything_everywhere_is_brought_to_the_shares_of_its_teacher(project, outputs):
    plan = nus.Plan(net={"width": 0.1, "outputs": outputs}, training={"patch": (32, 32), "device": "cpu"})
    job = prepare_job(project, plan, 1.0, None, Control())
    list(Running(teach(job, Control())))
    head = [one for one in job.average.average.modules() if isinstance(one, torch.nn.Conv2d)][-1]
    head.weight.data *= 0.1
    head.bias.data[-1] = 2.0  # nearly all is a cell
    job.progress.step = 1
    before = (job.predictor.probabilities(job.train[0].image)[1] > 0.5).mean()
    job.match_shares(Control())
    after = (job.predictor.probabilities(job.train[0].image)[1] > 0.5).mean()
    truth = job.train[0].target[job.train[0].known].mean()
    assert job.offset[0] == 0
    assert job.offset[1] < -1
    assert after < before
    assert truth > 0
    job.progress.offset = job.offset
    job.lead.hand_over()
    assert finish_job(job).net.net.offset[-1] == pytest.approx(job.offset[1])


def test_the_offset_goes_with_the_weights(project):
    plan = nus.Plan(net={"width": 0.1}, training={"patch": (32, 32), "device": "cpu"})
    job = prepare_job(project, plan, 1.0, None, Control())
    job.progress.step = 1  # as after a kill
    list(Running(teach(job, Control())))
    now = job.lead.answer.net.offset
    assert now.item() == pytest.approx(job.offset[-1])
    assert abs(now.item()) > 0.01
    job.progress.best = job.average.average.state_dict()  # of before the first step, when there was none
    job.lead.hand_over()
    assert finish_job(job).net.net.offset.item() == 0


def test_a_net_stopped_before_its_first_validation_is_held_to_its_teacher_too(project):
    training = {"patch": (32, 32), "device": "cpu", "epochs": 1000}
    control = Control()
    run = Running(
        nus.fine_tune.events(project, nus.Plan(net={"name": "unet", "width": 0.1}, training=training), control=control)
    )
    for event in run:
        if isinstance(event, StepDone) and event.step == 3:
            control.stop()
        assert not isinstance(event, Validated)
    assert abs(run.result.net.net.offset.item()) > 0.01
