"""VGG16 and ResNet-50 with the names of torchvision's state dictionaries, so that its ImageNet weights load
unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional

from napari_unetseg.nets.blocks import Layers, scaled
from napari_unetseg.nets.pretrained import adapt_first

__all__ = ["VGG16", "ResNet50", "vgg16_features"]

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))


def vgg16_features(layers: Layers, in_channels: int, factor: float = 1.0) -> nn.Sequential:
    """VGG16 up to pool5 (Simonyan & Zisserman 2015): 31 layers, indexed as torchvision does.

    ReLUs 3, 8, 15, 22 and 29 close the stages at 1, 1/2, 1/4, 1/8 and 1/16 of the size; layer 30 is pool5.
    """
    steps: list[nn.Module] = []
    cin = in_channels
    for width, convs in _VGG16:
        for _ in range(convs):
            cout = scaled(width, factor)
            steps += [layers.conv(cin, cout), nn.ReLU(inplace=True)]
            cin = cout
        steps.append(layers.max_pool())
    return nn.Sequential(*steps)


class VGG16(nn.Module):
    """VGG16 as an encoder; gives a pyramid of the image or first stage, the later stages, and pool5.

    Parameters
    ----------
    layers : Layers
        Two-dimensional ones.
    in_channels : int
        Channels of the image.
    factor : float
        On the number of features.
    finest : bool
        Whether the pyramid starts with the first stage; else with the image, which no skip then uses.
    centre : callable or None
        ``centre(layers, cin, width)``: a block on top of pool5.
    """

    ENDS = (3, 8, 15, 22, 29)

    def __init__(self, layers: Layers, in_channels: int, factor: float, *, finest: bool = False, centre=None) -> None:
        super().__init__()
        self.features = vgg16_features(layers, in_channels, factor)
        self.finest = finest
        stages = [scaled(width, factor) for width, _ in _VGG16]
        self.channels = [stages[0] if finest else in_channels, *stages[1:], stages[-1]]
        self.centre = centre(layers, stages[-1], stages[-1]) if centre else nn.Identity()

    def forward(self, x: Tensor, dropout: nn.Module) -> list[Tensor]:
        """Return the pyramid of an image (B, C, Y, X)."""
        pyramid = [x]
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.ENDS:
                pyramid.append(x)
        del pyramid[0 if self.finest else 1]
        return [*pyramid, dropout(self.centre(x))]

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of torchvision's VGG16."""
        own = {key: value for key, value in state.items() if key.startswith("features.")}
        self.load_state_dict(adapt_first(own, "features.0.weight", self.features[0].weight.shape[1]), strict=False)


class _Bottleneck(nn.Module):
    """Post-activation bottleneck; the 3x3 convolution strides."""

    def __init__(self, layers: Layers, cin: int, width: int, stride: int) -> None:
        super().__init__()
        self.out = 4 * width
        self.conv1, self.bn1 = layers.conv(cin, width, 1, bias=False), layers.norm(width)
        self.conv2, self.bn2 = layers.conv(width, width, stride=stride, bias=False), layers.norm(width)
        self.conv3, self.bn3 = layers.conv(width, self.out, 1, bias=False), layers.norm(self.out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or cin != self.out:
            project = layers.conv(cin, self.out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(project, layers.norm(self.out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """ResNet-50 (He et al. 2016) as an encoder; gives a pyramid of the image, the stem and the four stages.

    Parameters
    ----------
    layers : Layers
        Two-dimensional ones.
    in_channels : int
        Channels of the image.
    factor : float
        On the number of features.
    """

    def __init__(self, layers: Layers, in_channels: int, factor: float) -> None:
        super().__init__()
        layers = replace(layers, init="he-normal", eps=1e-5, momentum=0.1)
        stem = scaled(64, factor)
        self.conv1 = layers.conv(in_channels, stem, 7, stride=2, bias=False)
        self.bn1 = layers.norm(stem)
        self.maxpool = layers.max_pool(3, 2, 1)
        self.channels = [in_channels, stem]
        cin = stem
        for stage, (width, blocks) in enumerate(_RESNET50, start=1):
            made: list[nn.Module] = []
            for block in range(blocks):
                made.append(_Bottleneck(layers, cin, scaled(width, factor), 2 if stage > 1 and not block else 1))
                cin = made[-1].out
            setattr(self, f"layer{stage}", nn.Sequential(*made))
            self.channels.append(cin)

    def forward(self, x: Tensor, dropout: nn.Module) -> list[Tensor]:
        """Return the pyramid of an image (B, C, Y, X)."""
        stem = functional.relu(self.bn1(self.conv1(x)))
        pyramid = [x, stem]
        y = self.maxpool(stem)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            y = stage(y)
            pyramid.append(y)
        return [*pyramid[:-1], dropout(pyramid[-1])]

    def load_imagenet(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of torchvision's ResNet-50."""
        own = {key: value for key, value in state.items() if not key.startswith("fc.")}
        for key, value in self.state_dict().items():
            if key.endswith("num_batches_tracked"):
                # Old files lack the counters; at zero the first batch would overwrite the statistics.
                own[key] = value.new_tensor(1_000_000)
        self.load_state_dict(adapt_first(own, "conv1.weight", self.conv1.weight.shape[1]))
