"""Why a net says what it says: maps on the image's own grid, in [0, 1].

What is explained is S, the sum of a class's logits over a region (the whole image unless told). Maps are computed tile
by tile as the mask is, blended, and stretched to [0, 1] each.

* ``saliency``: |dS/d image|, one map a channel (Simonyan et al. 2014; Fig. 7 of Laird 2019).
* ``decoder-saliency``: max over channels of |dS/dA| for each decoder level's output A, each map stretched to [0, 1]
  before they are averaged (MILDNet). How that paper reduces the channels is not stated; the maximum is Simonyan's.
* ``gradcam``: ReLU(sum of alpha_k A_k) on each tensor that the decoder joins skip and lower level to, deepest first,
  alpha_k the mean of dS/dA_k over the tile (Selvaraju et al. 2017; Fig. 9 of Sharp U-Net).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.devices import choose_compute
from napari_unetseg.errors import ModelError, PlanError, Stopped
from napari_unetseg.events import Control
from napari_unetseg.inference.sliding import Predictor, make_predictor, prepared_image, tile_slices, tile_weights
from napari_unetseg.inference.view import seen_of_plane
from napari_unetseg.nets import Model
from napari_unetseg.nets.assembly import UShape
from napari_unetseg.registry import Registry
from napari_unetseg.volume import Geometry, Volume

__all__ = ["EXPLANATIONS", "Explanation", "decoder_saliency", "explain", "gradcam", "object_at", "saliency"]

_AROUND = 8  # pixels on each side of a point whose surroundings are explained

Region = Sequence[slice] | np.ndarray | None
TileMaps = Callable[[nn.Module, Tensor, Callable[[Tensor], Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of one image.

    Attributes
    ----------
    maps : Volume
        ``(M, [Z,] Y, X)`` float32 in [0, 1], on the image's grid.
    names : tuple of str
        What each of the M maps is.
    legend : str
        One sentence for the user.
    """

    maps: Volume
    names: tuple[str, ...]
    legend: str


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked: which class, summed where, of which plane, by which maps of a tile."""

    class_index: int
    region: Region
    plane: int | None
    tile_maps: TileMaps
    control: Control | None = None


Explainer = Callable[..., Explanation]
EXPLANATIONS: Registry[Explainer] = Registry("explanation")


def explain(
    method: str,
    model: Model,
    image: Volume,
    class_index: int | None = None,
    region: Region = None,
    plane: int | None = None,
    control: Control | None = None,
) -> Explanation:
    """Explain by the name of a method, the last class when none is given; see `saliency` for the rest.

    `control` is asked before every tile.

    Raises
    ------
    Stopped
        When it was told to stop.
    """
    label = len(model.classes) - 1 if class_index is None else class_index
    return EXPLANATIONS[method](model, image, label, region, plane, control=control or Control())


def object_at(mask: np.ndarray, point: Sequence[float], label: int | None = None) -> tuple[np.ndarray, int]:
    """Find what a click means: the object that the point is in, and its class.

    Parameters
    ----------
    mask : ([Z,] Y, X) integer ndarray
    point : sequence of float
        ``([z,] y, x)``; taken to the nearest voxel.
    label : int, optional
        Class that is asked about. Where the mask says another one there, the surroundings of the point are meant:
        what would speak for the class?

    Returns
    -------
    region : ([Z,] Y, X) bool ndarray
        What is connected to the point (not over corners) and of its class, or its surroundings.
    label : int

    Raises
    ------
    PlanError
        When the point lies outside the mask.
    """
    place = tuple(round(float(at)) for at in point)
    if len(place) != mask.ndim or not all(0 <= at < n for at, n in zip(place, mask.shape, strict=True)):
        raise PlanError(f"The point {place} lies outside the image of {mask.shape}.", hint="Click into the image.")
    here = int(mask[place])
    if label is not None and label != here:
        region = np.zeros(mask.shape, bool)
        sides = (0,) * (mask.ndim - 2) + (_AROUND, _AROUND)
        region[tuple(slice(max(0, at - n), at + n + 1) for at, n in zip(place, sides, strict=True))] = True
        return region, label
    parts, _ = ndimage.label(mask == here)
    return parts == parts[place], here


@EXPLANATIONS.register("saliency", title="Saliency")
def saliency(
    model: Model,
    image: Volume,
    class_index: int,
    region: Region = None,
    plane: int | None = None,
    control: Control | None = None,
) -> Explanation:
    """How much each pixel of each channel matters to the class.

    Parameters
    ----------
    model : Model
    image : Volume
        With the channels that the model was trained on.
    class_index : int
        0 background, 1.. classes.
    region : sequence of slice or bool ndarray, optional
        Part of the image ``([Z,] Y, X)`` whose logits are summed: a plane, a box, an object (see `object_at`).
    plane : int, optional
        Of a volume: only this plane is looked at; `region` and the maps are then ``(Y, X)``.
    control : Control, optional
        To stop it, between tiles.

    Raises
    ------
    ModelError
        When model and image do not fit, or the net has nothing to show this way.
    PlanError
        When there is no such class, or the region is empty.
    """
    names = tuple(f"channel {number}" for number in range(image.data.shape[0]))
    legend = f"Bright where a small change of the image would change {_class(model, class_index)!r} most."
    return _explained(model, image, _Question(class_index, region, plane, _input_gradient, control), names, legend)


@EXPLANATIONS.register("decoder-saliency", title="Decoder saliency")
def decoder_saliency(
    model: Model,
    image: Volume,
    class_index: int,
    region: Region = None,
    plane: int | None = None,
    control: Control | None = None,
) -> Explanation:
    """How much each place matters to the class, averaged over the decoder's levels; parameters as for `saliency`."""
    _u_shape(model.net, "decoder saliency")
    legend = (
        f"Bright where the decoder's features matter most to {_class(model, class_index)!r}, average of its levels."
    )
    return _explained(
        model, image, _Question(class_index, region, plane, _decoder_gradients, control), ("decoder",), legend
    )


