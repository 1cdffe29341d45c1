"""Which device computes, in which precision, memory order and number of threads: probed once, not assumed.

On a processor with bfloat16 units, autocast with channels-last makes a U-Net step about twice as fast as plain float32;
without them it is slower, and one thread too many under load is slower still. So a probe of about a second times
the candidates on a small convolution step and keeps the fastest that agrees with float32.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from napari_unetseg.errors import PlanError
from napari_unetseg.events import Control, until_stopped

__all__ = [
    "Compute",
    "ThreadGovernor",
    "choose_compute",
    "choose_device",
    "describe",
    "free_memory",
    "half_precision",
    "is_out_of_memory",
    "limit_threads",
]

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FRESH = 60.0  # seconds for which a number of threads that was found is believed
_AGREES = 0.03  # relative difference of the probe's loss from float32's


@dataclass(frozen=True)
class Compute:
    """How nets are run: device, precision, memory order, and why.

    Attributes
    ----------
    device : torch.device
    precision : str
        ``float32``, ``bfloat16`` or ``float16``; other than float32 means autocast.
    channels_last : bool
        Whether tensors are kept in channels-last order.
    why : str
        One sentence for the user.
    """

    device: torch.device
    precision: str = "float32"
    channels_last: bool = False
    why: str = ""

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Run the net inside this; a no-op in float32."""
        if self.precision == "float32":
            yield
        else:
            with torch.autocast(self.device.type, dtype=_DTYPES[self.precision]):
                yield

    def place(self, thing: Any) -> Any:
        """Move a net or a batch ``(B, C, ...)`` to the device, in the memory order chosen."""
        if not self.channels_last:
            return thing.to(self.device)
        if isinstance(thing, nn.Module):
            thing = thing.to(self.device)
            for parameter in thing.parameters():
                if parameter.ndim in (4, 5):
                    parameter.data = parameter.data.contiguous(memory_format=_order(parameter.ndim))
            return thing
        return (
            thing.to(self.device, memory_format=_order(thing.ndim)) if thing.ndim in (4, 5) else thing.to(self.device)
        )


def _order(ndim: int) -> torch.memory_format:
    return torch.channels_last if ndim == 4 else torch.channels_last_3d


def choose_device(name: str = "auto") -> torch.device:
    """Device by name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    PlanError
        When the machine has no such device.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in available:
        raise PlanError(f"There is no device called {name!r}.", hint="Use auto, cpu, cuda or mps.")
    if not available[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise PlanError(
            f"This machine has no usable device {name!r} with the installed torch {torch.__version__}.",
            hint="Use --device auto, or install torch for your GPU.",
        )
    return device


def half_precision(device: torch.device) -> str | None:
    """Name of the arithmetic of 16 bits that a device computes in, None where it has none."""
    if device.type == "cuda":
        # older cards only pretend to have bfloat16, and are slow at it
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in any of the ways that devices say it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # the CPU's allocator, MPS and cuBLAS have no exception of their own; the last is how oneDNN says it
    signs = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def choose_compute(
    device: str = "auto", precision: str = "auto", dims: int = 2, control: Control | None = None
) -> Compute:
    """Device, precision and memory order for nets of `dims` dimensions; probes the CPU once a process.

    `control` may stop the probe; `Stopped` is raised, and the next call begins it again.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda":
        if precision == "auto":
            precision = half_precision(chosen) or "float32"
        return Compute(chosen, precision, True, f"{torch.cuda.get_device_name(chosen)} in {precision}, channels-last.")
    if chosen.type == "mps":
        return Compute(chosen, "float32" if precision == "auto" else precision, False, "Apple GPU (MPS).")
    if (precision, dims) not in _PROBED:
        _PROBED[precision, dims] = _probe_cpu(precision, dims, control)
    return _PROBED[precision, dims]


_PROBED: dict[tuple[str, int], Compute] = {}


def _probe_cpu(precision: str, dims: int, control: Control | None) -> Compute:
    cpu = torch.device("cpu")
    if precision == "float16":
        raise PlanError("float16 is not for the CPU.", hint="Use precision auto, float32 or bfloat16.")
    wanted = ("float32", "bfloat16") if precision == "auto" else (precision,)
    candidates = [Compute(cpu, kind, order) for kind in wanted for order in (False, True)]
    net = _probe_net(dims)
    x = torch.randn((2, 16, 96, 96) if dims == 2 else (1, 16, 24, 32, 32), generator=torch.Generator().manual_seed(0))
    reference = _probe_step(net, x, Compute(cpu))[1]
    seconds: dict[Compute, list[float]] = {candidate: [] for candidate in candidates}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for one another on a busy machine would drown the difference
    try:
        losses = {candidate: _probe_step(net, x, candidate)[1] for candidate in until_stopped(candidates, control)}
        begin = time.monotonic()
        while len(seconds[candidates[-1]]) < 5 and time.monotonic() - begin < 1.5:
            for candidate in until_stopped(candidates, control):  # in turn, so that a busy moment hits all alike
                seconds[candidate].append(_probe_step(net, x, candidate)[0])
    finally:
        torch.set_num_threads(threads)
    agreeing = [c for c in candidates if abs(losses[c] - reference) <= _AGREES * abs(reference)]
    if not agreeing:
        return Compute(cpu, "float32", False, "CPU in float32.")
    chosen = min(agreeing, key=lambda candidate: min(seconds[candidate]))
    order = "channels-last" if chosen.channels_last else "channels-first"
    how = f"{chosen.precision}, {order} (the fastest of {len(agreeing)} probed)"
    why = f"CPU, {threads} thread{'s' * (threads != 1)}, {how}."
    return Compute(cpu, chosen.precision, chosen.channels_last, why)


