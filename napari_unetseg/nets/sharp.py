"""Sharp U-Net and wide Sharp U-Net: U-Net whose skips pass a fixed sharpening kernel.

Paper: Zunair & Ben Hamza 2021, "Sharp U-Net: depthwise convolutional network for biomedical image segmentation",
Computers in Biology and Medicine 136, arXiv:2107.12461.

Reading: the kernel alone (8 in the centre, -1 around: it sums to zero), as in the paper's description of the block
and the authors' notebook, while equation 2 adds the input (centre 9): ``parts={"kernel": "identity+laplacian"}``. It
is a buffer, not a parameter: "no extra learnable parameters", 7,764,417 in all at three channels in, of which 4,320
are frozen, as the notebook prints; ``parts={"trainable": True}`` takes "a way to initialise the layer" by its word.
The Gaussian smoothing that the text mentions is in no figure, formula or line of the notebook, and is not done. The
paper leaves 3D as future work; here its kernel is 26 in the centre, -1 around. The wide net mirrors its widths:
9,282,876 at three channels in (the paper's "9.1 million" needs narrower transposed convolutions, see ``wide-unet``).
"""

from __future__ import annotations

from functools import partial

from napari_unetseg.nets.assembly import NETS, Parts
from napari_unetseg.nets.making import Request
from napari_unetseg.nets.skips import SharpSkip

__all__ = ["sharp_unet", "wide_sharp_unet"]

_OPTIONS = {"kernel": ("laplacian", "identity+laplacian"), "trainable": (False, True)}
_PAPER = "Zunair & Ben Hamza 2021, arXiv:2107.12461"


def _sharp(request: Request, *widths: int) -> Parts:
    return Parts(request.widths(*widths), skip=partial(SharpSkip, **request.options))


@NETS.register(
    "sharp-unet",
    title="Sharp U-Net",
    family="Sharp U-Net",
    paper=_PAPER,
    sentence="U-Net that sharpens what it carries over: for crisp boundaries at no extra parameters.",
    options=_OPTIONS,
)
def sharp_unet(request: Request) -> Parts:
    """U-Net with sharpened skips."""
    return _sharp(request, 32, 64, 128, 256, 512)


@NETS.register(
    "wide-sharp-unet",
    title="Wide Sharp U-Net",
    family="Sharp U-Net",
    paper=_PAPER,
    sentence="Sharp U-Net with a tenth more features.",
    options=_OPTIONS,
)
def wide_sharp_unet(request: Request) -> Parts:
    """Wide U-Net with sharpened skips."""
    return _sharp(request, 35, 70, 140, 280, 560)
