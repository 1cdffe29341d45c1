import json

import numpy as np
import pytest
from scipy import ndimage

from napari_unetseg.errors import AnnotationError, GeometryError
from napari_unetseg.metrics import (
    METRICS,
    Counts,
    assd,
    compare_masks,
    counts,
    dice,
    hausdorff,
    hausdorff95,
    jaccard,
    mean_scores,
    membrane_scores,
    score_masks,
    v_info,
    v_rand,
)


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


# ---------------------------------------------------------------------------------------------- distances


def fixture_12():
    pred, truth = np.zeros((2, 12, 12), bool)
    truth[2:6, 2:6], pred[2:6, 4:9] = True, True
    return pred, truth


def test_fixture_of_the_sheet():
    pred, truth = fixture_12()
    got = {name: METRICS[name](pred, truth, (1, 1)) for name in METRICS}
    expected = {
        "jaccard": 0.285714,
        "dice": 0.444444,
        "hausdorff": 3.0,
        "hausdorff95": 3.0,
        "assd": 1.230769,
        "rvd": 25.0,
    }
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("shape", "spacing"), [((40, 31), (0.5, 2.0)), ((14, 21, 18), (3.0, 0.7, 0.7))])
@pytest.mark.parametrize("seed", range(3))
def test_distances_match_monai(shape, spacing, seed):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    pred, truth = (ndimage.binary_fill_holes(blobs(shape, seed + s, 0.75, 2)) for s in (0, 10))
    pair = [torch.from_numpy(m)[None, None] for m in (pred, truth)]
    options = {"include_background": True, "spacing": spacing}
    theirs = compute_hausdorff_distance(*pair, percentile=95, **options).item()
    assert hausdorff95(pred, truth, spacing) == pytest.approx(theirs, rel=1e-5)
    theirs = compute_average_surface_distance(*pair, symmetric=True, **options).item()
    assert assd(pred, truth, spacing) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(("shape", "spacing"), [((25, 31), (0.5, 2.0)), ((9, 12, 10), (3.0, 0.7, 0.7))])
def test_hausdorff_matches_scipy_on_the_points(shape, spacing):
    from scipy.spatial.distance import directed_hausdorff

    pred, truth = blobs(shape, 1, 0.8), blobs(shape, 2, 0.9)
    points = [np.argwhere(m) * spacing for m in (pred, truth)]
    both = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    assert hausdorff(pred, truth, spacing) == pytest.approx(both)


def test_a_far_voxel_sets_the_hausdorff_distance_but_not_its_percentile():
    truth = np.zeros((64, 64), bool)
    truth[10:30, 10:30] = True
    pred = truth.copy()
    pred[60, 60] = True
    assert hausdorff(pred, truth, (2, 2)) == pytest.approx(2 * np.hypot(31, 31))
    assert hausdorff95(pred, truth, (2, 2)) == 0
    assert hausdorff(truth, pred, (2, 2)) == hausdorff(pred, truth, (2, 2))


def test_hausdorff_is_of_the_voxels_not_of_the_outlines():
    y, x = np.ogrid[-20:21, -20:21]
    radius = np.hypot(y, x)
    disc, ring = radius <= 15, (radius <= 15) & (radius >= 10)
    assert hausdorff(disc, ring) == pytest.approx(10)  # the middle of the disc, which is on no outline


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)])
@pytest.mark.parametrize("name", METRICS)
def test_contract_of_metrics(name, shape):
    metric, facts = METRICS[name], METRICS.facts(name)
    spacing = (2.0, 0.5, 0.5)[-len(shape) :]
    empty, some, other = np.zeros(shape, bool), blobs(shape, 3), blobs(shape, 4, 0.7)
    perfect = 1.0 if facts["better"] == "higher" else 0.0
    assert metric(some, some, spacing) == perfect
    assert metric(empty, empty, spacing) == perfect
    if facts["better"] == "higher":
        assert metric(some, empty, spacing) == metric(empty, some, spacing) == 0
        assert 0 < metric(some, other, spacing) == metric(other, some, spacing) < 1
    else:
        assert np.isnan(metric(some, empty, spacing))
        assert metric(some, other, spacing) > 0
    doubled = metric(some, other, tuple(2 * s for s in spacing))
    factor = 2 if facts["unit"] == "spacing" else 1
    assert doubled == pytest.approx(factor * metric(some, other, spacing))
    with pytest.raises(GeometryError):
        metric(some, some[1:], spacing)
    assert METRICS.describe(name)


def test_spacing_must_fit():
    pred, truth = fixture_12()
    for spacing in [(1,), (1, 1, 1), (1, 0), (1, np.nan)]:
        with pytest.raises(GeometryError, match="2 axes"):
            hausdorff(pred, truth, spacing)


# ---------------------------------------------------------------------------------------------- membranes


def line(text):
    return np.array([[int(c) for c in text]])


@pytest.mark.parametrize(
    ("pred", "rand", "info"),
    [
        ("11112222", 1, 1),
        ("77773333", 1, 1),
        ("11111111", 0.666667, 0),
        ("11223344", 0.666667, 0.666667),
        ("11102222", 0.896552, 0.831380),
        ("11122222", 0.787879, 0.561590),
    ],
)
def test_partition_scores_of_the_sheet(pred, rand, info):
    truth = line("11112222")
    assert v_rand(line(pred), truth) == pytest.approx(rand, abs=1e-6)
    assert v_info(line(pred), truth) == pytest.approx(info, abs=1e-6)


