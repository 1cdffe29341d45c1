"""Averages: exact inverses, what disagreement means, dropout that is asked for and is not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetseg.batch import Outputs, segment_folder
from napari_unetseg.errors import ModelError, PlanError, Stopped
from napari_unetseg.events import Control, TileDone
from napari_unetseg.inference import Ensemble, entropy, predict_doubt, predict_probabilities
from napari_unetseg.inference.ensemble import _moved, symmetries
from napari_unetseg.io import read, write
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.volume import Geometry, Volume


def model_of(dims=2, seed=0, classes=("background", "cell"), **net):
    torch.manual_seed(seed)
    outputs = 1 if len(classes) == 2 else len(classes)
    spec = NetSpec(dims=dims, outputs=outputs, width=0.1, depth=2, **net)
    plan = Plan(net=spec, training={"device": "cpu", "precision": "float32"}).change(
        data={"normalisation": {"kind": "none"}}, inference={"tile": (24,) * dims}
    )
    return Model(build(spec).eval(), plan, classes)


def image_of(*shape, spacing=None, seed=0):
    data = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    return Volume(data, Geometry(spacing or (1.0,) * len(shape)))


class Pointwise(torch.nn.Module):
    """What a voxel says depends on nothing but itself: any symmetry must give the plain answer back."""

    divisor = 1

    def forward(self, x):
        return 3 * x[:, :1]


@pytest.mark.parametrize(("dims", "shape"), [(2, (37, 53)), (2, (3, 21, 30)), (3, (5, 21, 30)), (3, (1, 9, 30))])
@pytest.mark.parametrize("kind", ["flips", "turns"])
def test_every_symmetry_is_undone_exactly(dims, shape, kind):
    model, image = model_of(dims), image_of(*shape)
    model.net = Pointwise()
    plain = predict_probabilities(model, image)
    found = predict_doubt(model, image, tta=kind)
    assert found.passes == {(2, "flips"): 4, (2, "turns"): 8, (3, "flips"): 8, (3, "turns"): 16}[dims, kind]
    assert np.allclose(found.probability, plain, atol=2e-6)
    assert found.disagreement.max() < 1e-5


def test_symmetries_are_exact_and_all_different():
    cube = np.arange(3 * 4 * 4).reshape(3, 4, 4)
    ways = symmetries("turns", 3, (1, 1, 1))
    moved = [way.apply(cube) for way in ways]
    assert len({m.tobytes() for m in moved}) == 16
    assert all(np.array_equal(way.undo(m), cube) for way, m in zip(ways, moved, strict=True))
    assert all({frozenset(plane.ravel()) for plane in m} == {frozenset(p.ravel()) for p in cube} for m in moved)


def test_pixels_that_are_not_square_are_not_turned():
    assert len(symmetries("turns", 2, (0.5, 0.5))) == 8
    assert len(symmetries("turns", 2, (0.5, 0.7))) == 4
    assert len(symmetries("turns", 3, (5.0, 0.5, 0.5))) == 16  # thick planes are turned in the plane all the same
    assert not any(way.transposed for way in symmetries("turns", 3, (5.0, 0.5, 0.7)))
    assert symmetries("none", 3, (1, 1, 1)) == symmetries("flips", 3, (1, 1, 1))[:1]


def test_averages_are_of_the_symmetric_answers():
    """By hand: the net on the mirrored image, mirrored back."""
    model, image = model_of(), image_of(24, 20)
    plain = predict_probabilities(model, image)
    mirrored = [
        np.flip(predict_probabilities(model, Volume(np.flip(image.data, axes), image.geometry)), axes)
        for axes in [(), (-2,), (-1,), (-2, -1)]
    ]
    found = predict_doubt(model, image, tta="flips")
    assert np.allclose(found.probability, np.mean(mirrored, axis=0), atol=1e-5)
    assert not np.allclose(found.probability, plain, atol=1e-3)


def test_disagreement_is_not_entropy():
    """Two models that are both undecided agree; two that are sure of opposite things do not."""
    models = [model_of(seed=0), model_of(seed=1)]

    class Sure(torch.nn.Module):
        divisor = 1

        def __init__(self, sign):
            super().__init__()
            self.sign = sign

        def forward(self, x):
            left = torch.arange(x.shape[-1]) < x.shape[-1] // 2
            return 20.0 * self.sign * left.expand(x.shape)  # undecided on the right

    for model, sign in zip(models, (1, -1), strict=True):
        model.net = Sure(sign)
    found = predict_doubt(models, image_of(8, 20))
    assert np.allclose(found.entropy, 1, atol=1e-4)
    assert np.allclose(found.disagreement[:, :10], 1, atol=1e-4)
    assert np.allclose(found.disagreement[:, 10:], 0, atol=1e-4)


def test_entropy_spans_zero_to_one():
    p = np.array([[1, 0.5, 0.25], [0, 0.5, 0.75]], np.float32)[:, None]
    assert entropy(p)[0] == pytest.approx([0, 1, 0.8113], abs=1e-3)
    assert entropy(np.full((5, 2), 0.2)) == pytest.approx(np.ones(2))


def test_dropout_passes_differ_and_repeat():
    model, image = model_of(dropout=0.4), image_of(24, 24)
    sure = predict_doubt(model, image)
    assert sure.disagreement is None
    first, again = (predict_doubt(model, image, dropout_passes=4) for _ in range(2))
    assert first.passes == 4
    assert first.disagreement.max() > 1e-4
    assert np.array_equal(first.probability, again.probability)
    assert np.array_equal(predict_doubt(model, image).probability, sure.probability)  # and it is off again
    assert not any(module.training for module in model.net.modules())


def test_a_net_without_dropout_says_so():
    with pytest.raises(ModelError, match="no dropout"):
        predict_doubt(model_of(), image_of(24, 24), dropout_passes=3)


def test_the_plan_may_ask_for_it():
    model, image = model_of(dropout=0.2), image_of(24, 24)
    model.plan = model.plan.change(inference={"tta": "turns", "dropout_passes": 2})
    assert predict_doubt(model, image).passes == 16
    assert predict_doubt(model, image, tta="none", dropout_passes=0).passes == 1
    assert Ensemble.of([model], True).tta == "turns"


def test_models_of_other_classes_and_none_are_refused():
    with pytest.raises(ModelError, match="cannot be averaged"):
        predict_doubt([model_of(), model_of(classes=("background", "a", "b"))], image_of(8, 8))
    with pytest.raises(ModelError, match="No model"):
        predict_doubt([], image_of(8, 8))


def test_events_count_all_passes_and_a_stop_stops():
    model, image, control = model_of(), image_of(40, 40), Control()
    run = predict_doubt.events(model, image, tta="flips", control=control)
    events = [event for event in run if isinstance(event, TileDone)]
    assert events[-1].done == events[-1].total
    assert [event.done for event in events] == sorted({event.done for event in events})
    control.stop()
    with pytest.raises(Stopped):
        predict_doubt(model, image, control=control)


def test_the_place_in_focus_moves_with_the_image():
    cube = np.zeros((2, 5, 7))
    cube[1, 1, 5] = 1
    for way in symmetries("turns", 3, (1, 1, 1)):
        assert way.apply(cube)[_moved((1, 1, 5), way, cube.shape)] == 1


@pytest.mark.parametrize(("dims", "more"), [(2, {}), (2, {"neighbours": 1}), (3, {})])
def test_one_plane_of_a_volume_is_what_the_volume_says_there(dims, more):
    model, image = model_of(dims, in_channels=3 if more else 1), image_of(7, 24, 30)
    model.plan = model.plan.change(data=more, training={"patch": (8, 24, 24)[-dims:]})
    whole = predict_doubt(model, image, tta="flips")
    for plane in (0, 4):
        found = predict_doubt(model, image, tta="flips", plane=plane)
        assert found.probability.shape == (2, 24, 30)
        assert found.disagreement.shape == (24, 30)
        if dims == 2:
            assert np.allclose(found.probability, whole.probability[:, plane], atol=1e-5)
            assert np.allclose(found.disagreement, whole.disagreement[plane], atol=1e-5)
    with pytest.raises(PlanError, match="no plane 7"):
        predict_doubt(model, image, plane=7)


def test_a_folder_gets_files_of_what_was_averaged(tmp_path):
    write(tmp_path / "a.tif", image_of(30, 30))
    out = tmp_path / "out"
    rows = segment_folder(tmp_path / "a.tif", [model_of()], out, Outputs(True, True, turns=True))
    assert rows[0]["status"] == "done"
    belief = predict_doubt(model_of(), read(tmp_path / "a.tif"), tta="turns")
    assert np.allclose(read(out / "a_prob.tif").data, belief.probability, atol=1e-5)
    assert np.allclose(read(out / "a_uncertainty.tif").data[0], belief.entropy, atol=1e-5)
    assert np.allclose(read(out / "a_disagreement.tif").data[0], belief.disagreement, atol=1e-5)
    segment_folder(tmp_path / "a.tif", model_of(), tmp_path / "plain", Outputs(uncertainty=True))
    assert not (tmp_path / "plain" / "a_disagreement.tif").exists()
