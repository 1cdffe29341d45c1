"""What augmentation costs, beside a U-Net step and beside MONAI, kornia and batchgeneratorsv2 doing the same work.

    python benchmarks/augment.py [--device cpu|cuda] [--threads N] [--steps N]

Prints milliseconds a batch (with one CPU thread, of processor time, so that other programs do not disturb) and
the share of a U-Net step (net, loss, optimiser) on the same batch: augment / (augment + step). MONAI's transforms take
one sample at a time, on the CPU; they get the same chances and ranges, with affine and elastic together as one pass
(Rand2DElastic, Rand3DElastic).

kornia and batchgeneratorsv2 likewise; kornia's 3D does less (no warp, no tones). Those that are not installed are left
out.

Measured on 2026-11-21 (torch 2.13.0, bf16 autocast, channels-last, one thread of a busy x86-64 CPU with bf16 units):

    work                 batch    augment    MONAI   kornia     bg2   share of a step (step): width 1, width 0.5
    2D grey        2x1x256x256      7.8ms   21.6ms   53.9ms  10.3ms   2.0 % (388 ms), 4.8 % (155 ms)
    2D RGB         8x3x128x128     12.7ms   53.0ms   58.1ms  17.5ms   3.0 % (412 ms), 7.6 % (155 ms)
    3D            1x1x32x96x96     30.3ms  116.4ms   20.7ms  44.9ms   0.8 % (3781 ms), 2.1 % (1380 ms)
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
    print(
        f"{'work':<10}{'batch':>16}  {'augment':>9}{'MONAI':>11}{'kornia':>11}{'bg2':>11}"
        "   share of a step (step): width 1, width 0.5"
    )
    for title, patch, rows, channels in WORK:
        batch = make(patch, rows, channels, given.device)
        seeds = iter(range(10**6))
        ours = seconds(lambda: augment(batch, 1.0, next(seeds)), given)  # noqa: B023 - called before the next round
        theirs = [
            library(work, batch, given) if given.device == "cpu" or work is kornia_work else float("nan")
            for work in (monai_work, kornia_work, batchgenerators_work)
        ]
        shares = []
        for width in (1.0, 0.5):
            step = seconds(net_step(batch, width), given, most=6)
            shares.append(f"{100 * ours / (ours + step):.1f} % ({1e3 * step:.0f} ms)")
        size = "x".join(map(str, (rows, channels, *patch)))
        print(f"{title:<10}{size:>16}  {1e3 * ours:7.1f}ms" + "".join(f"{1e3 * t:9.1f}ms" for t in theirs), end="")
        print(f"   {', '.join(shares)}", flush=True)


def library(make_work: Callable, batch: Batch, given: argparse.Namespace) -> float:
    """Seconds that a library takes; not a number where it is not installed."""
    try:
        return seconds(make_work(batch), given, most=12)
    except ImportError as error:
        print(f"({error.name} is not installed)")
        return float("nan")


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


def kornia_work(batch: Batch) -> Callable[[], object]:
    """The same chances and ranges with kornia, in batches; it has no shear, warp, noise or blur of volumes."""
    import kornia.augmentation as ka

    recipe, dims = Recipe(), batch.image.ndim - 2
    labels = torch.where(batch.known, batch.target + 1, 0).float()[:, None]
    if dims == 3:
        chain = ka.AugmentationSequential(
            ka.RandomHorizontalFlip3D(p=recipe.flip),
            ka.RandomVerticalFlip3D(p=recipe.flip),
            ka.RandomDepthicalFlip3D(p=recipe.flip),
            ka.RandomAffine3D(
                degrees=(recipe.tilt, recipe.tilt, recipe.rotation), scale=(0.83, 1.2), p=recipe.moved,
            ),
            data_keys=["input"],
        )  # fmt: skip
        return lambda: chain(torch.cat([batch.image, labels], 1))  # it has no masks in 3D: as a channel, for the time
    tones = (
        ka.RandomBrightness((0.75, 1.25), p=recipe.toned, clip_output=False),
        ka.RandomContrast((0.75, 1.25), p=recipe.toned, clip_output=False),
        ka.RandomGamma((0.75, 1.35), p=recipe.toned / 2),
        ka.RandomGaussianNoise(std=recipe.noise, p=recipe.noised),
        ka.RandomGaussianBlur((5, 5), (0.2, 1.0), p=recipe.blurred),
    )
    chain = ka.AugmentationSequential(
        ka.RandomHorizontalFlip(p=recipe.flip),
        ka.RandomVerticalFlip(p=recipe.flip),
        ka.RandomAffine(recipe.rotation, scale=(0.83, 1.2), shear=6.0, p=recipe.moved),
        ka.RandomElasticTransform((63, 63), (16.0, 16.0), (0.1, 0.1), p=recipe.warped),
        *tones,
        data_keys=["input", "mask"],
    )
    low, high = batch.image.amin(), batch.image.amax()
    return lambda: chain((batch.image - low) / (high - low), labels)  # its tones want 0 to 1


def batchgenerators_work(batch: Batch) -> Callable[[], object]:
    """The same chances and ranges with batchgeneratorsv2, which nnU-Net trains with, sample by sample on the CPU."""
    from batchgeneratorsv2.helpers.scalar_type import RandomScalar  # noqa: F401 - says early that it is not there
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    recipe, dims = Recipe(), batch.image.ndim - 2
    angle = float(np.deg2rad(recipe.rotation))
    spatial = SpatialTransform(
        tuple(batch.image.shape[2:]), patch_center_dist_from_border=0, random_crop=False,
        p_elastic_deform=recipe.warped, elastic_deform_scale=(0.1, 0.2), elastic_deform_magnitude=(0.0, 0.1),
        p_rotation=recipe.moved, rotation=(-angle, angle), p_scaling=recipe.moved, scaling=(0.83, 1.2),
    )  # fmt: skip
    chain = [
        spatial,
        MirrorTransform(tuple(range(dims))),
        RandomTransform(MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 1.0), recipe.toned),
        RandomTransform(ContrastTransform(BGContrast((0.75, 1.25)), True, False, 1.0), recipe.toned),
        RandomTransform(GammaTransform(BGContrast((0.75, 1.35)), 0, False, True, 1.0), recipe.toned / 2),
        RandomTransform(GaussianNoiseTransform((0, recipe.noise**2), 1.0, True), recipe.noised),
        RandomTransform(GaussianBlurTransform((0.2, 1.0), False, True, 1.0), recipe.blurred),
    ]
    labels = torch.where(batch.known, batch.target + 1, 0).to(torch.int16)[:, None]

    def work() -> None:
        for image, label in zip(batch.image, labels, strict=True):
            sample = {"image": image.clone(), "segmentation": label.clone()}
            for transform in chain:
                sample = transform(**sample)

    return work


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
