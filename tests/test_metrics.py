import json

import numpy as np
import pytest
from scipy import ndimage

from napari_unetseg.errors import AnnotationError, GeometryError
from napari_unetseg.metrics import Counts, counts, dice, jaccard, relative_volume_difference, score_masks


def blobs(shape, seed, density=0.5, sigma=1.5):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return noise > np.quantile(noise, density)


# ---------------------------------------------------------------------------------------------- overlap


@pytest.mark.parametrize("dims", [2, 3])
def test_overlap_matches_sklearn(dims):
    from sklearn.metrics import f1_score, jaccard_score

    rng = np.random.default_rng(dims)
    pred, truth = rng.integers(0, 4, (2, *(9, 8, 7)[:dims])).astype(np.uint8)
    known = rng.random(pred.shape) < 0.4
    got = counts(pred, truth, known, 4)
    pair = truth[known], pred[known]
    np.testing.assert_allclose(got.jaccard, jaccard_score(*pair, average=None, labels=range(4)))
    np.testing.assert_allclose(got.dice, f1_score(*pair, average=None, labels=range(4)))
    np.testing.assert_allclose(got.jaccard, got.dice / (2 - got.dice))
    assert got.voxels == known.sum()
    assert jaccard(pred == 1, truth == 1, known) == pytest.approx(got.jaccard[1])
    assert dice(pred == 1, truth == 1, known) == pytest.approx(got.dice[1])


def test_unknown_voxels_do_not_count():
    rng = np.random.default_rng(0)
    pred, truth = rng.integers(0, 3, (2, 20, 20))
    known = rng.random(pred.shape) < 0.2
    outside = np.where(known, truth, 255)
    assert counts(pred, outside, known, 3).dice.tolist() == counts(pred, truth, known, 3).dice.tolist()
    assert counts(pred, truth, np.zeros_like(known), 3).voxels == 0


def test_counts_add_up_over_images():
    pred, truth = np.random.default_rng(1).integers(0, 3, (2, 30, 10))
    whole = counts(pred, truth, None, 3)
    parts = sum((counts(pred[i : i + 7], truth[i : i + 7], None, 3) for i in range(0, 30, 7)), Counts.zero(3))
    for name in ("tp", "fp", "fn", "voxels"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_empty_against_empty_is_one_and_against_something_zero():
    empty, some = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    assert (jaccard(empty, empty), dice(empty, empty)) == (1, 1)
    assert (jaccard(some, empty), dice(some, empty), jaccard(empty, some), dice(empty, some)) == (0, 0, 0, 0)


def test_bad_masks_are_named():
    with pytest.raises(GeometryError, match=r"4 x 4 but its truth is 4 x 5"):
        counts(np.zeros((4, 4), int), np.zeros((4, 5), int), None, 2)
    with pytest.raises(AnnotationError, match=r"truth has label 255, but there are only the classes 0 to 1"):
        counts(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8), None, 2)
    with pytest.raises(AnnotationError, match=r"mask has label -1"):
        counts(np.full((4, 4), -1), np.zeros((4, 4), int), None, 2)


def test_scores_pool_the_images_and_know_what_they_were_measured_on():
    truth = np.array([[0, 1, 1, 2]])
    pairs = [
        ("a", np.array([[0, 1, 1, 2]]), truth, np.array([[True, True, True, False]])),
        ("b", np.array([[1, 1, 0, 0]]), truth, None),
        ("a", np.array([[2, 1, 1, 2]]), truth, np.array([[False, False, False, True]])),
    ]
    scores = score_masks(pairs, ["background", "liver", "tumour"], "2 held-out images", "m1")
    assert scores.dice == {"liver": pytest.approx(6 / 8), "tumour": pytest.approx(2 / 3)}
    assert scores.jaccard["tumour"] == 0.5
    assert scores.images == ("a", "b")
    assert scores.voxels == 8
    assert scores.per_image == {"a": {"liver": 1, "tumour": 1}, "b": {"liver": 0.5, "tumour": 0}}
    assert scores.sentence().endswith("on 2 held-out images (8 voxels)")
    assert json.loads(json.dumps(scores.to_dict()))["model"] == "m1"
    assert score_masks([], ["background", "x"]).voxels == 0
