"""Small images whose truth is known, for tests of many rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_unetseg.io import write
from napari_unetseg.volume import Geometry, LabelVolume, Volume


def blobs(shape: tuple[int, ...], seed: int = 0, classes: int = 2, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Noisy image ``shape`` float32 of bright balls on dark ground, and its mask uint8 (brighter class by class)."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in shape), indexing="ij"))
    for number in range(6):
        centre = rng.uniform(0.15, 0.85, len(shape)) * shape
        radius = rng.uniform(0.1, 0.18) * min(s for s in shape if s > 1)
        inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2
        mask[inside] = 1 + number % (classes - 1)
    return (mask + rng.normal(0, noise, shape)).astype(np.float32), mask


def folder_of_blobs(
    folder: Path, number: int = 4, shape: tuple[int, ...] = (64, 64), suffix: str = ".tif", classes: int = 2
) -> Path:
    """``images/`` and ``labels/`` of `blobs`, paired by name."""
    geometry = Geometry((0.5,) * len(shape), "um" if len(shape) == 2 else "mm")
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index in range(number):
        image, mask = blobs(shape, index, classes)
        write(
            folder / "images" / f"case{index}{suffix}",
            Volume((1000 * image + 2000).clip(0).astype(np.uint16)[None], geometry),
        )
        write(folder / "labels" / f"case{index}{suffix}", LabelVolume(mask, geometry))
    return folder
