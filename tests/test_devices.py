"""Devices are probed, not assumed; threads follow the load."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_unetseg.devices import Compute, ThreadGovernor, choose_compute, choose_device, describe
from napari_unetseg.errors import PlanError


@pytest.mark.parametrize("dims", [2, 3])
def test_the_chosen_way_agrees_with_plain_float32(dims):
    compute = choose_compute("cpu", dims=dims)
    conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(3, 8, 3)
    x = torch.randn(2, 3, *(12,) * dims)
    wanted = conv(x)
    with compute.autocast():
        got = compute.place(conv)(compute.place(x))
    torch.testing.assert_close(got.float(), wanted, atol=0.05, rtol=0.05)
    assert compute.why.endswith("probed).") or compute.device.type != "cpu"
    assert "times" not in compute.why  # a second's probe is enough for a choice, not for a figure


def test_asks_for_devices_that_exist():
    assert choose_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:99", "tpu:0", ""):
        with pytest.raises(PlanError):
            choose_device(name)
    with pytest.raises(PlanError, match="float16"):
        choose_compute("cpu", "float16")


def test_describe_says_what_and_why():
    facts = describe()
    assert facts["threads"] >= 1
    assert facts["why"]


def test_placing_in_channels_last_changes_no_value():
    conv = nn.Conv2d(2, 3, 3)
    weight = conv.weight.detach().clone()
    placed = Compute(torch.device("cpu"), "float32", True).place(conv)
    torch.testing.assert_close(placed.weight, weight)


@pytest.fixture(autouse=True)
def _nothing_found(monkeypatch):
    monkeypatch.setattr(ThreadGovernor, "_last", {})


def test_a_governor_begins_with_what_the_last_one_found(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("napari_unetseg.devices.time.monotonic", lambda: now[0])
    monkeypatch.setattr("napari_unetseg.devices._busy", lambda: False)
    with ThreadGovernor(most=2).step():
        pass
    monkeypatch.setattr("napari_unetseg.devices._busy", lambda: True)  # by that very work

    def threads() -> int:
        with ThreadGovernor(most=2).step():
            return torch.get_num_threads()

    assert threads() == 2
    now[0] += 100
    assert threads() == 1


def test_the_number_of_threads_is_put_back_after_a_step(monkeypatch):
    monkeypatch.setattr("napari_unetseg.devices._busy", lambda: True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        governor = ThreadGovernor()
        with governor.step():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="half way"), governor.step():
            raise ValueError("half way")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_fewer_threads_are_used_while_they_are_faster(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("napari_unetseg.devices.time.monotonic", lambda: now[0])
    monkeypatch.setattr("napari_unetseg.devices._busy", lambda: False)
    before = torch.get_num_threads()
    governor = ThreadGovernor(most=2)

    def work(minutes: float, seconds_with: dict[int, float]) -> int:
        end = now[0] + 60 * minutes
        while now[0] < end:
            with governor.step():
                used = torch.get_num_threads()
                now[0] += seconds_with[used]
        return used

    try:
        assert work(5, {1: 0.2, 2: 0.11}) == 2  # idle
        assert work(5, {1: 0.3, 2: 5.0}) == 1  # another program is busy
        assert work(5, {1: 0.2, 2: 0.11}) == 2  # idle again
    finally:
        torch.set_num_threads(before)
