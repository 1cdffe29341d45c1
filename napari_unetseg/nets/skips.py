"""Skip connections that several families share; each family's own are beside its net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import SKIPS, Parts, SkipConn
from napari_unetseg.nets.blocks import Layers

__all__ = ["AddSkip", "NoSkip", "SharpSkip", "Sharpen"]


@SKIPS.register("none", sentence="No skip connections")
class NoSkip(SkipConn):
    """No skip at all, or none at some levels.

    Parameters
    ----------
    without : tuple of int or None
        Levels without a skip; None means all of them.
    """

    def __init__(
        self, layers: Layers, channels: Sequence[int], parts: Parts, *, without: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(layers, channels, parts)
        self.without = without

    def connect(self, layers: Layers, level: int, up: int, below: int) -> int:
        """Channels after merging."""
        return up if self._skipless(level) else super().connect(layers, level, up, below)

    def merge(self, level: int, skip: Tensor, up: Tensor, below: Tensor) -> Tensor:
        """Pass `up` on alone where there is no skip."""
        return up if self._skipless(level) else super().merge(level, skip, up, below)

    def _skipless(self, level: int) -> bool:
        return self.without is None or level in self.without


@SKIPS.register("add", sentence="Sum")
class AddSkip(SkipConn):
    """Sum of skip and upsampled tensor; the skip is projected by a 1x1 convolution where the channels differ."""

    def __init__(self, layers: Layers, channels: Sequence[int], parts: Parts) -> None:
        super().__init__(layers, channels, parts)
        self.project = nn.ModuleDict()

    def connect(self, layers: Layers, level: int, up: int, below: int) -> int:
        """Make the projection of `level`."""
        if up != self.channels[level]:
            self.project[str(level)] = layers.conv(self.channels[level], up, 1)
        return up

    def merge(self, level: int, skip: Tensor, up: Tensor, below: Tensor) -> Tensor:
        """Add."""
        return up + (self.project[str(level)](skip) if str(level) in self.project else skip)


class Sharpen(nn.Module):
    """Depthwise sharpening by a fixed kernel: 8 (26 in 3D) in the centre, -1 around it, zero padding.

    Parameters
    ----------
    dims : {2, 3}
        Spatial axes.
    channels : int
        Channels; every one gets the same kernel.
    kernel : str
        ``laplacian``: the kernel alone, whose sum is zero; ``identity+laplacian``: the input added (centre 9).
    trainable : bool
        Whether training may change it.
    """

    def __init__(self, dims: int, channels: int, *, kernel: str = "laplacian", trainable: bool = False) -> None:
        super().__init__()
        weight = -torch.ones(channels, 1, *[3] * dims)
        weight[(slice(None), slice(None), *[1] * dims)] = 3**dims - 1 + (kernel == "identity+laplacian")
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """Sharpen (B, C, ...)."""
        conv = functional.conv2d if x.ndim == 4 else functional.conv3d
        return conv(x, self.weight.to(x.dtype), padding=1, groups=x.shape[1])


@SKIPS.register("sharp", sentence="Sharpened, then concatenated")
class SharpSkip(NoSkip):
    """Skips that are sharpened before they are concatenated (Zunair & Ben Hamza 2021, section 3.2).

    Parameters
    ----------
    without : tuple of int
        Levels without a skip.
    kernel, trainable : str, bool
        See `Sharpen`.
    """

    def __init__(
        self,
        layers: Layers,
        channels: Sequence[int],
        parts: Parts,
        *,
        without: tuple[int, ...] = (),
        kernel: str = "laplacian",
        trainable: bool = False,
    ) -> None:
        super().__init__(layers, channels, parts, without=without)
        self.sharpen = nn.ModuleDict(
            {
                str(level): Sharpen(layers.dims, c, kernel=kernel, trainable=trainable)
                for level, c in enumerate(channels[:-1])
                if level not in without
            }
        )

    def prepare(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Sharpen every level but the bottom."""
        return [self.sharpen[str(level)](x) if str(level) in self.sharpen else x for level, x in enumerate(pyramid)]
