"""What changed between two annotations is found part by part, wherever the parts end."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetseg.workspace import strokes


@pytest.mark.parametrize("shape", [(40, 33), (64, 64), (9, 16, 24), (1, 7, 5)])
def test_the_box_of_what_differs_is_found_across_parts(shape, monkeypatch):
    monkeypatch.setattr(strokes, "_SLAB", 200)
    monkeypatch.setattr(strokes, "slabs", lambda shape, voxels=200, real=strokes.slabs: real(shape, voxels))
    rng = np.random.default_rng(0)
    before = rng.integers(0, 3, shape).astype(np.uint8)
    assert strokes._difference(before, before.copy()) is None
    for _ in range(20):
        after = before.copy()
        for _ in range(rng.integers(1, 4)):
            after[tuple(rng.integers(0, size) for size in shape)] += 1
        where = np.nonzero(after != before)
        box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in where)
        assert strokes._difference(after, before) == box
        assert strokes._count(after).tolist() == np.bincount(after.ravel(), minlength=256).tolist()


def test_labels_that_do_not_lie_side_by_side_are_compared_all_the_same():
    before = np.zeros((32, 32), np.uint8)
    after = before.T.copy()
    after[3, 5] = 2
    assert strokes._difference(after.T, before) == (slice(5, 6), slice(3, 4))
    assert strokes._difference(after.astype(np.int32), before) == (slice(3, 4), slice(5, 6))


def test_parts_cover_everything_once():
    seen = np.zeros((10, 30, 30), int)
    for part in strokes.slabs(seen.shape, 2000):
        seen[part] += 1
    assert (seen == 1).all()
    assert len(strokes.slabs(seen.shape, 2000)) == 5
