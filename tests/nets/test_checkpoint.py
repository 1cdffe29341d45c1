"""Model folders: whole or not at all, and nothing in them runs."""

from __future__ import annotations

import hashlib
import json
import os
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_unetseg.errors import ModelError, WriteError
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    plan = Plan(net={"name": "unet", "width": 0.1, "norm": "batch"}, data={"normalisation": {"kind": "zscore"}})
    scores = Scores({"cell": 0.8}, {"cell": 0.9}, "2 held-out images", ("a", "b"), 1234, "abc")
    history = [
        {"step": 1, "seconds": 0.5, "loss": 0.7},
        {"step": 2, "seconds": 0.9, "dice cell": 0.9, "jaccard cell": 0.8},
    ]
    return Model(build(plan.net).eval(), plan, ("background", "cell"), scores, history, ("older",), {"steps": 2})


def test_comes_back_as_it_was(model, tmp_path):
    folder = model.save(tmp_path / "m")
    assert sorted(p.name for p in folder.iterdir()) == [
        "curves.png",
        "history.csv",
        "model.json",
        "weights.safetensors",
    ]
    back = Model.load(folder)
    x = torch.randn(1, 1, 33, 20)
    torch.testing.assert_close(back.net(x), model.net(x))
    assert (back.plan, back.classes, back.scores, back.parents) == (model.plan, model.classes, model.scores, ("older",))
    assert back.id == model.id
    assert back.history[1]["dice cell"] == 0.9
    assert back.facts["steps"] == 2


def test_saving_again_replaces_and_leaves_nothing_beside(model, tmp_path):
    model.save(tmp_path / "m")
    model.save(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_another_model_in_the_way_is_kept_under_its_id(model, tmp_path):
    model.save(tmp_path / "m")
    before = model.id
    with torch.no_grad():
        next(model.net.parameters()).add_(1)
    model.save(tmp_path / "m")
    assert Model.load(tmp_path / "m").id == model.id
    assert Model.load(tmp_path / f"m-{before}").id == before


def test_does_not_replace_a_folder_that_is_no_model(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(WriteError, match="not a model folder"):
        model.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").exists()


@pytest.mark.parametrize("piece", ["model.json", "weights.safetensors"])
def test_says_which_piece_is_missing(model, tmp_path, piece):
    folder = model.save(tmp_path / "m")
    (folder / piece).unlink()
    with pytest.raises(ModelError, match=piece):
        Model.load(folder)


@pytest.mark.parametrize("piece", ["model.json", "weights.safetensors"])
def test_says_which_piece_is_damaged(model, tmp_path, piece):
    folder = model.save(tmp_path / "m")
    raw = (folder / piece).read_bytes()
    (folder / piece).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match=piece):
        Model.load(folder)


def test_weights_of_another_model_are_refused(model, tmp_path):
    folder = model.save(tmp_path / "m")
    facts = json.loads((folder / "model.json").read_text())
    facts["plan"]["net"]["width"] = 0.2
    (folder / "model.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="weights"):
        Model.load(folder)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"schema": 99}', '{"plan": {"net": {"name": "nonet"}}, "classes": []}']
)
def test_odd_facts_are_one_line_errors(model, tmp_path, content):
    folder = model.save(tmp_path / "m")
    (folder / "model.json").write_text(content)
    with pytest.raises(ModelError) as caught:
        Model.load(folder)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_old_model(model, tmp_path, monkeypatch):
    folder = model.save(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=r"(?i)space|full"):
        model.save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_weights_that_the_disk_cannot_hold_are_an_error_for_the_user(model, tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(WriteError, match=r"m: File too large\."):
            model.save(tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": None}, "does not describe a model"),
        ({"classes": "ab"}, "do not fit a net with 1 outputs"),
        ({"classes": ["background"]}, "do not fit a net with 1 outputs"),
        ({"parents": 5}, "incomplete"),
    ],
)
def test_odd_values_are_one_line_errors(model, tmp_path, change, message):
    folder = model.save(tmp_path / "m")
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ModelError, match=message):
        Model.load(folder)


@pytest.mark.parametrize("content", [b"step,loss\none,two\n", b"\xff\xfe\x00"])
def test_a_damaged_history_is_named(model, tmp_path, content):
    folder = model.save(tmp_path / "m")
    (folder / "history.csv").write_bytes(content)
    with pytest.raises(ModelError, match=r"history\.csv of m cannot be read"):
        Model.load(folder)


def test_weights_that_are_no_numbers_are_refused(model, tmp_path):
    with torch.no_grad():
        next(model.net.parameters())[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        Model.load(model.save(tmp_path / "m"))


def test_id_follows_the_weights(model):
    before = model.id
    with torch.no_grad():
        next(model.net.parameters()).add_(1)
    assert model.id != before
    assert len(before) == 12
    assert np.all([c in "0123456789abcdef" for c in before])


def as_an_earlier_version_wrote_it(folder):
    """A net with the instant model beside it, from before it had an offset, and its plan a margin."""
    plan = Plan(net={"width": 0.1, "parts": {"instant": (1, 1)}}, data={"normalisation": {"kind": "zscore"}})
    made = Model(build(plan.net).eval(), plan, ("background", "cell"))
    made.save(folder)
    weights = load_file(folder / "weights.safetensors")
    del weights["net.offset"]
    save_file(weights, folder / "weights.safetensors")
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    facts = json.loads((folder / "model.json").read_text())
    facts["id"] = digest.hexdigest()[:12]
    facts["weights_sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    del facts["plan"]["inference"]["margin"], facts["plan"]["training"]["teacher"]
    (folder / "model.json").write_text(json.dumps(facts))
    return facts["id"], made


def test_the_id_that_an_earlier_version_gave_stays(tmp_path):
    given, made = as_an_earlier_version_wrote_it(tmp_path / "m")
    back = Model.load(tmp_path / "m")
    assert back.id == given != made.id
    assert Model.load(back.save(tmp_path / "copy")).id == given
    assert back.plan.deciding() == made.plan.deciding()
    assert back.plan.change(inference={"margin": 3}).deciding() != made.plan.deciding()
    with torch.no_grad():
        next(back.net.parameters()).add_(1)
    assert back.id not in (given, made.id)


def test_an_id_that_nothing_ties_to_the_weights_is_not_believed(model, tmp_path):
    folder = model.save(tmp_path / "m")
    facts = json.loads((folder / "model.json").read_text())
    for changes in ({"id": "0" * 12, "weights_sha256": None}, {"id": "../../elsewhere"}):
        (folder / "model.json").write_text(json.dumps({**facts, **changes}))
        assert Model.load(folder).id == model.id
