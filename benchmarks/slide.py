"""An image larger than its memory ceiling, from disk to disk: a slide, a volume, an OME-Zarr.

    python benchmarks/slide.py [--shape 20000 20000] [--tissue 6000] [--suffix .tif] [--memory 1.0] [--kill] [--doubt]

Makes an image: `tissue` pixels a side of texture in a field of one value, as scanners give what lies beside the tissue.
Two sides make an RGB slide, three a grey volume (Z, Y, X). Segments it by a U-Net with fresh weights, at half width in
2D, and prints a Markdown row: seconds, tiles, and the most memory that the process held, torch's own included. --kill
ends the process by SIGKILL half-way and goes on in another; --doubt also writes probabilities and entropy of mirrored
copies. All files are removed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from napari_unetseg.events import Note, Started, TileDone
from napari_unetseg.inference import Ensemble, predict_file
from napari_unetseg.inference.memory import used_memory, watched
from napari_unetseg.io import create_lazy, open_lazy
from napari_unetseg.io.lazy import LazyVolume
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import Plan
from napari_unetseg.volume import Geometry

SLAB = 2**26


def make_image(path: Path, shape: list[int], tissue: int) -> None:
    """Texture in the middle; what is not written takes no space on most disks."""
    rng = np.random.default_rng(0)
    colours = (3,) if len(shape) == 2 else ()
    region = [slice((n - min(tissue, n)) // 2, (n + min(tissue, n)) // 2) for n in shape]
    if path.suffix == ".zarr":
        source = LazyVolume((1, *shape), np.dtype(np.uint8), Geometry((1.0,) * len(shape)), lambda _: np.zeros(1), path)
        with create_lazy(path, source, np.uint8, 1) as image:
            fill(image, (slice(0, 1),), region, rng, ())
    else:
        photometric = "rgb" if colours else "minisblack"
        image = tifffile.memmap(path, shape=(*shape, *colours), dtype=np.uint8, photometric=photometric)
        fill(image, (), region, rng, colours)
        image.flush()


def fill(image, before, region, rng, colours) -> None:
    sides = [part.stop - part.start for part in region[1:]]
    step = max(1, SLAB // int(np.prod([*sides, *colours])))
    for row in range(region[0].start, region[0].stop, step):
        rows = slice(row, min(row + step, region[0].stop))
        values = rng.integers(60, 255, (rows.stop - rows.start, *sides, *colours), dtype=np.uint8)
        image[(*before, rows, *region[1:])] = values.reshape(*(1,) * len(before), *values.shape)


def segment(folder: Path, given: argparse.Namespace) -> None:
    """In a process of its own: prints tiles as they are done, then what it took."""
    torch.manual_seed(0)
    dims = len(given.shape)
    width = {"in_channels": 3, "width": 0.5} if dims == 2 else {"dims": 3, "width": 0.1, "depth": 2}
    plan = Plan(
        net={**width, "norm": "instance"},
        data={"normalisation": {"kind": "rgb"}},
        training={"patch": (256, 256) if dims == 2 else (64, 64, 64)},
    )
    model = Model(build(plan.net).eval(), plan, ("background", "tissue"))
    loaded, notes, start = used_memory() or 0, [], time.perf_counter()
    names = {"probability": folder / "probability.tif", "entropy": folder / "entropy.tif"} if given.doubt else {}
    averaged = Ensemble.of([model], tta="flips" if given.doubt else "none")
    image, memory = folder / f"image{given.suffix}", int(given.memory * 2**30)
    with watched() as peak:
        run = predict_file.events(averaged, image, folder / f"mask{given.suffix}", layers=names, memory=memory)
        for event in run:
            if isinstance(event, Started | Note):
                notes.append((event.notes[0] if isinstance(event, Started) else event.text).partition(": ")[2])
            elif isinstance(event, TileDone):
                print(json.dumps({"done": event.done, "total": event.total}), flush=True)
    took = time.perf_counter() - start
    print(json.dumps({"loaded": loaded, "peak": peak.bytes, "seconds": took, "notes": notes}), flush=True)


def follow(given: argparse.Namespace, folder: Path, kill: bool) -> tuple[dict, int, float]:
    """What a process said, tiles it did, and its seconds."""
    words = ["--shape", *map(str, given.shape), "--suffix", given.suffix, "--memory", str(given.memory)]
    words += ["--doubt"] * given.doubt
    said, tiles, start = {}, 0, time.perf_counter()
    with subprocess.Popen(
        [sys.executable, __file__, *words, "--child", str(folder)], stdout=subprocess.PIPE, text=True
    ) as child:
        for line in child.stdout:
            said = json.loads(line)
            tiles = said.get("done", tiles)
            if kill and tiles > said.get("total", tiles) / 2:
                child.kill()
                break
    return said, tiles, time.perf_counter() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--shape", type=int, nargs="+", default=[20000, 20000])
    options.add_argument("--tissue", type=int, default=6000)
    options.add_argument("--suffix", default=".tif")
    options.add_argument("--memory", type=float, default=1.0)
    options.add_argument("--kill", action="store_true")
    options.add_argument("--doubt", action="store_true")
    options.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        segment(given.child, given)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_image(folder / f"image{given.suffix}", given.shape, given.tissue)
        parts = []
        if given.kill:
            _, tiles, seconds = follow(given, folder, kill=True)
            parts.append((tiles, seconds))
        said, tiles, seconds = follow(given, folder, kill=False)
        parts.append((tiles, seconds))
        mask = open_lazy(folder / f"mask{given.suffix}")
        middle = [slice(n // 2 - 50, n // 2 + 50) for n in given.shape]
        found = mask[(0, *middle)]
        assert mask.spatial == tuple(given.shape), mask
    size = np.prod(given.shape, dtype=float) * (3 if len(given.shape) == 2 else 1) / 2**20
    cells = [" x ".join(map(str, given.shape)), given.suffix, f"{size:.0f}", f"{given.memory * 1024:.0f}"]
    cells += [f"{said['loaded'] / 2**20:.0f}", f"{said['peak'] / 2**20:.0f}"]
    cells += [" + ".join(str(tiles) for tiles, _ in parts), " + ".join(f"{seconds:.0f}" for _, seconds in parts)]
    cells += [f"{found.mean():.2f}", " ".join(said["notes"])]
    head = ("image", "file", "its MiB", "ceiling MiB", "loaded MiB", "peak MiB", "tiles", "seconds", "foreground", "")
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", f"| {' | '.join(map(str, cells))} |", sep="\n")


if __name__ == "__main__":
    main()
