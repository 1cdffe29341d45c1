"""The command line as a newcomer meets it: options, outputs and exit codes of the design."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny import folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.volume import LabelVolume, Volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("blobs"), number=3)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    small = nus.Plan(
        net={"width": 0.1}, training={"patch": (32, 32), "batch_size": 2, "steps_per_epoch": 4, "device": "cpu"}
    )
    path.write_text(small.to_json(complete=False))
    return path


def test_train_segment_score(cli, folder, plan, tmp_path):
    code, out, err = cli(
        "train", folder, "-o", tmp_path / "m", "--epochs", 6, "--plan", plan, "--net", "unet", "--seed", 1
    )
    assert code == 0
    assert "held-out image" in out
    assert "step" in err or "s  Dice" in err
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "curves.png",
        "history.csv",
        "model.json",
        "weights.safetensors",
    ]

    code, out, _ = cli("segment", folder / "images", "-m", tmp_path / "m", "-o", tmp_path / "out")
    assert (code, out.startswith("3 of 3 files segmented")) == (0, True)
    with (tmp_path / "out" / "table.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 3

    code, out, _ = cli("score", tmp_path / "out", folder / "labels", "--json")
    result = json.loads(out)
    assert code == 0
    assert set(result) == {"cases", "mean"}
    assert {"jaccard", "dice", "hausdorff", "hausdorff95", "assd", "rvd"} <= set(next(iter(result["mean"].values())))
    assert len(result["cases"]) == 3


def test_scores_are_in_the_files_units(cli, tmp_path):
    one, other = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.uint8)
    one[2:6, 2:6], other[2:6, 4:9] = 1, 1
    nus.write(tmp_path / "a.png", LabelVolume(other))
    nus.write(tmp_path / "b.png", LabelVolume(255 * one))
    code, out, _ = cli("score", tmp_path / "a.png", tmp_path / "b.png", "--json", "--spacing", "2,2")
    row = next(iter(json.loads(out)["mean"].values()))
    assert code == 0
    assert row["dice"] == pytest.approx(0.444444, abs=1e-5)
    assert row["hausdorff"] == pytest.approx(6.0)
    assert row["assd"] == pytest.approx(2 * 1.230769, abs=1e-5)
    assert row["rvd"] == pytest.approx(25.0)


def test_membranes_adds_the_em_scores(cli, tmp_path):
    cells = np.ones((9, 9), np.uint8)
    cells[:, 4] = 0
    nus.write(tmp_path / "a.png", LabelVolume(cells))
    code, out, _ = cli("score", tmp_path / "a.png", tmp_path / "a.png", "--json", "--membranes")
    row = next(iter(json.loads(out)["mean"].values()))
    assert (code, row["v_rand"], row["v_info"]) == (0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("words", "kind", "count"),
    [
        (("unet", "--in-channels", 1, "--outputs", 1, "--dims", 2), "trainable", 7_759_521),
        (("unet3d", "--in-channels", 4, "--outputs", 1, "--dims", 3), "total", 19_078_593),
        (("multiresunet", "--in-channels", 3), "total", 7_262_750),
    ],
)
def test_nets_counts(cli, words, kind, count):
    code, out, _ = cli("nets", *words, "--json")
    (net,) = json.loads(out)
    assert (code, net["parameters"][kind]) == (0, count)
    assert {
        "name",
        "title",
        "family",
        "dims",
        "in_channels",
        "outputs",
        "parameters",
        "divisor",
        "pretrained",
        "paper",
    } <= set(net)


def test_nets_lists_all_with_their_papers(cli):
    code, out, _ = cli("nets")
    assert code == 0
    for name in ("unet", "unet3d", "multiresunet", "mildnet", "fcn-fcresnet"):
        assert name in out


def test_doctor_says_what_will_be_used(cli):
    code, out, _ = cli("doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["device"] in ("cpu", "mps") or facts["device"].startswith("cuda")
    assert facts["why"]
    assert [extra.split()[0] for extra in facts["extras"]] == ["app", "dicom", "cluster", "export"]


def bad(folder, tmp_path):
    """Commands that cannot be carried out, and a word of the message they must give."""
    nus.write(tmp_path / "small.png", LabelVolume(np.eye(5, 9, dtype=np.uint8)))
    nus.write(tmp_path / "large.png", Volume(np.ones((1, 9, 9), np.uint8)))
    (tmp_path / "empty").mkdir(exist_ok=True)
    (tmp_path / "cut.tif").write_bytes((folder / "images" / "case0.tif").read_bytes()[:50])
    (tmp_path / "plan.json").write_text('{"training": {"lr": 1}}')
    model = tmp_path / "m"
    model.mkdir(exist_ok=True)
    (model / "model.json").write_text("{}")
    return {
        ("train", tmp_path / "nowhere"): "nowhere",
        ("train", tmp_path / "empty"): "empty",
        ("train",): "No data",
        ("train", folder, "--net", "unett"): "unet",
        ("train", folder, "--dims", 3): "3D",
        ("train", folder, "--plan", tmp_path / "plan.json"): "lr",
        ("train", folder, "--device", "gpu9"): "gpu9",
        ("train", folder, "--protocol", "multiresunett"): "multiresunet",
        ("train", folder, "--protocol", "multiresunet-3d"): "3D",
        ("train", folder, "--from", tmp_path / "nowhere"): "nowhere",
        ("train", folder, "-o", folder): "not a model folder",
        ("train", folder, "--minutes", 1, "--epochs", 1): "--epochs",
        ("train", "--image", tmp_path / "large.png", "--label", tmp_path / "small.png"): "(5, 9)",
        ("train", "--image", tmp_path / "cut.tif", "--label", tmp_path / "cut.tif"): "cut.tif",
        ("train", "--image", tmp_path / "large.png"): "--label",
        ("segment", tmp_path / "nowhere", "-m", model, "-o", tmp_path / "o"): "weights.safetensors",
        ("segment", folder, "-m", tmp_path / "empty", "-o", tmp_path / "o"): "model.json",
        ("score", tmp_path / "small.png", tmp_path / "large.png"): "shape",
        ("score", tmp_path / "small.png", tmp_path): "folder",
        ("score", tmp_path / "small.png", tmp_path / "small.png", "--spacing", "a"): "--spacing",
        ("nets", "unett"): "Did you mean",
        ("nets", "ternausnet16", "--dims", 3): "3D",
    }  # fmt: skip


def test_bad_input_is_two_lines_and_exit_code_2(cli, folder, tmp_path):
    for words, expected in bad(folder, tmp_path).items():
        code, out, err = cli(*words, *(() if words[0] != "train" or "-o" in words else ("-o", tmp_path / "new")))
        message = err[err.index("Error:") :] if "Error:" in err else err
        assert code == 2, (words, err)
        assert expected in message, (words, err)
        assert "Traceback" not in err, words
        assert len(message.strip().splitlines()) <= 2, (words, message)
        assert not out, words
    assert not (tmp_path / "new").exists()


def test_one_failed_file_is_exit_code_1(cli, folder, plan, tmp_path):
    cli("train", folder, "-o", tmp_path / "m", "--epochs", 1, "--plan", plan)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "bad.png").write_bytes(b"no")
    (tmp_path / "scans" / "good.tif").write_bytes((folder / "images" / "case0.tif").read_bytes())
    code, out, err = cli("segment", tmp_path / "scans", "-m", tmp_path / "m", "-o", tmp_path / "out")
    assert code == 1
    assert "1 of 2" in out
    assert "bad.png: failed" in err


def test_nothing_but_failed_files_is_exit_code_2(cli, folder, plan, tmp_path):
    cli("train", folder, "-o", tmp_path / "m", "--epochs", 1, "--plan", plan)
    (tmp_path / "bad.png").write_bytes(b"no")
    code, _, err = cli("segment", tmp_path / "bad.png", "-m", tmp_path / "m", "-o", tmp_path / "out")
    assert code == 2
    assert "bad.png: failed - bad.png is not a PNG" in err


def test_help_needs_no_torch():
    words = "import sys; sys.argv = ['x', '--help']; from napari_unetseg.cli import main\n"
    words += "try: main()\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", words + "assert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    for command in ("demo", "nets", "train", "segment", "score", "doctor"):
        assert command in done.stdout
