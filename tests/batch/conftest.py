"""A tiny model, and folders of tiny images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.nets import Model, build
from napari_unetseg.volume import Geometry, Volume


@pytest.fixture(scope="session")
def model() -> Model:
    plan = nus.Plan(
        net={"name": "unet", "width": 0.1},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (32, 32), "device": "cpu", "precision": "float32"},
    )
    torch.manual_seed(0)  # one that finds something, whichever tests come first
    return Model(build(plan.net).eval(), plan, ("background", "cell"))


@pytest.fixture
def many(tmp_path):
    """Makes a folder of `count` images, the names given being broken."""

    def make(count, broken=()):
        folder = tmp_path / "many"
        for index in range(count):
            path = folder / f"series-{index % 2}" / f"{index:03d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            if index in broken:
                path.write_bytes(b"not an image")
            else:
                image = (100 + 50 * blobs((32, 32), index)[0]).clip(0, 255).astype(np.uint8)
                nus.write(path, Volume(image[None], Geometry((0.5, 0.5), "um")))
        return folder

    return make
