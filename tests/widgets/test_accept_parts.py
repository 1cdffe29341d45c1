"""Buttons that accept the slice on screen or a class, and say what was accepted."""

from __future__ import annotations

import numpy as np
from asking import model_folder, segmented


def test_slice_and_class_are_accepted_from_the_window(bench, jobs, tmp_path, qtbot):
    bench.workspace._use(model_folder(bench))
    parts = bench.review.parts
    segmented(bench, jobs, tmp_path)
    bench.review.show()
    assert not parts.slice.isVisibleTo(bench.review), "an image of one plane has no slices"
    mask = np.ones((6, 40, 60), np.uint8)
    segmented(bench, jobs, tmp_path, "volume", mask)
    bench.context.viewer.dims.set_point(0, 4 * 3.0)
    qtbot.waitUntil(lambda: parts.slice.text() == "Accept slice 4")
    parts.slice.click()
    assert parts.slice.why == "This slice is accepted already."
    assert parts.done.text() == "Accepted: slice 4 (1 of 6 slices)."
    bench.workspace.predict_current()
    segmented(bench, jobs, tmp_path, mask=mask * 0)
    np.testing.assert_array_equal(bench.context.bridge.mask.data.any(axis=(1, 2)), [0, 0, 0, 0, 1, 0])
    parts.classes.set_value(2)
    parts.by_class.click()
    assert "slice 4, class class 2" in parts.done.text()
    assert parts.undo.text() == "Undo class class 2"
    parts.undo.click()
    parts.undo.click()
    assert not bench.context.bridge.mask.data.any()
    assert not parts.undo.isVisibleTo(parts)
