"""Layers that every family shares: one table switches 2D and 3D, one place makes convolutions and normalisations.

A part never says ``Conv2d``: it asks `Layers`, which knows the dims, the normalisation that the user wants instead of
the paper's, and how the paper initialises its kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BatchNorm", "DoubleConv", "Layers", "MaxPool", "Resize", "StridedDown", "TransposeUp", "fit", "resize"]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_DECONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOL = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}

# Values a channel from which their statistics count in full and carry gradient; of fewer, hardly any would be left.
_ENOUGH = 16

# How the papers' frameworks start a kernel; biases start at zero everywhere (torch's own default keeps its biases).
_INIT: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot-uniform": nn.init.xavier_uniform_,
    "glorot-normal": nn.init.xavier_normal_,
    "he-uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he-normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
}


class BatchNorm(nn.Module):
    """Batch normalisation whose evaluation agrees with its training, at any batch size.

    Parameters and statistics are those of the papers' batch normalisation, so counts and state dictionaries are the
    same. Plain batch normalisation trains on the statistics of the batch and evaluates on their running mean: at one
    or two patches a batch the two nets differ. Here the running statistics normalise both (batch renormalisation
    without limits, Ioffe 2017, arXiv:1702.03275): the output in training equals the output in evaluation, while the
    gradient still flows through the statistics of the batch. The statistics follow their batches closely at first (by
    one over the root of the step, down to `momentum`), while the weights below still change fast, and less where a
    channel has few values.

    Parameters
    ----------
    channels : int
        Channels of the input.
    scale : bool
        Whether there is a learnt scale (Keras ``scale=False``: only a shift).
    eps, momentum : float
        As in torch; Keras' defaults (0.001, 1 - 0.99) are the defaults here.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, scale: bool = True, eps: float = 1e-3, momentum: float = 0.01) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...) channel by channel."""
        if not self.training or x.numel() < _ENOUGH * x.shape[1]:
            mean, variance = self.running_mean, self.running_var
            if self.training:
                self._correction(x)
                mean, variance = mean.clone(), variance.clone()  # the next forward may come before this one's backward
            return functional.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)
        scale, shift = self._correction(x)
        bias = self.bias + shift * self.weight if self.weight is not None else self.bias + shift
        weight = scale * self.weight if self.weight is not None else scale
        return functional.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)

    @torch.no_grad()
    def _correction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Follow the batch with the running statistics; return what turns a batch-normalised x into a running one."""
        values = x.numel() // x.shape[1]
        mean, variance = _statistics(x.detach(), self.running_mean.dtype)
        if values > 1:
            self.num_batches_tracked += 1
            # A tensor throughout: reading the counter back would make a GPU wait at every layer. A few values say
            # little about their variance, two that nearly agree would blow the next ones up.
            share = self.num_batches_tracked.to(mean.dtype).rsqrt().clamp(min=self.momentum) * min(1, values / _ENOUGH)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)
        deviation = torch.sqrt(self.running_var + self.eps)
        return torch.sqrt(variance + self.eps) / deviation, (mean - self.running_mean) / deviation

    def extra_repr(self) -> str:
        """Say the channels, as torch's own layers do."""
        return f"{len(self.bias)}, scale={self.weight is not None}, eps={self.eps}, momentum={self.momentum}"


