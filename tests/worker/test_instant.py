"""The instant answer: learned from the strokes on disk; what is kept between them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import blobs

from napari_unetseg.errors import ReadError, Stopped
from napari_unetseg.events import Control, finish
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume
from napari_unetseg.worker import instant
from napari_unetseg.worker.verbs import VERBS, Bench


@pytest.fixture
def scene(tmp_path):
    """A plane and a volume of blobs, and their masks by name."""
    project = Project.create(tmp_path / "blobs.unetseg", ["background", "blob"])
    planes = [blobs((96, 96), z, noise=0.1) for z in range(3)]
    volume, masks = (np.stack(parts) for parts in zip(*planes, strict=True))
    project.add_array("plane", Volume(volume[:1]))
    project.add_array("volume", Volume(volume[None]))
    yield project, {"plane": masks[0], "volume": masks}
    project.close()


@pytest.fixture
def ask(scene, tmp_path):
    project, bench = scene[0], Bench(tmp_path)

    def ask(case, control=None, **args):
        args = {"project": str(project.path), "case": case, **args}
        found = finish(VERBS["instant"](args, control or Control(), bench))
        json.dumps(found)
        return found

    ask.bench = bench
    return ask


def paint(scene, case, *planes):
    """Every fourth row of some planes, as strokes."""
    project, masks = scene
    for plane in planes or (slice(None),):
        where = (
            (slice(0, 96), slice(0, 96)) if masks[case].ndim == 2 else (slice(plane, plane + 1), *[slice(0, 96)] * 2)
        )
        truth = masks[case][where]
        strokes = np.where((np.arange(96) % 8 < 2)[:, None], truth + 1, 0).astype(np.uint8)
        project.journal(case, where, strokes.reshape(truth.shape))


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_without_strokes_it_gets_ready_and_with_them_it_answers(scene, ask):
    assert ask("plane", strokes=0)["mask"] is None
    assert len(ask.bench.live.features) == 1
    paint(scene, "plane")
    answer = ask("plane", strokes=1)
    assert answer["images"] == 1
    assert dice(np.load(answer["mask"]), scene[1]["plane"]) > 0.85


def test_another_plane_is_answered_without_learning_again(scene, ask, monkeypatch):
    paint(scene, "volume", 0, 1)
    ask("volume", index=0, strokes=1)
    monkeypatch.setattr(instant, "learn_lesson", None)
    answer = ask("volume", index=2, strokes=1)
    assert answer["index"] == 2
    assert dice(np.load(answer["mask"]), scene[1]["volume"][2]) > 0.8


def test_strokes_on_other_images_count(scene, ask):
    paint(scene, "plane")
    answer = ask("volume", index=1, annotated=["plane", "volume"], strokes=1)
    assert answer["images"] == 2
    assert dice(np.load(answer["mask"]), scene[1]["volume"][1]) > 0.7


def test_another_image_that_cannot_be_used_is_left_out(scene, ask):
    paint(scene, "plane")
    scene[0].add_array("nothing", Volume(np.full((1, 96, 96), np.nan, np.float32)))
    scene[0].annotate("nothing", np.tile(np.arange(96) % 3, (96, 1)).astype(np.uint8))
    answer = ask("plane", annotated=["plane", "nothing"], strokes=1)
    assert (answer["images"], answer["mask"] is None) == (1, False)
    with pytest.raises(ReadError, match=r"nothing.*no number"):
        ask("nothing", annotated=["plane", "nothing"], strokes=1)


def test_images_that_only_their_percentiles_make_alike_are_normalised_by_them(tmp_path):
    project, bench, rng = (
        Project.create(tmp_path / "p.unetseg", ["background", "cell"]),
        Bench(tmp_path),
        np.random.default_rng(0),
    )
    truths = {}
    for name, rows, brightness in (("a", 4, 900), ("b", 56, 90), ("c", 30, 4000)):
        truths[name] = np.zeros((64, 64), bool)
        truths[name][:rows] = True
        image = brightness * (0.2 + truths[name] + rng.normal(0, 0.05, (64, 64)))
        project.add_array(name, Volume(image[None].astype(np.float32)))
    answers, strokes = {}, {}
    for name in ("a", "b", "c"):
        whole = np.where(np.arange(64) % 8 < 2, truths[name] + 1, 0).astype(np.uint8)
        for number in (1, 2) if name != "c" else ():  # one class after the other, as they are painted
            strokes[name] = np.where(whole <= number, whole, 0)
            project.annotate(name, strokes[name])
            args = {"project": str(project.path), "case": name, "annotated": list(strokes), "strokes": (name, number)}
            finish(VERBS["instant"](args, Control(), bench))
        args = {"project": str(project.path), "case": name, "annotated": ["a", "b"], "strokes": name}
        answers[name] = finish(VERBS["instant"](args, Control(), bench))
    assert bench.live.how.kind == "percentile"
    assert dice(np.load(answers["c"]["mask"]), truths["c"]) > 0.95
    project.close()


def test_of_a_large_plane_the_tiles_around_the_view_are_answered(scene, ask, monkeypatch):
    paint(scene, "plane")
    whole = np.load(ask("plane", strokes=1)["mask"])
    monkeypatch.setattr(instant, "_TILE", 32)
    ask.bench.live = None
    mask = np.load(ask("plane", near=(90, 90), strokes=2)["mask"])
    assert mask[64:, 64:].any()
    assert not mask[:32, :32].any()
    assert (mask[64:, 64:] == whole[64:, 64:]).mean() > 0.9


def test_a_newer_stroke_ends_it_and_nothing_half_learned_stays(scene, ask):
    paint(scene, "plane")
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        ask("plane", control, strokes=1)
    assert ask("plane", strokes=1)["mask"] is not None


def test_memory_for_features_is_bounded(scene, ask, monkeypatch):
    ask("volume", index=0, strokes=1)
    one = next(iter(ask.bench.live.features.values())).nbytes
    monkeypatch.setattr(instant, "_KEPT_BYTES", 2 * one)
    for index in range(3):
        ask("volume", index=index, strokes=1)
    assert [tile[1] for tile in ask.bench.live.features] == [1, 2]
