"""From file to mask in a fixed memory, stopped and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unetseg.errors import ModelError, OutOfMemory, Stopped
from napari_unetseg.events import Control, Note, Started, TileDone
from napari_unetseg.inference import Ensemble, predict_doubt
from napari_unetseg.inference.disk import _sheets, fits_in_memory, predict_file
from napari_unetseg.inference.ledger import Ledger
from napari_unetseg.inference.looks import LAYERS, Looks
from napari_unetseg.inference.memory import used_memory
from napari_unetseg.inference.sliding import predict
from napari_unetseg.inference.streaming import Sheets
from napari_unetseg.io import open_lazy, read, read_labels, write
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Geometry, Volume


def model(dims: int = 2, seed: int = 0, **sections) -> Model:
    torch.manual_seed(seed)
    plan = Plan(
        net={"dims": dims, "width": 0.1, "depth": 2, "norm": "instance"},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (16,) * dims, "device": "cpu", "precision": "float32"},
        inference={"tile": (16,) * dims, "margin": 4},
    )
    plan = plan.change(**sections)
    return Model(build(plan.net).eval(), plan, ("background", "cell"))


def scan(path: Path, shape=(9, 40, 50)) -> Path:
    values = np.random.default_rng(0).integers(0, 60000, (1, *shape)).astype(np.uint16)
    return write(path, Volume(values, Geometry((3.0, 1.0, 0.5)[-len(shape) :], "mm")))


@pytest.mark.parametrize(
    ("dims", "suffix", "shape"), [(2, ".tif", (70, 90)), (3, ".nii", (9, 40, 50)), (2, ".nii.gz", (3, 40, 50))]
)
def test_the_mask_is_the_one_made_in_memory(tmp_path, dims, suffix, shape):
    image = scan(tmp_path / f"scan{suffix}", shape)
    out = predict_file(model(dims), image, tmp_path / f"mask{suffix}")
    truth, mask = predict(model(dims), read(image)), read_labels(out)
    np.testing.assert_array_equal(mask.data, truth.data)
    assert mask.geometry.matches(read(image).geometry)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([image.name, out.name])


def test_post_processing_is_done_where_it_fits_and_refused_before_the_work_where_not(tmp_path):
    image = scan(tmp_path / "scan.tif", (70, 90))
    with_step = model(post={"steps": (("largest-component", {}),)})
    out = predict_file(with_step, image, tmp_path / "mask.tif")
    np.testing.assert_array_equal(read_labels(out).data, predict(with_step, read(image)).data)
    with pytest.raises(OutOfMemory, match="post-processing"):
        predict_file(with_step, image, tmp_path / "other.tif", memory=(used_memory() or 0) + 1000)


def stopped_half_way(net: Model, image: Path, out: Path, **options) -> int:
    control, seen = Control(), 0
    run = predict_file.events(net, image, out, control=control, **options)
    with contextlib.suppress(Stopped):
        for event in run:
            if isinstance(event, TileDone):
                seen = event.done
                if event.done > event.total // 2:
                    control.stop()
    assert not out.exists()
    return seen


def test_goes_on_where_it_was_stopped(tmp_path):
    image, out = scan(tmp_path / "scan.nii", (40, 40, 50)), tmp_path / "mask.nii"
    net = model(3)
    seen = stopped_half_way(net, image, out)
    ledger = tmp_path / ".mask.nii.part.jsonl"
    with ledger.open("a") as file:
        file.write("[0, 0, 9")  # a kill in the middle of a line
    events = list(predict_file.events(net, image, out))
    assert any(isinstance(event, Note) and "goes on from" in event.text for event in events)
    total = next(event.total for event in events if isinstance(event, TileDone))
    again = list(predict_file.events(net, image, tmp_path / "whole.nii"))
    whole = next(event.total for event in again if isinstance(event, TileDone))
    assert total < whole
    assert total + seen <= whole * 1.5  # a row of tiles is done again, to fill the band
    np.testing.assert_array_equal(read_labels(out).data, read_labels(tmp_path / "whole.nii").data)
    assert not ledger.exists()


def test_goes_on_with_the_strips_that_were_begun_whatever_memory_is_free_now(tmp_path, monkeypatch):
    image, out, net = scan(tmp_path / "scan.tif", (90, 130)), tmp_path / "mask.tif", model()
    with monkeypatch.context() as busy:
        busy.setattr(Sheets, "of", lambda looks, source, budget: Sheets.divided(looks, source, 3, torch.float32))
        stopped_half_way(net, image, out)
    events = list(predict_file.events(net, image, out))
    assert events[0].notes[0].startswith("scan.tif: 3 strips")
    assert any(isinstance(event, Note) and "goes on from" in event.text for event in events)
    whole = predict_file(net, image, tmp_path / "whole.tif")
    np.testing.assert_array_equal(read_labels(out).data, read_labels(whole).data)


def test_strips_that_need_more_than_may_be_held_are_not_gone_on_with(tmp_path):
    image, net = open_lazy(scan(tmp_path / "scan.tif", (90, 130))), model()
    looks = Looks.of(Ensemble.of([net]), {net.plan.normalisation: None}, (1.0, 1.0), {})
    one, three = (Sheets.divided(looks, image, number, torch.float32) for number in (1, 3))

    def begun(strips, most):
        ledger = Ledger(tmp_path / "mask.tif", "recipe", {(0, 0, 0)}, strips)
        sheets = _sheets(ledger, looks, image, three.nbytes, most)
        assert ledger.strips[0] == len(sheets.strips)
        return bool(ledger.done), sheets.strips == one.strips

    assert begun((1, "float32"), one.nbytes) == (True, True)
    assert begun((1, "float32"), one.nbytes - 1) == (False, False)
    assert begun((-1, "float32"), one.nbytes) == begun((1, "pickle"), one.nbytes) == (False, False)


def test_layers_go_on_too_and_not_from_labels_alone(tmp_path):
    image, out = scan(tmp_path / "scan.nii", (40, 40, 50)), tmp_path / "mask.nii"
    net, layer = model(3), {"entropy": tmp_path / "entropy.nii"}
    stopped_half_way(net, image, out, layers=layer)
    events = list(predict_file.events(net, image, out, layers=layer))
    assert any(isinstance(event, Note) for event in events)
    once = {"entropy": tmp_path / "once.nii"}
    predict_file(net, image, tmp_path / "other.nii", layers=once)
    np.testing.assert_array_equal(read(layer["entropy"]).data, read(once["entropy"]).data)
    stopped_half_way(net, image, tmp_path / "plain.nii")
    events = list(predict_file.events(net, image, tmp_path / "plain.nii", layers=layer))
    assert not any(isinstance(event, Note) for event in events)


@pytest.mark.parametrize("change", ["model", "image"])
def test_what_another_recipe_left_is_not_used(tmp_path, change):
    image, out = scan(tmp_path / "scan.nii", (40, 40, 50)), tmp_path / "mask.nii"
    stopped_half_way(model(3), image, out)
    net = model(3, seed=1) if change == "model" else model(3)
    if change == "image":
        write(image, Volume(read(image).data[:, ::-1].copy(), read(image).geometry))
    assert not any(isinstance(event, Note) for event in predict_file.events(net, image, out))
    np.testing.assert_array_equal(read_labels(out).data, predict(net, read(image)).data)


def test_a_ceiling_below_one_strip_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(OutOfMemory, match="MiB short"):
        predict_file(model(), scan(tmp_path / "scan.tif", (70, 90)), tmp_path / "mask.tif", memory=2**20)


def test_an_image_that_does_not_fit_the_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="2D"):
        predict_file(model(3), scan(tmp_path / "scan.tif", (70, 90)), tmp_path / "mask.tif")


def test_whether_it_fits_depends_on_the_ceiling(tmp_path):
    image = open_lazy(scan(tmp_path / "scan.tif", (700, 900)))
    assert fits_in_memory(image, model().plan)
    assert not fits_in_memory(image, model().plan, (used_memory() or 0) + 2**20)


FLOATS = ("probability.tif", "entropy.tif", "disagreement.tif")


@pytest.mark.parametrize(("dims", "shape"), [(2, (40, 50)), (2, (3, 20, 30)), (3, (9, 20, 30))])
def test_averages_and_layers_are_those_made_in_memory(tmp_path, dims, shape):
    """Two models, each with its own normalisation, mirrored and turned, in one tile as large as the image."""
    suffix = ".tif" if len(shape) == 2 else ".nii"
    image = scan(tmp_path / f"scan{suffix}", shape)
    whole = {"tile": (64,) * dims, "margin": 0}
    models = [model(dims, seed, inference=whole, net={"outputs": 3}) for seed in (0, 1)]
    models[1].plan = models[1].plan.change(data={"normalisation": {"kind": "ct", "low": 0, "high": 60000}})
    for one in models:
        one.classes = ("background", "cell", "wall")
    names = {layer: tmp_path / f"{layer}{suffix}" for layer in LAYERS}
    averaged = Ensemble.of(models, tta="turns")
    out = predict_file(averaged, image, tmp_path / f"mask{suffix}", layers=names)
    truth = predict_doubt(models, read(image), tta="turns")
    best = np.sort(truth.probability, axis=0)
    sure = best[-1] - best[-2] > 1e-4
    assert (read_labels(out).data == truth.mask())[sure].all()
    for layer in LAYERS:
        found, wanted = read(names[layer]).data / 255, getattr(truth, layer)
        assert np.abs(found - wanted).max() < 0.003, layer
    assert truth.disagreement.max() > 0.05
    assert sorted(p.stem for p in tmp_path.iterdir()) == sorted(["mask", "scan", *LAYERS])


def test_tiles_are_blended_as_those_of_every_pass_in_memory(tmp_path):
    image, net = scan(tmp_path / "scan.tif", (70, 90)), model(net={"dropout": 0.4})
    names = {"entropy": tmp_path / "entropy.tif", "probability": tmp_path / "probability.tif"}
    predict_file(Ensemble.of([net], tta="flips"), image, tmp_path / "mask.tif", layers=names)
    truth = predict_doubt(net, read(image), tta="flips")
    assert np.abs(read(names["probability"]).data / 255 - truth.probability).max() < 0.02  # tiles lie a voxel apart
    plain = tmp_path / "plain.tif"
    predict_file(Ensemble.of([net]), image, tmp_path / "mask.tif", layers={"probability": plain, "disagreement": plain})
    assert np.abs(read(plain).data / 255 - truth.probability).max() > 0.02
    dropped = tmp_path / "dropped.tif"
    passes = Ensemble.of([net], dropout_passes=3)
    predict_file(passes, image, tmp_path / "mask.tif", layers={"disagreement": dropped})
    first = read(dropped).data
    assert first.max() > 2
    predict_file(passes, image, tmp_path / "mask.tif", layers={"disagreement": dropped})
    np.testing.assert_array_equal(read(dropped).data, first)


def test_models_that_see_different_things_are_not_averaged(tmp_path):
    image = scan(tmp_path / "scan.nii", (9, 40, 50))
    with pytest.raises(ModelError, match="are not averaged"):
        predict_file(Ensemble.of([model(2), model(3)]), image, tmp_path / "mask.nii")


LIMITED = """
import json, resource, sys
import numpy as np, tifffile
from napari_unetseg.inference import Ensemble
from napari_unetseg.inference import Ensemble, predict_doubt
from napari_unetseg.inference.disk import predict_file
from napari_unetseg.inference.memory import used_memory, watched
from napari_unetseg.io import tiff
from napari_unetseg.nets import Model

