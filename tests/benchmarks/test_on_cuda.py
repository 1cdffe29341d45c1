"""The script for graphics cards, whole and small on the processor: so that it works where a card is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = [sys.executable, str(ROOT / "benchmarks" / "on_cuda.py")]


def run(*words):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*SCRIPT, *words], capture_output=True, text=True, timeout=280, env=env)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited in the way of Linux")
def test_every_piece_works_small(tmp_path):
    out = tmp_path / "cuda.md"
    out.write_text("# On a graphics card\n\n## ladder\n\nof last year\n")
    words = ("--device", "cpu", "--tiny", "--nets", "unet", "--steps", "1", "--out", str(out))
    done = run("--piece", "agree", "ladder", "resume", "speed2", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    text = out.read_text()
    assert "of last year" not in text
    assert "* Out of memory: the 2 patches of a step are computed one after the other." in text
    assert "As it should be: yes" in text
    assert "**no**" not in text
    assert "| unet 2D | 16x32x32 | float32" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_says_that_there_is_no_device():
    done = run()
    assert done.returncode == 2
    assert done.stderr == f"There is no CUDA device here (torch {torch.__version__}): nothing was measured.\n"
