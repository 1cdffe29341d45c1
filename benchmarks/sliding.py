"""Tiles of our sliding window beside MONAI's and beside the bare forward passes, same net, same machine, one run.

    python benchmarks/sliding.py [--size 1024] [--repeat 3]

Prints a Markdown table: median seconds, ratio to the bare forward passes over the same tiles, largest difference of the
probabilities from MONAI's.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from napari_unetseg.devices import choose_compute
from napari_unetseg.inference import Predictor
from napari_unetseg.inference.sliding import tile_slices
from napari_unetseg.losses import probabilities
from napari_unetseg.nets import build
from napari_unetseg.plan import Plan


def median_seconds(run, repeat):
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(dims: int, size: tuple[int, ...], tile: tuple[int, ...], repeat: int) -> str:
    plan = Plan(net={"name": "unet", "dims": dims, "width": 0.5}, inference={"tile": tile, "overlap": 0.25})
    torch.manual_seed(0)
    compute = choose_compute("cpu", dims=dims)
    ours = Predictor(compute.place(build(plan.net)).eval(), plan, compute)
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
        return sliding_window_inference(tensor, tile, 1, forward, overlap=0.25, mode="gaussian")

    apart = float(np.abs(monai()[0].numpy() - ours.probabilities(image)).max())
    runs = {"bare": bare, "monai": monai, "ours": lambda: ours.probabilities(image)}
    times = {name: median_seconds(run, repeat) for name, run in runs.items()}
    cells = [" x ".join(map(str, size)), " x ".join(map(str, tile)), len(tiles), *(f"{s:.2f}" for s in times.values())]
    cells += [f"{times['bare'] / times['ours']:.2f}", f"{apart:.1e}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", type=int, default=1024)
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args()
    print(
        "| image | tile | tiles | bare s | MONAI s | ours s | bare / ours | largest difference |",
        "|---|---|---|---|---|---|---|---|",
        sep="\n",
    )
    print(compare(2, (given.size, given.size), (256, 256), given.repeat))
    print(compare(3, (64, given.size // 8, given.size // 8), (32, 64, 64), given.repeat))


if __name__ == "__main__":
    main()
