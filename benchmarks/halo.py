"""How much must tiles overlap? Tiles beside one pass over the whole image, and how far a trained net really sees.

    python benchmarks/halo.py DATA [--tile 256] [--width 0.25] [--steps 120] [--most 4] [--norm instance]

DATA holds split.json. A net is trained on folds 1.. and run over images of fold 0 in one piece and in tiles with
several overlaps. Printed are the radii within which 90 and 99 % of the gradient of a voxel's logit lie (Chebyshev), and
a Markdown row for each overlap: tiles, seconds of the processor (one thread), Dice against the truth, how much of the
image gets another class than in one piece, and the mean and the 99.9th percentile of how far probabilities are off.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from napari_unetseg.data import load_dataset
from napari_unetseg.inference import Predictor, make_predictor
from napari_unetseg.inference.sliding import prepared_image
from napari_unetseg.metrics import score_masks
from napari_unetseg.plan import DataPlan, Plan
from napari_unetseg.training import fine_tune

OVERLAPS = (0.0, 0.0625, 0.125, 0.1875, 0.25, 0.5)
SEEN = {2: 256, 3: 64}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data", type=Path)
    options.add_argument("--tile", type=int, nargs="+", default=[256])
    options.add_argument("--width", type=float, default=0.25)
    options.add_argument("--depth", type=int)
    options.add_argument("--norm", default="instance")
    options.add_argument("--steps", type=int, default=120)
    options.add_argument("--patch", type=int, default=128)
    options.add_argument("--most", type=int, default=4, help="images of fold 0")
    given = options.parse_args()
    torch.set_num_threads(1)
    dataset = load_dataset(given.data, DataPlan())
    learned = dataclasses.replace(dataset, cases=tuple(case for case in dataset.cases if case.fold != 0), _counts={})
    epochs = max(1, given.steps // 20)
    side = (given.patch,) * dataset.ndim
    training = {"epochs": epochs, "steps_per_epoch": 20, "validate_every": epochs, "device": "cpu", "patch": side}
    net = {"width": given.width, "norm": given.norm, **({"depth": given.depth} if given.depth else {})}
    model = fine_tune(learned, Plan(net=net, training=training))
    images = [case.load() for case in [c for c in dataset.cases if c.fold == 0][: given.most]]
    prepared = [prepared_image(model, image.image) for image in images]
    ready = make_predictor(model)
    inner, outer = (reach(ready, prepared[0], share) for share in (0.9, 0.99))
    print(f"90 % of the gradient within {inner} voxels, 99 % within {outer}.", flush=True)
    shapes = [image.shape[1:] for image in prepared]
    whole = [changed(ready, shape, 0.0).probabilities(image) for shape, image in zip(shapes, prepared, strict=True)]
    head = ("tile", "overlap", "voxels", "tiles", "s", "Dice", "other class %", "mean off", "99.9 % off")
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    show(ready, "whole", 0.0, whole, whole, images, 0.0)
    for tile in given.tile:
        for overlap in OVERLAPS:
            tiled = changed(ready, (tile,) * dataset.ndim, overlap)
            begin = time.process_time()
            found = [tiled.probabilities(image) for image in prepared]
            show(tiled, tile, overlap, found, whole, images, time.process_time() - begin)


def changed(ready: Predictor, tile: tuple[int, ...], overlap: float) -> Predictor:
    return dataclasses.replace(ready, plan=ready.plan.change(inference={"tile": tile, "overlap": overlap}))


def show(ready, tile, overlap, found, whole, images, seconds) -> None:
    tiles = sum(len(ready.grid(image.target.shape).indices) for image in images) if tile != "whole" else len(images)
    pairs = [(i.name, ready.mask(p), i.target, i.known) for i, p in zip(images, found, strict=True)]
    dice = score_masks(pairs, [str(label) for label in range(len(found[0]))], rule="fold 0")
    other = np.concatenate([(ready.mask(p) != ready.mask(w)).ravel() for p, w in zip(found, whole, strict=True)])
    off = np.concatenate([np.abs(p - w).max(axis=0).ravel() for p, w in zip(found, whole, strict=True)])
    voxels = "" if tile == "whole" else round(tile * overlap)
    cells = [tile, overlap, voxels, tiles, f"{seconds:.1f}", f"{dice.mean_dice:.4f}", f"{100 * other.mean():.3f}"]
    cells += [f"{off.mean():.4f}", f"{np.quantile(off, 0.999):.3f}"]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def reach(ready: Predictor, image: np.ndarray, share: float) -> int:
    """Radius within which so much of the gradient of the middle voxel's logits lies."""
    dims = ready.plan.net.dims
    window = [slice(max(0, (n - SEEN[dims]) // 2), max(0, (n - SEEN[dims]) // 2) + SEEN[dims]) for n in image.shape[1:]]
    x = torch.from_numpy(np.ascontiguousarray(image[(slice(None), *window)]))[None].requires_grad_()
    middle = [n // 2 for n in x.shape[2:]]
    ready.net(x)[(0, slice(None), *middle)].abs().sum().backward()
    size = x.grad[0].abs().sum(dim=0).numpy()
    far = np.max(np.abs(np.indices(size.shape) - np.reshape(middle, (-1, *(1,) * dims))), axis=0)
    sums = np.cumsum(np.bincount(far.ravel(), size.ravel()))
    return int(np.searchsorted(sums, share * sums[-1]))


if __name__ == "__main__":
    main()
