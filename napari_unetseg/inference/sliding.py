"""Any image through a net, tile by tile, blended with a Gaussian, never resized.

A 2D net on a volume segments it plane by plane, or along all three axes (`planes`). Tiles overlap and are weighted by
a Gaussian, so that no seam shows; around the image lies a mirrored margin, so that a net does not meet the image's
border, where it invents things; the tile nearest to `focus` comes first. Unlike MONAI's ``sliding_window_inference``
(``benchmarks/sliding.py``) it is a generator: each tile can be shown, and stopped after.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_unetseg.data.normalise import about, normalise
from napari_unetseg.data.patches import neighbouring
from napari_unetseg.devices import Compute, ThreadGovernor, choose_compute, is_out_of_memory
from napari_unetseg.errors import ModelError, OutOfMemory, ReadError, Stopped
from napari_unetseg.events import Control, Event, TileDone, finish, verb
from napari_unetseg.inference.tiling import Grid, Wish, grid_for, one_value, tile_slices, tile_weights, windowed
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.plan import Plan
from napari_unetseg.postprocess import apply_steps
from napari_unetseg.volume import LabelVolume, Volume

__all__ = [
    "Predictor",
    "blend",
    "check_image",
    "each_once",
    "interruptible",
    "make_predictor",
    "poll",
    "predict",
    "predict_probabilities",
    "prepared_image",
    "tile_slices",
    "tile_weights",
]

_TILE = {2: 512, 3: 96}  # largest tile side unless the plan says otherwise; larger ones only cost memory
_MARGIN = {2: 16, 3: 4}  # measured on nets trained for a minute (docs/benchmarks.md); in 3D it costs more
_BATCH_VOXELS = {"cpu": 2**16, "cuda": 2**21, "mps": 2**19}
_SLOW = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ANSWERS = 8  # constant tiles whose answer is kept


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
    governor : ThreadGovernor
        Chooses the number of threads while it runs.
    """

    net: nn.Module
    plan: Plan
    compute: Compute
    governor: ThreadGovernor = field(default_factory=ThreadGovernor, compare=False, repr=False)

    @property
    def tile(self) -> tuple[int, ...]:
        """Tile size of the net's dims: of the plan, or in 2D about twice the training's patch.

        A young net with instance norm knows the statistics of its patches only (``docs/benchmarks.md``).
        """
        dims, most, patch = self.plan.net.dims, _TILE[self.plan.net.dims], self.plan.training.patch
        if self.plan.inference.tile:
            return tuple(self.plan.inference.tile[-dims:])
        if patch is None:
            return (most,) * dims
        return tuple(max(side, min(most, 2 * side if dims == 2 else most)) for side in patch[-dims:])

    @property
    def margin(self) -> int:
        """Voxels mirrored around the image."""
        given = self.plan.inference.margin
        return _MARGIN[self.plan.net.dims] if given is None else given

    @property
    def channels(self) -> int:
        """Probabilities that the net gives a voxel: 1 stands for one class against background."""
        return self.plan.net.outputs

    @property
    def batch(self) -> int:
        """Tiles that go through the net at once."""
        return max(1, _BATCH_VOXELS.get(self.compute.device.type, 2**16) // int(np.prod(self.tile)))

    def grid(self, shape: Sequence[int]) -> Grid:
        """Tiles of an image, or of a plane of it: the last axes of `shape`."""
        return grid_for(shape, [self.wish])

    @property
    def wish(self) -> Wish:
        """What is wanted of the tiles; where the plan gives their size, just that."""
        least = most = tile = self.tile
        if not self.plan.inference.tile and self.plan.training.patch:
            least = self.plan.training.patch[-len(tile) :]
            most = tuple(max(_TILE[len(tile)], side) for side in least)
        return Wish(tile, least, most, self.plan.inference.overlap, self.margin)

    def tiles(
        self,
        image: np.ndarray,
        focus: Sequence[float] | None = None,
        control: Control | None = None,
        spacing: Sequence[float] | None = None,
    ) -> Generator[Event, None, np.ndarray]:
        """Segment a prepared image; yields `TileDone`, returns class probabilities.

        Parameters
        ----------
        image : (C, [Z,] Y, X) float32 ndarray
            Normalised as the plan says.
        focus : sequence of float, optional
            Position ``([z,] y, x)`` whose tile comes first.
        control : Control, optional
            Polled after every tile, and between the layers of the net.
        spacing : sequence of float, optional
            Voxel size, for a 2D net that looks along all axes of a volume; cubes when omitted.

        Returns
        -------
        (K, [Z,] Y, X) float32 ndarray
            Probabilities, background first.

        Raises
        ------
        Stopped
            When `control` said stop.
        """
        if self.plan.inference.axes == "all" and self.plan.net.dims == 2 and image.ndim == 4:
            from napari_unetseg.inference.planes import along_all_axes

            return (yield from along_all_axes(self, image, focus, control, spacing))
        dims, shape = self.plan.net.dims, image.shape[1:]
        grid = self.grid(shape)
        jobs = list(itertools.product(np.ndindex(*shape[:-dims]), grid.indices))
        if focus is not None:
            jobs.sort(key=lambda job: float(np.square(np.subtract((*job[0], *grid.centre(job[1])), focus)).sum()))
        out = torch.zeros((max(2, self.channels), *shape), device=self.blending_device(shape))
        sums = out[1:] if self.channels == 1 else out
        answers: dict[bytes, Tensor] = {}
        start = time.monotonic()
        with interruptible(self.net, control):
            done = 0
            while done < len(jobs):
                poll(control)
                # the tile under the eye goes alone, to be seen soon
                some = jobs[done : done + (1 if focus is not None and not done else self.batch)]
                tiles = [windowed(self.planes(image, plane), grid.window(index)) for plane, index in some]
                for (plane, index), result in zip(some, self.answered(tiles, answers), strict=True):
                    blend(sums[(slice(None), *plane)], result, grid, index)
                done += len(some)
                yield TileDone(done, len(jobs), (time.monotonic() - start) / done * (len(jobs) - done))
        sums.clamp_(0, 1)
        if self.channels == 1:
            torch.sub(1, out[1], out=out[0])
        return out.cpu().numpy()

    def probabilities(
        self, image: np.ndarray, control: Control | None = None, spacing: Sequence[float] | None = None
    ) -> np.ndarray:
        """Run `tiles` to the end."""
        return finish(self.tiles(image, control=control, spacing=spacing))

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """Mask ``([Z,] Y, X)`` uint8 from class probabilities ``(K, [Z,] Y, X)``."""
        if len(probability) == 2:
            return (probability[1] > self.plan.inference.threshold).astype(np.uint8)
        return probability.argmax(axis=0).astype(np.uint8)

    def planes(self, image: Any, plane: Sequence[int]) -> np.ndarray:
        """What the net sees of a plane of `image` ``(C, Z, Y, X)``, its neighbours as channels; a whole if no plane."""
        if not plane:
            return image
        seen = self.seen(plane[0], image.shape[1])
        return image[:, plane[0]] if len(seen) == 1 else np.concatenate([image[:, i] for i in seen])

    def seen(self, plane: int, size: int) -> list[int]:
        """Planes that the net sees to segment one of a volume of `size` planes."""
        return neighbouring(plane, self.plan.data.neighbours, size)

    def answered(self, tiles: Sequence[np.ndarray], answers: dict[bytes, Tensor]) -> list[Tensor]:
        """Results of `run`; of tiles that are one value everywhere each is computed once, and kept in `answers`."""
        values = [one_value(tile) for tile in tiles]
        keys = [None if value is None else value.tobytes() for value in values]
        return each_once(keys, lambda some: self.run(np.stack([tiles[i] for i in some])), answers)

    @torch.inference_mode()
    def run(self, tiles: np.ndarray) -> Tensor:
        """Probabilities ``(B, channels, ...)`` float32, on the device, of tiles ``(B, C, ...)`` float32."""
        try:
            with self.governor.step(), self.compute.autocast():
                logits = self.net(self.compute.place(torch.from_numpy(tiles))).float()
                logits = logits / self.plan.inference.temperature
                return logits.sigmoid() if self.channels == 1 else logits.softmax(dim=1)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(tiles) == 1:
                raise OutOfMemory(
                    f"The device ran out of memory on a tile of {' x '.join(map(str, tiles.shape[2:]))} voxels.",
                    hint="Give a smaller tile in the plan (inference.tile), or use the CPU.",
                ) from error
        half = len(tiles) // 2
        return torch.cat([self.run(tiles[:half]), self.run(tiles[half:])])

    def blending_device(self, shape: Sequence[int]) -> torch.device:
        """Where the sums of `shape` are kept: the net's own device where they are small beside its memory."""
        if self.compute.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.compute.device)
            if 4 * max(2, self.channels) * int(np.prod(shape)) < free // 4:
                return self.compute.device
        return torch.device("cpu")


