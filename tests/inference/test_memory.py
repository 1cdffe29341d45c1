"""Memory in use and free, as the system says."""

from __future__ import annotations

import mmap
import sys
import time

import numpy as np
import pytest

from napari_unetseg.inference.memory import ceiling, free_memory, used_memory, watched

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says")


def test_some_memory_is_free():
    assert 2**20 < free_memory() < 2**50


def fresh(size: int) -> mmap.mmap:
    """Memory straight from the system: an allocator might give again what it had kept."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    np.frombuffer(block, np.uint8)[:] = 1
    return block


@linux
def test_what_is_allocated_counts_as_used():
    before = used_memory()
    with fresh(2**26):
        after = used_memory()
    assert after - before > 0.9 * 2**26


@linux
def test_a_peak_is_seen_after_it_is_gone():
    with watched() as peak:
        start = peak.bytes
        with fresh(2**26):
            deadline = time.monotonic() + 20  # other programs may keep the thread that looks from its turn
            while peak.bytes < start + 0.9 * 2**26 and time.monotonic() < deadline:
                time.sleep(0.01)
    assert peak.bytes - start > 0.9 * 2**26
    assert used_memory() < peak.bytes


def test_the_ceiling_is_what_was_given_or_half_of_what_is_free():
    assert ceiling(123) == 123
    assert ceiling() > free_memory() // 3
