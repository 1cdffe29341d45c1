"""The chain of FCN pre-processor and FC-ResNet: the first learns to normalise what the second segments.

Paper: Drozdzal et al. 2017, arXiv:1702.05174. Trained end to end with one loss. 12,874,418 trainable parameters at one
channel, the sum of both parts (the paper says 12.8 and 13 million); 12,874,290 with the 1x1 output that the text
gives the pre-processor, ``parts={"output": 1}``. The papers' images have one channel; here the pre-processor gives as
many channels as the image has (12,875,572 for three, one class), or one for all with ``parts={"between": "one"}``
(12,874,706). In the paper it sees raw intensities: normalise by ``none`` to try that.
"""

from __future__ import annotations

from torch import Tensor, nn

from napari_unetseg.nets.assembly import NETS
from napari_unetseg.nets.making import Request, unpadded

__all__ = ["Chain", "fcn_fcresnet"]


class Chain(nn.Module):
    """One net after another.

    Parameters
    ----------
    preprocessor, segmenter : nn.Module
        Nets of which the second takes what the first gives.
    """

    def __init__(self, preprocessor: nn.Module, segmenter: nn.Module) -> None:
        super().__init__()
        self.preprocessor, self.segmenter = preprocessor, segmenter
        self.divisor = max(preprocessor.divisor, segmenter.divisor)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, outputs, ...) of an image (B, C, ...) whose sizes `divisor` divides."""
        return self.segmenter(self.preprocessor(x))


@NETS.register(
    "fcn-fcresnet",
    title="FCN pre-processor and FC-ResNet",
    family="FC-ResNet",
    paper="Drozdzal et al. 2017, arXiv:1702.05174",
    sentence="FC-ResNet that learns its own normalisation: for scans whose intensities mean different things.",
    depth=6,
    options={"output": (3, 1), "between": ("each", "one")},
)
def fcn_fcresnet(request: Request) -> nn.Module:
    """FCN pre-processor, then FC-ResNet."""
    between = request.spec.in_channels if request.options["between"] == "each" else 1
    spec = request.spec.model_copy(update={"parts": {}, "depth": None})
    first = {"name": "fcn-preprocessor", "outputs": between, "parts": {"output": request.options["output"]}}
    second = {"name": "fcresnet", "in_channels": between}
    return Chain(unpadded(spec.model_copy(update=first)), unpadded(spec.model_copy(update=second)))
