"""What more strokes are worth: on synthetic learning curves whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetseg.metrics import Correction, forecast, forecast_corrections
from napari_unetseg.scores import Scores


def made_up_curve(rng, start=None, floor=None, power=None, rounds=None, noise=0.35):
    """A learner's true Dice, and what a user would have seen of it."""
    start = rng.uniform(0.1, 0.7) if start is None else start
    floor = start * rng.uniform(0, 0.9) if floor is None else floor
    power = rng.uniform(0.2, 1.5) if power is None else power
    new = rng.integers(3, 20, rounds or rng.integers(3, 10)).astype(float)
    seen = 10 + np.concatenate([[0], np.cumsum(new)[:-1]])

    def true(strokes):
        return 1 - floor - (start - floor) * (10 / strokes) ** power

    dice = true(seen) + rng.normal(size=len(new)) * np.sqrt(noise**2 / new + 0.02**2)
    return true, seen, dice.clip(0, 1), new, seen[-1] + new[-1]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside, errors = [], []
    for _ in range(120):
        true, seen, dice, new, total = made_up_curve(rng, noise=rng.uniform(0.15, 0.6))
        told = forecast(seen, dice, new, total=total, more=20)
        inside.append(told.low <= true(total + 20) <= told.high)
        errors.append(told.value - true(total + 20))
    assert 0.82 <= np.mean(inside) <= 0.98  # 90 % is said; 120 draws scatter by 3 %
    assert abs(np.mean(errors)) < 0.03


def test_more_rounds_make_it_surer_and_the_truth_is_found():
    rng = np.random.default_rng(1)
    curve = {"start": 0.5, "floor": 0.1, "power": 0.7, "noise": 0.2}
    widths = []
    for rounds in (3, 30):
        true, seen, dice, new, total = made_up_curve(rng, rounds=rounds, **curve)
        told = forecast(seen, dice, new, total=total)
        widths.append(told.high - told.low)
    assert widths[1] < 0.5 * widths[0]
    assert told.value == pytest.approx(true(total + 20), abs=0.03)
    assert told.now <= told.value
    assert (np.diff(told.middle) >= -1e-9).all()
    assert (told.lower <= told.middle).all()
    assert (told.middle <= told.upper).all()


def test_a_curve_that_is_flat_promises_nothing():
    told = forecast([20, 40, 60, 80, 100, 120, 140], [0.9, 0.91, 0.9, 0.9, 0.91, 0.9, 0.9], [60] * 7, total=200)
    assert told.value - told.now < 0.01
    assert told.sentence().startswith("Another 20 strokes: Dice on new strokes 0.9")
    assert "hardly" in told.sentence()


def test_with_fewer_than_three_rounds_it_says_that_it_is_too_early():
    told = forecast([10, 30], [0.5, 0.7], [20, 20], total=50)
    assert told.early
    assert told.sentence() == (
        "Too early to say what more strokes are worth: it takes 3 rounds of corrections; there are 2 so far."
    )
    assert forecast([10, 10, 10], [0.5, 0.6, 0.5], [5, 5, 5], total=15).early


def correction(seen, dice, strokes, round=1):
    return Correction(
        Scores({c: d / 2 for c, d in dice.items()}, dice, "new strokes", ("a",), 100), round, seen, strokes
    )


def test_a_class_without_new_strokes_is_not_scored_in_that_round():
    one = correction(10, {"cell": 0.6, "wall": 1.0}, {"background": 2, "cell": 3, "wall": 0})
    assert one.dice() == 0.6
    assert np.isnan(one.dice("wall"))
    assert one.new == 5
    assert Correction.from_dict(one.to_dict()) == one


def test_each_class_has_its_own_forecast():
    strokes = {"background": 4, "cell": 4, "wall": 2}
    rounds = [correction(10 * n, {"cell": 0.9, "wall": 0.2 + 0.05 * n}, strokes, n) for n in range(1, 7)]
    assert forecast_corrections(rounds, "cell").value > 0.85
    assert forecast_corrections(rounds, "wall").value < 0.75
    assert forecast_corrections(rounds[:2], "wall").early
    assert forecast_corrections([Correction(rounds[0].scores)] * 5).rounds == 0  # of a project that did not count them