model, image, out, *layers = sys.argv[1:]
ceiling = used_memory() + 128 * 2**20  # torch's own size counts
shape = (8, int(4.05 * ceiling / (8 * 8 * 4096)), 4096)
# a file with holes: only what is written takes space, and the rest is one value, as the glass of a slide is
slide = tifffile.memmap(image, shape=shape, dtype=np.float64, photometric="minisblack", metadata={"axes": "CYX"})
slide[:, 3000:3400, 2000:2600] = np.random.default_rng(0).normal(size=(8, 400, 600))
del slide
# the kernel refuses what goes beyond; it also counts what is reserved and never touched, such as stacks of threads
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
untouched = int(status["VmData"].split()[0]) * 1024 - used_memory() + 128 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (ceiling + untouched,) * 2)
with watched() as peak:
    averaged = Ensemble.of([Model.load(model)], tta="flips" if layers else "none")
    names = dict(zip(("probability", "entropy", "disagreement"), layers))
    predict_file(averaged, image, out, layers=names, memory=ceiling)
print(json.dumps({"peak": peak.bytes, "ceiling": ceiling, "shape": shape}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux enforces such a limit")
def test_averages_and_doubt_of_an_image_four_times_larger_than_the_ceiling_under_an_enforced_limit(tmp_path):
    net = model(net={"in_channels": 8, "norm": "none"}, inference={"tile": (256, 256)})
    net.save(tmp_path / "model")
    words = [str(tmp_path / name) for name in ("model", "slide.tif", "mask.tif", *FLOATS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert (tmp_path / "slide.tif").stat().st_size > 4 * said["ceiling"]
    assert said["peak"] < said["ceiling"]
    mask = read_labels(tmp_path / "mask.tif").data
    assert mask.shape == tuple(said["shape"][1:])
    assert len(np.unique(mask[3000:3400, 2000:2600])) == 2
    probability, _, disagreement = (open_lazy(tmp_path / name) for name in FLOATS)
    assert probability.shape == (2, *mask.shape)
    tissue = np.s_[:, 3000:3400, 2000:2600]
    assert abs(probability[tissue].astype(int).sum(axis=0) - 255).max() <= 1
    assert disagreement[tissue].any()
    (tmp_path / "slide.tif").unlink()


def test_the_first_event_says_what_will_be_used(tmp_path):
    first = next(predict_file.events(model(), scan(tmp_path / "scan.tif", (70, 90)), tmp_path / "mask.tif"))
    assert isinstance(first, Started)
    assert "strip" in first.notes[0]
