"""Areas put into the strokes at once: nothing that was painted is touched, and shapes meet half way."""

from __future__ import annotations

import numpy as np

from napari_unetseg.workspace.filling import between, copied, finished, gaps


def disc(centre, radius, size=64):
    y, x = np.ogrid[:size, :size]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_a_mask_is_copied_where_nothing_is_painted():
    strokes = np.array([[0, 0, 1, 2]], np.uint8)
    region, values = copied(strokes, np.array([[0, 2, 2, 2]]))
    assert values.tolist() == [[0, 3, 1, 2]]
    assert values.shape == strokes[region].shape


def test_one_slice_is_done_and_the_others_are_not():
    strokes = np.zeros((3, 2, 2), np.uint8)
    strokes[1, 0, 0] = 2
    region, values = finished(strokes, 1)
    assert values.tolist() == [[[2, 1], [1, 1]]]
    strokes[region] = values
    assert not strokes[[0, 2]].any()
    assert finished(strokes).values.min() == 1


def test_gaps_are_those_around_the_slice_shown():
    strokes = np.zeros((12, 4, 4), np.uint8)
    strokes[[1, 4, 9], 0, 0] = 2
    assert gaps(strokes, 2, 6) == [(4, 9)]
    assert gaps(strokes, 2, 4) == [(1, 4), (4, 9)]
    assert gaps(strokes, 2, 0) == []
    assert gaps(strokes, 3, 6) == []


def test_between_two_discs_there_is_a_disc_half_way():
    strokes = np.zeros((5, 64, 64), np.uint8)
    strokes[0][disc((20, 20), 8)] = 2
    strokes[4][disc((40, 44), 14)] = 2
    region, values = between(strokes, 2, 0, 4)
    strokes[region] = values
    for index, share in ((1, 0.25), (2, 0.5), (3, 0.75)):
        truth = disc((20 + 20 * share, 20 + 24 * share), 8 + 6 * share)
        found = strokes[index] == 2
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_thin_strokes_that_do_not_overlap_are_joined_and_others_stay():
    strokes = np.zeros((3, 64, 64), np.uint8)
    strokes[0, 10:13, 10:50] = 2
    strokes[2, 30:33, 10:50] = 2
    strokes[1, 21, 20] = 1
    region, values = between(strokes, 2, 0, 2)
    strokes[region] = values
    assert (strokes[1] == 2).sum() > 80
    assert strokes[1, 21, 20] == 1


def test_where_all_is_painted_nothing_is_added():
    strokes = np.ones((3, 8, 8), np.uint8)
    strokes[[0, 2]] = 2
    assert between(strokes, 2, 0, 2) is None
