"""The 0/1/2.. rule, in one place."""

import numpy as np
import pytest

from napari_unetseg.data.annotation import check_annotation, count_known, from_mask, overrule, to_mask
from napari_unetseg.errors import AnnotationError

CLASSES = ("background", "liver", "tumour")


def test_mask_and_back():
    annotation = np.random.default_rng(0).integers(0, 4, (3, 20, 30)).astype(np.uint8)
    mask, known = to_mask(annotation)
    assert known.tolist() == (annotation > 0).tolist()
    assert mask[~known].max() == 0
    assert np.array_equal(from_mask(mask, known), annotation)
    assert np.array_equal(to_mask(from_mask(mask))[0], mask)
    assert count_known(mask, known, 3).tolist() == [(annotation == k).sum() for k in (1, 2, 3)]


def test_strokes_overrule_the_net():
    annotation = np.array([[0, 1, 2, 3]], np.uint8)
    assert overrule(np.array([[2, 2, 2, 2]], np.uint8), annotation).tolist() == [[2, 0, 1, 2]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 0], "Nothing is annotated"),
        ([0, 2], "Only the class 'liver'"),
        ([1, 4], "label 4"),
        ([1.0, 2.0], "float64"),
    ],
)
def test_refusals(values, words):
    with pytest.raises(AnnotationError, match=words):
        check_annotation(np.array([values]), CLASSES)


def test_refusal_names_both_shapes_and_a_class_without_strokes():
    with pytest.raises(AnnotationError, match=r"\(1, 2\).*\(3, 4\)"):
        check_annotation(np.array([[1, 2]]), CLASSES, (3, 4))
    with pytest.raises(AnnotationError, match="'background' has none"):
        check_annotation(np.array([[0, 2]]), CLASSES)
    check_annotation(np.array([[1, 2]]), CLASSES, (1, 2))