@EXPLANATIONS.register("gradcam", title="Grad-CAM")
def gradcam(
    model: Model,
    image: Volume,
    class_index: int,
    region: Region = None,
    plane: int | None = None,
    control: Control | None = None,
) -> Explanation:
    """Where each of the decoder's joins speaks for the class, deepest first; parameters as for `saliency`."""
    joins = len(_u_shape(model.net, "Grad-CAM").blocks)
    names = tuple(f"level {number} of {joins}" for number in range(1, joins + 1))
    legend = f"Bright where features speak for {_class(model, class_index)!r}; level 1 is the deepest and coarsest."
    return _explained(model, image, _Question(class_index, region, plane, _cams, control), names, legend)


def _class(model: Model, class_index: int) -> str:
    if not 0 <= class_index < len(model.classes):
        raise PlanError(
            f"There is no class {class_index}.",
            hint=f"The model has {', '.join(f'{i} {name}' for i, name in enumerate(model.classes))}.",
        )
    return model.classes[class_index]


def _u_shape(net: nn.Module, what: str) -> UShape:
    for module in net.modules():
        if isinstance(module, UShape):
            return module
    raise ModelError(
        f"There is no {what} of this model: its net has no decoder that joins levels.", hint="Use saliency."
    )


def _explained(model: Model, image: Volume, asked: _Question, names: tuple[str, ...], legend: str) -> Explanation:
    device = model.plan.training.device
    predictor = make_predictor(model, choose_compute(device, "float32", model.plan.net.dims))
    plane = asked.plane if image.ndim == 3 else None
    seen, inner = seen_of_plane(predictor, prepared_image(model, image), plane)
    wanted = _where(asked.region, image.shape if plane is None else image.shape[1:])
    if inner is not None:
        slab = np.zeros(seen.shape[1:], bool)
        slab[inner] = wanted
        wanted = slab
    maps = _tiled(predictor, seen, asked, wanted, len(names))
    maps = maps if inner is None else maps[:, inner]
    top = maps.reshape(len(maps), -1).max(axis=1).reshape(-1, *(1,) * (maps.ndim - 1))
    geometry = image.geometry
    if plane is not None:
        geometry = Geometry(geometry.spacing[1:], geometry.unit)
    return Explanation(Volume(maps / np.where(top > 0, top, 1), geometry), names, legend)


