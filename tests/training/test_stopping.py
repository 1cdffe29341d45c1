"""Stop is heard between any two pieces of work; pieces are counted here, never seconds."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg import devices
from napari_unetseg.data.annotator import scribble
from napari_unetseg.errors import Stopped
from napari_unetseg.events import Control, StepDone, finish
from napari_unetseg.inference.sliding import Predictor
from napari_unetseg.instant import fit_instant
from napari_unetseg.nets.instant import _Smooth
from napari_unetseg.planning import plan_for
from napari_unetseg.training import fine_tune
from napari_unetseg.training.resume import Checkpoint
from napari_unetseg.worker import plan as _  # noqa: F401 - registers its verb
from napari_unetseg.worker.verbs import VERBS, Bench


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = nus.Project.create(tmp_path_factory.mktemp("p") / "p.unetseg", classes=["background", "a", "b"])
    for number in range(4):
        image, mask = blobs((64, 64), number, classes=3)
        case = made.add_array(f"case{number}", nus.Volume(image[None]))
        made.annotate(case, scribble(mask, 3, np.random.default_rng(number), 0.1))
    path = made.path
    made.close()
    return path


def plan(**training):
    small = {"epochs": 2, "steps_per_epoch": 2, "patch": (32, 32), "batch_size": 2, "device": "cpu", **training}
    return nus.Plan(net={"width": 0.1, "depth": 3}, training=small)


def stop_in(monkeypatch, place, name, control):
    """Let the first call of a function ask for the stop; returns the list of its calls."""
    real, calls = getattr(place, name), []

    def told(*args, **more):
        calls.append(name)
        control.stop()
        return real(*args, **more)

    monkeypatch.setattr(place, name, told)
    return calls


def module(name):
    return importlib.import_module(f"napari_unetseg.{name}")


PIECES = {
    "plan": [
        ("data.dataset", "to_mask"),
        ("planning.objects", "_looks_like"),
        ("planning.mirrored", "_places"),
        ("planning.decide", "net_cost"),
        ("devices", "_probe_step"),
    ],
    "train": [
        ("training.job", "count_known"),
        ("training.job", "prepare"),
        ("data.patches", "_index"),
        ("training.teacher", "_hints"),
    ],
    "instant": [("instant", "prepare")],
}


@pytest.mark.parametrize(("verb", "room", "name"), [(v, *piece) for v, pieces in PIECES.items() for piece in pieces])
def test_one_piece_of_work_and_no_more(monkeypatch, project, tmp_path, verb, room, name):
    monkeypatch.setattr(devices, "_PROBED", {})
    control = Control()
    calls = stop_in(monkeypatch, module(room), name, control)
    run = {"plan": plan_for, "train": fine_tune, "instant": fit_instant}[verb]
    open_plan = nus.Plan(net={"width": 0.1}, training={"device": "cpu"})
    with pytest.raises(Stopped):
        run(project, open_plan if verb == "plan" else plan(), control=control)
    assert len(calls) == 1


@pytest.mark.parametrize("place", [(_Smooth, "forward"), (ExtraTreesClassifier, "fit")])
def test_the_instant_model_stops_between_scales_and_trees(monkeypatch, project, place):
    control = Control()
    calls = stop_in(monkeypatch, *place, control)
    with pytest.raises(Stopped):
        fine_tune(project, plan(), control=control)
    assert len(calls) == 1


def test_forests_of_several_fits_are_those_of_one():
    from napari_unetseg.instant import Lesson, _plant, torch

    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(2, size=300))
    known = torch.from_numpy(rng.normal(size=(300, 5)).astype(np.float32)) + labels[:, None]
    ours = _plant(Lesson([known], [labels], [known]), 3, Control())
    one = ExtraTreesClassifier(
        50, min_samples_leaf=3, class_weight="balanced", bootstrap=True, oob_score=True, random_state=3
    ).fit(known.numpy(), labels.numpy())
    np.testing.assert_array_equal(ours.predict_proba(known.numpy()), one.predict_proba(known.numpy()))
    np.testing.assert_array_equal(ours.oob_decision_function_, one.oob_decision_function_)


def test_the_verb_plan_stops_within_a_step(monkeypatch, project, tmp_path):
    control, layers = Control(), []

    def count(layer, args):
        layers.append(layer)
        control.stop()

    real = module("planning.estimate").measure_step

    def watched(*args):
        from torch.nn.modules.module import register_module_forward_pre_hook

        handle = register_module_forward_pre_hook(count)
        try:
            return real(*args)
        finally:
            handle.remove()

    monkeypatch.setattr(module("planning.estimate"), "measure_step", watched)
    with pytest.raises(Stopped):
        VERBS["plan"]({"project": str(project), "plan": {"net": {"width": 0.1}}}, control, Bench(tmp_path))
    assert sum(bool(list(layer.parameters(recurse=False))) for layer in layers) == 1  # the first one's turn, no other


@pytest.mark.parametrize("place", [(Predictor, "run"), (Checkpoint, "save")])
def test_no_step_follows_a_stop_while_it_is_scored_or_saved(monkeypatch, project, tmp_path, place):
    control, steps = Control(), []
    calls = stop_in(monkeypatch, *place, control)
    for event in fine_tune.events(project, plan(teacher=0.0), control=control, folder=tmp_path / "m"):
        if isinstance(event, StepDone):
            assert not calls
            steps.append(event.step)
    assert steps == [1, 2]
    assert len(calls) == 1
    assert (tmp_path / "m" / "model.json").is_file()


def test_a_verb_that_was_stopped_in_the_queue_reads_nothing(project, tmp_path):
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        VERBS["plan"]({"project": str(project)}, control, Bench(tmp_path))
    run = VERBS["train"]({"project": str(project), "folder": str(tmp_path / "m")}, control, Bench(tmp_path))
    with pytest.raises(Stopped):
        finish(run)
    assert not (tmp_path / "m").exists()
