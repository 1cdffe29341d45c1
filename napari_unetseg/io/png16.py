"""PNG with several 16-bit channels: Pillow keeps 8 of the 16 bits, so the few steps of decoding are here."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.io.formats import check_size

__all__ = ["read_png16"]

_CHANNELS = {2: 3, 4: 2, 6: 4}  # colour types: RGB, gray and alpha, RGBA


def read_png16(path: Path) -> np.ndarray:
    """Decode a 16-bit PNG of colour type 2, 4 or 6.

    Parameters
    ----------
    path : Path
        The file; its signature has been checked.

    Returns
    -------
    (Y, X, channels) uint16 ndarray
        Without the alpha channel where that is the same everywhere.

    Raises
    ------
    ReadError
        The file is cut short, or interlaced.

    References
    ----------
    W3C, Portable Network Graphics (PNG) Specification, second edition, section 9 (filtering).
    """
    short = ReadError(f"{path.name} is cut short or damaged.", hint="Copy or export it again.")
    header, body = b"", bytearray()
    blob = path.read_bytes()
    at = 8
    while at + 12 <= len(blob):
        (size,) = struct.unpack(">I", blob[at : at + 4])
        kind, part = blob[at + 4 : at + 8], blob[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = part
        elif kind == b"IDAT":
            body += part
        at += 12 + size
    width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if interlaced:
        raise ReadError(f"{path.name} is an interlaced 16-bit PNG.", hint="Save it without interlacing, or as TIFF.")
    step = 2 * _CHANNELS[colour]
    check_size(path, (height, width), 8 * step)
    try:
        raw = zlib.decompressobj().decompress(bytes(body), height * (1 + width * step))
    except zlib.error as error:
        raise short from error
    if len(raw) < height * (1 + width * step):
        raise short
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * step)
    if rows[:, 0].max() > 4:
        raise short
    pixels = _unfilter(rows[:, 0], rows[:, 1:].reshape(height, width, step))
    array = pixels.view(">u2").astype(np.uint16)
    alpha = colour in (4, 6) and (array[..., -1] == array[0, 0, -1]).all()
    return array[..., :-1] if alpha else array


def _unfilter(filters: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """Undo the five PNG filters, all pixels of an anti-diagonal at once.

    A pixel needs its left, upper and upper-left neighbours only, so that pixels with the same row + column are
    independent of one another.
    """
    height, width, _ = coded.shape
    out = np.zeros((height + 1, width + 1, coded.shape[2]), np.uint8)  # a border of zeros above and on the left
    kinds = filters.astype(np.intp)
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        columns = diagonal - rows
        left = out[rows + 1, columns].astype(np.int16)
        above = out[rows, columns + 1].astype(np.int16)
        corner = out[rows, columns].astype(np.int16)
        guess = left + above - corner
        by_left, by_above, by_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
        nearest = np.where(
            (by_left <= by_above) & (by_left <= by_corner), left, np.where(by_above <= by_corner, above, corner)
        )
        kind = kinds[rows][:, None]
        guess = np.choose(kind, (np.zeros_like(left), left, above, (left + above) >> 1, nearest))
        out[rows + 1, columns + 1] = coded[rows, columns] + guess.astype(np.uint8)
    return np.ascontiguousarray(out[1:, 1:])
