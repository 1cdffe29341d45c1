"""What to annotate next in a project: a net whose doubt is known, images of two and three dimensions, and the clock."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from tiny import blobs

from napari_unetseg.data.annotation import from_mask
from napari_unetseg.events import Control, Note, Running, TileDone
from napari_unetseg.guidance import Candidate, candidates_of, suggest
from napari_unetseg.guidance.places import _spread_out
from napari_unetseg.nets import Model
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume


class Reading(torch.nn.Module):
    """The image holds the logits of the foreground: 0 is undecided, -9 sure background."""

    divisor = 1

    def forward(self, x):
        return x


def model_of(dims=2, net=None, **training):
    plan = Plan(net=NetSpec(dims=dims), training={"device": "cpu", "precision": "float32", **training})
    plan = plan.change(data={"normalisation": {"kind": "none"}})
    return Model((net or Reading()).eval(), plan, ("background", "cell"))


def candidate(name, logits, annotation=None):
    return Candidate(name, lambda: (Volume(logits[None].astype(np.float32)), annotation))


def sure(*shape):
    logits = np.full(shape, -9.0)
    logits[..., :4, :4] = 9
    return logits


@pytest.fixture
def six():
    """Six sure images; in "e" a patch of foreground-or-not, and in "b" a smaller doubt of what is rather background."""
    images = {name: sure(128, 128) for name in "abcdef"}
    images["e"][80:100, 40:60] = 0.4
    images["b"][20:40, 90:110] = -0.8
    return images


def test_the_image_the_place_and_the_mask(six):
    found = suggest([candidate(*item) for item in six.items()], model_of(), number=3, random_every=0)
    first, second = found[:2]
    assert (first.case, first.index, first.label, first.drawn) == ("e", None, 1, False)
    assert first.box[0].start <= 80 < 100 <= first.box[0].stop <= 128
    assert first.box[1].start <= 40 < 60 <= first.box[1].stop
    assert 80 <= first.point[0] < 100
    assert 40 <= first.point[1] < 60
    assert first.mask.shape == (128, 128)
    assert np.array_equal(first.mask, six["e"] > 0)
    assert "'cell'" in first.reason
    assert "no strokes yet" in first.reason
    assert (second.case, second.label) == ("b", 0)
    assert 20 <= second.point[0] < 40
    assert found[2].case not in ("a", "c", "d", "f") or found[2].doubt < second.doubt


def test_what_is_painted_is_not_proposed(six):
    strokes = np.zeros((128, 128), np.uint8)
    strokes[70:110, 30:70] = 2
    some = [candidate(n, image, strokes if n == "e" else None) for n, image in six.items()]
    found = suggest(some, model_of(), number=6, random_every=0)
    assert all(not (s.case == "e" and 80 <= s.point[0] < 100 and 40 <= s.point[1] < 60) for s in found)
    assert all("no strokes" not in s.reason for s in found if s.case == "e")


def test_an_image_just_proposed_waits():
    """Two doubtful patches in one image, a fainter one in another: the other comes second."""
    much, little = sure(200, 200), sure(200, 200)
    much[20:50, 120:150] = much[140:170, 30:60] = 0.3
    little[60:90, 60:90] = 0.7
    found = suggest([candidate("much", much), candidate("little", little)], model_of(), number=6, random_every=0)
    assert [s.case for s in found[:2]] == ["much", "little"]
    of_much = [s.point for s in found if s.case == "much"]
    assert {y < 100 for y, _ in of_much} == {True, False}  # in the end both patches


def test_some_are_drawn_and_repeat_with_the_seed(six):
    some = [candidate(*item) for item in six.items()]
    runs = [suggest(some, model_of(), number=6, random_every=3, seed=seed) for seed in (0, 0, 1, 2)]
    assert [s.drawn for s in runs[0]] == [False, False, True, False, False, True]
    where = [[(s.case, s.box) for s in run] for run in runs]
    assert where[0] == where[1]
    assert len({str(w) for w in where}) > 1
    assert all("at random" in s.reason for s in runs[0] if s.drawn)
    drawn = suggest(some, model_of(), number=12, random_every=1)
    assert {s.label for s in drawn} == {0, 1}  # though one voxel in a thousand is of class 1
    assert all(s.box[0].stop <= 128 and s.box[0].stop - s.box[0].start == 32 for s in drawn)
    assert len({s.case for s in drawn[:6]}) >= 5


@pytest.mark.parametrize("dims", [2, 3])
def test_of_a_volume_a_plane(dims):
    volume = sure(9, 64, 64)
    volume[6, 20:40, 20:40] = 0
    model = model_of(dims, patch=(4, 32, 32) if dims == 3 else (32, 32))
    found = suggest([candidate("v", volume)], model, number=4, random_every=0)
    assert found[0].index == 6
    assert found[0].mask.shape == (64, 64)
    assert np.array_equal(found[0].mask, volume[6] > 0)
    assert abs(found[1].index - 6) > 2 or found[1].label == 0  # its neighbours wait
    assert sorted(_spread_out(9)) == list(range(9))
    assert _spread_out(8)[:3] == [4, 0, 6]


def test_of_a_large_plane_windows():
    large = sure(1200, 1500)
    large[100:1100, 100:1400] = 0.2
    found = suggest([candidate("large", large)], model_of(), number=4, random_every=0)
    for s in found:
        assert s.mask.shape == (512, 512)
        assert s.window[0].start <= s.box[0].start < s.box[0].stop <= s.window[0].stop
        assert np.array_equal(s.mask, large[s.window] > 0)
        assert all(part.start <= at < part.stop for part, at in zip(s.box, s.point, strict=True))


class Slow(Reading):
    def forward(self, x):
        time.sleep(0.05)
        return x


def test_time_is_kept_and_a_stop_still_answers(six):
    some = [candidate(f"{i}", sure(64, 64)) for i in range(200)]
    run = Running(suggest.events(some, model_of(net=Slow()), seconds=0.4))
    events = list(run)
    assert run.result
    assert 1 <= len(events) < 100
    assert isinstance(events[-1], TileDone)
    control = Control()
    control.stop()
    assert len(suggest([candidate(*item) for item in six.items()], model_of(), control=control)) >= 1


def test_an_image_that_cannot_be_used_is_passed_over(six):
    bad = Candidate("bad", lambda: (Volume(np.zeros((3, 8, 8), np.float32)), None))
    run = suggest.events([bad, candidate("e", six["e"])], model_of(), number=1)
    notes = [event for event in run if isinstance(event, Note)]
    assert "bad" in notes[0].text
    assert suggest([bad], model_of()) == []
    assert suggest([], model_of()) == []


def test_from_a_project(tmp_path):
    project = Project.create(tmp_path / "p.unetseg", ["background", "cell"])
    for index in range(3):
        image, mask = blobs((64, 64), index)
        case = project.add_array(f"case{index}", Volume(6 * image[None] - 3))
        if index == 0:
            project.annotate(case, from_mask(mask))
    try:
        found = suggest(candidates_of(project), model_of(), number=4)
        assert {s.case for s in found} <= {"case1", "case2"}  # nothing is left to paint on case0
        assert {s.case for s in suggest(candidates_of(project, ["case2"]), model_of())} == {"case2"}
    finally:
        project.close()
