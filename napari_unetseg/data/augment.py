"""Augmentation of a batch, on the device it lies on.

`draw` throws the dice, `apply` does the work; the same `Draw` gives the same batch again. All that moves voxels
(flips, quarter turns, rotation, scale, shear, elastic warp) is one resampling pass; labels are taken from the nearest
voxel, and what comes from outside the patch is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

import torch
import torch.nn.functional as F

from napari_unetseg.data.patches import Batch
from napari_unetseg.errors import PlanError

__all__ = ["Draw", "Recipe", "apply", "augment", "draw", "make_recipe", "roughen"]

_SMOOTH, _ROUGH = 1e-4, 1e-2  # deviation below which a patch has one value, and that of the noise it is given
_FLAT = 3.0  # from this anisotropy on, planes are too far apart for anything to move across them


@dataclass(frozen=True)
class Recipe:
    """How much of everything, at strength 1; angles in degrees, the rest relative.

    Attributes
    ----------
    flip : float
        Chance to mirror each axis.
    quarter : bool
        Whether square planes of 2D patches are turned by quarters.
    moved, rotation, tilt, scale, shear : float
        Chance of an affine change; rotation within the plane; out of it; factor; shear within the plane.
    warped, warp : float
        Chance of an elastic warp; its standard deviation as a share of the spacing of the control points.
    toned, brightness, contrast, gamma : float
        Chance of a change of tones; brightness in standard deviations of the patch; contrast; exponent.
    noised, noise : float
        Chance of noise; its largest standard deviation, in those of the patch.
    blurred, blur : float
        Chance of blur; its largest standard deviation in voxels.
    """

    flip: float = 0.5
    quarter: bool = True
    moved: float = 0.7
    rotation: float = 20.0
    tilt: float = 10.0
    scale: float = 0.2
    shear: float = 0.1
    warped: float = 0.3
    warp: float = 0.12
    toned: float = 0.6
    brightness: float = 0.25
    contrast: float = 0.25
    gamma: float = 0.3
    noised: float = 0.2
    noise: float = 0.15
    blurred: float = 0.2
    blur: float = 1.0


def make_recipe(changes: Mapping[str, float]) -> Recipe:
    """The usual recipe with some of it changed, as a plan says it.

    Raises
    ------
    PlanError
        There is nothing of that name, or the number cannot be.
    """
    names = [f.name for f in fields(Recipe)]
    for name, value in changes.items():
        if name not in names:
            raise PlanError(f"The augmentation has no {name!r}.", hint=f"There is: {', '.join(names)}.")
        if not 0 <= value < math.inf:
            raise PlanError(f"The augmentation's {name} cannot be {value}.", hint="Give 0 or more.")
    return Recipe(**{**asdict(Recipe()), **changes})


@dataclass(frozen=True, eq=False)
class Draw:
    """What the dice said for a batch; tensors are on the CPU, one row for each patch.

    Attributes
    ----------
    matrix : (B, dims, dims) float tensor
        From output to input, in voxels about the centre, axes ``([Z,] Y, X)``.
    warp : (B, dims, ...) float tensor, optional
        Displacement in voxels at a few control points, axes ``([Z,] Y, X)``.
    gain, offset : (B, C) float tensors
        Contrast and brightness.
    gamma, noise, blur : (B,) float tensors
        1, 0 and 0 where nothing changes.
    seed : int
        Of the noise.
    """

    matrix: torch.Tensor
    warp: torch.Tensor | None
    gain: torch.Tensor
    offset: torch.Tensor
    gamma: torch.Tensor
    noise: torch.Tensor
    blur: torch.Tensor
    seed: int


def augment(batch: Batch, strength: float, seed: int, anisotropy: float = 1.0, recipe: Recipe = Recipe()) -> Batch:
    """Change a batch at random; strength 0 gives it back as it is.

    Parameters
    ----------
    batch : Batch
        Of 2D or 3D patches, on any device.
    strength : float
        0 nothing, 1 usual, 2 twice that.
    seed : int
        The same seed changes the same batch in the same way.
    anisotropy : float
        Distance between planes over that between pixels; the larger, the less moves across planes.
    recipe : Recipe
        What strength 1 means.

    Returns
    -------
    Batch
        On the same device, of the same shapes; unknown where a voxel comes from outside its patch. A patch that would
        lose its last known voxel only changes its intensities.
    """
    if strength == 0:
        return batch
    return apply(batch, draw(tuple(batch.image.shape), strength, seed, anisotropy, recipe))


def roughen(image: torch.Tensor) -> torch.Tensor:
    """Give patches ``(B, C, ...)`` of one value, such as the black beside a section, a little noise.

    Layers that normalise each patch by itself divide by its deviation: for 0 the gradient grows three hundredfold in
    each of them, and in deep nets whose activations let it pass (`efficient-unet`) it is no number in the end.
    """
    smooth = image.float().std(dim=tuple(range(2, image.ndim)), correction=0).amax(dim=1) < _SMOOTH
    if not smooth.any():
        return image
    return image + _ROUGH * smooth.reshape(-1, *[1] * (image.ndim - 1)) * torch.randn_like(image)


def draw(
    shape: tuple[int, ...], strength: float, seed: int, anisotropy: float = 1.0, recipe: Recipe = Recipe()
) -> Draw:
    """Throw the dice for a batch of `shape` ``(B, C, [Z,] Y, X)``."""
    dice = _Dice(shape[0], strength, seed)
    size = shape[2:]
    warp = None
    warped = dice.chance(recipe.warped)
    if warped.any():
        warp = _warp(dice, warped, size, recipe.warp, anisotropy)
    toned, channels = dice.chance(recipe.toned), shape[1]
    # channels share most of a change: what differs between them is a change of colour
    gain = 1 + toned[:, None] * recipe.contrast * (dice.spread(1) + dice.spread(channels) / 4)
    offset = toned[:, None] * recipe.brightness * (dice.spread(1) + dice.spread(channels) / 4)
    gamma = torch.exp(dice.chance(recipe.toned / 2) * recipe.gamma * dice.spread(1)[:, 0])
    return Draw(
        matrix=_matrix(dice, size, recipe, max(1.0, anisotropy)),
        warp=warp,
        gain=gain.clamp_min(0.1),
        offset=offset,
        gamma=gamma,
        noise=dice.chance(recipe.noised) * recipe.noise * dice.spread(1)[:, 0].abs(),
        blur=dice.chance(recipe.blurred) * recipe.blur * dice.spread(1)[:, 0].abs(),
        seed=seed,
    )


def apply(batch: Batch, drawn: Draw) -> Batch:
    """Do to a batch what was drawn."""
    moved = _move(batch, drawn)
    image = _tone(_blur(moved.image, drawn.blur), drawn)
    return replace(moved, image=image)


class _Dice:
    """Random numbers for the rows of a batch, scaled by strength."""

    def __init__(self, rows: int, strength: float, seed: int) -> None:
        self.rows = rows
        self.strength = strength
        self.generator = torch.Generator().manual_seed(seed)

    def chance(self, probability: float) -> torch.Tensor:
        """1 in rows that were chosen, else 0: ``(B,)``."""
        return (torch.rand(self.rows, generator=self.generator) < probability * min(1, self.strength)).float()

    def spread(self, columns: int) -> torch.Tensor:
        """Uniform in -strength..strength: ``(B, columns)``."""
        return (2 * torch.rand(self.rows, columns, generator=self.generator) - 1) * self.strength

    def even(self, probability: float) -> torch.Tensor:
        """1 in rows that were chosen, whatever the strength: ``(B,)``."""
        return (torch.rand(self.rows, generator=self.generator) < probability).float()


def _matrix(dice: _Dice, size: tuple[int, ...], recipe: Recipe, anisotropy: float) -> torch.Tensor:
    """Flips, quarter turns, rotation, scale and shear as one matrix a row, from output to input."""
    dims, moved = len(size), dice.chance(recipe.moved)
    angle = moved * dice.spread(1)[:, 0] * math.radians(recipe.rotation)
    quarters = torch.floor(4 * torch.rand(dice.rows, generator=dice.generator))
    if recipe.quarter and dims == 2 and size[0] == size[1]:
        angle = angle + quarters * (math.pi / 2)
    zoom = torch.exp(moved * dice.spread(1)[:, 0] * math.log1p(recipe.scale))
    shear = moved * dice.spread(1)[:, 0] * recipe.shear
    plane = _rotation(angle, dims, dims - 2, dims - 1)
    plane[:, -1, :] += shear[:, None] * plane[:, -2, :]
    plane = plane * zoom[:, None, None]
    if dims == 3:
        tilts = moved[:, None] * dice.spread(2) * math.radians(recipe.tilt)
        if anisotropy >= _FLAT:
            tilts, plane[:, 0, 0] = torch.zeros_like(tilts), 1.0
        stretch = torch.diag(torch.tensor([anisotropy, 1.0, 1.0]))
        for tilt, axis in zip(tilts.unbind(1), (1, 2), strict=True):
            # turned in the world, where planes lie `anisotropy` apart
            plane = stretch.inverse() @ _rotation(tilt, 3, 0, axis) @ stretch @ plane
    flips = torch.stack([1 - 2 * dice.even(recipe.flip) for _ in range(dims)], dim=1)
    return plane * flips[:, None, :]


def _rotation(angle: torch.Tensor, dims: int, a: int, b: int) -> torch.Tensor:
    matrix = torch.eye(dims).repeat(len(angle), 1, 1)
    matrix[:, a, a] = matrix[:, b, b] = angle.cos()
    matrix[:, a, b], matrix[:, b, a] = -angle.sin(), angle.sin()
    return matrix


def _warp(dice: _Dice, warped: torch.Tensor, size: tuple[int, ...], amount: float, anisotropy: float) -> torch.Tensor:
    """Displacements at control points about 32 voxels apart, small against their distance so that nothing folds."""
    points = [min(9, max(3, round(s / 32) + 1)) for s in size]
    deviates = torch.randn(dice.rows, len(size), *points, generator=dice.generator)
    steps = torch.tensor([s / (p - 1) for s, p in zip(size, points, strict=True)])
    if len(size) == 3:
        steps[0] = 0.0 if anisotropy >= _FLAT else steps[0] / max(1.0, anisotropy)
    shape = (1, -1, *(1,) * len(size))
    rows = (warped * amount * dice.strength).view(-1, *(1,) * (len(size) + 1))
    return deviates.clamp_(-2, 2) * steps.view(shape) * rows


def _move(batch: Batch, drawn: Draw) -> Batch:
    """Resample image and labels in one pass."""
    image, size = batch.image, batch.image.shape[2:]
    grid = _grid(drawn, tuple(size), image.device)
    moved = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # 0 is unknown, as it is outside: one nearest-neighbour pass carries target, known and hints
    labels = torch.where(batch.known, batch.target + 1, 0)
    layers = torch.stack([labels] if batch.hints is None else [labels, batch.hints], dim=1).to(image.dtype)
    layers = F.grid_sample(layers, grid, mode="nearest", padding_mode="zeros", align_corners=False).round().long()
    known = layers[:, 0] > 0
    target = (layers[:, 0] - 1).clamp_min_(0)
    result = Batch(moved, target, known, None if batch.hints is None else layers[:, 1])
    lost = batch.known.flatten(1).any(1) & ~known.flatten(1).any(1)
    if image.device.type == "cpu" and not lost.any():
        return result
    for name in ("image", "target", "known", "hints"):
        if (before := getattr(batch, name)) is not None:
            rows = lost.view(-1, *(1,) * (before.ndim - 1))
            result = replace(result, **{name: torch.where(rows, before, getattr(result, name))})
    return result


def _grid(drawn: Draw, size: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where each output voxel comes from, ``(B, [Z,] Y, X, dims)`` in -1..1, last axis ``(x, y[, z])``."""
    dims = len(size)
    half = torch.tensor(size, dtype=torch.float32) / 2
    matrix = (drawn.matrix * half / half[:, None]).flip(1, 2)  # voxels to -1..1, and z y x to x y z
    theta = torch.cat([matrix, torch.zeros(len(matrix), dims, 1)], dim=2).to(device, non_blocking=True)
    grid = F.affine_grid(theta, [len(matrix), 1, *size], align_corners=False)
    if drawn.warp is not None:
        coarse = (drawn.warp / half.view(1, -1, *(1,) * dims)).flip(1).to(device, non_blocking=True)
        mode = "bicubic" if dims == 2 else "trilinear"
        grid += F.interpolate(coarse, size, mode=mode, align_corners=True).movedim(1, -1)
    return grid


