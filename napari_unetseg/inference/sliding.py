"""Any image through a net, tile by tile, blended with a Gaussian, never resized.

A 2D net on a volume segments it plane by plane. Tiles overlap and are weighted by a Gaussian, so that no seam shows;
the tile nearest to `focus` comes first. MONAI's ``sliding_window_inference`` does the same blending in one call; ours
is a generator, so that each tile can be shown, and stopped after (``benchmarks/sliding.py`` keeps the comparison).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from napari_unetseg.data.normalise import about, normalise
from napari_unetseg.devices import Compute, choose_compute
from napari_unetseg.errors import ModelError, OutOfMemory, ReadError, Stopped
from napari_unetseg.events import Control, Event, TileDone, verb
from napari_unetseg.losses import probabilities
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.plan import Plan
from napari_unetseg.postprocess import apply_steps
from napari_unetseg.volume import LabelVolume, Volume

__all__ = [
    "Predictor",
    "make_predictor",
    "predict",
    "predict_probabilities",
    "prepared_image",
    "tile_slices",
    "tile_weights",
]

_TILE = {2: 512, 3: 96}  # largest tile side unless the plan says otherwise; larger ones only cost memory
_BATCH_VOXELS = 512 * 512


def tile_slices(shape: Sequence[int], tile: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """Evenly spaced tiles that cover `shape`, neighbours overlapping by at least `overlap` of a tile.

    Parameters
    ----------
    shape, tile : sequence of int
        Size of the image and of a tile, in voxels; a tile is cut to the image where that is smaller.
    overlap : float
        In [0, 1).

    Examples
    --------
    >>> [s[0] for s in tile_slices((10,), (6,), 0.25)]
    [slice(0, 6, None), slice(4, 10, None)]
    """
    axes = []
    for size, side in zip(shape, tile, strict=True):
        side = min(side, size)
        stride = max(1, int(side * (1 - overlap)))
        count = 1 + -(-(size - side) // stride)
        starts = np.linspace(0, size - side, count).round().astype(int) if count > 1 else [0]
        axes.append([slice(int(start), int(start) + side) for start in starts])
    return list(itertools.product(*axes))


def tile_weights(tile: Sequence[int]) -> np.ndarray:
    """Gaussian weights of a tile, float32, 1 in the middle and small but positive at the rim (sigma an eighth)."""
    weights = np.ones((1,) * len(tile))
    for axis, side in enumerate(tile):
        x = (np.arange(side) - (side - 1) / 2) / max(side / 8, 1e-6)
        weights = weights * np.exp(-0.5 * x**2).reshape([-1 if i == axis else 1 for i in range(len(tile))])
    return np.maximum(weights, 1e-3).astype(np.float32)


@dataclass(frozen=True)
class Predictor:
    """A net made ready to segment prepared images of any size.

    Attributes
    ----------
    net : torch.nn.Module
        In evaluation mode, placed by `compute`.
    plan : Plan
        Resolved plan of the net.
    compute : Compute
        Device, precision and memory order.
    """

    net: nn.Module
    plan: Plan
    compute: Compute

    @property
    def tile(self) -> tuple[int, ...]:
        """Tile size of the net's dims, never smaller than the patch it was trained on."""
        dims = self.plan.net.dims
        if self.plan.inference.tile:
            return tuple(self.plan.inference.tile[-dims:])
        patch = self.plan.training.patch or (0,) * dims
        return tuple(max(_TILE[dims], side) for side in patch[-dims:])

    def tiles(
        self, image: np.ndarray, focus: Sequence[float] | None = None, control: Control | None = None
    ) -> Generator[Event, None, np.ndarray]:
        """Segment a prepared image; yields `TileDone`, returns class probabilities.

        Parameters
        ----------
        image : (C, [Z,] Y, X) float32 ndarray
            Normalised as the plan says.
        focus : sequence of float, optional
            Position ``([z,] y, x)`` whose tile comes first.
        control : Control, optional
            Polled after every tile.

        Returns
        -------
        (K, [Z,] Y, X) float32 ndarray
            Probabilities, background first.

        Raises
        ------
        Stopped
            When `control` said stop.
        """
        dims, shape = self.plan.net.dims, image.shape[1:]
        regions = tile_slices(shape[-dims:], self.tile, self.plan.inference.overlap)
        weights = tile_weights([part.stop - part.start for part in regions[0]])
        norm = np.zeros(shape[-dims:], np.float32)
        for region in regions:
            norm[region] += weights
        jobs = [(plane, region) for plane in np.ndindex(*shape[:-dims]) for region in regions]
        if focus is not None:
            jobs.sort(key=lambda job: _distance(job, focus))
        classes = max(2, self.plan.net.outputs)
        out = np.zeros((classes, *shape), np.float32)
        batch = max(1, _BATCH_VOXELS // weights.size)
        start = time.monotonic()
        for first in range(0, len(jobs), batch):
            if control is not None and control.stopped:
                raise Stopped("Segmentation was stopped.", hint="Nothing was written.")
            some = jobs[first : first + batch]
            tiles = np.stack([image[(slice(None), *plane, *region)] for plane, region in some])
            for (plane, region), tile in zip(some, self._run(tiles), strict=True):
                where = (slice(None), *plane, *region)
                out[where] += tile * (weights / norm[region])
            done = first + len(some)
            yield TileDone(done, len(jobs), (time.monotonic() - start) / done * (len(jobs) - done))
        return out

    def probabilities(self, image: np.ndarray, control: Control | None = None) -> np.ndarray:
        """Run `tiles` to the end."""
        run = self.tiles(image, control=control)
        while True:
            try:
                next(run)
            except StopIteration as end:
                return end.value

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """Mask ``([Z,] Y, X)`` uint8 from class probabilities ``(K, [Z,] Y, X)``."""
        if len(probability) == 2:
            return (probability[1] > self.plan.inference.threshold).astype(np.uint8)
        return probability.argmax(axis=0).astype(np.uint8)

    @torch.no_grad()
    def _run(self, tiles: np.ndarray) -> np.ndarray:
        try:
            with self.compute.autocast():
                logits = self.net(self.compute.place(torch.from_numpy(tiles)))
            return probabilities(logits.float() / self.plan.inference.temperature).cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemory(
                f"The device ran out of memory on a tile of {' x '.join(map(str, tiles.shape[2:]))} voxels.",
                hint="Give a smaller tile in the plan (inference.tile), or use the CPU.",
            ) from error


def _distance(job: tuple[tuple[int, ...], tuple[slice, ...]], focus: Sequence[float]) -> float:
    plane, region = job
    centre = [*plane, *((part.start + part.stop) / 2 for part in region)]
    return sum((c - f) ** 2 for c, f in zip(centre, focus, strict=True))


def prepared_image(model: Model, image: Volume) -> np.ndarray:
    """Image normalised as the model's plan says, once it is known to fit.

    Raises
    ------
    ModelError
        When image and model do not fit.
    """
    net = model.plan.net
    if not isinstance(image, Volume):
        raise ModelError(
            f"A model segments a Volume, not {type(image).__name__}.",
            hint="Read the file with napari_unetseg.read, or give Volume(array) with the channel axis in front.",
        )
    if (channels := image.data.shape[0]) != net.in_channels:
        raise ModelError(
            f"The image {_name(image)} has {channels} channel{'s' * (channels != 1)}, the model was trained on "
            f"{net.in_channels}.",
            hint="Use a model that was trained on such images.",
        )
    if image.ndim < net.dims:
        raise ModelError(f"The image {_name(image)} is 2D, the model is for volumes.", hint="Use a 2D model.")
    if max(image.shape) == 1 or _blank(image.data):
        raise ReadError(
            f"The image {_name(image)} has one value everywhere: there is nothing to segment.", hint="Check the file."
        )
    with about(_name(image)):
        return normalise(image.data, model.plan.normalisation)


def _blank(data: np.ndarray) -> bool:
    """Whether all voxels are alike; looks at a few first, so that real images answer at once."""
    first = data.flat[0]
    return bool((data[..., :: max(1, data.shape[-1] // 64)] == first).all() and (data == first).all())


def _name(image: Volume) -> str:
    return image.path.name if image.path else "given"


def make_predictor(model: Model, compute: Compute | None = None) -> Predictor:
    """Place the model's net on the device and make it ready."""
    training = model.plan.training
    compute = compute or choose_compute(training.device, "auto", model.plan.net.dims)
    return Predictor(compute.place(model.net).eval(), model.plan, compute)


@verb
def predict_probabilities(
    model: Model, image: Volume, *, control: Control | None = None, focus: Sequence[float] | None = None
) -> Generator[Event, None, np.ndarray]:
    """Class probabilities of an image by a model.

    Returns
    -------
    (K, [Z,] Y, X) float32 ndarray
        Background first; they sum to 1.
    """
    prepared = prepared_image(model, image)
    return (yield from make_predictor(model).tiles(prepared, focus, control))


@verb
def predict(
    model: Model, image: Volume, *, control: Control | None = None, focus: Sequence[float] | None = None
) -> Generator[Event, None, LabelVolume]:
    """Segment an image by a model.

    Parameters
    ----------
    model : Model
    image : Volume
        With as many channels as the model was trained on; a 2D model segments a volume plane by plane.
    control : Control, optional
        To stop it, within a tile.
    focus : sequence of float, optional
        Position ``([z,] y, x)`` whose tile comes first.

    Returns
    -------
    LabelVolume
        uint8, 0 background, 1.. classes, with the image's geometry and header, post-processed as the plan says.

    Raises
    ------
    ModelError
        When image and model do not fit.
    Stopped
        When `control` said stop.
    """
    prepared = prepared_image(model, image)
    predictor = make_predictor(model)
    probability = yield from predictor.tiles(prepared, focus, control)
    mask = apply_steps(predictor.mask(probability), model.plan.post.steps, image.geometry.spacing)
    return LabelVolume(mask, image.geometry, image.path, image.header)