def _probe_net(dims: int) -> nn.Module:
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    pool = nn.MaxPool2d if dims == 2 else nn.MaxPool3d
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            conv(16, 32, 3, padding=1),
            nn.ReLU(),
            pool(2),
            conv(32, 64, 3, padding=1),
            nn.ReLU(),
            conv(64, 32, 3, padding=1),
        ]
        return nn.Sequential(*layers)


def _probe_step(net: nn.Module, x: torch.Tensor, compute: Compute) -> tuple[float, float]:
    net, x = compute.place(net), compute.place(x)
    start = time.perf_counter()
    with torch.enable_grad(), compute.autocast():
        loss = net(x).float().square().mean()
    loss.backward()
    net.zero_grad()
    return time.perf_counter() - start, loss.item()


def limit_threads(threads: int | None = None) -> int:
    """Set the number of torch threads; the number of physical cores (as far as known) when not given."""
    count = threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or len(_affinity())
    torch.set_num_threads(max(1, count))
    return torch.get_num_threads()


class ThreadGovernor:
    """Keeps the number of torch threads that is fastest now, step by step.

    All cores are fastest on an idle machine; where another program is busy, threads that wait for one another make a
    step many times slower than one thread fewer (measured on two cores: 3 steps in 15 s with two threads, 20 with
    one). So now and then one step is timed with another number; a try that turns out worse doubles the wait. A governor
    begins with what the last one in this process found, for the load that it would see is in part this process's own.

    Parameters
    ----------
    most : int
        Most threads to use.
    """

    _last: ClassVar[dict[int, tuple[int, float]]] = {}

    def __init__(self, most: int | None = None) -> None:
        self.most = most or torch.get_num_threads()
        self.counts = sorted({self.most, max(1, self.most - 1), max(1, self.most // 2)}, reverse=True)
        self._seconds: dict[int, float] = {}
        self._using = self._found or (self.counts[min(1, len(self.counts) - 1)] if _busy() else self.counts[0])
        self._wait = 4.0
        self._next_try = time.monotonic() + self._wait

    @property
    def _found(self) -> int | None:
        """What another governor of as many threads used a moment ago."""
        threads, when = ThreadGovernor._last.get(self.most, (0, -math.inf))
        return threads if time.monotonic() - when < _FRESH else None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Run one step of work inside this; the number of threads is put back after it."""
        trying, before = self._trying(), torch.get_num_threads()
        torch.set_num_threads(trying)
        start = time.monotonic()
        try:
            yield
        finally:
            torch.set_num_threads(before)
        took = time.monotonic() - start
        known = self._seconds.get(trying)
        self._seconds[trying] = took if known is None or trying != self._using else 0.7 * known + 0.3 * took
        ThreadGovernor._last[self.most] = self._using, time.monotonic()
        if trying == self._using:
            return
        if took < 0.9 * self._seconds.get(self._using, float("inf")):
            logger.info("%d threads are faster than %d now", trying, self._using)
            self._using, self._wait = trying, 4.0
        else:
            self._wait = min(120.0, max(2 * self._wait, 20 * took))
        self._next_try = time.monotonic() + self._wait

    def _trying(self) -> int:
        others = [count for count in self.counts if count != self._using]
        if not others or time.monotonic() < self._next_try or self._using not in self._seconds:
            return self._using
        return min(others, key=lambda count: (count in self._seconds, self._seconds.get(count, 0.0)))


def _busy() -> bool:
    """Whether other programs already use a good part of the machine."""
    try:
        return os.getloadavg()[0] > 0.75 * len(_affinity())
    except (AttributeError, OSError):
        return False


def _affinity() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def describe() -> dict[str, Any]:
    """Facts for ``doctor``: versions, devices, memory, and what will be used and why."""
    compute = choose_compute()
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": len(_affinity()),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "free_memory_gib": _gib(free_memory(compute.device)),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
        "device": str(compute.device),
        "precision": compute.precision,
        "channels_last": compute.channels_last,
        "why": compute.why,
    }


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / 2**30, 1)


def free_memory(device: torch.device) -> int | None:
    """Bytes that could be allocated on a device now; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    told = [size for size in (_available(), _cgroup_room()) if size is not None]
    return min(told) if told else None


def _available() -> int | None:
    """What Linux says is available, else all that the machine has."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        whole = _memory_gib()
        return None if whole is None else int(whole * 2**30)


def _cgroup_room() -> int | None:
    """What a container may still take."""
    place = Path("/sys/fs/cgroup")
    try:
        most, used = ((place / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (place / "memory.stat").read_text(encoding="ascii").splitlines())
        # pages of files are given back when asked for
        return int(most) - int(used) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):  # no container, or "max"
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
