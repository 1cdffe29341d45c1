"""PNG, JPEG and BMP through Pillow: planes of 8 or 16 bits, without a voxel size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.formats import FORMATS, Format, check_size, compact, labels_from, native
from napari_unetseg.volume import LabelVolume, Volume

_PNG = b"\x89PNG\r\n\x1a\n"


class Raster(Format):
    """PNG, JPEG and BMP; written as PNG only."""

    suffixes = (".png", ".jpg", ".jpeg", ".bmp")
    mask_suffix = ".png"

    def read(self, path: Path) -> Volume:
        """Image; a palette gives its colours, alpha goes where it is the same everywhere, 1 bit gives 0 and 1."""
        with _open(path) as image:
            if _deep_colour(path):
                from napari_unetseg.io.png16 import read_png16

                array = read_png16(path)
            else:
                array = _colours(image)
        return Volume(native(np.moveaxis(np.atleast_3d(array), -1, 0), path), path=path)

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels; a palette gives its indices."""
        with _open(path) as image:
            if image.mode == "P":
                labels = np.asarray(image)
            elif image.mode == "L" and (bits := _bits(path)) in (2, 4):
                labels = np.asarray(image) // (255 // (2**bits - 1))  # Pillow stretches them to 255
            else:
                labels = None
        if labels is None:
            data = self.read(path).data
            labels = labels_from(data[:-1] if len(data) in (2, 4) else data, path)
        return LabelVolume(native(labels, path), path=path)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write a PNG of 8 bits, or of 16 where the values need them."""
        from PIL import Image

        if not path.name.lower().endswith(".png"):
            raise WriteError(f"{path.suffix} would change the values.", hint="Choose .png or .tif.")
        if volume.ndim == 3:
            raise WriteError(
                f"PNG holds one plane, not a stack of {volume.shape[0]}.",
                hint="Choose .tif or .nii.gz.",
            )
        array = compact(volume.data) if isinstance(volume, LabelVolume) else np.moveaxis(volume.data, 0, -1)
        array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
        fits = array.dtype in (np.uint8, np.uint16) if array.ndim == 2 else array.dtype == np.uint8
        if not fits or (array.ndim == 3 and array.shape[-1] != 3):
            channels = array.shape[-1] if array.ndim == 3 else 1
            raise WriteError(f"PNG does not hold {channels} x {array.dtype}.", hint="Choose .tif.")
        Image.fromarray(np.ascontiguousarray(array)).save(path, format="PNG")


FORMATS.register("raster", keeps="nothing")(Raster())


def _open(path: Path) -> Any:
    """Pillow's image, opened by the file's first bytes and not by its name."""
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    with path.open("rb") as file:
        start = file.read(8)
    # its own class, since Image.open() refuses every image above a fixed size; ours is checked against this machine
    for magic, kind in (
        (_PNG, PngImagePlugin.PngImageFile),
        (b"\xff\xd8", JpegImagePlugin.JpegImageFile),
        (b"BM", BmpImagePlugin.BmpImageFile),
    ):
        if start.startswith(magic):
            image = kind(path)
            try:
                # what is certain for deflate holds for JPEG and run-length coded BMP as well
                check_size(path, (*image.size, len(image.getbands())), _bits(path))
            except ReadError:
                image.close()
                raise
            return image
    raise ReadError(
        f"{path.name} is not a PNG, JPEG or BMP image, whatever its name says.", hint="Check what it is, or export it."
    )


def _colours(image: Any) -> np.ndarray:
    """``(Y, X)`` or ``(Y, X, channels)`` as the eye sees it."""
    from PIL import ImageOps

    if image.format == "JPEG":  # a camera that was held upright says so, and turns nothing
        image = ImageOps.exif_transpose(image)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = np.asarray(image)
    if image.mode in ("RGBA", "LA") and (array[..., -1] == array[0, 0, -1]).all():
        array = array[..., :-1]
    return array


def _bits(path: Path) -> int:
    """Bits per sample of a PNG; 8 for the others."""
    with path.open("rb") as file:
        start = file.read(26)
    return start[24] if start.startswith(_PNG) else 8


def _deep_colour(path: Path) -> bool:
    """Whether this is a PNG with several 16-bit channels, which Pillow would cut to 8 bits."""
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(_PNG) and start[24] == 16 and start[25] in (2, 4, 6)