def blend(
    sums: Tensor, result: Tensor, grid: Grid, index: Sequence[int], bounds: Sequence[slice] | None = None
) -> None:
    """Add the weighted result ``(K, ...)`` of a tile to sums ``(K, ...)``.

    `bounds` says which part of the image the sums are of, one slice an axis; the whole when omitted.
    """
    weight = torch.ones((), device=sums.device)
    here, there = [], []
    bounds = bounds or [slice(0, axis.size) for axis in grid.axes]
    for bound, window, along in zip(bounds, grid.window(index), grid.weights(index), strict=True):
        start, stop = max(bound.start, window.start), min(bound.stop, window.stop)
        here.append(slice(start - bound.start, stop - bound.start))
        there.append(slice(start - window.start, stop - window.start))
        weight = weight[..., None] * torch.from_numpy(along[there[-1]]).to(sums.device)
    part = result[(slice(None), *there)].to(sums.device)
    if sums.dtype == part.dtype:
        sums[(slice(None), *here)].addcmul_(part, weight)
    else:
        sums[(slice(None), *here)] += part * weight


def each_once(
    values: Sequence[bytes | None], run: Callable[[Sequence[int]], Tensor], answers: dict[bytes, Tensor]
) -> list[Tensor]:
    """Results of tiles given by their values, None for those that vary; `run` is given the numbers of some tiles."""
    keys: list[bytes | int] = [i if value is None else value for i, value in enumerate(values)]
    fresh = {key: i for i, key in reversed(list(enumerate(keys))) if key not in answers}
    found: dict[bytes | int, Tensor] = dict(answers.items())
    if fresh:
        found.update(zip(fresh, run(list(fresh.values())), strict=True))
    for key in fresh:
        if isinstance(key, bytes) and len(answers) < _ANSWERS:
            answers[key] = found[key].clone()
    return [found[key] for key in keys]


