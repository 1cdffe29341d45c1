"""Draw the pictures of doubt, explanations and objects in docs/images, on the retina and the colon of the sample data.

    python docs/make_doubt_pictures.py [MODEL]

Without MODEL a small U-Net with dropout is trained in 300 steps on the right half of the mask that comes with it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import colormaps

import napari_unetseg as nus
from napari_unetseg.data.annotation import from_mask
from napari_unetseg.explain import explain, object_at
from napari_unetseg.figures import overlay, panels, save_png
from napari_unetseg.inference import predict_doubt
from napari_unetseg.instant import fit_instant
from napari_unetseg.io import read_labels
from napari_unetseg.nets import Model
from napari_unetseg.postprocess import after_net
from napari_unetseg.samples import sample
from napari_unetseg.training import fine_tune

IMAGES = Path(__file__).with_name("images")
WINDOW = (slice(60, 316), slice(60, 316))
BRIGHT = ("#000000", "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c")


STEPS = (("smooth", {"radius": 1.0}), ("fill-holes", {}), ("minimum-size", {"size": 40.0}), ("split-touching", {}))


def main() -> None:
    """Draw all pictures."""
    objects()
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


def objects() -> None:
    """Nuclei of the colon as the instant model finds them, learned from the right half of the mask, and numbered."""
    picture, truth = sample("ihc").pairs[0]
    image, mask = nus.read(picture), read_labels(truth).data == 2
    model = fit(image, mask.astype(np.uint8), lambda project: fit_instant(project))
    found = nus.predict(model, image).data
    classes, numbers = after_net(found, STEPS, image.geometry.spacing)
    assert numbers is not None
    places = [(y, x) for y in range(0, mask.shape[0] - 127, 32) for x in range(0, mask.shape[1] // 2 - 127, 32)]
    windows = [(slice(y, y + 128), slice(x, x + 128)) for y, x in places]
    window = max(windows, key=lambda where: len(np.unique(numbers[where])))
    shown = image.crop(window).data
    apart = 1 + numbers[window] % (len(BRIGHT) - 1)
    parts = [overlay(shown), overlay(shown, found[window]), overlay(shown, classes[window])]
    parts.append(overlay(shown, np.where(numbers[window] > 0, apart, 0), colours=BRIGHT))
    titles = ["image", "mask of the nuclei", "smoothed, without dust", f"{numbers.max()} objects in all"]
    save_png(IMAGES / "objects.png", panels([part.repeat(2, 0).repeat(2, 1) for part in parts], titles))


def train(image: nus.Volume, mask: np.ndarray) -> Model:
    """Model of 300 steps, from the right half of the picture."""
    net = {"name": "unet", "width": 0.25, "depth": 4, "dropout": 0.2, "dims": 2}
    training = {"device": "cpu", "patch": (96, 96), "batch_size": 4, "epochs": 10, "steps_per_epoch": 30}
    plan = nus.Plan(net=net, training={**training, "validate_every": 10})
    return fit(image, mask, lambda project: fine_tune(project, plan))


def fit(image: nus.Volume, mask: np.ndarray, how: Callable[[nus.Project], Model]) -> Model:
    """Model that knows the right half of a mask."""
    with tempfile.TemporaryDirectory() as folder:
        project = nus.Project.create(Path(folder) / "half.unetseg", ["background", "object"])
        case = project.add_array("image", image)
        known = np.zeros(mask.shape, bool)
        known[:, mask.shape[1] // 2 :] = True
        project.annotate(case, from_mask(mask, known))
        model = how(project)
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
