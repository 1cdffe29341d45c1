"""FC-ResNet: a deep fully convolutional residual net with long skips.

Paper: Drozdzal et al. 2017, "Learning normalized inputs for iterative estimation in medical image segmentation",
Medical Image Analysis 44 (2018), arXiv:1702.05174 (Table II and Figure 2).

Reading: pre-activation blocks, every convolution with bias; long skips are sums, both sides projected by a 1x1
convolution to the bottleneck width where they differ from it, as in the authors' code of January 2017: 11,042,273
trainable parameters and 140 main convolutions, the paper's "11 million, 140". (Their later library projects only the
decoder's side: 11,451,745.) The first block of a stage on the way down halves the size, the last on the way up
doubles it, the stage across does both: sizes must divide by 32. At the end the first convolution's output is added
before normalisation, ReLU and the 1x1 output. He-normal kernels; batch normalisation with momentum 0.9 and epsilon
0.001. A 1x1 convolution after repeating voxels is done before it: the same numbers, for a quarter (an eighth) of the
work.
"""

from __future__ import annotations

from torch import Tensor, nn

from napari_unetseg.nets.assembly import NETS
from napari_unetseg.nets.blocks import Layers, scaled
from napari_unetseg.nets.making import Request

__all__ = ["FCResNet", "fcresnet"]

# Inner width of the bottlenecks (a quarter of the outer) and blocks of each stage on the way down; then across.
_STAGES = ((32, 3), (64, 8), (128, 10))
_ACROSS = (256, 3)


class _Shortcut(nn.Module):
    """Identity, decimated on the way down, repeated on the way up, projected where the channels change."""

    def __init__(self, layers: Layers, cin: int, cout: int, *, down: bool, up: bool) -> None:
        super().__init__()
        self.step = (slice(None), slice(None), *[slice(None, None, 2)] * layers.dims) if down else None
        self.project = layers.conv(cin, cout, 1) if cin != cout else nn.Identity()
        self.repeat = nn.Upsample(scale_factor=2) if up else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.repeat(self.project(x if self.step is None else x[self.step]))


class _Residual(nn.Module):
    """A body beside its shortcut."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class FCResNet(nn.Module):
    """FC-ResNet.

    Parameters
    ----------
    request : Request
        Channels, outputs, width, dropout.
    """

    divisor = 32

    def __init__(self, request: Request) -> None:
        super().__init__()
        spec, self.layers, self.dropout = request.spec, request.layers, request.spec.dropout
        layers = self.layers
        plain = scaled(32, spec.width)
        inner = [scaled(width, spec.width) for width, _ in _STAGES]
        outer = [4 * width for width in inner]
        deep = scaled(_ACROSS[0], spec.width)
        self.first = layers.conv(spec.in_channels, plain)
        self.downs = nn.ModuleList([self._simple(plain, down=True)])
        for cin, width, (_, blocks) in zip([plain, *outer], inner, _STAGES, strict=False):
            self.downs.append(self._stage(cin, width, blocks, down=True))
        self.across = self._stage(outer[-1], deep, _ACROSS[1], down=True, up=True)

        self.skips, self.ups = nn.ModuleList(), nn.ModuleList()
        below = 4 * deep
        for width, skip, (_, blocks) in reversed(list(zip(inner, outer, _STAGES, strict=True))):
            self.skips.append(self._long_skip(below, skip, width))
            self.ups.append(self._stage(width, width, blocks, up=True))
            below = 4 * width
        self.skips.append(self._long_skip(below, plain, plain))
        self.ups.append(nn.Sequential(self._simple(plain, up=True), layers.conv(plain, plain)))
        self.last = nn.Sequential(layers.norm(plain), nn.ReLU(), layers.conv(plain, spec.outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, outputs, ...) of an image (B, C, ...) whose sizes 32 divides."""
        x = self.first(x)
        kept = [x]
        for down in self.downs:
            x = down(x)
            kept.append(x)
        x = self.across(x)
        for skip, up in zip(self.skips, self.ups, strict=True):
            x = up(skip[0](x) + skip[1](kept.pop()))
        return self.last(x + kept.pop())

    def _activated(self, channels: int, *then: nn.Module) -> list[nn.Module]:
        return [self.layers.norm(channels), nn.ReLU(), *then]

    def _simple(self, channels: int, *, down: bool = False, up: bool = False) -> _Residual:
        pool = [self.layers.max_pool()] if down else []
        body = [
            *self._activated(channels, *pool, self.layers.conv(channels, channels)),
            *self._ending(up),
        ]
        return _Residual(nn.Sequential(*body), _Shortcut(self.layers, channels, channels, down=down, up=up))

    def _stage(self, cin: int, width: int, blocks: int, *, down: bool = False, up: bool = False) -> nn.Sequential:
        made: list[nn.Module] = []
        for block in range(blocks):
            made.append(self._bottleneck(cin, width, down=down and not block, up=up and block == blocks - 1))
            cin = 4 * width
        return nn.Sequential(*made)

    def _bottleneck(self, cin: int, width: int, *, down: bool, up: bool) -> _Residual:
        body = [
            *self._activated(cin, self.layers.conv(cin, width, 1, stride=2 if down else 1)),
            *self._activated(width, self.layers.conv(width, width)),
            *self._activated(width, self.layers.conv(width, 4 * width, 1)),
            *self._ending(up),
        ]
        return _Residual(nn.Sequential(*body), _Shortcut(self.layers, cin, 4 * width, down=down, up=up))

    def _ending(self, up: bool) -> list[nn.Module]:
        ending: list[nn.Module] = [nn.Dropout(self.dropout)] if self.dropout else []
        return [*ending, nn.Upsample(scale_factor=2)] if up else ending

    def _long_skip(self, below: int, skip: int, width: int) -> nn.ModuleList:
        return nn.ModuleList(self.layers.conv(c, width, 1) if c != width else nn.Identity() for c in (below, skip))


@NETS.register(
    "fcresnet",
    title="FC-ResNet",
    family="FC-ResNet",
    paper="Drozdzal et al. 2017, arXiv:1702.05174",
    sentence="Very deep (140 convolutions) yet small: sees a wide surrounding; wants time to train.",
    depth=6,
    layers={"init": "he-normal", "momentum": 0.1},
)
def fcresnet(request: Request) -> nn.Module:
    """A deep residual net with long skips."""
    return FCResNet(request)
