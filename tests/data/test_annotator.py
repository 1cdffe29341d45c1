"""Simulated strokes are right, few, and in every class; corrections lie where the mistakes are."""

import numpy as np
import pytest
from scipy import ndimage

from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.annotator import Annotator, Hand, correct, scribble


def blobs(*shape, n_classes=3, seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), min(shape[-2:]) / 20)
    return np.digitize(noise, np.quantile(noise, np.linspace(0.7, 1, n_classes)[:-1])).astype(np.uint8)


@pytest.mark.parametrize("shape", [(200, 240), (24, 120, 120)])
@pytest.mark.parametrize("fraction", [0.002, 0.01, 0.03])
def test_scribbles_are_right_few_and_everywhere(shape, fraction):
    truth = blobs(*shape)
    annotation = scribble(truth, 3, np.random.default_rng(1), fraction)
    mask, known = to_mask(annotation)
    assert annotation.dtype == np.uint8
    assert np.array_equal(mask[known], truth[known])
    assert set(np.unique(annotation)) == {0, 1, 2, 3}
    assert 0.4 * fraction < known.mean() < 1.7 * fraction


def test_strokes_of_a_volume_lie_on_few_planes():
    known = scribble(blobs(48, 80, 80), 3, np.random.default_rng(0)) > 0
    assert known.any(axis=(1, 2)).sum() == 4


def test_strokes_are_lines_that_keep_off_the_edge():
    truth = np.zeros((200, 200), np.uint8)
    truth[40:160, 40:160] = 1
    annotation = scribble(truth, 2, np.random.default_rng(0), 0.01, width=3)
    inside = ndimage.distance_transform_edt(truth)
    assert inside[annotation == 2].min() >= 2
    parts, n = ndimage.label(annotation == 2, np.ones((3, 3)))
    extents = [max(s.stop - s.start for s in box) for box in ndimage.find_objects(parts)]
    assert n <= 12
    assert max(extents) > 15


def test_same_generator_same_strokes():
    truth = blobs(100, 100)
    one, two, other = (scribble(truth, 3, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_thin_and_tiny_things_are_marked():
    truth = np.zeros((128, 128), np.uint8)
    truth[64], truth[10, 10] = 1, 2
    annotation = scribble(truth, 3, np.random.default_rng(0), 0.01, width=3)
    assert annotation[10, 10] == 3
    assert (annotation[64] == 2).sum() > 10


def test_absent_classes_and_one_pixel():
    assert set(np.unique(scribble(np.zeros((30, 30), np.uint8), 4, np.random.default_rng(0)))) == {0, 1}
    assert scribble(np.ones((1, 1), np.uint8), 2, np.random.default_rng(0)).tolist() == [[2]]


@pytest.mark.parametrize("shape", [(160, 160), (20, 80, 80)])
def test_corrections_lie_in_mistakes_largest_first(shape):
    truth = blobs(*shape, n_classes=2)
    first = scribble(truth, 2, np.random.default_rng(0))
    kept = first.copy()
    prediction = np.zeros_like(truth)
    after = correct(first, prediction, truth, 2, np.random.default_rng(0), strokes=3)
    assert np.array_equal(first, kept)
    new = (after != first) & (after > 0)
    assert new.any()
    assert (truth[new] == 1).all()
    assert (after[new] == 2).all()
    assert np.array_equal(after[~new], first[~new])


def test_the_largest_mistake_comes_first():
    truth = np.zeros((100, 100), np.uint8)
    truth[10:20, 10:20], truth[40:90, 40:90] = 1, 2
    prediction = np.zeros_like(truth)
    prediction[0:4, 60:90] = 1
    nothing = np.zeros_like(truth)
    one = correct(nothing, prediction, truth, 3, np.random.default_rng(0), strokes=1)
    assert set(np.unique(one)) == {0, 3}
    two = correct(nothing, prediction, truth, 3, np.random.default_rng(0), strokes=3)
    assert set(np.unique(two)) == {0, 1, 2, 3}
    assert (two[0:4, 60:90] == 1).any()


def test_a_perfect_prediction_needs_no_correction():
    truth = blobs(40, 40)
    first = scribble(truth, 3, np.random.default_rng(0))
    assert np.array_equal(correct(first, truth, truth, 3, np.random.default_rng(0)), first)


def test_strokes_cost_a_hand_time():
    truth = blobs(100, 120, n_classes=2)
    hand = Hand(speed=0.5, pause=2.0, change=10.0, look=100.0)
    user = Annotator(2, np.random.default_rng(0), hand=hand)
    annotation = user.scribble(truth, 0.01)
    np.testing.assert_array_equal(annotation, scribble(truth, 2, np.random.default_rng(0), 0.01))
    moving = user.seconds - 100.0 - 2 * 10.0 - 2.0 * user.strokes
    # a line is about as long as it has pixels for its width, and 50 of them take a second
    assert 0.5 < moving / ((annotation > 0).sum() / 50) < 2.0
    before, painted = user.seconds, user.strokes
    prediction = np.zeros_like(truth)
    corrected = user.correct(annotation, prediction, truth, strokes=50, seconds=105.0)
    assert 105 <= user.seconds - before < 105 + 20
    assert 1 <= user.strokes - painted <= 10
    assert (corrected != annotation).any()
    rested = user.seconds
    np.testing.assert_array_equal(user.correct(corrected, truth, truth), corrected)
    assert user.seconds == rested


def test_a_small_thing_costs_few_strokes():
    truth = np.zeros((60, 60), np.uint8)
    truth[30:34, 30:34] = 1
    user = Annotator(2, np.random.default_rng(0), width=1)
    user.scribble(truth, 0.05)
    assert user.strokes < 60
