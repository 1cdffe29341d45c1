"""What a net said about the images lately segmented, before any step; so that steps are tried out in an instant."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from napari_unetseg.events import Control, Event, PreviewReady, View
from napari_unetseg.inference import make_predictor, predict
from napari_unetseg.inference.sliding import prepared_image
from napari_unetseg.inference.view import seen_of_plane
from napari_unetseg.nets import Model
from napari_unetseg.volume import LabelVolume, Volume

__all__ = ["RawMasks", "viewed_plane"]

_KEPT = 3
_WORTH = 4  # a plane comes first where it is at most such a part of the volume


class RawMasks:
    """Masks of the last few images as their nets gave them, by the name of the image and the folder of the model."""

    def __init__(self) -> None:
        self._masks: OrderedDict[tuple[str, str, int], LabelVolume] = OrderedDict()

    def find(self, name: str, folder: str) -> LabelVolume | None:
        """Take a mask again, if it is still here and the weights are the same."""
        key = _key(name, folder)
        if key in self._masks:
            self._masks.move_to_end(key)
        return self._masks.get(key)

    def predict(
        self,
        where: tuple[str, str],
        model: Model,
        image: Volume,
        control: Control,
        focus: Sequence[float] | None = None,
    ) -> Generator[Event, None, LabelVolume]:
        """Segment an image, doing no step, and keep the mask; `where` is the image's name and the model's folder."""
        bare = replace(model, plan=model.plan.change(post={"steps": ()}))
        mask = yield from predict.events(bare, image, control=control, focus=focus)
        # without path and header, which may be large
        self._masks[_key(*where)] = LabelVolume(mask.data, mask.geometry)
        while len(self._masks) > _KEPT:
            self._masks.popitem(last=False)
        return mask


def viewed_plane(model: Model, image: Volume, view: View, control: Control) -> Generator[Event, None, None]:
    """Mask of the plane that the user looks at, before the rest of the volume: yields `PreviewReady`.

    Nothing where that would be most of the work.
    """
    if image.ndim == 2 or view.index is None:
        return
    predictor, prepared = make_predictor(model), prepared_image(model, image)
    index = min(max(view.index, 0), prepared.shape[1] - 1)
    part, inner = seen_of_plane(predictor, prepared, index)
    if part[0].size * _WORTH > prepared[0].size:
        return
    mask = predictor.mask(predictor.probabilities(part, control, image.geometry.spacing))
    yield PreviewReady(0, view, mask if inner is None else mask[inner])


def _key(name: str, folder: str) -> tuple[str, str, int]:
    weights = Path(folder) / "weights.safetensors"
    return name, folder, weights.stat().st_mtime_ns if weights.is_file() else 0
