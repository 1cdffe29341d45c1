"""A training run is killed with SIGKILL, in a process of its own, and goes on from where it was."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from tiny import folder_of_blobs

import napari_unetseg as nus

COMMAND = [sys.executable, "-m", "napari_unetseg.cli", "train"]


@pytest.fixture
def folder(tmp_path):
    return folder_of_blobs(tmp_path / "data", number=3)


def test_kill_and_resume(folder, tmp_path):
    plan = tmp_path / "plan.json"
    small = nus.Plan(net={"width": 0.1}, training={"patch": (32, 32), "batch_size": 1, "steps_per_epoch": 5})
    plan.write_text(small.to_json(complete=False))
    words = [*COMMAND, str(folder), "-o", str(tmp_path / "m"), "--plan", str(plan), "--device", "cpu"]

    run = subprocess.Popen([*words, "--epochs", "4000"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    place = tmp_path / ".m.training"
    deadline = time.monotonic() + 120
    while not (place / "state.json").exists() and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.05)
    run.kill()
    run.wait()
    assert not (tmp_path / "m").exists()
    assert (place / "state.json").exists()

    done = subprocess.run([*words, "--minutes", "0.05", "--resume"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    model = nus.Model.load(tmp_path / "m")
    assert model.facts["steps"] > 5
    assert not place.exists()
