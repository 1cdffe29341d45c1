import numpy as np
import pytest
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.data.annotator import scribble


@pytest.fixture
def project(tmp_path):
    """Four images, each with a few strokes of both classes."""
    made = nus.Project.create(tmp_path / "p.unetseg", classes=["background", "cell"])
    for number in range(4):
        image, mask = blobs((64, 64), seed=number)
        case = made.add_array(f"image {number}", nus.Volume(image[None]))
        made.annotate(case, scribble(mask, 2, np.random.default_rng(number), 0.03))
    yield made
    made.close()
