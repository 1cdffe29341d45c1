"""Slips of the hand: against a confident model, and between neighbouring planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetseg.events import Control, Note, Running
from napari_unetseg.guidance import Candidate, contradictions, doubted_strokes, find_slips
from napari_unetseg.nets import Model
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.volume import Volume


class Reading(torch.nn.Module):
    """The image holds the logits."""

    divisor = 1

    def forward(self, x):
        return x


def model_of(dims):
    plan = Plan(net=NetSpec(dims=dims), training={"device": "cpu", "precision": "float32"})
    return Model(Reading().eval(), plan.change(data={"normalisation": {"kind": "none"}}), ("background", "cell"))


@pytest.mark.parametrize("dims", [2, 3])
def test_slips_of_a_volume_are_found_where_they_are(dims):
    logits = np.full((6, 200, 200), -9, np.float32)
    logits[:, 150:190, 150:190] = 9
    logits[:, 150:190, 100:140] = 0.2  # here the model does not know
    strokes = np.zeros((6, 200, 200), np.uint8)
    strokes[1, 160:165, 155:185] = 2
    strokes[1, 20:23, 20:60] = 1
    strokes[4, 30:33, 100:120] = 2  # a slip
    strokes[4, 160:163, 105:130] = 1  # bold, but the model does not know better
    case = Candidate("v", lambda: (Volume(logits[None]), strokes))
    (found,) = find_slips([case], model_of(dims))
    assert (found.case, found.by, found.painted, found.predicted, found.voxels) == ("v", "model", 1, 0, 60)
    assert found.region == (slice(4, 5), slice(30, 33), slice(100, 120))
    assert found.reason(("background", "cell")) == "Painted as 'cell', but the model takes it for 'background' (100%)."


def test_of_an_image_and_of_nothing():
    logits = np.full((64, 64), 9, np.float32)
    logits[0, 0] = 0
    strokes = np.zeros((64, 64), np.uint8)
    strokes[10:14, 10:20] = 1
    cases = [
        Candidate("bare", lambda: (Volume(logits[None]), np.zeros((64, 64), np.uint8))),
        Candidate("none", lambda: (Volume(logits[None]), None)),
        Candidate("slip", lambda: (Volume(logits[None]), strokes)),
        Candidate("bad", lambda: (Volume(np.zeros((3, 64, 64), np.float32)), strokes)),
    ]
    run = Running(find_slips.events(cases, model_of(2)))
    events = list(run)
    assert [(one.case, one.voxels) for one in run.result] == [("slip", 40)]
    assert ["bad" in event.text for event in events if isinstance(event, Note)] == [True]
    control = Control()
    control.stop()
    assert find_slips(cases, model_of(2), control=control) == []


def test_planes_that_contradict_each_other():
    strokes = np.zeros((8, 50, 50), np.uint8)
    strokes[2, 10:16, 10:30] = 2
    strokes[3, 10:16, 12:30] = 1  # contradicts the plane before, and is smaller
    strokes[5, 30:40, 10:40] = 2
    strokes[6, 30:40, 10:40] = 2
    strokes[6, 38:40, 10:40] = 1  # the edge moves: most of the two agrees
    strokes[0, 10:16, 10:30] = 1  # two planes away
    (found,) = contradictions(strokes)
    assert (found.painted, found.predicted, found.voxels, found.by) == (0, 1, 6 * 18, "plane")
    assert found.region == (slice(3, 4), slice(10, 16), slice(12, 30))
    assert "next plane" in found.reason(("background", "cell"))
    assert contradictions(strokes[2]) == []


def test_a_slip_that_both_see_is_named_once():
    logits = np.full((4, 60, 60), -9, np.float32)
    logits[0, 0, 0] = 0
    strokes = np.zeros((4, 60, 60), np.uint8)
    strokes[1, 10:16, 10:30] = 1
    strokes[2, 10:16, 10:30] = 2
    found = find_slips([Candidate("v", lambda: (Volume(logits[None]), strokes))], model_of(2))
    assert [(one.by, one.region[0]) for one in found if one.painted == 1] == [("model", slice(2, 3))]


def test_a_stroke_is_judged_as_a_whole():
    """Half of it may be contradicted; it counts what the model thinks of all of it."""
    strokes = np.zeros((40, 40), np.uint8)
    strokes[5:8, 0:20] = 2
    strokes[20:23, 0:20] = 2
    strokes[30, 30:33] = 2  # three voxels only
    p = np.full((2, 40, 40), 0.5)
    p[1, 5:8, :14], p[1, 5:8, 14:20] = 0.02, 0.9
    p[1, 20:23, :8], p[1, 20:23, 8:20] = 0.02, 0.9
    p[1, 30] = 0
    p[0] = 1 - p[1]
    (found,) = doubted_strokes(p, strokes)
    assert found.region == (slice(5, 8), slice(0, 20))
    assert (found.painted, found.predicted, found.voxels) == (1, 0, 60)
    assert found.confidence == pytest.approx((14 * 0.98 + 6 * 0.1) / 20)
    assert doubted_strokes(p, strokes, confidence=0.8) == []


def test_the_part_of_a_stroke_that_crosses_a_border_is_found():
    logits = np.full((60, 60), -9, np.float32)
    logits[:, 30:] = 9
    strokes = np.zeros((60, 60), np.uint8)
    strokes[20:24, 2:38] = 1  # background, eight columns into the cell
    (found,) = find_slips([Candidate("a", lambda: (Volume(logits[None]), strokes))], model_of(2))
    assert found.region == (slice(20, 24), slice(30, 38))
    assert (found.painted, found.predicted) == (0, 1)