def _statistics(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel, in `dtype`."""
    values = x.numel() // x.shape[1]
    if values < _ENOUGH:
        variance, mean = torch.var_mean(x.to(dtype), dim=[axis for axis in range(x.ndim) if axis != 1], correction=0)
        return mean, variance
    # torch.var_mean is 2 to 8 times slower than the kernel of batch normalisation, which gives both on the way.
    mean, variance = (torch.empty(x.shape[1], dtype=dtype, device=x.device) for _ in range(2))
    functional.batch_norm(x, mean.zero_(), variance.zero_(), training=True, momentum=1.0)
    return mean, variance * ((values - 1) / values)


class _GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes one voxel a channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(_GroupNorm):
    """Instance normalisation that keeps channels-last order.

    torch's own turns channels-last tensors back, and every convolution after it pays for that: a step of U-Net took
    0.56 s against 0.25 s with batch normalisation (bfloat16, one CPU thread). Normalising image by image with the
    batch kernel is the same arithmetic at the batch kernel's speed.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every channel of every image by itself."""
        order = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        exporting = torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()
        if x.is_cuda or exporting or x[0, 0].numel() < 2 or not x.is_contiguous(memory_format=order):
            return super().forward(x)
        images = (
            functional.batch_norm(image, None, None, self.weight, self.bias, True, 0.0, self.eps)
            for image in x.split(1)
        )
        return torch.cat(list(images)) if len(x) > 1 else next(images)


class _MeanPool(nn.Module):
    """Mean over a window, padding not counted; also of an image smaller than the window, which torch refuses in 3D."""

    def __init__(self, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.window = (kernel, stride)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        pool = _AVERAGE_POOL[x.ndim - 2]
        if min(x.shape[2:]) >= self.window[0]:
            return pool(x, *self.window, padding=self.padding, count_include_pad=False)
        margins = [self.padding] * (2 * (x.ndim - 2))
        counted = functional.pad(x.new_ones(1, 1, *x.shape[2:]), margins)
        return pool(functional.pad(x, margins), *self.window) / pool(counted, *self.window)


@dataclass(frozen=True)
class Layers:
    """What parts are made of.

    Attributes
    ----------
    dims : {2, 3}
        Spatial axes.
    norm_kind : str
        ``paper`` leaves the choice to each part; ``batch``, ``instance``, ``group`` and ``none`` overrule it.
    init : str
        Initialisation of kernels: glorot-uniform, glorot-normal, he-uniform, he-normal, or torch's own ("torch").
    eps, momentum : float
        Of batch normalisation. Keras: 0.001 and 0.01; torch: 0.00001 and 0.1.
    """

    dims: int = 2
    norm_kind: str = "paper"
    init: str = "glorot-uniform"
    eps: float = 1e-3
    momentum: float = 0.01

    def conv(  # noqa: PLR0913 - the vocabulary of convolutions
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding: int | None = None,
    ) -> nn.Module:
        """Convolution; zero-padded so that the size stays (stride 1, odd kernels), or by `padding`."""
        padding = dilation * (kernel - 1) // 2 if padding is None else padding
        made = _CONV[self.dims](
            cin, cout, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        return self._initialise(made)

    def deconv(
        self, cin: int, cout: int, kernel: int = 2, *, stride: int = 2, padding: int = 0, bias: bool = True
    ) -> nn.Module:
        """Transposed convolution; by default one that doubles the size."""
        return self._initialise(_DECONV[self.dims](cin, cout, kernel, stride=stride, padding=padding, bias=bias))

    def norm(self, channels: int, *, paper: str = "batch", scale: bool = True) -> nn.Module:
        """Normalisation of `channels`: the `paper`'s, unless the user wants another. `scale` only concerns batch."""
        kind = self.norm_in(paper)
        if kind == "batch":
            return BatchNorm(channels, scale=scale, eps=self.eps, momentum=self.momentum)
        if kind == "instance":
            return InstanceNorm(channels)
        if kind == "group":
            return _GroupNorm(max(g for g in range(1, 9) if channels % g == 0), channels)
        return nn.Identity()

    def norm_in(self, paper: str = "batch") -> str:
        """Which normalisation a part gets whose paper has `paper`."""
        return paper if self.norm_kind == "paper" else self.norm_kind

    def conv_norm(self, cin: int, cout: int, kernel: int = 3, *, scale: bool = True, stride: int = 1) -> nn.Sequential:
        """Convolution without bias, then a batch normalisation (or what replaces it; without one, with bias)."""
        plain = self.norm_in() == "none"
        conv = self.conv(cin, cout, kernel, stride=stride, bias=plain)
        return nn.Sequential(conv, self.norm(cout, scale=scale))

    def max_pool(self, kernel: int = 2, stride: int | None = None, padding: int = 0) -> nn.Module:
        """Maximum over a window; halves the size by default."""
        return _MAX_POOL[self.dims](kernel, stride, padding)

    def average_pool(self, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        """Mean over a window, padding not counted."""
        return _MeanPool(kernel, stride, padding)

    def _initialise(self, layer: nn.Module) -> nn.Module:
        if self.init in _INIT:
            _INIT[self.init](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return layer


def resize(x: Tensor, size: torch.Size, mode: str = "linear") -> Tensor:
    """Resize features or logits (never an image) to the spatial `size`: ``linear`` or ``nearest``."""
    if x.shape[2:] == size:
        return x
    if mode == "nearest":
        return functional.interpolate(x, size=tuple(size), mode="nearest")
    return functional.interpolate(x, size=tuple(size), mode=_LINEAR[x.ndim - 2], align_corners=False)


def fit(x: Tensor, size: torch.Size) -> Tensor:
    """Crop or pad (replicating the edge) the far side of `x` by the few voxels that pooling an odd size loses."""
    if x.shape[2:] == size:
        return x
    x = x[(slice(None), slice(None), *(slice(0, n) for n in size))]
    margins = [0] * (2 * len(size))
    for axis, n in enumerate(reversed(size)):
        margins[2 * axis + 1] = n - x.shape[-1 - axis]
    return functional.pad(x, margins, mode="replicate") if any(margins) else x


# ConvBlock ------------------------------------------------------------------------------------------------------


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by ReLU: the block of U-Net.

    Parameters
    ----------
    norm : str
        What the paper has between convolution and ReLU: ``none`` or ``batch``.
    bias : bool or None
        Whether convolutions have a bias; by default where no normalisation follows.
    middle : int or None
        Channels between the two, `width` by default.
    """

    def __init__(
        self, layers: Layers, cin: int, width: int, *, norm: str = "none", bias: bool | None = None, middle: int = 0
    ) -> None:
        self.out = width
        bias = layers.norm_in(norm) == "none" or bool(bias)
        steps: list[nn.Module] = []
        for a, b in ((cin, middle or width), (middle or width, width)):
            steps += [layers.conv(a, b, bias=bias), layers.norm(b, paper=norm), nn.ReLU(inplace=True)]
        super().__init__(*(step for step in steps if not isinstance(step, nn.Identity)))


# DownOp: forward(x, finer), where finer is the level before x (x itself at the top) -------------------------------


class MaxPool(nn.Module):
    """Halve the size by the maximum of 2x2 (2x2x2)."""

    def __init__(self, layers: Layers, cin: int, width: int, before: int | None = None) -> None:
        super().__init__()
        self.out = cin
        self.pool = layers.max_pool()

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """Pool `x`; `finer` is not used."""
        return self.pool(x)


class StridedDown(nn.Module):
    """Halve the size by a 3x3 convolution of stride 2."""

    def __init__(self, layers: Layers, cin: int, width: int, before: int | None = None) -> None:
        super().__init__()
        self.out = cin
        self.conv = layers.conv(cin, cin, stride=2)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """Convolve `x`; `finer` is not used."""
        return self.conv(x)


# UpOp: forward(x, size) -----------------------------------------------------------------------------------------


class TransposeUp(nn.Module):
    """Double the size by a 2x2 transposed convolution of stride 2, to `width` channels (or as many as came in)."""

    def __init__(self, layers: Layers, cin: int, width: int, *, keep: bool = False) -> None:
        super().__init__()
        self.out = cin if keep else width
        self.conv = layers.deconv(cin, self.out)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Upsample `x` to the spatial `size`."""
        return fit(self.conv(x), size)


class Resize(nn.Module):
    """Double the size by repeating voxels (``nearest``) or by linear interpolation; channels stay."""

    def __init__(self, layers: Layers, cin: int, width: int, *, mode: str = "nearest") -> None:
        super().__init__()
        self.out = cin
        self.mode = mode

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """Upsample `x` to the spatial `size`."""
        return resize(x, size, self.mode)


def scaled(width: float, factor: float) -> int:
    """Scale a number of features, at least 1."""
    return max(1, math.floor(width * factor + 0.5))
