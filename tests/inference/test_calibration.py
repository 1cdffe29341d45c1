"""Temperature and ECE, where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.data import Prepared
from napari_unetseg.devices import Compute
from napari_unetseg.inference import Predictor, evaluate
from napari_unetseg.inference.calibration import (
    Evidence,
    calibrated_plan,
    expected_error,
    fit_temperature,
    reliability,
    tempered,
)
from napari_unetseg.instant import fit_instant
from napari_unetseg.plan import Plan
from napari_unetseg.training import fine_tune


def softmax(logits):
    grown = np.exp(logits - logits.max(axis=0))
    return grown / grown.sum(axis=0)


def drawn(classes, overconfident, number=30_000, seed=0):
    """Honest probabilities, classes drawn by them, and what a net would say whose logits are too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (classes, number))
    honest = softmax(logits)
    target = (rng.random(number) > honest.cumsum(axis=0)).sum(axis=0)
    return softmax(overconfident * logits), np.minimum(target, classes - 1)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("overconfident", [3.0, 0.5])
def test_the_temperature_is_found(classes, overconfident):
    said, target = drawn(classes, overconfident)
    temperature = fit_temperature(said, target)
    assert temperature == pytest.approx(overconfident, rel=0.06)
    before = expected_error(reliability(said, target))
    after = expected_error(reliability(tempered(said, temperature), target))
    assert after < 0.015 < 0.05 < before


def test_strokes_never_sharpen():
    said, target = drawn(2, 0.5)
    assert fit_temperature(said, target, sharpen=False) == 1.0
    hotter, target = drawn(2, 3.0)
    assert fit_temperature(hotter, target, sharpen=False) > 2.5


def test_little_evidence_leaves_the_temperature_near_one():
    said, target = drawn(2, 3.0)
    found = [fit_temperature(said, target, pieces=pieces) for pieces in (1, 10, 100, 10_000)]
    assert found == sorted(found)
    assert found[0] < 1.2 < 2 < found[2]
    assert found[-1] == pytest.approx(fit_temperature(said, target), rel=0.02)


def test_voxels_of_a_class_that_lie_together_are_one_piece_of_evidence():
    said, target = drawn(2, 3.0, 64 * 64)
    said, target = said.reshape(2, 64, 64), target.reshape(64, 64)
    spot, spread = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    spot[:10, :10] = True
    spread[::7, ::7] = True
    pieces = []
    for known in (spot, spread):
        evidence = Evidence()
        evidence.add(said, target, known)
        pieces.append(evidence.pieces)
        evidence.add(said, target, known)
        assert evidence.pieces == 2 * pieces[-1]  # of another image
    assert pieces == [2, 8]  # two classes, in one block and in four


def test_reliability_by_hand():
    said = np.array([[0.75, 0.75, 0.15, 0.15], [0.25, 0.25, 0.85, 0.85]])
    rows = reliability(said, np.array([0, 1, 1, 1]))
    assert rows == [[0.25, 0.5, 2], [0.85, 1.0, 2]]
    assert expected_error(rows) == pytest.approx((0.25 + 0.15) / 2)


def test_tempering_keeps_the_winner_and_the_sum():
    said, _ = drawn(3, 2.0, 500)
    cooler = tempered(said, 2.0)
    assert np.array_equal(cooler.argmax(axis=0), said.argmax(axis=0))
    assert np.allclose(cooler.sum(axis=0), 1, atol=1e-6)
    assert (cooler.max(axis=0) <= said.max(axis=0) + 1e-6).all()
    assert np.allclose(tempered(said, 1.0), said, atol=1e-6)


def test_too_little_evidence_fits_nothing():
    evidence = Evidence()
    assert evidence.calibration() is None
    said, target = drawn(2, 3.0, 100)
    evidence.add(said, target, np.ones(100, bool))
    assert evidence.calibration() is None
    evidence.add(np.repeat(said, 4, axis=1), np.zeros(400, int), np.zeros(400, bool))
    assert evidence.calibration() is None  # nothing of it is known
    said, target = drawn(2, 3.0, 9000)
    evidence.add(said, target, np.ones(9000, bool))
    found = evidence.calibration(temperature=2.0)
    assert found["temperature"] == pytest.approx(6.0, rel=0.1)  # stands in for the 2 it was said at
    assert found["voxels"] <= 5100


class Loud(torch.nn.Module):
    """Logits of the image itself, three times too large."""

    divisor = 1

    def forward(self, x):
        return 3 * x


@pytest.fixture(scope="module")
def loud():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (1, 64, 64)).astype(np.float32)
    truth = (rng.random((64, 64)) < 1 / (1 + np.exp(-logits[0]))).astype(np.uint8)
    return Prepared("a", logits, truth, np.ones((64, 64), bool))


def test_a_score_on_heldout_images_brings_the_temperature_that_predictors_use(loud):
    plan = Plan()
    scores = evaluate(Predictor(Loud(), plan, Compute(torch.device("cpu"))), [loud], ("background", "x"), "1 image")
    assert scores.calibration["temperature"] == pytest.approx(3, rel=0.15)
    assert type(scores).from_dict(scores.to_dict()) == scores
    after = Predictor(Loud(), calibrated_plan(plan, scores), Compute(torch.device("cpu"))).probabilities(loud.image)
    wanted = 1 / (1 + np.exp(-loud.image[0] * 3 / scores.calibration["temperature"]))
    assert np.allclose(after[1], wanted, atol=1e-5)


def test_nothing_is_fitted_to_what_was_learned(loud):
    predictor = Predictor(Loud(), Plan(), Compute(torch.device("cpu")))
    scores = evaluate(predictor, [loud], ("background", "x"), "")
    assert scores.calibration is None
    assert calibrated_plan(Plan(), scores) == Plan()
    strokes = evaluate(predictor, [loud], ("background", "x"), "strokes of 1 held-out image")
    assert strokes.calibration["temperature"] >= 1


def test_trained_models_carry_it(tmp_path):
    """From the end of the training to the folder and back, for nets that are fine-tuned and the instant one."""
    data = folder_of_blobs(tmp_path / "data")
    plan = nus.Plan(
        net={"width": 0.1, "depth": 2},
        training={"epochs": 2, "steps_per_epoch": 10, "patch": (32, 32), "device": "cpu"},
    )
    for model in (fine_tune(data, plan), fit_instant(data, plan)):
        assert model.scores.calibration["temperature"] == model.plan.inference.temperature
        back = nus.Model.load(model.save(tmp_path / model.plan.net.name))
        assert back.plan.inference.temperature == model.plan.inference.temperature != 1
