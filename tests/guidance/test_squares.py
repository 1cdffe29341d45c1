"""Guidance: doubt class by class, squares that do not overlap, strokes that look like slips."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetseg.data.annotation import from_mask
from napari_unetseg.errors import AnnotationError
from napari_unetseg.guidance import class_doubt, propose, rank, suspicious_strokes


def probabilities(labels, sure=0.99):
    """(3, ...) probabilities: `sure` for the label, the rest for the others."""
    p = np.full((3, *labels.shape), (1 - sure) / 2, np.float32)
    np.put_along_axis(p, labels[None].astype(int), sure, axis=0)
    return p


@pytest.fixture
def doubtful():
    """A sure image, but a small square of 1-or-0 at (10..20, 10..20), and a large one of 2-or-0 at (60..90, 60..90)."""
    p = probabilities(np.zeros((100, 100), int))
    p[:, 10:20, 10:20] = np.array([0.45, 0.54, 0.01])[:, None, None]
    p[:, 60:90, 60:90] = np.array([0.5, 0.01, 0.49])[:, None, None]
    return p


def test_doubt_is_of_the_class_it_is_about(doubtful):
    doubt = class_doubt(doubtful)
    assert doubt[1] > 0.25
    assert doubt[2] > 0.5
    assert doubt[0] < 0.15
    clear = class_doubt(probabilities(np.zeros((100, 100), int)))
    assert (clear < 0.1).all()


def test_what_is_annotated_is_not_doubted(doubtful):
    annotation = np.zeros((100, 100), np.uint8)
    annotation[60:90, 60:90] = 3
    doubt = class_doubt(doubtful, annotation)
    assert doubt[2] < 0.1 < doubt[1]


def test_classes_take_turns(doubtful):
    """The larger doubtful area would win twice if entropy alone decided."""
    first, second = propose(doubtful, number=2, size=24, random_every=0)
    assert (first.label, second.label) == (1, 2)
    assert first.region[0].start <= 10
    assert first.region[0].stop >= 20
    assert doubtful[1][first.centre] == pytest.approx(0.54)
    assert 60 <= second.centre[0] < 90
    assert first.doubt > 0.05


def test_squares_lie_inside_and_apart(doubtful):
    found = propose(doubtful, number=12, size=24)
    assert len(found) > 4
    for proposal in found:
        assert all(part.stop - part.start == 24 and part.start >= 0 and part.stop <= 100 for part in proposal.region)
    covered = np.zeros((100, 100), int)
    for proposal in found:
        covered[proposal.region] += 1
    assert covered.max() == 1


def test_some_are_random_and_repeat_with_the_seed(doubtful):
    found = propose(doubtful, number=4, size=10, seed=1)
    assert [proposal.label == -1 for proposal in found] == [False, False, False, True]
    assert propose(doubtful, number=4, size=10, seed=1) == found
    others = {propose(doubtful, number=4, size=10, seed=seed)[3].region[0].start for seed in range(8)}
    assert len(others) > 1


def test_nothing_left_to_propose(doubtful):
    assert propose(doubtful, np.ones((100, 100), np.uint8)) == []


def test_a_volume_is_proposed_plane_by_plane(doubtful):
    stack = np.repeat(probabilities(np.zeros((1, 100, 100), int)), 5, axis=1)
    stack[:, 3] = doubtful
    found = propose(stack, number=2, size=24, random_every=0)
    assert [proposal.region[0] for proposal in found] == [slice(3, 4)] * 2


def test_ranking_stratifies_and_mixes_random_ones():
    doubts = {f"case{i}": np.array([0.1, 0.01 * i, 0]) for i in range(12)} | {"rare": np.array([0, 0, 0.05])}
    order = rank(doubts, random_every=0)
    assert order[0] == "case11"
    assert order[1] == "rare"  # though its doubt is small: it is the only one about class 2
    assert sorted(order) == sorted(doubts)
    assert rank(doubts, seed=3) == rank(doubts, seed=3)
    assert len({rank(doubts, seed=seed)[3] for seed in range(10)}) > 1
    assert rank({}) == []


def test_suspicious_strokes():
    truth = np.zeros((40, 40), int)
    truth[10:30, 10:30] = 1
    annotation = np.zeros((40, 40), np.uint8)
    annotation[2:5, 2:38] = 1  # background on background
    annotation[15:18, 12:28] = 2  # class 1 on class 1
    annotation[20:23, 12:20] = 3  # class 2 where the model is sure of 1
    annotation[35, 35:38] = 2  # wrong, but only three pixels
    found = suspicious_strokes(probabilities(truth), annotation)
    assert len(found) == 1
    assert (found[0].painted, found[0].predicted, found[0].voxels) == (2, 1, 24)
    assert found[0].region == (slice(20, 23), slice(12, 20))
    assert found[0].confidence == pytest.approx(0.99, abs=1e-5)
    assert suspicious_strokes(probabilities(truth, 0.8), annotation) == []
    assert suspicious_strokes(probabilities(truth), from_mask(truth)) == []
    with pytest.raises(AnnotationError, match="shape"):
        suspicious_strokes(probabilities(truth), annotation[:5])
