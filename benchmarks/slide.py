"""A slide larger than its memory ceiling, from disk to disk.

    python benchmarks/slide.py [--side 20000] [--tissue 6000] [--memory 1.0]

Makes an RGB slide (uncompressed TIFF): `tissue` by `tissue` pixels of texture on a field of one value, as scanners
give what lies beside the tissue. Segments it by a U-Net at half width with fresh weights, and prints a Markdown row:
seconds, tiles, and the most memory that the process held, torch's own included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from napari_unetseg.events import Started
from napari_unetseg.inference.disk import predict_file
from napari_unetseg.inference.memory import used_memory, watched
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan


def make_slide(path: Path, side: int, tissue: int) -> None:
    slide = tifffile.memmap(path, shape=(side, side, 3), dtype=np.uint8, photometric="rgb")
    rng = np.random.default_rng(0)
    first = (side - tissue) // 2
    for row in range(first, first + tissue, 500):
        slide[row : row + 500, first : first + tissue] = rng.integers(60, 255, (500, tissue, 3), dtype=np.uint8)
    slide.flush()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--side", type=int, default=20000)
    options.add_argument("--tissue", type=int, default=6000)
    options.add_argument("--memory", type=float, default=1.0)
    given = options.parse_args()
    torch.manual_seed(0)
    plan = Plan(
        net={"in_channels": 3, "width": 0.5, "norm": "instance"},
        data={"normalisation": {"kind": "rgb"}},
        training={"patch": (256, 256)},
    )
    model = Model(build(plan.net).eval(), plan, ("background", "tissue"))
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "slide.tif"
        make_slide(image, given.side, given.tissue)
        size = image.stat().st_size / 2**20
        loaded = (used_memory() or 0) / 2**20
        start, notes, last = time.perf_counter(), "", None
        with watched() as peak:
            for event in predict_file.events(model, image, Path(folder) / "mask.tif", memory=int(given.memory * 2**30)):
                notes = event.notes[0] if isinstance(event, Started) else notes
                last = event
        took = time.perf_counter() - start
    cells = [f"{given.side} x {given.side} x 3", f"{size:.0f}", f"{given.memory * 1024:.0f}", f"{loaded:.0f}"]
    cells += [f"{(peak.bytes or 0) / 2**20:.0f}", last.total, f"{took:.0f}", notes.partition(": ")[2]]
    print("| image | its MiB | ceiling MiB | loaded MiB | peak MiB | tiles | seconds | |", "|---" * 8 + "|", sep="\n")
    print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
