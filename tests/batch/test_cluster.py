"""On Dask: workers are processes, one dies midway, and there is still one row a file."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from napari_unetseg.batch import Cluster, segment_folder
from napari_unetseg.cli.segment import spell_out
from napari_unetseg.errors import UnetSegError
from napari_unetseg.events import FileDone, Running, Started

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def test_a_worker_that_dies_has_its_files_redone_and_nothing_twice(model, many, tmp_path):
    pytest.importorskip("distributed")
    folder, killed, said = many(30, broken=(3, 16)), [], ""
    run = Running(segment_folder.events(folder, model, tmp_path / "out", cluster=Cluster(workers=2)))
    for event in run:
        if isinstance(event, Started):
            said = event.device
        if isinstance(event, FileDone) and event.index == 5 and not killed:
            last = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()[-1]
            killed.append(int(re.search(r'"worker": "[^"]*:(\d+)"', last)[1]))
            os.kill(killed[0], signal.SIGKILL)
    assert killed
    assert killed[0] != os.getpid()
    assert said.startswith("Dask, ")
    rows = run.result
    assert len(rows) == 30
    assert max(Counter(row["file"] for row in rows).values()) == 1
    assert sorted(row["file"][-7:-4] for row in rows if row["status"] == "failed") == ["003", "016"]
    assert len((tmp_path / "out" / "ledger.jsonl").read_text().splitlines()) == 30
    assert not list((tmp_path / "out").glob(".models-*"))
    again = segment_folder.events(folder, model, tmp_path / "out")
    assert Counter(e.status for e in again if isinstance(e, FileDone)) == {"done before": 28, "failed": 2}


def test_files_whose_rows_were_lost_are_handed_out_again(model, many, tmp_path):
    distributed = pytest.importorskip("distributed")
    folder, lost = many(12), 0
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as other,
    ):
        there = Cluster(cluster.scheduler_address)
        run = Running(segment_folder.events(folder, model, tmp_path / "out", cluster=there))
        for event in run:
            if isinstance(event, FileDone) and not lost:
                keys = [key for key in cluster.scheduler.tasks if str(key).startswith("segment-")]
                lost = len(keys)
                other.cancel([distributed.Future(key, other) for key in keys], force=True)
    assert lost > 1
    assert [row["status"] for row in run.result] == ["done"] * 12
    assert len((tmp_path / "out" / "ledger.jsonl").read_text().splitlines()) == 12


def test_a_cluster_that_grows_with_its_work_gets_some(model, many, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="50ms")
        there = Cluster(cluster.scheduler_address)
        rows = segment_folder(many(3), model, tmp_path / "out", cluster=there)
    assert [row["status"] for row in rows] == ["done"] * 3


def test_the_local_example_of_the_page_works(model, many, tmp_path):
    pytest.importorskip("distributed")
    commands = [
        line for block in re.findall(r"```bash\n# try it here\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
    ]  # fmt: skip
    assert [line.split()[0] for line in commands] == ["dask", "dask", "napari-unetseg"]
    model.save(tmp_path / "model")
    many(4).rename(tmp_path / "scans")
    programs = {"napari-unetseg": ["napari_unetseg.cli"], "dask": ["dask"]}
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    started = []
    try:
        for line in commands:
            program, *words = shlex.split(line.removesuffix(" &"))
            run = subprocess.Popen(
                [sys.executable, "-m", *programs[program], *words], cwd=tmp_path, env=env,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if program != "dask" else subprocess.DEVNULL,
            )  # fmt: skip
            if line.endswith("&"):
                started.append(run)
                time.sleep(1)
        assert run.wait(120) == 0, run.stderr.read().decode()
    finally:
        for one in reversed(started):
            one.terminate()
            one.wait(20)
    assert len(list((tmp_path / "masks").rglob("*.tif"))) == 4


def test_nobody_at_the_address_is_one_sentence(model, many, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(UnetSegError, match="No Dask scheduler answers at nonsense://here"):
        segment_folder(many(1), model, tmp_path / "out", cluster=Cluster("nonsense://here"))


def test_without_dask_it_says_what_to_install(model, many, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UnetSegError, match=r"Dask is not installed .* pip install .*cluster"):
        segment_folder(many(1), model, tmp_path / "out", cluster=Cluster())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("segment --dask in -m m -o o", "segment --dask here in -m m -o o"),
        ("segment in -m m -o o --dask", "segment in -m m -o o --dask here"),
        ("segment in --dask tcp://node:8786 -m m", "segment in --dask tcp://node:8786 -m m"),
        ("segment in --dask node:8786 -m m", "segment in --dask node:8786 -m m"),
        ("segment in -m m", "segment in -m m"),
    ],
)
def test_dask_may_stand_without_an_address(words, expected):
    assert spell_out(words.split()) == expected.split()
