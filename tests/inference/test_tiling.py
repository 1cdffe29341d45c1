"""Where tiles lie, and that their weights are those of a blend without seams."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetseg.inference.tiling import Axis, Grid, mirrored, windowed


@pytest.mark.parametrize("size", [1, 2, 7, 16, 17, 100])
@pytest.mark.parametrize(("side", "overlap", "margin"), [(16, 0.0, 0), (16, 0.25, 4), (5, 0.9, 3), (1, 0.0, 0)])
def test_weights_of_an_axis_sum_to_one_everywhere(size, side, overlap, margin):
    axis = Axis.of(size, side, overlap, margin)
    total = np.zeros(size)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        inside = slice(max(0, start), min(size, start + axis.side))
        total[inside] += weights[inside.start - start : inside.stop - start]
    np.testing.assert_allclose(total, 1, atol=1e-6)
    finished = [axis.finished(index) for index in range(len(axis.starts))]
    assert [i for part in finished for i in range(size)[part]] == list(range(size))
    assert all(axis.starts[axis.first_touching(v)] + axis.side > v for v in range(size))


def test_an_image_that_fits_a_tile_is_one_tile_with_its_margin():
    assert Axis.of(100, 128, 0.25, 16) == Axis(100, 132, (-16,))
    assert Axis.of(1, 128, 0.25, 16) == Axis(1, 1, (0,))


def test_mirrored_indices_are_those_of_numpy():
    line = np.arange(7)
    np.testing.assert_array_equal(mirrored(-5, 13, 7), np.pad(line, (5, 6), mode="reflect"))
    np.testing.assert_array_equal(mirrored(-2, 3, 1), 0)


def test_a_window_beyond_the_image_is_mirrored():
    image = np.random.default_rng(0).normal(size=(2, 6, 9))
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    np.testing.assert_array_equal(windowed(image, (slice(-3, 5), slice(4, 12))), padded[:, 0:8, 7:15])
    assert windowed(image, (slice(1, 3), slice(2, 4))).flags.c_contiguous


@pytest.mark.parametrize("margin", [0, 3, 9])
def test_what_a_tile_sees_holds_what_is_mirrored_into_it(margin):
    axis = Axis.of(50, 12, 0.25, margin)
    line = np.arange(50)
    for index, start in enumerate(axis.starts):
        seen = axis.seen(index)
        local = windowed(line[seen][None], (slice(start - seen.start, start + axis.side - seen.start),))
        np.testing.assert_array_equal(local[0], line[mirrored(start, start + axis.side, 50)])


def test_every_tile_of_a_grid_has_the_same_sides():
    grid = Grid.of((40, 9, 1), (16, 16, 16), 0.5, 4)
    assert {tuple(p.stop - p.start for p in grid.window(i)) for i in grid.indices} == {grid.side}
    assert grid.side == (16, 17, 1)