def poll(control: Control | None) -> None:
    """Raise `Stopped` when `control` said stop."""
    if control is not None and control.stopped:
        raise Stopped("Segmentation was stopped.", hint="Nothing was written.")


@contextlib.contextmanager
def interruptible(net: nn.Module, control: Control | None) -> Iterator[None]:
    """Poll `control` before every convolution of the net too: a large net may take seconds a tile."""
    modules = net.modules() if control is not None else ()
    # hooks on all would cost small images 3 ms
    slow = [module for module in modules if isinstance(module, _SLOW) or getattr(module, "slow", False)]
    hooks = [module.register_forward_pre_hook(lambda *_: poll(control)) for module in slow]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def prepared_image(model: Model, image: Volume) -> np.ndarray:
    """Image normalised as the model's plan says, once it is known to fit.

    Raises
    ------
    ModelError
        When image and model do not fit.
    """
    if not isinstance(image, Volume):
        raise ModelError(
            f"A model segments a Volume, not {type(image).__name__}.",
            hint="Read the file with napari_unetseg.read, or give Volume(array) with the channel axis in front.",
        )
    check_image(model.plan, _name(image), image.data.shape)
    if max(image.shape) == 1 or _blank(image.data):
        raise ReadError(
            f"The image {_name(image)} has one value everywhere: there is nothing to segment.", hint="Check the file."
        )
    with about(_name(image)):
        return normalise(image.data, model.plan.normalisation)


def check_image(plan: Plan, name: str, shape: Sequence[int]) -> None:
    """Raise `ModelError` where an image ``(C, [Z,] Y, X)`` does not fit the net of a plan."""
    channels, wanted = shape[0], plan.image_channels
    if channels != wanted:
        raise ModelError(
            f"The image {name} has {channels} channel{'s' * (channels != 1)}, the model was trained on {wanted}.",
            hint="Use a model that was trained on such images.",
        )
    if len(shape) - 1 < plan.net.dims:
        raise ModelError(f"The image {name} is 2D, the model is for volumes.", hint="Use a 2D model.")
    if len(shape) == 3 and plan.data.neighbours:
        raise ModelError(
            f"The image {name} is 2D, the model sees the neighbouring planes of volumes.", hint="Use another 2D model."
        )


def _blank(data: np.ndarray) -> bool:
    """Whether all voxels are alike; looks at a few first, so that real images answer at once."""
    few = data[..., :: max(1, data.shape[-1] // 64)]
    return bool((few == data.flat[0]).all() and (data == data.flat[0]).all())


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
    return (yield from make_predictor(model).tiles(prepared, focus, control, image.geometry.spacing))


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
    probability = yield from predictor.tiles(prepared, focus, control, image.geometry.spacing)
    mask = apply_steps(predictor.mask(probability), model.plan.post.steps, image.geometry.spacing)
    return LabelVolume(mask, image.geometry, image.path, image.header)
