"""What augmentation costs, beside a U-Net step and beside MONAI doing the same work.

    python benchmarks/augment.py [--device cpu|cuda] [--threads N] [--steps N]

Prints milliseconds a batch (with one CPU thread, of processor time, so that other programs do not disturb) and
the share of a U-Net step (net, loss, optimiser) on the same batch: augment / (augment + step). MONAI's transforms take
one sample at a time, on the CPU; they get the same chances and ranges, with affine and elastic together as one pass
(Rand2DElastic, Rand3DElastic).

Measured on 2026-11-21 (torch 2.13.0, bf16 autocast, channels-last, one thread of an x86-64 CPU with bf16 units):

    work                 batch    augment    MONAI   share of a step (step): width 1, width 0.5
    2D grey        2x1x256x256      6.3ms   18.4ms   1.8 % (356 ms), 4.7 % (130 ms)
    2D RGB         8x3x128x128      9.0ms   35.3ms   2.5 % (359 ms), 6.5 % (129 ms)
    3D            1x1x32x96x96     26.9ms  151.0ms   0.6 % (4768 ms), 1.6 % (1690 ms)
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from napari_unetseg.data.augment import Recipe, augment
from napari_unetseg.data.patches import Batch
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import build
from napari_unetseg.plan import NetSpec

WORK = [  # what a user has: patch, batch, channels
    ("2D grey", (256, 256), 2, 1),
    ("2D RGB", (128, 128), 8, 3),
    ("3D", (32, 96, 96), 1, 1),
]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--steps", type=int, default=20)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    name = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {given.device} ({name}), {given.threads} threads")
    print(f"{'work':<10}{'batch':>16}  {'augment':>9}{'MONAI':>9}   share of a step (step): width 1, width 0.5")
    for title, patch, rows, channels in WORK:
        batch = make(patch, rows, channels, given.device)
        seeds = iter(range(10**6))
        ours = seconds(lambda: augment(batch, 1.0, next(seeds)), given)  # noqa: B023 - called before the next round
        theirs = seconds(monai_work(batch), given) if given.device == "cpu" else float("nan")
        shares = []
        for width in (1.0, 0.5):
            step = seconds(net_step(batch, width), given, most=6)
            shares.append(f"{100 * ours / (ours + step):.1f} % ({1e3 * step:.0f} ms)")
        size = "x".join(map(str, (rows, channels, *patch)))
        print(f"{title:<10}{size:>16}  {1e3 * ours:7.1f}ms{1e3 * theirs:7.1f}ms   {', '.join(shares)}")


def make(patch: tuple[int, ...], rows: int, channels: int, device: str) -> Batch:
    """Batch with about 1 % known voxels."""
    torch.manual_seed(0)
    known = torch.rand(rows, *patch) < 0.01
    target = torch.randint(0, 2, (rows, *patch))
    return Batch(torch.randn(rows, channels, *patch), target * known, known).to(device)


def seconds(work: Callable[[], object], given: argparse.Namespace, most: int = 10**6) -> float:
    """Median seconds of a call."""
    clock = time.process_time if given.device == "cpu" and given.threads == 1 else time.perf_counter
    times = []
    for _ in range(min(given.steps, most) + 2):
        start = clock()
        work()
        if given.device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return float(np.median(times[2:]))


def net_step(batch: Batch, width: float) -> Callable[[], object]:
    """A step of U-Net (2D) or 3D U-Net in the precision that is fastest here."""
    dims, device = batch.image.ndim - 2, batch.image.device
    spec = NetSpec(name="unet" if dims == 2 else "unet3d", dims=dims, in_channels=batch.image.shape[1], width=width)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    net = build(spec).to(device).to(memory_format=layout)
    optimiser = torch.optim.AdamW(net.parameters(), fused=True)
    image = batch.image.to(memory_format=layout)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(image)
        loss = LOSSES["ce+dice"](logits.float(), batch.target, batch.known)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def monai_work(batch: Batch) -> Callable[[], object]:
    """The same chances and ranges with MONAI's transforms, sample by sample."""
    from monai import transforms as mt

    recipe, dims = Recipe(), batch.image.ndim - 2
    angle, both = np.deg2rad(recipe.rotation), ["image", "label"]
    moves = {
        "keys": both, "prob": recipe.moved, "mode": ["bilinear", "nearest"], "padding_mode": ["reflection", "zeros"],
        "rotate_range": (angle,) if dims == 2 else (np.deg2rad(recipe.tilt),) * 2 + (angle,),
        "scale_range": (recipe.scale,) * dims, "shear_range": (recipe.shear,) * 2,
    }  # fmt: skip
    elastic = (
        mt.Rand2DElasticd(spacing=(32, 32), magnitude_range=(0, 4), **moves)
        if dims == 2
        else mt.Rand3DElasticd(sigma_range=(5, 7), magnitude_range=(0, 50), **moves)
    )
    chain = mt.Compose(
        [
            *(mt.RandFlipd(both, prob=recipe.flip, spatial_axis=axis) for axis in range(dims)),
            elastic,
            mt.RandScaleIntensityd("image", factors=recipe.contrast, prob=recipe.toned),
            mt.RandShiftIntensityd("image", offsets=recipe.brightness, prob=recipe.toned),
            mt.RandAdjustContrastd("image", prob=recipe.toned / 2, gamma=(0.75, 1.35)),
            mt.RandGaussianNoised("image", prob=recipe.noised, std=recipe.noise),
            mt.RandGaussianSmoothd("image", prob=recipe.blurred, sigma_x=(0.2, 1), sigma_y=(0.2, 1)),
        ]
    )
    labels = torch.where(batch.known, batch.target + 1, 0).float()[:, None]
    samples = [{"image": image, "label": label} for image, label in zip(batch.image, labels, strict=True)]
    return lambda: [chain(dict(sample)) for sample in samples]


if __name__ == "__main__":
    main()