def test_partitions_at_the_ends():
    one, two, none = line("1111"), line("1122"), line("0000")
    assert (v_rand(one, one), v_info(one, one)) == (1, 1)
    assert (v_info(one, two), v_info(two, one)) == (0, 0)
    assert v_rand(none, one) == pytest.approx(0.4)  # 1/4 against 1: four cells of one voxel
    assert np.isnan(v_rand(one, none))


def membrane_9():
    truth, pred = np.ones((2, 9, 9), bool)
    truth[:, 4], pred[:, 3:6] = False, False
    gap = pred.copy()
    gap[4] = True
    return truth, pred, gap


def test_membranes_of_the_sheet():
    truth, pred, gap = membrane_9()
    labels = [ndimage.label(m)[0] for m in (pred, truth)]
    assert membrane_scores(pred, truth) == pytest.approx({"v_rand": 1, "v_info": 1})
    assert (v_rand(*labels), v_info(*labels)) == pytest.approx((0.725664, 0.554976), abs=1e-6)
    assert membrane_scores(gap, truth) == pytest.approx({"v_rand": 0.666667, "v_info": 0}, abs=1e-6)


def test_thinned_membranes_are_lines_over_corners():
    y, x = np.ogrid[:16, :16]
    thin, thick = abs(y - x) > 0, abs(y - x) > 2
    assert membrane_scores(thick, thin) == pytest.approx({"v_rand": 1, "v_info": 1})


def test_membranes_take_the_best_cut_and_average_planes():
    truth, pred, gap = membrane_9()
    probability = np.where(gap, 0.95, 0.05)
    probability[4, 3:6] = 0.35  # a gap for low cuts only
    assert membrane_scores(probability, truth) == pytest.approx({"v_rand": 1, "v_info": 1})
    stack = np.stack([pred, gap]), np.stack([truth, truth])
    assert membrane_scores(*stack) == pytest.approx({"v_rand": 0.833333, "v_info": 0.5}, abs=1e-6)
    hollow = np.stack([pred, pred]), np.stack([truth, truth & False])  # a plane without cells has no score
    assert membrane_scores(*hollow) == pytest.approx({"v_rand": 1, "v_info": 1})
    assert np.isnan(membrane_scores(pred, truth & False)["v_rand"])


def test_partitions_match_pairs_and_scikit_learn():
    from sklearn.metrics import pair_confusion_matrix, v_measure_score

    rng = np.random.default_rng(0)
    truth, pred = rng.integers(1, 6, 400), rng.integers(1, 4, 400)
    pred = np.where(rng.random(400) < 0.7, truth, pred)
    assert v_info(pred, truth) == pytest.approx(v_measure_score(truth, pred))
    # over ordered pairs of voxels, a voxel with itself included
    (_, merged), (split, both) = pair_confusion_matrix(truth, pred)
    both += 400
    assert v_rand(pred, truth) == pytest.approx(2 * both / (2 * both + merged + split))


# ---------------------------------------------------------------------------------------------- all together


def test_compare_masks_is_ready_for_json():
    pred, truth = fixture_12()
    truth = truth.astype(np.uint8)
    truth[10, 10] = 2
    scores = compare_masks(pred.astype(np.uint8), truth, (2, 2), ["background", "liver", "tumour"], membranes=True)
    assert list(scores) == ["liver", "tumour"]
    assert scores["liver"]["dice"] == pytest.approx(0.444444, abs=1e-6)
    assert scores["liver"]["hausdorff"] == 6
    assert scores["liver"]["assd"] == pytest.approx(2 * 1.230769, abs=1e-5)
    assert scores["tumour"]["dice"] == 0
    assert scores["tumour"]["hausdorff"] is None
    assert set(scores["liver"]) == {*METRICS, "v_rand", "v_info"}
    json.dumps(scores, allow_nan=False)
    for name, row in scores.items():
        single = {m: METRICS[m](pred == (name == "liver"), truth == 1, (2, 2)) for m in METRICS}
        if name == "liver":
            assert {m: row[m] for m in METRICS} == pytest.approx(single)


def test_known_voxels_alone_tell_overlap_but_no_distance():
    pred, truth = (m.astype(int) for m in fixture_12())
    known = np.zeros(pred.shape, bool)
    known[:, :6] = True
    row = compare_masks(pred, truth, classes=["background", "x"], known=known)["x"]
    assert row["dice"] == pytest.approx(2 * 8 / (8 + 16))
    assert [row[name] for name in ("hausdorff", "hausdorff95", "assd", "rvd")] == [None] * 4


def test_classes_are_found_from_the_labels():
    pred, truth = (m.astype(np.uint8) for m in fixture_12())
    assert list(compare_masks(pred * 3, truth * 7)) == ["3", "7"]
    assert compare_masks(pred * 3, truth * 7)["7"]["dice"] == 0
    assert compare_masks(pred * 255, truth)["foreground"]["dice"] == pytest.approx(0.444444, abs=1e-6)
    instances = np.arange(144).reshape(12, 12)
    assert list(compare_masks(instances, truth)) == ["foreground"]
    negative = compare_masks(pred.astype(int) * -1, truth.astype(int) * -1)
    assert negative["-1"]["dice"] == pytest.approx(0.444444, abs=1e-6)
    assert compare_masks(pred * 0, truth * 0) == {}


def test_mean_of_cases_leaves_out_what_is_undefined():
    cases = [{"x": {"dice": 1.0, "assd": None}}, {"x": {"dice": 0.5, "assd": 2.0}}, {"y": {"dice": 0.2, "assd": None}}]
    assert mean_scores(cases) == {"x": {"dice": 0.75, "assd": 2.0}, "y": {"dice": 0.2, "assd": None}}