def _where(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    """Bool array of `shape`: what S is summed over."""
    if isinstance(region, np.ndarray):
        wanted = region.astype(bool)
        if wanted.shape != shape:
            raise PlanError(f"The region has shape {wanted.shape}, the image {shape}.", hint="Give one of the image's.")
    else:
        wanted = np.zeros(shape, bool)
        wanted[tuple(region) if region is not None else ...] = True
    if not wanted.any():
        raise PlanError("The region to explain is empty.", hint="Choose a part of the image.")
    return wanted


def _tiled(predictor: Predictor, image: np.ndarray, asked: _Question, wanted: np.ndarray, number: int) -> np.ndarray:
    """`number` maps of the whole image, blended from tiles; tiles that hold nothing of the region stay 0."""
    dims, shape = predictor.plan.net.dims, image.shape[1:]
    regions = tile_slices(shape[-dims:], predictor.tile, predictor.plan.inference.overlap)
    weights = tile_weights([part.stop - part.start for part in regions[0]])
    norm = np.zeros(shape[-dims:], np.float32)
    for region in regions:
        norm[region] += weights
    out = np.zeros((number, *shape), np.float32)
    for plane in np.ndindex(*shape[:-dims]):
        for region in regions:
            where = (*plane, *region)
            if not wanted[where].any():
                continue
            if asked.control is not None and asked.control.stopped:
                raise Stopped("The explanation was stopped.")
            inside = predictor.compute.place(torch.from_numpy(np.ascontiguousarray(wanted[where])))
            part = np.ascontiguousarray(predictor.planes(image, plane)[(slice(None), *region)])
            tile = predictor.compute.place(torch.from_numpy(part)[None])
            maps = asked.tile_maps(predictor.net, tile, _summed(asked.class_index, inside)).detach().cpu().numpy()
            # where neighbouring planes were channels too, the strongest of each channel
            maps = maps.reshape(-1, number, *maps.shape[1:]).max(axis=0)
            out[(slice(None), *where)] += maps * (weights / norm[region])
    return out


def _summed(class_index: int, inside: Tensor) -> Callable[[Tensor], Tensor]:
    """S of logits ``(1, K, ...)``: the class's, summed over `inside`; with one output the background's are negative."""

    def score(logits: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return (1 if class_index else -1) * logits[0, 0][inside].sum()
        return logits[0, class_index][inside].sum()

    return score


def _input_gradient(net: nn.Module, tile: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    tile = tile.detach().requires_grad_()
    return torch.autograd.grad(score(net(tile)), tile)[0][0].abs()


def _decoder_gradients(net: nn.Module, tile: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    u = _u_shape(net, "decoder saliency")
    kept, padded, logits = _watched(net, u, tile, before=False)
    maps = []
    for gradient in torch.autograd.grad(score(logits), kept):
        found = gradient.abs().amax(dim=1, keepdim=True)
        maps.append(_to_image(found / found.max().clamp_min(1e-20), padded, tile))
    return torch.stack(maps).mean(dim=0)


def _cams(net: nn.Module, tile: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    u = _u_shape(net, "Grad-CAM")
    kept, padded, logits = _watched(net, u, tile, before=True)
    maps = []
    for activation, gradient in zip(kept, torch.autograd.grad(score(logits), kept), strict=True):
        alpha = gradient.flatten(2).mean(dim=2).reshape(*gradient.shape[:2], *(1,) * (gradient.ndim - 2))
        maps.append(_to_image((alpha * activation).sum(dim=1, keepdim=True).relu(), padded, tile))
    return torch.cat(maps)


def _watched(net: nn.Module, u: UShape, tile: Tensor, before: bool) -> tuple[list[Tensor], tuple[int, ...], Tensor]:
    """Run the net; give what goes into its decoder blocks (or comes out), the padded size, and the logits."""
    kept: list[Tensor] = []
    sizes: list[tuple[int, ...]] = []

    def keep_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kept.append(inputs[0])
        # handed on as another tensor, so that what is done to it in place is not done to the one that is kept
        return (inputs[0].clone(), *inputs[1:])

    def keep_output(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    hooks = [u.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))]
    for block in u.blocks:
        hooks.append(
            block.register_forward_pre_hook(keep_input) if before else block.register_forward_hook(keep_output)
        )
    try:
        logits = net(tile.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    return kept, sizes[0], logits


def _to_image(found: Tensor, padded: tuple[int, ...], tile: Tensor) -> Tensor:
    """Map ``(1, 1, ...)`` of a coarse level to ``(1, *size)`` of the tile, without what the net had padded."""
    mode = "bilinear" if found.ndim == 4 else "trilinear"
    found = functional.interpolate(found, padded, mode=mode)[0]
    size = tile.shape[2:]
    starts = [(whole - n) // 2 for whole, n in zip(padded, size, strict=True)]
    return found[(slice(None), *(slice(a, a + n) for a, n in zip(starts, size, strict=True)))]
