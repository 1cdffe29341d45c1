"""U-Nets on ImageNet encoders: TernausNet-16, U-Net with ResNet-50, and both with sharpened skips.

Papers: Iglovikov & Shvets 2018 (TernausNet, arXiv:1801.05746), He et al. 2016 (arXiv:1512.03385), in the forms to which
Zunair & Ben Hamza 2021 (Sharp U-Net, arXiv:2107.12461) compare. They released no code for these.

Reading: the decoder of the Keras library ``segmentation_models`` of their time, the only one that gives both published
sizes: five stages of repeat, concatenate, twice (3x3 without bias, batch normalisation, ReLU) at 256..16 features,
and a 3x3 output; no skip at full resolution.

* ``ternausnet16``: VGG16 to pool5, two more convolutions, that decoder: 23,748,241 trainable at three channels in
  ("23.7 million"). The net that the TernausNet paper published is another, of 29,306,465 or 32,202,337 parameters:
  ``parts={"reading": "original-linear"}`` or ``"original-deconv"``.
* ``resnet50-unet``: torchvision's ResNet-50, 32,521,105 trainable ("32.5 million"). The paper's encoder was Keras'
  pre-activation variant (32,513,556); start weights for torch exist only for the other.
* the sharp ones pass their four skips through the fixed kernel: 12,672 and 16,704 frozen weights more. The paper's 32.7
  million for ResNet-50 is reached by no reading, and contradicts its "no extra learnable parameters".

Decoder kernels He-uniform, the output's Glorot-uniform. The weights were learnt on red, green and blue in [0, 1], less
(0.485, 0.456, 0.406), over (0.229, 0.224, 0.225). Only 2D: there are no such weights for volumes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import NETS, Parts, SkipConn, head
from napari_unetseg.nets.backbones import VGG16, ResNet50
from napari_unetseg.nets.blocks import DoubleConv, Layers, Resize, fit, resize, scaled
from napari_unetseg.nets.making import Request
from napari_unetseg.nets.skips import NoSkip, SharpSkip

__all__ = ["resnet50_unet", "sharp_resnet50_unet", "sharp_ternausnet16", "ternausnet16"]

_SHARP_OPTIONS = {"kernel": ("laplacian", "identity+laplacian"), "trainable": (False, True)}
_FIXED = {"dims": (2,), "depth": 6, "layers": {"init": "he-uniform"}}
_double = partial(DoubleConv, norm="batch")


def _head(layers: Layers, cin: int, outputs: int) -> nn.Module:
    return head(replace(layers, init="glorot-uniform"), cin, outputs, kernel=3)


def _decoder(request: Request, encoder: Any, skip: Any) -> Parts:
    """The decoder that all four share; level 0 is the image and has no skip."""
    widths = tuple(scaled(width, request.spec.width) for width in (16, 32, 64, 128, 256))
    return Parts(widths, encoder=encoder, block=_double, up=Resize, skip=partial(skip, without=(0,)), head=_head)


def _vgg16(request: Request) -> Any:
    return partial(VGG16, factor=request.spec.width, centre=_double)


def _resnet50(request: Request) -> Any:
    return partial(ResNet50, factor=request.spec.width)


class _TernausUp(nn.Module):
    """A decoder stage of the original TernausNet: two convolutions and upsampling, in either order."""

    def __init__(self, layers: Layers, cin: int, middle: int, width: int, *, linear: bool) -> None:
        super().__init__()
        self.out = width
        self.linear = linear
        self.first = layers.conv(cin, middle)
        self.second = layers.conv(middle, width) if linear else layers.deconv(middle, width, 4, padding=1)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        """Upsample `x` to the spatial `size`."""
        x = functional.relu(self.first(resize(x, size) if self.linear else x))
        return fit(functional.relu(self.second(x)), size)


class _Last(nn.Sequential):
    """The block of the finest level; the coarser levels have theirs in the UpOp."""

    def __init__(self, layers: Layers, cin: int, width: int, *, finest: int) -> None:
        super().__init__(*([layers.conv(cin, width), nn.ReLU(inplace=True)] if width == finest else []))
        self.out = width if width == finest else cin


def _original(request: Request, linear: bool) -> Parts:
    finest, *ups = (scaled(width, request.spec.width) for width in (32, 32, 64, 256, 256, 256))
    middles = dict(zip(range(5), (128, 256, 512, 512, 512), strict=True))
    levels = iter(reversed(range(5)))  # UpOps are made coarsest first

    def up(layers: Layers, cin: int, width: int) -> nn.Module:
        middle = scaled(middles[next(levels)], request.spec.width)
        return _TernausUp(layers, cin, middle, width, linear=linear)

    return Parts(
        (finest, *[0] * 4),
        encoder=partial(VGG16, factor=request.spec.width, finest=True),
        block=partial(_Last, finest=finest),
        up=up,
        up_widths=tuple(ups),
        skip=SkipConn,
    )


@NETS.register(
    "ternausnet16",
    title="TernausNet-16",
    family="ImageNet encoders",
    paper="Iglovikov & Shvets 2018, arXiv:1801.05746",
    sentence="U-Net on VGG16, which has seen a million photographs: for colour images and little annotation.",
    pretrained="vgg16",
    options={"reading": ("keras", "original-linear", "original-deconv")},
    **_FIXED,
)
def ternausnet16(request: Request) -> Parts:
    """U-Net on VGG16."""
    reading = request.options["reading"]
    if reading != "keras":
        return _original(request, linear=reading == "original-linear")
    return _decoder(request, _vgg16(request), NoSkip)


@NETS.register(
    "sharp-ternausnet16",
    title="Sharp TernausNet-16",
    family="ImageNet encoders",
    paper="Zunair & Ben Hamza 2021, arXiv:2107.12461",
    sentence="TernausNet-16 with sharpened skips: crisper boundaries.",
    pretrained="vgg16",
    options=_SHARP_OPTIONS,
    **_FIXED,
)
def sharp_ternausnet16(request: Request) -> Parts:
    """U-Net on VGG16 with sharpened skips."""
    return _decoder(request, _vgg16(request), partial(SharpSkip, **request.options))


@NETS.register(
    "resnet50-unet",
    title="U-Net with ResNet-50",
    family="ImageNet encoders",
    paper="Zunair & Ben Hamza 2021, arXiv:2107.12461; He et al. 2016, arXiv:1512.03385",
    sentence="U-Net on ResNet-50, which has seen a million photographs: strong on colour images.",
    pretrained="resnet50",
    **_FIXED,
)
def resnet50_unet(request: Request) -> Parts:
    """U-Net on ResNet-50."""
    return _decoder(request, _resnet50(request), NoSkip)


@NETS.register(
    "sharp-resnet50-unet",
    title="Sharp U-Net with ResNet-50",
    family="ImageNet encoders",
    paper="Zunair & Ben Hamza 2021, arXiv:2107.12461",
    sentence="ResNet-50 with sharpened skips: the best of its paper.",
    pretrained="resnet50",
    options=_SHARP_OPTIONS,
    **_FIXED,
)
def sharp_resnet50_unet(request: Request) -> Parts:
    """U-Net on ResNet-50 with sharpened skips."""
    return _decoder(request, _resnet50(request), partial(SharpSkip, **request.options))
