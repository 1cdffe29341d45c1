"""Tiles of our sliding window beside MONAI's and beside the bare forward passes, same net, same machine, one run.

    python benchmarks/sliding.py [--size 1024] [--repeat 5] [--device cpu] [--busy]

They are run in turn, so that a busy moment hits all alike, and the fastest of each counts. Prints a Markdown table:
seconds, the bare forward passes over the same tiles relative to ours, the memory that each added at its peak (the
process's own, or on a GPU torch's), and the largest difference of the probabilities from MONAI's. MONAI's tiles end
at the image's border, so ours are run without their mirrored margin; the last column has the default with it. On a
busy machine --busy counts the seconds of the processor, of one thread, which do not depend on the load.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from napari_unetseg.devices import choose_compute
from napari_unetseg.inference import Predictor
from napari_unetseg.inference.memory import release, used_memory, watched
from napari_unetseg.inference.sliding import tile_slices
from napari_unetseg.losses import probabilities
from napari_unetseg.nets import build
from napari_unetseg.plan import Plan


class Race:
    """Fastest time and highest peak of functions that are run in turn."""

    def __init__(self, device: torch.device, clock) -> None:
        self.device, self.clock = device, clock
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}

    def run(self, name, function):
        release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        before = used_memory() or 0
        with watched() as peak:
            start = self.clock()
            result = function()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            took = self.clock() - start
        added = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else (peak.bytes or 0) - before
        self.seconds[name] = min(took, self.seconds.get(name, took))
        self.peak[name] = max(added, self.peak.get(name, 0))
        return result


def compare(dims: int, size: tuple[int, ...], tile: tuple[int, ...], repeat: int, device: str, clock) -> str:
    plan = Plan(
        net={"name": "unet", "dims": dims, "width": 0.5},
        inference={"tile": tile, "overlap": 0.25, "margin": 0},
    )
    torch.manual_seed(0)
    compute = choose_compute(device, dims=dims)
    ours = Predictor(compute.place(build(plan.net)).eval(), plan, compute)
    with_margin = Predictor(ours.net, plan.change(inference={"margin": None}), compute)
    image = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    tensor = torch.from_numpy(image)[None]
    tiles = tile_slices(size, tile, 0.25)

    @torch.no_grad()
    def forward(x):
        with compute.autocast():
            return probabilities(ours.net(compute.place(x)).float())

    def bare():
        for region in tiles:
            forward(torch.from_numpy(image[(slice(None), *region)])[None])

    def monai():
        inputs = tensor if compute.device.type == "cpu" else tensor.to(compute.device)
        return sliding_window_inference(inputs, tile, 1, forward, overlap=0.25, mode="gaussian").cpu()

    apart = float(np.abs(monai()[0].numpy() - ours.probabilities(image)).max())
    race = Race(compute.device, clock)
    for _ in range(repeat):
        race.run("bare", bare)
        race.run("monai", monai)
        race.run("ours", lambda: ours.probabilities(image))
        race.run("margin", lambda: with_margin.probabilities(image))
    seconds = race.seconds
    cells = [" x ".join(map(str, size)), " x ".join(map(str, tile)), len(tiles)]
    cells += [f"{seconds[name]:.3f}" for name in ("bare", "monai", "ours")]
    cells += [f"{seconds['bare'] / seconds['ours']:.2f}", f"{seconds['monai'] / seconds['ours']:.2f}"]
    cells += [" / ".join(f"{race.peak[name] / 2**20:.0f}" for name in ("bare", "monai", "ours"))]
    cells += [f"{apart:.1e}", f"{seconds['margin']:.3f}"]
    return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    "image", "tile", "tiles", "bare s", "MONAI s", "ours s", "bare / ours", "MONAI / ours",
    "peak MiB (bare / MONAI / ours)", "largest difference", "ours with margin s",
)  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=1024)
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--device", default="cpu")
    options.add_argument("--busy", action="store_true")
    given = options.parse_args()
    clock = time.perf_counter
    if given.busy:
        torch.set_num_threads(1)
        clock = time.thread_time
    more = (given.repeat, given.device, clock)
    print(f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", sep="\n")
    print(compare(2, (given.size, given.size), (256, 256), *more))
    print(compare(2, (given.size, given.size), (512, 512), *more))
    print(compare(3, (64, given.size // 8, given.size // 8), (32, 64, 64), *more))
    print(compare(3, (given.size // 8,) * 3, (96, 96, 96), *more))


if __name__ == "__main__":
    main()