def _tone(image: torch.Tensor, drawn: Draw) -> torch.Tensor:
    """Contrast, brightness, gamma and noise, in place: the image is our own since it was resampled."""
    rows = image.flatten(2)
    spread, mean = (t.unsqueeze(-1) for t in torch.std_mean(rows, dim=2, correction=0))
    gain, offset = (t.to(image.device, non_blocking=True).unsqueeze(-1) for t in (drawn.gain, drawn.offset))
    rows = rows.mul_(gain).add_(mean * (1 - gain) + spread * offset)
    bent = torch.nonzero(drawn.gamma != 1).flatten()
    if len(bent):
        place = bent.to(image.device)
        part = rows[place]
        low, high = part.aminmax(dim=2, keepdim=True)
        span = (high - low).clamp_min(1e-8)
        power = drawn.gamma[bent].to(image.device).view(-1, 1, 1)
        rows[place] = ((part - low) / span).pow_(power).mul_(span).add_(low)
    noisy = torch.nonzero(drawn.noise).flatten()
    if len(noisy):
        place = noisy.to(image.device)
        generator = torch.Generator(image.device).manual_seed(drawn.seed)
        noise = torch.randn(len(noisy), *rows.shape[1:], generator=generator, device=image.device)
        rows[place] += noise * (spread[place] * drawn.noise[noisy].to(image.device).view(-1, 1, 1))
    return rows.view_as(image)


def _blur(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur within the plane, of the rows that were drawn for it: five taps along each axis."""
    chosen = torch.nonzero(sigma > 0.2).flatten()
    if not len(chosen):
        return image
    reach = torch.arange(-2, 3)
    weights = torch.exp(-0.5 * (reach / sigma[chosen, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).to(image.device, image.dtype)
    place = chosen.to(image.device)
    part = image[place]
    for axis in (-2, -1):
        pad = (2, 2) if axis == -1 else (0, 0, 2, 2)
        wide = F.pad(part, (*pad, *(0,) * (2 * (image.ndim - 2) - len(pad))), mode="replicate")
        blurred = torch.zeros_like(part)
        for tap in range(5):
            factor = weights[:, tap].view(-1, *(1,) * (image.ndim - 1))
            blurred.addcmul_(wide.narrow(axis, tap, part.shape[axis]), factor.expand_as(part))
        part = blurred
    image[place] = part
    return image
