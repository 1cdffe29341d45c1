"""Draw the pictures of doubt and explanations in docs/images, on the retina of the sample data.

    python docs/make_doubt_pictures.py [MODEL]

Without MODEL a small U-Net with dropout is trained in 300 steps on the right half of the mask that comes with it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import colormaps

import napari_unetseg as nus
from napari_unetseg.data.annotation import from_mask
from napari_unetseg.explain import explain, object_at
from napari_unetseg.figures import overlay, panels, save_png
from napari_unetseg.inference import predict_doubt
from napari_unetseg.io import read_labels
from napari_unetseg.nets import Model
from napari_unetseg.samples import sample
from napari_unetseg.training import fine_tune

IMAGES = Path(__file__).with_name("images")
WINDOW = (slice(60, 316), slice(60, 316))


def main() -> None:
    """Draw both pictures."""
    picture, truth = sample("retina").pairs[0]
    image, mask = nus.read(picture), read_labels(truth).data
    model = Model.load(sys.argv[1]) if len(sys.argv) > 1 else train(image, mask)
    belief = predict_doubt(model, image, tta="turns", dropout_passes=2)
    shown = image.crop(WINDOW)
    found = belief.mask()
    parts = [overlay(shown.data, found[WINDOW])]
    parts += [heat(values[WINDOW]) for values in (belief.probability[1], belief.entropy, belief.disagreement)]
    titles = ["image and mask", "probability of vessel", "entropy", f"disagreement of {belief.passes} passes"]
    save_png(IMAGES / "doubt.png", panels(parts, titles))

    sizes = [(int(object_at(found, at)[0].sum()), tuple(at)) for at in np.argwhere(found[WINDOW] == 1)[::400] + 60]
    place = max(sizes)[1]
    region, label = object_at(found, place)
    parts, titles = [overlay(shown.data, region[WINDOW].astype(np.uint8))], ["the object that was clicked"]
    for method in ("saliency", "decoder-saliency", "gradcam"):
        maps = explain(method, model, image, label, region)
        for name, values in zip(maps.names, maps.maps.data, strict=True):
            parts.append(heat(values[WINDOW] ** (0.5 if method == "saliency" else 1)))
            titles.append(f"{method}, {name}")
    save_png(IMAGES / "explanations.png", np.concatenate([row(parts[:5], titles[:5]), row(parts[5:], titles[5:])]))


def train(image: nus.Volume, mask: np.ndarray) -> Model:
    """Model of 300 steps, from the right half of the picture."""
    with tempfile.TemporaryDirectory() as folder:
        project = nus.Project.create(Path(folder) / "retina.unetseg", ["background", "vessel"])
        case = project.add_array("retina", image)
        known = np.zeros(mask.shape, bool)
        known[:, mask.shape[1] // 2 :] = True
        project.annotate(case, from_mask(mask, known))
        net = {"name": "unet", "width": 0.25, "depth": 4, "dropout": 0.2, "dims": 2}
        training = {"device": "cpu", "patch": (96, 96), "batch_size": 4, "epochs": 10, "steps_per_epoch": 30}
        model = fine_tune(project, nus.Plan(net=net, training={**training, "validate_every": 10}))
        project.close()
    return model


def heat(values: np.ndarray) -> np.ndarray:
    """Colours of values in [0, 1]."""
    return (255 * colormaps["inferno"](np.clip(values, 0, 1))[..., :3]).astype(np.uint8)


def row(parts: list[np.ndarray], titles: list[str]) -> np.ndarray:
    """Five panels in a row, the missing ones white."""
    while len(parts) < 5:
        parts, titles = [*parts, np.full((256, 256, 3), 255, np.uint8)], [*titles, ""]
    return panels(parts, titles)


if __name__ == "__main__":
    main()
