"""Images passed band by band: the same labels as in memory, in any number of strips."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_unetseg.data.normalise import measure
from napari_unetseg.devices import Compute
from napari_unetseg.errors import OutOfMemory, Stopped
from napari_unetseg.events import Control
from napari_unetseg.inference import Predictor
from napari_unetseg.inference.looks import LABELS, Looks
from napari_unetseg.inference.streaming import Sheets, _strip, ahead
from napari_unetseg.nets import build
from napari_unetseg.plan import Plan


def predictor(dims: int, tile: tuple[int, ...], channels: int = 1, outputs: int = 1, neighbours: int = 0) -> Predictor:
    torch.manual_seed(0)
    plan = Plan(
        net={
            "dims": dims, "in_channels": channels * (2 * neighbours + 1), "outputs": outputs,
            "width": 0.1, "depth": 2, "norm": "instance",
        },
        data={"normalisation": {"kind": "zscore"}, "neighbours": neighbours},
        inference={"tile": tile, "margin": 4},
    )  # fmt: skip
    return Predictor(build(plan.net).eval(), plan, Compute(torch.device("cpu")))


def streamed(sheets: Sheets, **options) -> np.ndarray:
    out = np.full(sheets.source.shape[1:], 255, np.uint8)

    def keep(unit, plane, where, found):
        assert (out[(*plane, *where)] == 255).all()  # nothing twice
        out[(*plane, *where)] = found[LABELS][0]

    list(sheets.finished(keep, **options))
    return out


CASES = [
    (2, (61, 50), (16, 16), 3, 1, 0),
    (2, (40, 41), (64, 64), 1, 3, 0),
    (2, (5, 40, 30), (16, 16), 1, 1, 0),
    (2, (4, 20, 30), (16, 16), 2, 1, 1),
    (3, (19, 22, 25), (8, 16, 16), 1, 3, 0),
    (3, (1, 40, 17), (8, 16, 16), 1, 1, 0),
]


@pytest.mark.parametrize(("dims", "shape", "tile", "channels", "outputs", "neighbours"), CASES)
def test_labels_are_those_of_the_whole_image_in_memory(dims, shape, tile, channels, outputs, neighbours):
    ready = predictor(dims, tile, channels, outputs, neighbours)
    image = np.random.default_rng(0).integers(0, 60000, (channels, *shape)).astype(np.uint16)
    how = measure(image, ready.plan.normalisation)
    probability = ready.probabilities(how.apply(image))
    truth = ready.mask(probability)
    sheets = Sheets.of(Looks((ready,), (how,)), image, 2**40)
    np.testing.assert_array_equal(streamed(sheets), truth)
    columns = np.arange(len(sheets.grid.axes[1].starts))
    finest = replace(sheets, strips=tuple(_strip(sheets.grid, part[None]) for part in columns), sums=torch.float16)
    found = streamed(finest, focus=tuple(size // 2 for size in shape))
    best = np.sort(probability, axis=0)
    sure = best[-1] - best[-2] > 0.01
    assert (found[sure] == truth[sure]).all()


def test_as_few_strips_as_the_memory_allows():
    ready = predictor(2, (16, 16))
    image = np.zeros((1, 60, 300), np.float32)
    how = measure(image, ready.plan.normalisation)
    whole = Sheets.of(Looks((ready,), (how,)), image, 2**40)
    assert (len(whole.strips), whole.sums) == (1, torch.float32)
    columns = np.arange(len(whole.grid.axes[1].starts))
    for number in (2, 4):
        strips = tuple(_strip(whole.grid, part) for part in np.array_split(columns, number))
        budget = replace(whole, strips=strips, sums=torch.float16).nbytes
        sheets = Sheets.of(Looks((ready,), (how,)), image, budget)
        assert sheets.nbytes <= budget
        assert 1 < len(sheets.strips) <= number
    with pytest.raises(OutOfMemory, match="MiB short"):
        Sheets.of(Looks((ready,), (how,)), image, 1000)


def test_x_plus_one_comes_back_everywhere():
    class Plus(Predictor):
        def run(self, tiles):
            return torch.from_numpy(tiles[:, :1] + 1)

    for dims, shape in itertools.product((2, 3), [(1, 37, 50), (9, 20, 33), (3, 1, 1)]):
        base = predictor(dims, (8, 16, 16)[-dims:])
        ready = Plus(base.net, base.plan, base.compute)
        image = np.random.default_rng(0).uniform(-1, 0, (1, *shape)).astype(np.float32)
        np.testing.assert_allclose(ready.probabilities(image)[1], image[0] + 1, atol=1e-6)


def test_tiles_of_one_value_are_computed_once():
    ready = predictor(2, (16, 16))
    image = np.zeros((1, 200, 200), np.uint8)
    image[:, :20, :20] = np.random.default_rng(0).integers(0, 255, (20, 20))
    how = measure(image, ready.plan.normalisation)
    seen = []
    ready.net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    sheets = Sheets.of(Looks((ready,), (how,)), image, 2**40)
    mask = streamed(sheets)
    assert sum(seen) < len(sheets.grid.indices) / 3
    seen.clear()
    np.testing.assert_array_equal(mask, ready.mask(ready.probabilities(how.apply(image))))
    assert sum(seen) < len(sheets.grid.indices) / 3


def test_finished_parts_are_not_computed_again():
    ready = predictor(2, (16, 16))
    image = np.random.default_rng(0).normal(size=(1, 3, 60, 40)).astype(np.float32)
    sheets = Sheets.of(Looks((ready,), (measure(image, ready.plan.normalisation),)), image, 2**40)
    whole, parts = streamed(sheets), {}

    def keep(unit, plane, where, found):
        parts[unit] = found
        np.testing.assert_array_equal(found[LABELS][0], whole[(*plane, *where)])

    rows = len(sheets.grid.axes[0].starts)
    done = {(plane, 0, row) for plane in range(3) for row in range(rows) if (plane, row) not in ((1, 2), (2, 0))}
    events = list(sheets.finished(keep, done))
    assert set(parts) == {(1, 0, 2), (2, 0, 0)}
    assert events[-1].done == events[-1].total < 5 * len(sheets.grid.axes[1].starts)


def test_the_rows_under_the_eye_come_first():
    ready = predictor(2, (16, 16))
    image = np.random.default_rng(0).normal(size=(1, 4, 90, 40)).astype(np.float32)
    sheets = Sheets.of(Looks((ready,), (measure(image, ready.plan.normalisation),)), image, 2**40)
    order = []
    list(sheets.finished(lambda unit, plane, where, labels: order.append((plane, where)), focus=(2, 60, 5)))
    (plane, (rows, _)), *_ = order
    assert plane == (2,)
    assert rows.start <= 60 < rows.stop + 16


def test_a_stop_is_heard_between_layers():
    ready = predictor(2, (16, 16))
    control = Control()
    image = np.random.default_rng(0).normal(size=(1, 60, 40)).astype(np.float32)
    first = next(module for module in ready.net.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda *_: control.stop())
    with pytest.raises(Stopped):
        ready.probabilities(image, control)
    assert not any(module._forward_pre_hooks for module in ready.net.modules())


def test_ahead_makes_the_next_while_one_is_used_and_passes_errors_on():
    made = []

    def items():
        for i in range(3):
            made.append((i, threading.get_ident()))
            yield i
        raise ValueError("damaged")

    run = ahead(items())
    assert next(run) == 0
    deadline = time.monotonic() + 60
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [i for i, _ in made] == [0, 1]
    assert made[0][1] != threading.get_ident()
    assert [next(run), next(run)] == [1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(run)
