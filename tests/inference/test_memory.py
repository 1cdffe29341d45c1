"""Memory in use and free, as the system says."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from napari_unetseg.inference.memory import ceiling, free_memory, used_memory, watched

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says")


def test_some_memory_is_free():
    assert 2**20 < free_memory() < 2**50


@linux
def test_what_is_allocated_counts_as_used():
    before = used_memory()
    block = np.ones(2**26, np.uint8)  # larger than what an allocator would take from what it kept
    after = used_memory()
    assert after - before > 0.9 * block.nbytes


@linux
def test_a_peak_is_seen_after_it_is_gone():
    with watched() as peak:
        start = peak.bytes
        block = np.ones(2**26, np.uint8)
        time.sleep(0.05)
        del block
    assert peak.bytes - start > 0.9 * 2**26
    assert used_memory() < peak.bytes


def test_the_ceiling_is_what_was_given_or_half_of_what_is_free():
    assert ceiling(123) == 123
    assert ceiling() > free_memory() // 3
