"""FCN8 and the FCN pre-processor: the fully convolutional nets of the FC-ResNet paper.

Papers: Drozdzal et al. 2017, arXiv:1702.05174 (Tables I and V); Long et al. 2015, arXiv:1411.4038 (FCN-8s).

* ``fcn8``: VGG16 with its classifier as convolutions, three scores summed on the way up, biased convolutions,
  deconvolutions without bias that start as bilinear interpolation: 134,264,547 parameters at one channel in, one out.
  The paper says "128 million", which is that in units of 2^20. The first classifier layer is padded by 3, so that
  sizes must divide by 32; ``parts={"padding": "original"}`` pads the image by 100 and crops, as FCN-8s did, for any
  size. Only 2D.
* ``fcn-preprocessor``: learns to normalise raw intensities; as a net of its own it segments. Upsampling by repeating,
  concatenation *before* a linear 2x2 convolution as in Table I (the usual order gives 1.9 in place of the published 1.8
  million), a linear 3x3 output as in the table while the text has 1x1 (``parts={"output": 1}``): 1,832,145
  parameters, 23 convolutions. Even kernels keep the size by a pad at the far side. He-normal kernels, no normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.assembly import NETS, Parts, head
from napari_unetseg.nets.backbones import vgg16_features
from napari_unetseg.nets.blocks import DoubleConv, Layers, Resize, scaled
from napari_unetseg.nets.making import Request
from napari_unetseg.nets.pretrained import adapt_first

__all__ = ["FCN8", "fcn8", "fcn_preprocessor"]


class FCN8(nn.Module):
    """FCN-8s on VGG16.

    Parameters
    ----------
    request : Request
        Channels, outputs, width, and the options ``padding`` and ``classifier_dropout``.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        layers, outputs, factor = request.layers, request.spec.outputs, request.spec.width
        self.original = request.options["padding"] == "original"
        self.divisor = 1 if self.original else 32
        self.features = vgg16_features(layers, request.spec.in_channels, factor)
        wide, deep, middle = (scaled(width, factor) for width in (4096, 512, 256))
        self.fc6 = layers.conv(deep, wide, 7, padding=0 if self.original else 3)
        self.fc7 = layers.conv(wide, wide, 1)
        self.dropout = nn.Dropout(request.options["classifier_dropout"])
        self.score, self.score4, self.score3 = (layers.conv(c, outputs, 1) for c in (wide, deep, middle))
        pads = (0, 0, 0) if self.original else (1, 1, 4)
        self.up2, self.up4, self.up8 = (
            _bilinear(layers.deconv(outputs, outputs, 2 * stride, stride=stride, padding=pad, bias=False))
            for stride, pad in zip((2, 2, 8), pads, strict=True)
        )
        if self.original:
            self.features[0].padding = (100, 100)
            for layer in self.features:
                if isinstance(layer, nn.MaxPool2d):
                    layer.ceil_mode = True

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, outputs, Y, X) of an image (B, C, Y, X)."""
        pools, y = [], x
        for layer in self.features:
            y = layer(y)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(y)
        y = self.dropout(functional.relu(self.fc6(y)))
        y = self.dropout(functional.relu(self.fc7(y)))
        y = self.up2(self.score(y))
        y = self.up4(y + self._crop(self.score4(pools[3]), y, 5))
        y = self.up8(y + self._crop(self.score3(pools[2]), y, 9))
        return self._crop(y, x, 31)

    def _crop(self, large: Tensor, like: Tensor, offset: int) -> Tensor:
        if not self.original:
            return large
        height, width = like.shape[2:]
        return large[:, :, offset : offset + height, offset : offset + width]

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of torchvision's VGG16, its classifier as convolutions."""
        own = {key: value for key, value in state.items() if key.startswith("features.")}
        for ours, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
            if f"{theirs}.weight" in state:
                own[f"{ours}.weight"] = state[f"{theirs}.weight"].reshape(getattr(self, ours).weight.shape)
                own[f"{ours}.bias"] = state[f"{theirs}.bias"]
        self.load_state_dict(adapt_first(own, "features.0.weight", self.features[0].weight.shape[1]), strict=False)


def _bilinear(deconv: nn.Module) -> nn.Module:
    """Start a deconvolution as bilinear interpolation, channel by channel."""
    size = deconv.weight.shape[-1]
    line = 1 - (torch.arange(size) - (size - 1) / 2).abs() / (size / 2)
    kernel = torch.zeros_like(deconv.weight)
    for channel in range(kernel.shape[0]):
        kernel[channel, channel] = torch.outer(line, line)
    deconv.weight.data.copy_(kernel)
    return deconv


@NETS.register(
    "fcn8",
    title="FCN8",
    family="FCN",
    paper="Long et al. 2015, arXiv:1411.4038",
    sentence="The ancestor: a photograph classifier made to segment; very large, coarse boundaries.",
    pretrained="vgg16",
    dims=(2,),
    depth=6,
    layers={"init": "he-normal"},
    options={"padding": ("same", "original"), "classifier_dropout": (0.5, 0.0)},
)
def fcn8(request: Request) -> nn.Module:
    """FCN-8s on VGG16."""
    return FCN8(request)


class _EvenThenDouble(nn.Module):
    """Linear 2x2 convolution, then two 3x3 convolutions with ReLU."""

    def __init__(self, layers: Layers, cin: int, width: int) -> None:
        super().__init__()
        self.out = width
        self.far = [0, 1] * layers.dims
        self.even = layers.conv(cin, width, 2, padding=0)
        self.pair = DoubleConv(layers, width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.even(functional.pad(x, self.far)))


@NETS.register(
    "fcn-preprocessor",
    title="FCN pre-processor",
    family="FCN",
    paper="Drozdzal et al. 2017, arXiv:1702.05174",
    sentence="Small and quick; made to normalise raw intensities for FC-ResNet, segments alone too.",
    layers={"init": "he-normal"},
    options={"output": (3, 1)},
)
def fcn_preprocessor(request: Request) -> Parts:
    """A narrow U-Net with 2x2 convolutions after each concatenation."""
    return Parts(
        request.widths(16, 32, 64, 128, 256),
        decoder=_EvenThenDouble,
        up=Resize,
        head=partial(head, kernel=request.options["output"]),
    )
