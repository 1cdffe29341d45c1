"""What a file format owes to the rest, the registry of formats, and the checks they share.

A new format is one file that registers a `Format`, and its import line in `napari_unetseg.io`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.lazy import Layout, LazyVolume, Store
from napari_unetseg.registry import Registry
from napari_unetseg.volume import LabelVolume, Volume

__all__ = [
    "FORMATS",
    "Format",
    "available_memory",
    "check_size",
    "compact",
    "hushed",
    "labels_from",
    "native",
    "size_text",
]

# deflate cannot squeeze more than this many bytes into one: a file that promises more is damaged, or a trap
DEFLATED = 1040


class Format(ABC):
    """One family of files.

    It is registered with the fact ``keeps``: ``"affine"`` when a file holds the whole geometry, else ``"nothing"``.

    Attributes
    ----------
    suffixes : tuple of str
        Ends of the names it reads, lower case, the longest first where one ends in another.
    mask_suffix : str
        End of the name of a mask for an image of this family.
    folder : bool
        Whether an image is a folder.
    names_patients : bool
        Whether its files have to say whose image they are.
    """

    suffixes: tuple[str, ...]
    mask_suffix: str
    folder = False
    names_patients = False

    def suffix(self, path: str | os.PathLike[str]) -> str:
        """Suffix of `path` that this format knows, as spelled there; empty when it knows none."""
        name = path.name if isinstance(path, Path) else Path(path).name  # asked a million times of a large folder
        for suffix in self.suffixes:
            if name.lower().endswith(suffix):
                return name[len(name) - len(suffix) :] if len(name) > len(suffix) else ""
        return ""

    def reads(self, path: str | os.PathLike[str]) -> bool:
        """Whether the name of `path` is one of this format's."""
        return bool(self.suffix(path))

    def recognises(self, path: Path) -> bool:
        """Whether a path that is there, whose name no format knows, is of this format; it may be opened."""
        return False

    def mask_suffix_of(self, path: Path) -> str:
        """`mask_suffix`, for a format where it depends on the image."""
        return self.mask_suffix

    @abstractmethod
    def read(self, path: Path) -> Volume:
        """Image of shape ``(C, [Z,] Y, X)`` in its own dtype."""

    @abstractmethod
    def read_labels(self, path: Path) -> LabelVolume:
        """Integer labels of shape ``([Z,] Y, X)``."""

    @abstractmethod
    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write `volume`, whose geometry is settled, with whatever of the header of `like` the format can keep.

        What it cannot hold it refuses with a `WriteError` whose message is the reason alone: `path` is not yet the
        name that the user knows, and `napari_unetseg.io.write` says that one.
        """

    def named(self, path: Path) -> None:  # noqa: B027  # most formats have nothing to do
        """Called when what was written has its name `path`, for a format that lists its parts elsewhere."""

    def open_lazy(self, path: Path) -> LazyVolume:
        """Image whose voxels stay on disk; decoded as a whole here, for a format that has no parts."""
        return LazyVolume.of(self.read(path), path)

    def create_lazy(self, path: Path, layout: Layout) -> Store | None:
        """File of `layout`, to be filled region by region; None when the format cannot be written so."""
        return None


FORMATS: Registry[Format] = Registry("file format")


def native(array: np.ndarray, path: Path) -> np.ndarray:
    """Array with the machine's byte order, booleans as 0 and 1; complex numbers and empty arrays are refused."""
    if array.size == 0:
        raise ReadError(f"{path.name} holds no voxels (shape {array.shape}).", hint="Save the image again.")
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ReadError(
            f"{path.name} holds {array.dtype} values, not an image of real numbers.",
            hint="Save its magnitude, or one of its parts, as an image of its own.",
        )
    if array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def labels_from(array: np.ndarray, path: Path) -> np.ndarray:
    """Labels ``([Z,] Y, X)`` from an image ``(C, [Z,] Y, X)``: equal channels become one, whole floats integers."""
    first = array[0]
    if any(not np.array_equal(first, other) for other in array[1:]):
        raise ReadError(
            f"{path.name} has {len(array)} channels that differ, so its values are no labels.",
            hint="Give a mask with one number per class in each pixel.",
        )
    if first.dtype.kind in "iu":
        return first
    if not np.isfinite(first).all() or (first != np.rint(first)).any():
        raise ReadError(
            f"{path.name} holds values that are not whole numbers, so it is not a mask.",
            hint="Give a mask with one whole number per class; is this the image, or a map of probabilities?",
        )
    low, high = float(first.min()), float(first.max())
    if low < -(2.0**62) or high > 2.0**62:
        raise ReadError(f"{path.name} holds numbers too large for labels.", hint="Number the classes from 0.")
    return first.astype(np.result_type(np.min_scalar_type(int(low)), np.min_scalar_type(int(high))))


def compact(labels: np.ndarray) -> np.ndarray:
    """Labels in the smallest integer dtype, of at most 32 bits, that holds them."""
    low, high = int(labels.min()), int(labels.max())
    kinds = (np.uint8, np.uint16, np.uint32) if low >= 0 else (np.int16, np.int32)
    for kind in kinds:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return labels.astype(kind, copy=False)
    raise WriteError(f"label {high if low >= 0 else low} needs more than 32 bits.", hint="Number the classes from 0.")


def check_size(path: Path, shape: Sequence[int], bits: int, most: int = DEFLATED, memory: bool = True) -> None:
    """Refuse a header that promises more than the file can hold or this machine has memory for.

    Parameters
    ----------
    path : Path
        The file.
    shape : sequence of int
        Shape that the header promises.
    bits : int
        Bits per value.
    most : int
        How many bytes the file's compression can make of one; 1 for none.
    memory : bool
        Whether the whole is going to memory.
    """
    count = math.prod(int(size) for size in shape)
    if count <= 0:
        raise ReadError(f"{path.name} holds no voxels (shape {tuple(shape)}).", hint="Save the image again.")
    wanted, held = count * bits // 8, path.stat().st_size
    if wanted > held * most:
        raise ReadError(
            f"{path.name} is cut short or damaged: its header promises {size_text(wanted)}, the file has "
            f"{size_text(held)}.",
            hint="Copy or export it again.",
        )
    available = available_memory()
    if memory and count * max(bits // 8, 1) > available:
        raise ReadError(
            f"{path.name} needs {size_text(wanted)} of memory, this machine has {size_text(available)}.",
            hint="Crop the image, save it in parts, or use a machine with more memory.",
        )


@contextlib.contextmanager
def hushed(name: str) -> Iterator[None]:
    """Keep a library's log quiet while it meets damage, about which our own errors say it in one sentence."""
    log = logging.getLogger(name)

    def drop(record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING

    log.addFilter(drop)
    try:
        yield
    finally:
        log.removeFilter(drop)


def size_text(count: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def available_memory() -> int:
    """Physical memory in bytes, or a number beyond any where the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62
