"""Every protocol is a plan that trains; the command line lets other options win."""

from __future__ import annotations

import json

import pytest
from tiny import folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.events import Started, StepDone
from napari_unetseg.losses import LOSSES
from napari_unetseg.protocols import PROTOCOLS
from napari_unetseg.training import fine_tune


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("planes"), number=4)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("volumes"), number=3, shape=(16, 32, 32), suffix=".nii.gz")


@pytest.mark.parametrize("name", PROTOCOLS.names())
def test_every_protocol_trains_two_steps(name, planes, volumes):
    plan = PROTOCOLS[name]()
    data = volumes if plan.net.dims == 3 else planes
    small = {"epochs": 2, "steps_per_epoch": 1, "batch_size": 2, "device": "cpu"}
    patch = (16, 32, 32) if plan.net.dims == 3 else (32, 32)
    events = list(fine_tune.events(data, plan.change(net={"width": 0.1}, training={**small, "patch": patch})))
    assert sum(isinstance(event, StepDone) for event in events) == 2
    assert isinstance(events[0], Started)


@pytest.mark.parametrize("name", PROTOCOLS.names())
def test_every_protocol_leaves_nothing_of_the_training_open(name):
    plan = PROTOCOLS[name]()
    again = nus.Plan.from_json(plan.to_json())
    assert again == plan
    assert None not in (plan.training.batch_size, plan.training.patch, plan.training.epochs, plan.data.normalisation)
    assert plan.given("net", "width")
    assert plan.given("net", "norm")
    facts = PROTOCOLS.facts(name)
    assert facts["paper"]
    assert all(sentence.endswith(".") for sentence in facts["differs"])
    assert len(PROTOCOLS.describe(name)) > 40


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("multiresunet", ("multiresunet", "bce", "adam", 1e-3, 10, 150)),
        ("sharp-unet", ("sharp-unet", "ce", "adam", 1e-3, 16, 10_000)),
        ("modular", ("nas-unet", "dice", "adam", 1e-4, 40, 20)),
        ("mildnet", ("mildnet", "bce", "adam", 1e-3, 4, 100)),
        ("fcn-fcresnet-em", ("fcn-fcresnet", "batch-dice", "rmsprop", 1e-3, 8, 1000)),
        ("fcn-fcresnet-liver", ("fcn-fcresnet", "batch-dice", "rmsprop", 1e-3, 20, 1000)),
        ("fcn-fcresnet-prostate", ("fcn-fcresnet", "batch-dice", "rmsprop", 4e-4, 24, 1000)),
    ],
)
def test_the_numbers_are_the_papers(name, expected):
    plan = PROTOCOLS[name]()
    training = plan.training
    found = (plan.net.name, training.loss, training.optimiser, training.learning_rate)
    assert (*found, training.batch_size, training.epochs) == expected


def test_ce_of_one_output_is_binary_cross_entropy():
    """What the docstring of sharp-unet claims."""
    import torch

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 8, 8, generator=generator)
    target = (torch.rand(2, 8, 8, generator=generator) > 0.5).long()
    known = torch.rand(2, 8, 8, generator=generator) > 0.3
    torch.testing.assert_close(LOSSES["ce"](logits, target, known), LOSSES["bce"](logits, target, known))


def test_a_plan_file_wins_over_a_protocol_and_options_over_both(cli, planes, tmp_path):
    (tmp_path / "plan.json").write_text(
        nus.Plan(
            net={"width": 0.1}, training={"batch_size": 2, "steps_per_epoch": 1, "loss": "dice", "patch": (32, 32)}
        ).to_json(complete=False)
    )
    words = ("--protocol", "sharp-unet", "--plan", tmp_path / "plan.json", "--net", "unet", "--epochs", 1)
    code, _, err = cli("train", planes, "-o", tmp_path / "m", *words, "--device", "cpu")
    assert code == 0, err
    assert "Zunair" in err
    plan = nus.Plan.read(tmp_path / "m" / "model.json")
    assert (plan.net.name, plan.net.width, plan.training.epochs) == ("unet", 0.1, 1)
    assert (plan.training.batch_size, plan.training.loss) == (2, "dice")
    assert (plan.training.optimiser, plan.training.schedule) == ("adam", "plateau")
    assert json.loads((tmp_path / "m" / "model.json").read_text())["plan"]["training"]["epsilon"] == 1e-7


def test_help_lists_the_protocols(cli):
    code, out, _ = cli("train", "--help")
    assert code == 0
    words = "".join(out.split()).replace("│", "")
    for name in PROTOCOLS:
        assert name in words
