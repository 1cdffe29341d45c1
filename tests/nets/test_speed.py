"""Relative times: every net has one, and it is the benchmark's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from napari_unetseg.nets import NETS, describe_net, speed

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "nets.py"


def test_every_net_has_a_time_in_all_its_dims():
    for name in NETS:
        for dims in NETS.facts(name).get("dims", (2, 3)):
            assert describe_net(name, dims)["step_time"] > 0.1, (name, dims)
    assert speed.step_time("unet", 2) == speed.step_time("unet", 3) == 1


def test_a_net_that_was_not_measured_has_none():
    assert speed.step_time("ternausnet16", 3) is None


@pytest.mark.skipif(not BENCHMARK.exists(), reason="the benchmarks are not part of this copy")
def test_the_times_are_those_of_the_benchmark():
    spec = importlib.util.spec_from_file_location("bench_nets", BENCHMARK)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    kept = json.loads(bench.SPEED.read_text(encoding="utf-8"))
    assert kept == bench.speed(bench.RESULTS.read_text(encoding="utf-8"))
    assert kept["machine"] == speed.measured_on()
