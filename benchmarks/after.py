"""How long the steps after the net take, and measuring: 8192 x 8192 pixels with 18 000 nuclei, 512^3 voxels of organs.

    python benchmarks/after.py [--side 8192] [--depth 512] [--scipy]

Prints a table: processor seconds of each step and of `measure`, all on one thread, and the peak of the memory of the
process so far. With --scipy also what the plain way takes: label and fill of the whole image, class after class.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage

from napari_unetseg.postprocess import STEPS, measure


def nuclei(side: int, pitch: int = 60) -> np.ndarray:
    """Discs of two classes on a trembling grid; many touch."""
    rng, mask = np.random.default_rng(0), np.zeros((side, side), np.uint8)
    for y in range(pitch // 2, side - pitch // 2, pitch):
        for x in range(pitch // 2, side - pitch // 2, pitch):
            dy, dx = rng.integers(-18, 18, 2)
            radius = int(rng.integers(12, 22))
            top, left = max(0, y + dy - radius), max(0, x + dx - radius)
            part = mask[top : y + dy + radius + 1, left : x + dx + radius + 1]
            v, u = np.ogrid[top : top + part.shape[0], left : left + part.shape[1]]
            part[(v - y - dy) ** 2 + (u - x - dx) ** 2 <= radius**2] = 1 + (x // pitch) % 2
    return mask


def organs(depth: int) -> np.ndarray:
    """Smooth blobs of two classes, some in contact."""
    rng = np.random.default_rng(0)
    coarse = ndimage.gaussian_filter(ndimage.zoom(rng.normal(size=(16,) * 3), 8, order=1), 3)
    mask = np.digitize(coarse, np.quantile(coarse, [0.7, 0.9])).astype(np.uint8)
    for axis in range(3):
        mask = np.repeat(mask, depth // 128, axis)
    return mask


def plain(mask: np.ndarray) -> dict[str, Callable[[], object]]:
    full = np.ones((3,) * mask.ndim)
    labels = range(1, int(mask.max()) + 1)
    return {
        "label, each class": lambda: [ndimage.label(mask == one, full)[1] for one in labels],
        "fill, each class": lambda: [ndimage.binary_fill_holes(mask == one).sum() for one in labels],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--depth", type=int, default=512)
    parser.add_argument("--scipy", action="store_true")
    given = parser.parse_args()
    print("| image | step | processor s | peak GB |\n|---|---|---|---|")
    for mask, spacing in ((nuclei(given.side), (0.5, 0.5)), (organs(given.depth), (2.0, 1.0, 1.0))):
        image = np.zeros((1, *mask.shape), np.uint16)
        # organs are one object each: there is nothing to split
        names = [name for name in STEPS if mask.ndim == 2 or not STEPS.facts(name)["instances"]]
        options = {"minimum-size": {"size": 50.0}}
        tasks = {name: partial(STEPS[name], mask, spacing, **options.get(name, {})) for name in names}
        tasks["measure"] = partial(measure, mask, spacing, image=image)
        for name, task in {**tasks, **(plain(mask) if given.scipy else {})}.items():
            begin = time.process_time()
            task()
            seconds = time.process_time() - begin
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {' x '.join(map(str, mask.shape))} | {name} | {seconds:.1f} | {peak:.1f} |", flush=True)


if __name__ == "__main__":
    main()
