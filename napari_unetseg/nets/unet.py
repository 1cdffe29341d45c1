"""U-Net, wide U-Net and the 3D U-Net.

Papers: Ronneberger et al. 2015 (arXiv:1505.04597) and Cicek et al. 2016 (arXiv:1606.06650), in the forms to which the
MultiResUNet paper (Ibtehaz & Rahman 2019), the Sharp U-Net paper (Zunair & Ben Hamza 2021) and UNet++ compare.

Readings:

* ``unet``: widths 32..512, every convolution with bias, no batch normalisation, transposed convolutions that halve the
  channels and have no activation: 7,759,521 parameters at one channel in, one out, as published.
  ``parts={"reading": "modular"}`` is the U-Net of Laird 2019, with batch normalisation and widths 34..536 chosen to
  come near its 8.5 million (8,512,586, four channels in); ``"ronneberger"`` has the widths 64..1024 of the first
  U-Net, 31,030,593 (the FC-ResNet paper says 33 million, which no reading gives).
* ``wide-unet``: widths 35..560, the decoder a mirror of the encoder: 9,282,246 (one channel in), the integer of the
  UNet++ authors' code. The papers' "9.1 million" is only met by U-Net's own transposed convolutions (256, 128, 64,
  32) under the wide blocks, 9,130,476: ``parts={"reading": "hybrid"}``.
* ``unet3d``: four levels, channels doubled *before* pooling, (32, 64) (64, 128) (128, 256) (256, 512), convolutions
  without bias but with batch normalisation, transposed convolutions that keep their channels: 19,078,593 with the
  running statistics counted (four channels in, one out), as published. The count cannot tell "no bias, scale and
  shift" from "bias and shift"; the first is the usual meaning. The same graph runs in 2D.

Keras started all of them with Glorot-uniform kernels.
"""

from __future__ import annotations

from functools import partial

from napari_unetseg.nets.assembly import NETS, Parts
from napari_unetseg.nets.blocks import DoubleConv, Layers, TransposeUp
from napari_unetseg.nets.making import Request

__all__ = ["unet", "unet3d", "wide_unet"]


@NETS.register(
    "unet",
    title="U-Net",
    family="U-Net",
    paper="Ronneberger et al. 2015, arXiv:1505.04597",
    sentence="The plain one: robust, quick, and the measure for all others; start here.",
    options={"reading": ("plain", "modular", "ronneberger")},
)
def unet(request: Request) -> Parts:
    """U-Net with 32 to 512 features."""
    if request.options["reading"] == "modular":
        return Parts(request.widths(34, 67, 134, 268, 536), block=partial(DoubleConv, norm="batch", bias=True))
    if request.options["reading"] == "ronneberger":
        return Parts(request.widths(64, 128, 256, 512, 1024))
    return Parts(request.widths(32, 64, 128, 256, 512))


@NETS.register(
    "wide-unet",
    title="Wide U-Net",
    family="U-Net",
    paper="Zhou et al. 2018, arXiv:1807.10165",
    sentence="U-Net with a tenth more features, made as the fair opponent of larger nets.",
    options={"reading": ("mirrored", "hybrid")},
)
def wide_unet(request: Request) -> Parts:
    """U-Net with 35 to 560 features."""
    narrow = request.widths(32, 64, 128, 256, 512) if request.options["reading"] == "hybrid" else None
    return Parts(request.widths(35, 70, 140, 280, 560), up_widths=narrow)


@NETS.register(
    "unet3d",
    title="3D U-Net",
    family="U-Net",
    paper="Cicek et al. 2016, arXiv:1606.06650",
    native=3,
    sentence="U-Net for volumes, with normalisation and one level less; needs more memory than U-Net.",
)
def unet3d(request: Request) -> Parts:
    """3D U-Net: channels doubled before pooling, batch normalisation."""

    def growing(layers: Layers, cin: int, width: int) -> DoubleConv:
        return DoubleConv(layers, cin, width, norm="batch", middle=max(1, width // 2))

    return Parts(
        request.widths(64, 128, 256, 512),
        block=growing,
        decoder=partial(DoubleConv, norm="batch"),
        up=partial(TransposeUp, keep=True),
    )
