"""Export: what onnxruntime says about other images and sizes is what the model says; and both new commands."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys

import numpy as np
import pytest
import torch
from tiny import folder_of_blobs

from napari_unetseg.errors import ModelError, UnetSegError, WriteError
from napari_unetseg.export import export_onnx
from napari_unetseg.inference import predict_probabilities
from napari_unetseg.inference.sliding import prepared_image
from napari_unetseg.instant import fit_instant
from napari_unetseg.io import read
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.scores import Scores
from napari_unetseg.volume import Volume


def model_of(dims=2, classes=("background", "cell"), channels=1, **more):
    torch.manual_seed(0)
    outputs = 1 if len(classes) == 2 else len(classes)
    spec = NetSpec(name="unet", dims=dims, in_channels=channels, outputs=outputs, width=0.1, depth=3, **more)
    plan = Plan(net=spec, training={"device": "cpu"}).change(data={"normalisation": {"kind": "zscore"}})
    return Model(build(spec).eval(), plan, classes, Scores({"cell": 0.5}, {"cell": 0.6}, "2 held-out images"))


@pytest.mark.parametrize(
    ("dims", "classes", "channels", "norm"),
    [
        (2, ("background", "cell"), 1, "paper"),
        (2, ("background", "a", "b"), 3, "instance"),
        (3, ("no", "yes"), 1, "batch"),
    ],
)
def test_other_programs_get_the_same_probabilities(tmp_path, dims, classes, channels, norm):
    """Of an image of a size never seen by the exporter, through nothing but onnxruntime and the JSON."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(dims, classes, channels, norm=norm)
    done = export_onnx(model, tmp_path / "out")
    assert done.difference < 1e-4
    facts = json.loads(done.description.read_text())
    assert facts["classes"] == list(classes)
    assert facts["model"] == model.id
    assert facts["input"]["normalisation"]["kind"] == "zscore"
    assert facts["checked"]["largest_difference"] == done.difference
    assert Plan.from_json(json.dumps(facts["plan"])) == model.plan
    size = [facts["input"]["sizes_are_multiples_of"] * n for n in (7, 5, 4)[-dims:]]
    image = Volume(np.random.default_rng(0).normal(size=(channels, *size)).astype(np.float32))
    session = onnxruntime.InferenceSession(done.file, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {facts["input"]["name"]: prepared_image(model, image)[None]})[0]
    bare = dataclasses.replace(model, plan=model.plan.change(inference={"margin": 0}))
    assert np.allclose(theirs[0], predict_probabilities(bare, image), atol=2e-2)  # the model may run in bfloat16
    with torch.no_grad():
        mine = model.net(torch.from_numpy(prepared_image(model, image))[None]).softmax(1)
    if len(classes) > 2:
        assert np.allclose(theirs, mine.numpy(), atol=1e-4)
    assert np.allclose(theirs.sum(axis=1), 1, atol=1e-5)


def test_the_instant_model_too(tmp_path):
    pytest.importorskip("onnxruntime")
    model = fit_instant(folder_of_blobs(tmp_path / "data", 3, (40, 40)))
    done = export_onnx(model, tmp_path / "instant.onnx")
    assert done.file == tmp_path / "instant.onnx"
    assert done.description == tmp_path / "instant.json"
    assert done.difference < 1e-4


def test_a_wrong_net_is_not_written(tmp_path, monkeypatch):
    """The comparison is real: a file that says something else is refused, and nothing is left behind."""
    pytest.importorskip("onnxruntime")
    export = importlib.import_module("napari_unetseg.export")
    whole = export._to_onnx

    def damaged(net, image, divisor, file):
        with torch.no_grad():
            net.net.head.bias += 0.1
            whole(net, image, divisor, file)
            net.net.head.bias -= 0.1

    monkeypatch.setattr(export, "_to_onnx", damaged)
    with pytest.raises(ModelError, match="differs"):
        export_onnx(model_of(), tmp_path / "out")
    assert not list(tmp_path.rglob("*.onnx"))


def test_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)  # import then fails as if it were not installed
    with pytest.raises(UnetSegError, match="onnx is not installed") as caught:
        export_onnx(model_of(), tmp_path / "out")
    assert "napari-unetseg[export]" in caught.value.hint


def test_a_place_that_cannot_be_written(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        export_onnx(model_of(), tmp_path / "file" / "model.onnx")


def test_commands(tmp_path, cli):
    pytest.importorskip("onnxruntime")
    data = folder_of_blobs(tmp_path / "data", 1, (40, 48))
    model_of().save(tmp_path / "model")
    code, out, _ = cli("export", tmp_path / "model", "--to", "onnx", "-o", tmp_path / "onnx", "--json")
    assert code == 0
    assert json.loads(out)["largest_difference"] < 1e-4
    assert (tmp_path / "onnx" / "model.onnx").exists()
    code, _, said = cli("export", tmp_path / "model", "--to", "bioimageio", "-o", tmp_path / "other")
    assert code == 2
    assert "onnx" in said
    image = data / "images" / "case0.tif"
    for method, maps in (("saliency", 1), ("gradcam", 2), ("decoder-saliency", 1)):
        code, out, _ = cli("explain", image, "-m", tmp_path / "model", "-o", tmp_path / "why", "--method", method)
        assert code == 0
        assert "Bright where" in out
        found = read(tmp_path / "why" / f"case0_{method}.tif")
        assert found.data.shape == (maps, 40, 48)
        assert found.geometry.matches(read(image).geometry)
        assert 0 <= found.data.min() < found.data.max() <= 1
        assert (tmp_path / "why" / f"case0_{method}.png").stat().st_size > 1000
    wrong = (("--method", "magic"), ("--class", "liver"), ("--class", "7"), ("--plane", "0"))
    for words in wrong:
        code, _, said = cli("explain", image, "-m", tmp_path / "model", "-o", tmp_path / "no", *words)
        assert code == 2, words
        assert "Error: " in said
    assert not (tmp_path / "no").exists()
