"""Values that lie in a file behind a text header, as NRRD and MetaImage keep them; the header may be lying."""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.io.formats import DEFLATED, check_size, native
from napari_unetseg.io.lazy import LazyVolume, RawFile, arrange, arranged
from napari_unetseg.volume import Geometry, Volume

__all__ = ["MOST_HEADER", "Encoded", "sibling"]

MOST_HEADER = 2**20  # bytes; no honest header is longer
_BLOCK = 2**20
_BZIPPED = 2**16  # bzip2 can make so many bytes of one


def sibling(path: Path, name: str) -> Path:
    """File of values that the header `path` names; it must lie in the same folder or below.

    Raises
    ------
    ReadError
        When it lies elsewhere, or is not there.
    """
    folder = path.parent.resolve()
    found = (folder / name).resolve()
    if not found.is_relative_to(folder):
        raise ReadError(
            f"{path.name} says that its values lie outside its folder, so they are not read.",
            hint="Put header and values into one folder, and correct the name in the header.",
        )
    if not found.is_file():
        raise ReadError(f"{path.name} needs the file {name} beside it, which is missing.", hint="Copy it there.")
    return found


@dataclass(frozen=True)
class Encoded:
    """Where the values of an image lie, how they are packed, and which axes they have.

    Attributes
    ----------
    path : Path
        The file that the user knows, for messages.
    file : Path
        The file that holds the values.
    offset : int
        Where they begin; -1 when they are the end of the file.
    encoding : str
        ``"raw"``, ``"deflate"`` (zlib or gzip), ``"bzip2"`` or ``"text"``.
    dtype : numpy.dtype
        With its byte order.
    shape : tuple of int
        Of the file, slowest axis first.
    channels, spatial : tuple of int
        Numbers of its axes that are channels, and that are ``([Z,] Y, X)``.
    skip : int
        Bytes to leave out after unpacking.
    """

    path: Path
    file: Path
    offset: int
    encoding: str
    dtype: np.dtype
    shape: tuple[int, ...]
    channels: tuple[int, ...]
    spatial: tuple[int, ...]
    skip: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def volume(self, geometry: Geometry, header: dict[str, Any]) -> Volume:
        """The image in memory."""
        array = native(arrange(self._array(), self.channels, self.spatial), self.path)
        return Volume(array, geometry, self.path, header)

    def lazy(self, geometry: Geometry, header: dict[str, Any]) -> LazyVolume | None:
        """The image in regions; None when it is packed."""
        if self.encoding != "raw":
            return None
        raw = RawFile(self.file, self._start(memory=False), self.shape, self.dtype)
        shape, fetch = arranged(raw, self.shape, self.channels, self.spatial)
        return LazyVolume(shape, self.dtype.newbyteorder("="), geometry, fetch, self.path, header)

    def _start(self, memory: bool = True) -> int:
        """First byte of raw values, once it is known that the file holds them all."""
        held = self.file.stat().st_size
        start = held - self.nbytes if self.offset < 0 else self.offset + self.skip
        check_size(self.file, self.shape, 8 * self.dtype.itemsize, 1, memory)
        if start < 0 or start + self.nbytes > held:
            raise self._short()
        return start

    def _short(self) -> ReadError:
        return ReadError(f"{self.path.name} is cut short: part of its values is missing.", hint="Copy it again.")

    def _array(self) -> np.ndarray:
        if self.encoding == "raw":
            return np.fromfile(self.file, self.dtype, math.prod(self.shape), offset=self._start()).reshape(self.shape)
        if self.encoding == "text":
            return self._text()
        check_size(
            self.file,
            self.shape,
            8 * self.dtype.itemsize,
            DEFLATED if self.encoding == "deflate" else _BZIPPED,
        )
        data = self._unpacked()
        return np.frombuffer(data, self.dtype, offset=self.skip).reshape(self.shape)

    def _text(self) -> np.ndarray:
        check_size(self.file, self.shape, 8, 1)  # a digit and a blank a value
        with self.file.open("rb") as file:
            file.seek(max(self.offset, 0))
            words = file.read().replace(b",", b" ").split()
        if len(words) < math.prod(self.shape):
            raise self._short()
        return np.array(words[: math.prod(self.shape)]).astype(np.float64).astype(self.dtype).reshape(self.shape)

    def _unpacked(self) -> bytearray:
        """Exactly the bytes that the header promises: what unpacks to more is refused before it fills the memory."""
        wanted = self.nbytes + self.skip
        data = bytearray()
        try:
            for block in _unpack(self.file, self.offset, self.encoding, wanted):
                data += block
                if len(data) > wanted:
                    raise ReadError(
                        f"{self.path.name} is damaged: it unpacks to more than its header promises.",
                        hint="Copy or export it again.",
                    )
        except (zlib.error, EOFError, OSError, ValueError) as error:
            if isinstance(error, PermissionError):
                raise
            raise ReadError(
                f"{self.path.name} is damaged: its values cannot be unpacked.", hint="Copy or export it again."
            ) from error
        if len(data) < wanted:
            raise self._short()
        return data


def _unpack(path: Path, offset: int, encoding: str, wanted: int) -> Iterator[bytes]:
    """Blocks of at most `_BLOCK` bytes; stops soon after `wanted`."""
    made = 0
    with path.open("rb") as file:
        file.seek(max(offset, 0))
        packed = bz2.BZ2File(file)
        for block in iter(lambda: packed.read(_BLOCK), b"") if encoding == "bzip2" else _inflated(file):
            yield block
            made += len(block)
            if made > wanted:
                return


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    # 32: zlib and gzip are told apart by their first bytes
    unpacker, rest = zlib.decompressobj(32 + 15), b""
    while rest or (rest := file.read(_BLOCK)):
        yield unpacker.decompress(rest, _BLOCK)
        rest = unpacker.unconsumed_tail
        if unpacker.eof:  # several may follow one another; what begins otherwise is padding
            rest = unpacker.unused_data or file.read(_BLOCK)
            if rest[:1] not in (b"\x1f", b"\x78"):
                return
            unpacker = zlib.decompressobj(32 + 15)
    while block := unpacker.decompress(unpacker.unconsumed_tail, _BLOCK):
        yield block
