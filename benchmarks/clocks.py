"""A clock that does not depend on what else the machine does: processor seconds of one thread.

On a shared machine the wall clock says more about the neighbours than about a program. What counts here is what this
process, and each child that has ended, has had of the processor, with every library held to one thread; an idle core
gives the same figure as a busy one, but for caches and memory that are shared.
"""

from __future__ import annotations

import os
import time

import torch
from threadpoolctl import threadpool_limits

__all__ = ["count_processor", "processor_seconds"]

_process_time = time.process_time


def processor_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    times = os.times()
    return _process_time() + times.children_user + times.children_system


def count_processor() -> None:
    """Hold everything to one thread, and let the clocks that budgets are kept by count processor seconds."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of children
    time.monotonic = time.perf_counter = processor_seconds
