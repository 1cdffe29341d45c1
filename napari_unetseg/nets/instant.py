"""The instant net: fixed multiscale features and a small perceptron, taught in about a second by a few strokes.

At five scales it looks at each channel smoothed, at the size of its gradient, the eigenvalues of its Hessian (what is a
blob or a line, dark or bright) and its local contrast: the features of ilastik (Berg et al. 2019) and Trainable Weka
Segmentation (Arganda-Carreras et al. 2017). How it is taught is in `napari_unetseg.instant`. All of it is one module of
convolutions, so that it is saved, tiled, explained and exported like any other net.

The coarser scales are computed on pooled images, which costs a tenth and changes the answer less than the noise does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import NETS
from napari_unetseg.nets.blocks import scaled
from napari_unetseg.nets.making import Request

__all__ = ["ANISOTROPIES", "SIGMAS", "Features", "InstantNet"]

SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0)  # pixels in the plane
ANISOTROPIES = (1, 1.5, 2, 3, 4, 6, 8, 12)  # distance between planes in pixels; the nearest is taken
_HIDDEN = 64
_MOST_COLOURS = 6  # more channels are first mixed down to this many
_CLIP = 5.0  # deviations: what lies further out than anything seen counts as just outside
_REACH = 3.0  # deviations at which a Gaussian is cut off


class InstantNet(nn.Module):
    """`Features`, brought to mean 0 and deviation 1, and a perceptron with two hidden layers over each voxel.

    Parameters
    ----------
    dims, channels, outputs : int
        As in `NetSpec`.
    hidden : int
        Units of a hidden layer.
    anisotropy : float
        One of `ANISOTROPIES`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dims: int, channels: int, outputs: int, hidden: int, anisotropy: float) -> None:
        super().__init__()
        self.features = Features(dims, channels, anisotropy)
        self.divisor = self.features.divisor
        one = (1,) * dims
        self.register_buffer("shift", torch.zeros(self.features.out, *one))
        self.register_buffer("scale", torch.ones(self.features.out, *one))
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.perceptron = nn.Sequential(
            conv(self.features.out, hidden, 1),
            nn.ReLU(inplace=True),
            conv(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            conv(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, outputs, *size)`` of an image ``(B, C, *size)``, sizes multiples of `divisor`."""
        return self.classify(self.features(x))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, outputs, *size)`` of features ``(B, F, *size)``."""
        return self.perceptron(((features - self.shift) * self.scale).clamp(-_CLIP, _CLIP))


@NETS.register(
    "instant",
    hidden=True,
    title="Instant",
    family="Instant",
    paper="Features of ilastik, Berg et al. 2019; forest of Geurts et al. 2006",
    sentence="Answers about a second after the strokes; the first mask, until a U-Net is better.",
    dims=(2, 3),
    options={"anisotropy": ANISOTROPIES},
)
def instant(request: Request) -> InstantNet:
    """Fixed multiscale features and a small perceptron."""
    spec = request.spec
    hidden = scaled(_HIDDEN, spec.width)
    return InstantNet(spec.dims, spec.in_channels, spec.outputs, hidden, request.options["anisotropy"])


class Features(nn.Module):
    """Smoothed image, gradient, Hessian eigenvalues and local contrast at each of `SIGMAS`.

    Parameters
    ----------
    dims : int
        2 or 3.
    channels : int
        Channels of the image.
    anisotropy : float
        Distance between planes in units of the pixel size; scales along Z are shortened by it.
    """

    mix: Tensor

    def __init__(self, dims: int, channels: int, anisotropy: float = 1.0) -> None:
        super().__init__()
        self.dims = dims
        self.scales = nn.ModuleList(
            _Scale([sigma / step for step in (anisotropy, 1.0, 1.0)[-dims:]]) for sigma in SIGMAS
        )
        self.divisor = _pool(SIGMAS[-1])
        colours = min(channels, _MOST_COLOURS)
        self.register_buffer("mix", torch.eye(colours, channels))
        self.out = colours * (1 + len(SIGMAS) * (3 + dims))

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 features ``(B, out, *size)`` of an image ``(B, C, *size)``, sizes multiples of `divisor`."""
        with torch.autocast(x.device.type, enabled=False):  # differences of neighbours need all their digits
            x = torch.einsum("bc...,mc->bm...", x.float(), self.mix)
            rows, colours, *size = x.shape
            x = x.reshape(rows * colours, 1, *size)
            found = torch.cat([x, *(scale(x) for scale in self.scales)], dim=1)
            return found.reshape(rows, self.out, *size)


class _Scale(nn.Module):
    """Features at one scale; of modules, between which a tile can be stopped.

    Parameters
    ----------
    sigmas : sequence of float
        In voxels, one an axis.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.pools = [_pool(sigma) for sigma in sigmas]
        self.sigmas = [math.sqrt(s**2 - (p**2 - 1) / 12) / p for s, p in zip(sigmas, self.pools, strict=True)]
        self.smooth, self.bend = _Smooth(self.sigmas), _Bend(self.sigmas)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, 3 + dims, *size)`` of ``(B, 1, *size)``."""
        size, flat = x.shape[2:], x.ndim == 4
        if max(self.pools) > 1:
            x = (functional.avg_pool2d if flat else functional.avg_pool3d)(x, self.pools)
        smooth, contrast = self.smooth(x)
        first = [s * _difference(smooth, axis) for axis, s in enumerate(self.sigmas)]
        slope = torch.cat(first, dim=1).square().sum(dim=1, keepdim=True).add(1e-6).sqrt()
        found = torch.cat([smooth, slope, contrast, self.bend(smooth, first)], dim=1)
        if max(self.pools) > 1:
            found = functional.interpolate(found, size, mode="bilinear" if flat else "trilinear")
        return found


class _Smooth(nn.Module):
    """Smoothed image, and the local contrast in it."""

    slow = True  # a tile can be stopped before it

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.sigmas = sigmas

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        smooth, square = _gaussian(torch.cat([x, x * x]), self.sigmas).chunk(2)
        return smooth, (square - smooth**2).clamp_min(1e-6).sqrt()


class _Bend(nn.Module):
    """Eigenvalues of the Hessian."""

    slow = True  # a tile can be stopped before it

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__()
        self.sigmas = sigmas

    def forward(self, smooth: Tensor, first: Sequence[Tensor]) -> Tensor:
        second = {
            (i, j): s * _difference(first[j], i) if i != j else s * s * _second(smooth, i)
            for i, s in enumerate(self.sigmas)
            for j in range(i, len(self.sigmas))
        }
        return _eigenvalues(second, len(self.sigmas))


def _pool(sigma: float) -> int:
    """Voxels that may be averaged to one before smoothing: half of sigma, as a power of two."""
    return 2 ** max(0, math.floor(math.log2(max(sigma, 1.0) / 2)))


def _gaussian(x: Tensor, sigmas: Sequence[float]) -> Tensor:
    for axis, sigma in enumerate(sigmas):
        reach = max(1, round(_REACH * sigma))
        places = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-0.5 * (places / sigma) ** 2)
        shape = [1] * x.ndim
        shape[2 + axis] = -1
        conv = functional.conv2d if x.ndim == 4 else functional.conv3d
        x = conv(_grow(x, axis, reach), (kernel / kernel.sum()).reshape(shape))
    return x


def _grow(x: Tensor, axis: int, by: int) -> Tensor:
    pads = [0] * (2 * (x.ndim - 2))
    pads[-2 - 2 * axis : len(pads) - 2 * axis] = [by, by]
    return functional.pad(x, pads, mode="replicate")


def _difference(x: Tensor, axis: int) -> Tensor:
    wide, size = _grow(x, axis, 1), x.shape[2 + axis]
    return (wide.narrow(2 + axis, 2, size) - wide.narrow(2 + axis, 0, size)) / 2


def _second(x: Tensor, axis: int) -> Tensor:
    wide, size = _grow(x, axis, 1), x.shape[2 + axis]
    return wide.narrow(2 + axis, 2, size) + wide.narrow(2 + axis, 0, size) - 2 * x


def _eigenvalues(hessian: dict[tuple[int, int], Tensor], dims: int) -> Tensor:
    """Eigenvalues ``(B, dims, ...)`` of symmetric matrices, largest first, in closed form."""
    if dims == 2:
        a, b, c = hessian[0, 0], hessian[0, 1], hessian[1, 1]
        middle, radius = (a + c) / 2, (((a - c) / 2) ** 2 + b**2 + 1e-12).sqrt()
        return torch.cat([middle + radius, middle - radius], dim=1)
    mean = (hessian[0, 0] + hessian[1, 1] + hessian[2, 2]) / 3
    a, b, c = (hessian[i, i] - mean for i in range(3))
    d, e, f = hessian[0, 1], hessian[0, 2], hessian[1, 2]
    radius = ((a**2 + b**2 + c**2 + 2 * (d**2 + e**2 + f**2)) / 6 + 1e-12).sqrt()
    determinant = a * (b * c - f**2) - d * (d * c - f * e) + e * (d * f - b * e)
    angle = torch.acos((determinant / (2 * radius**3)).clamp(-1 + 1e-6, 1 - 1e-6)) / 3
    turns = [0.0, -2 * math.pi / 3, 2 * math.pi / 3]
    return torch.cat([mean + 2 * radius * torch.cos(angle + turn) for turn in turns], dim=1)
