"""Label values become classes by what they look like, by names, or as the plan says."""

import numpy as np
import pytest

from napari_unetseg.data.labels import LabelRule, count_values, look, rule_from_names, rule_from_values
from napari_unetseg.errors import AnnotationError


def guess(*values, **counts):
    labels = np.array(values)
    rule, note = look(count_values(labels))
    return rule.apply(labels)[0].tolist(), note


@pytest.mark.parametrize(
    ("values", "mask", "words"),
    [
        ([0, 255, 255], [0, 1, 1], "255 the foreground"),
        ([0, 1, 2, 2], [0, 1, 2, 2], "each of the 3 values"),
        ([0, 32, 159, 255], [0, 1, 2, 3], "each of the 4 values"),
        (range(40), [0] + [1] * 39, "instances"),
        ([0, 1, -1], [0, 1, 0], "Negative values"),
        ([7, 9], [0, 1], "7 is the background"),
    ],
)
def test_guesses(values, mask, words):
    got, note = guess(*values)
    assert got == mask
    assert words in note


def test_a_smoothed_mask_is_cut_in_the_middle():
    soft = np.array([0] * 500 + [255] * 500 + list(range(100, 140)), np.uint8)
    rule, note = look(count_values(soft))
    assert rule.apply(soft)[0].tolist() == (soft > 127).astype(int).tolist()
    assert "127" in note


def test_one_value_is_no_labelling():
    for values in ([], [0, 0], [3]):
        with pytest.raises(AnnotationError):
            look(count_values(np.array(values, np.uint8)))


def test_negative_and_ignored_values_are_unknown():
    labels = np.array([0, 1, -1, 9])
    assert rule_from_names({0: "b", 1: "c"}, (9, -1)).apply(labels)[1].tolist() == [True, True, False, False]
    assert LabelRule("above", unknown=(9,)).apply(labels)[1].tolist() == [True, True, False, False]


def test_a_stranger_is_named_unless_the_plan_says_so():
    labels = np.array([[0, 1, 7]], np.uint8)
    with pytest.raises(AnnotationError, match=r"a\.tif has the label value 7"):
        rule_from_names({0: "b", 1: "c"}).apply(labels, "a.tif")
    mask, known = rule_from_values(((1,), (0,)))[0].apply(labels)
    assert (mask.tolist(), known.tolist()) == ([[1, 0, 0]], [[True, True, False]])


@pytest.mark.parametrize("values", [((0,),), ((0,), ()), ((0, 1), (1, 2))])
def test_values_that_cannot_be(values):
    with pytest.raises(AnnotationError):
        rule_from_values(values)


def test_huge_values_need_no_huge_table():
    labels = np.array([0, 2**31, 5, 2**40])
    rule = LabelRule("values", ((0,), (2**31, 2**40)), (5,))
    assert rule.apply(labels)[0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int64"])
def test_counting_is_that_of_numpy(dtype):
    labels = np.random.default_rng(0).integers(0, 9, (30, 30)).astype(dtype)
    assert count_values(labels) == {v: int((labels == v).sum()) for v in range(9)}


def test_annotation_files():
    mask, known = LabelRule("annotation").apply(np.array([0, 1, 3], np.int32))
    assert (mask.tolist(), known.tolist(), mask.dtype) == ([0, 0, 2], [False, True, True], np.uint8)
    with pytest.raises(AnnotationError, match="-1"):
        LabelRule("annotation").apply(np.array([-1, 2]), "a.tif")
