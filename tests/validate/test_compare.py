"""Comparing nets: same folds, nothing chosen on what is scored, resumable, one failing net is a row."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from scipy import stats
from tiny import blobs, folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.data import load_dataset
from napari_unetseg.errors import PlanError, Stopped, UnknownName, WriteError
from napari_unetseg.events import Control, FileDone, Started, StepDone
from napari_unetseg.validate import compare_nets
from napari_unetseg.volume import Volume

NETS = ("unet", "sharp-unet")
QUICK = nus.Plan(
    net={"width": 0.1},
    training={"epochs": 1, "steps_per_epoch": 3, "batch_size": 2, "patch": (32, 32), "device": "cpu"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("blobs"), number=6)


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    return compare_nets(folder, NETS, out=tmp_path_factory.mktemp("r") / "report", folds=2, plan=QUICK)


def files(events):
    return [event for event in events if isinstance(event, FileDone)]


def test_every_case_is_scored_once_by_every_net(done, folder):
    cases = [(row["net"], row["case"]) for row in done.rows]
    names = [case.name for case in load_dataset(folder).cases]
    assert sorted(cases) == sorted((net, name) for net in NETS for name in names)
    assert {run["fold"] for run in done.runs} == {0, 1}
    by_net = [{row["case"]: row["fold"] for row in done.rows if row["net"] == net} for net in NETS]
    assert by_net[0] == by_net[1]
    assert all(0 <= row["dice"] <= 1 and row["unit"] == "um" for row in done.rows)
    assert all(run["steps"] == 3 and run["parameters"] > 1000 for run in done.runs)


def test_the_report_stands_alone_and_the_tables_agree_with_it(done):
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "http" not in page
    assert "hausdorff95 (um)" in page
    assert all(net in page for net in NETS)
    assert "can reach p" in page or done.tests[0]["pairs"] >= 6
    with (done.folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    dice = {net: [float(row["dice"]) for row in rows if row["net"] == net] for net in NETS}
    with (done.folder / "table.csv").open() as stream:
        table = {row["net"]: row for row in csv.DictReader(stream)}
    for net in NETS:
        assert float(table[net]["dice_mean"]) == pytest.approx(np.mean(dice[net]))
        assert float(table[net]["dice_sd"]) == pytest.approx(np.std(dice[net], ddof=1))
    with (done.folder / "tests.csv").open() as stream:
        (test,) = csv.DictReader(stream)
    assert float(test["p"]) == pytest.approx(stats.wilcoxon(*dice.values()).pvalue)


def test_what_is_finished_is_not_done_again(done, folder):
    events = list(compare_nets.events(folder, NETS, out=done.folder, folds=2, plan=QUICK))
    assert [event.status for event in files(events)] == ["done before"] * 4
    assert not any(isinstance(event, StepDone) for event in events)
    (done.folder / "runs" / "unet_fold1.json").unlink()
    events = files(compare_nets.events(folder, NETS, out=done.folder, folds=2, plan=QUICK))
    assert [event.status for event in events].count("done") == 1


def test_another_budget_or_other_images_are_done_again(tmp_path):
    data = folder_of_blobs(tmp_path / "data", number=4)
    out = tmp_path / "report"
    compare_nets(data, NETS, out=out, folds=2, plan=QUICK)
    longer = QUICK.change(training={"steps_per_epoch": 4})
    assert [e.status for e in files(compare_nets.events(data, NETS, out=out, folds=2, plan=longer))] == ["done"] * 4
    image, _ = blobs((64, 64), seed=77)
    nus.write(data / "images" / "case0.tif", Volume(image[None]))
    assert [e.status for e in files(compare_nets.events(data, NETS, out=out, folds=2, plan=longer))] == ["done"] * 4


def test_the_scored_fold_is_out_of_reach_while_training(folder, tmp_path, monkeypatch):
    """Whatever the plan holds out is taken from the training images."""
    from napari_unetseg import training
    from napari_unetseg.data import split

    seen, real = [], training.fine_tune.events

    def watching(dataset, plan, **options):
        parts = split(dataset, plan.data, plan.training.seed)
        seen.append(tuple({part.name for part in side} for side in (parts.train, parts.heldout)))
        return real(dataset, plan, **options)

    monkeypatch.setattr(training.fine_tune, "events", watching)
    for heldout in ({}, {"data": {"heldout": 0.3}}):
        seen.clear()
        out = tmp_path / str(len(heldout))
        runs = compare_nets(folder, NETS, out=out, folds=2, plan=QUICK.change(**heldout)).runs
        for (train, chosen_on), run in zip(seen, runs, strict=True):
            scored = {row["case"] for row in run["cases"]}
            assert len(scored) == 3
            assert not scored & (train | chosen_on)
            assert len(chosen_on) == (1 if heldout else 0)


def test_a_net_that_fails_is_a_row(tmp_path):
    data = folder_of_blobs(tmp_path / "data", number=2, shape=(16, 32, 32), suffix=".nii.gz")
    plan = QUICK.change(net={"dims": 3, "depth": 2}, training={"patch": (16, 32, 32)})
    done = compare_nets(data, ("unet", "ternausnet16"), out=tmp_path / "r", plan=plan)
    assert {(run["net"], run["status"]) for run in done.runs} == {("unet", "done"), ("ternausnet16", "failed")}
    assert done.expected == 4
    assert all("3D" in run["error"] for run in done.failed)
    assert done.table[-1]["dice_mean"] is None
    assert done.tests[0]["p"] is None
    assert "Some runs failed" in (done.folder / "report.html").read_text()
    again = files(compare_nets.events(data, ("unet", "ternausnet16"), out=tmp_path / "r", plan=plan))
    assert [event.status for event in again] == ["done before", "failed"] * 2


def test_losses_and_the_instant_net_take_part(folder, tmp_path):
    nets = ("unet", "unet:focal-tversky", "instant")
    done = compare_nets(folder, nets, out=tmp_path / "r", folds=2, plan=QUICK)
    assert [run["status"] for run in done.runs] == ["done"] * 6
    assert len(done.tests) == 3
    assert len(list((tmp_path / "r" / "runs").iterdir())) == 6


def test_cells_between_membranes_are_scored_where_asked(folder, tmp_path, done):
    nets, out = ("instant", "unet"), tmp_path / "r"
    asked = compare_nets(folder, nets, out=out, folds=2, plan=QUICK, membranes=True)
    assert asked.metrics == (*done.metrics, "v_rand", "v_info")
    instant = next(row for row in asked.table if row["net"] == "instant")
    assert 0 < instant["v_rand_mean"] <= 1
    assert instant["v_info_n"] == instant["cases"]
    with (out / "cases.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["net"] == "instant"]
    assert np.isclose(np.mean([float(row["v_rand"]) for row in rows]), instant["v_rand_mean"])
    assert "v_info" in (out / "report.html").read_text(encoding="utf-8")
    plain = files(compare_nets.events(folder, nets, out=out, folds=2, plan=QUICK))
    assert [event.status for event in plain] == ["done"] * 4  # rows without them are not taken for rows with them


def test_one_image_is_compared_by_blocks(tmp_path):
    image, mask = blobs((128, 64))
    for kind, data in (("images", Volume(image[None])), ("labels", nus.LabelVolume(mask))):
        (tmp_path / "d" / kind).mkdir(parents=True)
        nus.write(tmp_path / "d" / kind / "one.tif", data)
    done = compare_nets(tmp_path / "d", NETS, out=tmp_path / "r", folds=2, plan=QUICK)
    assert not done.failed
    assert done.tests[0]["pairs"] == 2
    assert all(row["voxels"] == 64 * 64 for row in done.rows)


def test_stopped_keeps_what_is_finished(folder, tmp_path):
    control = Control()
    events = compare_nets.events(folder, NETS, out=tmp_path / "r", folds=2, plan=QUICK, control=control)
    assert isinstance(next(events), Started)
    for event in events:
        if isinstance(event, FileDone):
            control.stop()
    with pytest.raises(StopIteration):
        next(events)
    assert "3 of 4 runs are missing" in (tmp_path / "r" / "report.html").read_text()
    left = files(compare_nets.events(folder, NETS, out=tmp_path / "r", folds=2, plan=QUICK))
    assert [event.status for event in left] == ["done before", "done", "done", "done"]


def test_stopped_before_anything_is_an_error(folder, tmp_path):
    control = Control()
    events = compare_nets.events(folder, NETS, out=tmp_path / "r", folds=2, plan=QUICK, control=control)
    assert any(isinstance(event, StepDone) for event in itertools.islice(events, 2))
    control.stop()
    with pytest.raises(Stopped):
        list(events)
    assert not list((tmp_path / "r" / "runs").iterdir())


@pytest.mark.parametrize(
    ("nets", "options", "error"),
    [
        (("unet",), {}, PlanError),
        (("unet", "unet"), {}, PlanError),
        (("unet", "unett"), {}, UnknownName),
        (("unet", "unet:dise"), {}, UnknownName),
        (("unet", "instant:dice"), {}, PlanError),
        (NETS, {"folds": 7}, PlanError),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(folder, tmp_path, nets, options, error):
    with pytest.raises(error) as caught:
        compare_nets(folder, nets, out=tmp_path / "r", plan=QUICK, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_a_folder_with_something_else_is_left_alone(folder):
    with pytest.raises(WriteError):
        compare_nets(folder, NETS, out=folder, folds=2, plan=QUICK)


def test_from_the_command_line(cli, folder, tmp_path):
    (tmp_path / "plan.json").write_text(QUICK.to_json(complete=False))
    words = ("compare", folder, "--nets", "unet,sharp-unet", "--folds", 2, "--plan", tmp_path / "plan.json")
    code, out, err = cli(*words, "--epochs", 1, "-o", tmp_path / "r")
    assert code == 0, err
    assert "4 of 4 runs done" in out
    assert "sharp-unet" in out
    code, out, _ = cli(*words, "--epochs", 1, "-o", tmp_path / "r", "--json")
    document = json.loads(out)
    assert (code, document["runs"], document["failed"], len(document["table"])) == (0, 4, [], 2)


def test_bad_input_on_the_command_line_is_two_lines(cli, folder, tmp_path):
    for words, expected in {
        ("compare", folder, "--nets", "unet"): "two different nets",
        ("compare", folder): "two different nets",
        ("compare", folder, "--nets", "unet,unett"): "Did you mean",
        ("compare", "--nets", "unet,unet3d"): "No data",
        ("compare", tmp_path / "nowhere", "--nets", "unet,unet3d"): "nowhere",
        ("compare", folder, "--nets", "unet,unet3d", "--folds", 9): "folds",
        ("compare", folder, "--nets", "unet,unet3d", "--minutes", 1, "--epochs", 1): "--epochs",
    }.items():
        code, out, err = cli(*words, "-o", tmp_path / "new")
        assert (code, out) == (2, ""), (words, err)
        assert expected in err, (words, err)
        assert len(err[err.index("Error:") :].strip().splitlines()) <= 2, words
    assert not (tmp_path / "new").exists()


def test_a_failed_run_is_exit_code_1(cli, tmp_path):
    data = folder_of_blobs(tmp_path / "data", number=2, shape=(16, 32, 32), suffix=".nii.gz")
    (tmp_path / "plan.json").write_text(
        QUICK.change(net={"depth": 2}, training={"patch": (16, 32, 32)}).to_json(complete=False)
    )
    words = ("--dims", 3, "--plan", tmp_path / "plan.json", "-o", tmp_path / "r")
    code, out, err = cli("compare", data, "--nets", "unet,ternausnet16", *words)
    assert code == 1
    assert "2 of 4 runs done" in out
    assert "failed" in err
