"""The instant model: features against scipy, learned from few strokes, a Model like any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny import blobs, folder_of_blobs

from napari_unetseg.batch import segment_folder
from napari_unetseg.data.annotator import scribble
from napari_unetseg.errors import AnnotationError, PlanError, Stopped
from napari_unetseg.events import Control, Running, StepDone, Validated
from napari_unetseg.inference import predict
from napari_unetseg.instant import _RATE, _STEPS, _descent, fit_instant
from napari_unetseg.io import read, read_labels, write
from napari_unetseg.metrics import dice
from napari_unetseg.nets import NETS, Model, build
from napari_unetseg.nets.instant import SIGMAS, Features, _eigenvalues
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.registry import Registry
from napari_unetseg.volume import Geometry, LabelVolume, Volume


def scribbled_folder(folder, number=4, shape=(64, 64), classes=2, channels=1):
    """Like `folder_of_blobs`, with annotations of about 4 % in place of masks; returns the truths."""
    truths = []
    geometry = Geometry((1.0,) * len(shape), "um")
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(number):
        image, mask = blobs(shape, index, classes, noise=0.3)
        data = np.stack([image, *np.random.default_rng(index).normal(size=(channels - 1, *shape))])
        strokes = scribble(mask, classes, np.random.default_rng(index), 0.04)
        write(folder / "images" / f"case{index}.tif", Volume((1000 * data + 2000).clip(0).astype(np.uint16), geometry))
        write(folder / "labels" / f"case{index}.tif", LabelVolume(strokes, geometry))
        truths.append(mask)
    return truths


ANNOTATED = Plan().change(data={"labels": "annotation"})


def test_hidden_from_lists_but_there_by_name():
    things = Registry("thing")
    things.register("seen")(1)
    things.register("unseen", hidden=True)(2)
    assert list(things) == things.names() == ["seen"]
    assert len(things) == 1
    assert things["unseen"] == 2
    assert things.names("unseen") == ["unseen"]
    assert "instant" not in list(NETS)
    assert "instant" in NETS


@pytest.mark.parametrize(("dims", "size"), [(2, (37, 50)), (2, (1, 3)), (3, (9, 21, 17)), (3, (1, 20, 20))])
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 4), (20, 1)])
def test_any_size_any_channels(dims, size, channels, outputs):
    net = build(NetSpec(name="instant", dims=dims, in_channels=channels, outputs=outputs))
    logits = net(torch.randn(2, channels, *size))
    assert logits.shape == (2, outputs, *size)
    assert logits.isfinite().all()


def test_features_are_those_of_scipy():
    """The two finest scales, which are not pooled, hold the same numbers as Gaussian derivatives by scipy."""
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    found = Features(2, 1)(torch.from_numpy(image)[None, None])[0].numpy()
    assert np.array_equal(found[0], image)
    for scale, sigma in enumerate(SIGMAS[:2]):
        smooth = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0)
        y, x = (sigma * np.gradient(smooth, axis=axis) for axis in (0, 1))
        square = ndimage.gaussian_filter(image * image, sigma, mode="nearest", truncate=3.0)
        mine = found[1 + 5 * scale : 6 + 5 * scale, 3:-3, 3:-3]
        assert np.allclose(mine[0], smooth[3:-3, 3:-3], atol=1e-4)
        assert np.allclose(mine[1], np.hypot(y, x)[3:-3, 3:-3], atol=2e-3)
        assert np.allclose(mine[2], np.sqrt(square - smooth**2)[3:-3, 3:-3], atol=1e-3)
        laplace = sigma**2 * ndimage.laplace(smooth, mode="nearest")
        assert np.allclose(mine[3] + mine[4], laplace[3:-3, 3:-3], atol=1e-3)
        assert (mine[3] >= mine[4]).all()


def test_pooled_scales_come_near_the_full_ones():
    image = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(192, 192)), 3).astype(np.float32)
    found = Features(2, 1)(torch.from_numpy(image)[None, None])[0].numpy()
    for scale, sigma in enumerate(SIGMAS):
        full = ndimage.gaussian_filter(image, sigma, mode="nearest")
        inside = slice(64, 128)  # borders may be continued otherwise
        difference = (found[1 + 5 * scale] - full)[inside, inside]
        assert np.abs(difference).max() < 0.06 * image.std()


def test_eigenvalues_in_three_dimensions():
    matrices = torch.randn(40, 3, 3, generator=torch.Generator().manual_seed(0))
    matrices = matrices + matrices.mT
    entries = {(i, j): matrices[:, i, j].reshape(-1, 1, 1, 1, 1) for i in range(3) for j in range(i, 3)}
    assert torch.allclose(_eigenvalues(entries, 3).reshape(40, 3), torch.linalg.eigvalsh(matrices).flip(1), atol=1e-2)


def test_thick_planes_are_smoothed_less():
    """A bright plane spreads over fewer planes when these lie further apart."""
    image = torch.zeros(1, 1, 16, 16, 16)
    image[:, :, 8] = 1
    near, far = Features(3, 1)(image), Features(3, 1, anisotropy=4)(image)
    assert far[0, 1, 8, 8, 8] > near[0, 1, 8, 8, 8] + 0.3


@pytest.mark.parametrize(
    ("shape", "classes", "channels", "least"),
    [((64, 64), 2, 1, 0.85), ((64, 64), 3, 9, 0.6), ((16, 32, 32), 2, 1, 0.7)],
)
def test_learns_from_few_strokes(tmp_path, shape, classes, channels, least):
    """What it says about an image it never saw is near the truth; the score says on what it was measured."""
    scribbled_folder(tmp_path / "data", 4, shape, classes, channels)
    model = fit_instant(tmp_path / "data", ANNOTATED)
    assert model.plan.net.name == "instant"
    assert model.plan.net.dims == len(shape)
    assert "held-out" in model.scores.rule
    image, truth = blobs(shape, 77, classes, noise=0.3)
    data = np.stack([image, *np.random.default_rng(7).normal(size=(channels - 1, *shape))])
    mask = predict(model, Volume((1000 * data + 2000).astype(np.float32), Geometry((1.0,) * len(shape), "um")))
    for label in range(1, classes):
        assert dice(mask.data == label, truth == label) > least


def test_a_model_like_any_other(tmp_path):
    """Saved without a pickle, loaded, the same masks from a folder as from memory."""
    folder_of_blobs(tmp_path / "data")
    run = Running(fit_instant.events(tmp_path / "data"))
    seen = list(run)
    model = run.result
    assert any(isinstance(event, StepDone) for event in seen)
    assert isinstance(seen[-1], Validated)
    assert model.scores.model == model.id
    model.save(tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".safetensors", ".json", ".csv", ".png"}
    again = Model.load(tmp_path / "model")
    assert again.id == model.id
    assert again.plan == model.plan
    rows = segment_folder(tmp_path / "data" / "images", tmp_path / "model", tmp_path / "out")
    assert {row["status"] for row in rows} == {"done"}
    direct = predict(model, read(tmp_path / "data" / "images" / "case0.tif"))
    assert np.array_equal(read_labels(tmp_path / "out" / rows[0]["mask"]).data, direct.data)


def test_the_same_seed_gives_the_same_model(tmp_path):
    folder_of_blobs(tmp_path, 3, (40, 40))
    assert fit_instant(tmp_path).id == fit_instant(tmp_path).id


def test_bad_strokes_and_stopping(tmp_path):
    folder_of_blobs(tmp_path / "data")
    control = Control()
    control.stop()
    with pytest.raises(Stopped):
        fit_instant(tmp_path / "data", control=control)
    with pytest.raises(PlanError):
        fit_instant(tmp_path / "data", Plan().change(net={"dims": 3}))
    for path in (tmp_path / "data" / "labels").iterdir():
        write(path, LabelVolume(np.pad(np.ones((4, 4), np.uint8), ((0, 60), (0, 60)))))
    with pytest.raises(AnnotationError):
        fit_instant(tmp_path / "data", Plan().change(data={"labels": "annotation", "heldout": 0}))


def test_its_steps_are_those_of_adamw_with_one_cycle():
    torch.manual_seed(0)
    inputs, wanted, start = torch.randn(20, 3), torch.randn(20), torch.randn(3)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    descend = _descent([ours])
    optimiser = torch.optim.AdamW([theirs], _RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, _STEPS)
    for step in range(1, _STEPS + 1):
        descend((inputs @ ours - wanted).square().mean(), step)
        optimiser.zero_grad()
        (inputs @ theirs - wanted).square().mean().backward()
        optimiser.step()
        schedule.step()
        torch.testing.assert_close(ours, theirs)
