"""Strokes judged by models that have not seen them."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from tiny import blobs

from napari_unetseg.data.annotator import scribble
from napari_unetseg.events import Control, Note
from napari_unetseg.guidance import Candidate
from napari_unetseg.validate import cross_check
from napari_unetseg.volume import Volume

CLASSES = ("background", "blob")


def painted(shape, seed):
    """An image, and a few strokes in it."""
    image, mask = blobs(shape, seed)
    return Volume(image[None]), scribble(mask, 2, np.random.default_rng(seed), 0.06, width=3), mask


def test_slips_are_found_and_good_strokes_left_alone():
    images = [painted((96, 96), seed) for seed in range(4)]
    depth = distance_transform_edt(images[1][2])
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    images[1][1][y - 3 : y + 4, x - 3 : x + 4] = 1  # background in the middle of a blob
    corner = images[2][1][:12, :12]
    assert not (images[2][2][:12, :12] == 1).any()
    corner[3:9, 2:10] = 2  # blob on the ground
    cases = [Candidate(str(i), lambda one=one: one[:2]) for i, one in enumerate(images)]
    found = cross_check([*cases, Candidate("bare", lambda: (images[0][0], None))], CLASSES)
    assert {(one.case, one.painted, one.predicted) for one in found} == {("1", 0, 1), ("2", 1, 0)}
    assert len(found) == 2


def test_a_stop_answers_with_what_there_is_and_too_little_says_so():
    image, strokes, _ = painted((64, 64), 0)
    control = Control()
    control.stop()
    assert cross_check([Candidate("a", lambda: (image, strokes))], CLASSES, control=control) == []
    assert cross_check([], CLASSES) == []
    one = np.zeros((64, 64), np.uint8)
    one[2:6, 2:20] = 1
    one[30:34, 2:20] = 2
    run = cross_check.events([Candidate("a", lambda: (image, one))], CLASSES)
    notes = [event.text for event in run if isinstance(event, Note)]
    assert any("could not be checked" in note for note in notes)
