"""Images larger than memory: read and written region by region, whatever the format.

`LazyVolume` is a `Volume` whose voxels stay on disk; `LazyWriter` takes the voxels of a file in any order, and gives
the file its name when all is there.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import Any, Self

import numpy as np

from napari_unetseg.errors import GeometryError
from napari_unetseg.volume import Geometry, Volume

__all__ = ["Layout", "LazyVolume", "LazyWriter", "RawFile", "Region", "Store", "arrange", "arranged", "whole_slices"]

Region = int | slice | EllipsisType | Sequence[int | slice | EllipsisType]
Slices = tuple[slice, ...]


def whole_slices(region: Region, shape: Sequence[int]) -> tuple[Slices, tuple[int, ...]]:
    """Region as one slice an axis with start and stop inside `shape`, and the axes that were given as a number."""
    parts: list[Any] = list(region) if isinstance(region, (tuple, list)) else [region]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    if len(parts) != len(shape):
        raise GeometryError(
            f"A region with {len(parts)} axes does not fit the shape {tuple(shape)}.", hint="Give one slice an axis."
        )
    slices, dropped = [], []
    for axis, (part, size) in enumerate(zip(parts, shape, strict=True)):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step != 1:
                raise GeometryError("A region cannot skip voxels.", hint="Give slices without a step.")
            slices.append(slice(start, max(start, stop)))
        else:
            index = int(part) + (size if part < 0 else 0)
            if not 0 <= index < size:
                raise IndexError(f"index {part} on an axis of {size}")
            slices.append(slice(index, index + 1))
            dropped.append(axis)
    return tuple(slices), tuple(dropped)


def arrange(array: np.ndarray, channels: Sequence[int], spatial: Sequence[int]) -> np.ndarray:
    """``(C, [Z,] Y, X)`` from an array with the file's axes, by the numbers of its axes; others are of size 1."""
    rest = [i for i in range(array.ndim) if i not in channels and i not in spatial]
    array = array.transpose([*rest, *channels, *spatial])
    return array.reshape(-1, *array.shape[-len(spatial) :])


def arranged(
    pixels: Any, shape: Sequence[int], channels: Sequence[int], spatial: Sequence[int]
) -> tuple[tuple[int, ...], Callable[[Slices], np.ndarray]]:
    """Shape ``(C, [Z,] Y, X)`` and `LazyVolume.fetch` of an array-like with the axes of the file; see `arrange`."""

    def fetch(region: Slices) -> np.ndarray:
        where = [slice(None)] * len(shape)
        for axis, part in zip(spatial, region[1:], strict=True):
            where[axis] = part
        if len(channels) == 1:
            where[channels[0]] = region[0]
        found = arrange(np.asarray(pixels[tuple(where)]), channels, spatial)
        return found if len(channels) == 1 else found[region[0]]

    return (math.prod(shape[i] for i in channels), *(shape[i] for i in spatial)), fetch


@dataclass(frozen=True, eq=False, repr=False)
class LazyVolume:
    """An image whose voxels are read when a region of them is asked for.

    Attributes
    ----------
    shape : tuple of int
        ``(C, [Z,] Y, X)``, as that of `Volume.data`.
    dtype : numpy.dtype
        Of the regions.
    geometry : Geometry
        Where the voxels lie.
    fetch : callable
        Given one slice an axis, with start and stop, returns that part as an array.
    path : Path
        The file.
    header : mapping
        What the format wants back when something is written like it.
    chunks : tuple of int or None
        Sides of the blocks in which the file is read fastest, ``(C, [Z,] Y, X)``; None when it does not matter.
    in_memory : bool
        Whether the format could only be decoded as a whole, so that nothing was saved.
    notes : tuple of str
        As those of `Volume`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    geometry: Geometry
    fetch: Callable[[Slices], np.ndarray]
    path: Path
    header: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[int, ...] | None = None
    in_memory: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, volume: Volume, path: Path) -> LazyVolume:
        """The same face for an image that is in memory."""
        data = volume.data
        shape, notes = data.shape, volume.notes
        return cls(shape, data.dtype, volume.geometry, lambda r: data[r], path, volume.header, None, True, notes)

    @property
    def spatial(self) -> tuple[int, ...]:
        """``([Z,] Y, X)``, as `Volume.shape`."""
        return self.shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes that the whole would need in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, region: Region) -> np.ndarray:
        """Voxels of a region over ``(C, [Z,] Y, X)``, as `Volume.data` would give them."""
        slices, dropped = whole_slices(region, self.shape)
        part = np.ascontiguousarray(self.fetch(slices), dtype=self.dtype)
        return part.reshape([size for axis, size in enumerate(part.shape) if axis not in dropped])

    def crop(self, region: Sequence[slice]) -> Volume:
        """Part of the image over ``([Z,] Y, X)``, in memory, with its geometry."""
        slices, _ = whole_slices(tuple(region), self.spatial)
        data = self[(slice(None), *slices)]
        return Volume(data, self.geometry.shifted([part.start for part in slices]), self.path, self.header)

    def volume(self) -> Volume:
        """The whole image in memory."""
        return Volume(self[...], self.geometry, self.path, self.header, self.notes)

    def __repr__(self) -> str:
        return f"LazyVolume({self.path.name}, {self.shape}, {self.dtype})"


class RawFile:
    """Uncompressed values in a file, mapped into memory only while a region is read or written.

    A map that stayed open would let the file grow into memory; on a full disk, writing to it would kill the process,
    which is why `RawFile.make` takes the space first.

    Parameters
    ----------
    path : Path
        The file.
    offset : int
        Where the values begin.
    shape : sequence of int
        ``(C, [Z,] Y, X)`` or ``([Z,] Y, X)``.
    dtype : numpy.dtype
        With its byte order.
    last : bool
        Whether the channels, the first axis of `shape`, vary fastest in the file.
    """

    def __init__(self, path: Path, offset: int, shape: Sequence[int], dtype: Any, last: bool = False) -> None:
        self.path, self.offset, self.shape = path, offset, tuple(int(n) for n in shape)
        self.dtype, self._last = np.dtype(dtype), last

    @classmethod
    def make(cls, path: Path, offset: int, shape: Sequence[int], dtype: Any, last: bool = False) -> RawFile:
        """Zeros at `offset` of a file that may be there already; `OSError` when the disk is full."""
        raw = cls(path, offset, shape, dtype, last)
        with path.open("r+b" if path.exists() else "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), offset, raw.nbytes)
            else:
                file.truncate(offset + raw.nbytes)
        return raw

    @property
    def nbytes(self) -> int:
        """Bytes from `offset` to the last value."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, region: Slices) -> np.ndarray:
        """Values of one slice an axis, as a copy."""
        return np.array(self._map("r")[region])

    def __setitem__(self, region: Slices, values: np.ndarray) -> None:
        """Write them through to the file."""
        self._map("r+")[region] = values

    def _map(self, mode: Any) -> np.ndarray:
        stored = (*self.shape[1:], self.shape[0]) if self._last else self.shape
        array = np.memmap(self.path, self.dtype, mode, self.offset, stored)
        return np.moveaxis(array, -1, 0) if self._last else array


@dataclass(frozen=True)
class Layout:
    """What a file that is written region by region will hold.

    Attributes
    ----------
    shape : tuple of int
        ``([Z,] Y, X)`` for labels, ``(C, [Z,] Y, X)`` for an image.
    dtype : numpy.dtype
        Real numbers; whole ones for labels.
    geometry : Geometry
        Where the voxels lie.
    header : mapping
        Of the image that it is like.
    labels : bool
        Whether it is a mask.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    geometry: Geometry
    header: Mapping[str, Any]
    labels: bool


@dataclass(frozen=True, eq=False)
class Store:
    """What a format gives to be filled: an array in the file's own order, and what closes it.

    Attributes
    ----------
    array : object
        With `__getitem__` and `__setitem__` over the axes of the writer.
    close : callable
        Brings everything to the disk; called once, when all voxels are there.
    """

    array: Any
    close: Callable[[], object] = lambda: None


class LazyWriter:
    """A file that is being written region by region; a context manager.

    Leaving the context gives the file its name; leaving it by an error removes what was written. What has not been
    written is 0.

    Attributes
    ----------
    path : Path
        The file wanted.
    shape : tuple of int
        ``([Z,] Y, X)`` for labels, ``(C, [Z,] Y, X)`` for an image.
    dtype : numpy.dtype
        Values are stored as this.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], dtype: np.dtype, opener: contextlib.AbstractContextManager[Store]
    ) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._opener = opener
        self._store: Store | None = None

    def __enter__(self) -> Self:
        self._store = self._opener.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store = None
        self._opener.__exit__(kind, error, trace)

    def __setitem__(self, region: Region, values: np.ndarray) -> None:
        """Write a region; `values` has its shape, or is one number."""
        slices, dropped = whole_slices(region, self.shape)
        size = tuple(part.stop - part.start for part in slices)
        values = np.asarray(values)
        if values.ndim:
            kept = tuple(n for axis, n in enumerate(size) if axis not in dropped)
            if values.shape != kept:
                raise GeometryError(
                    f"Values of shape {values.shape} do not fit the region {kept}.", hint="Give as many as it has."
                )
            values = values.reshape(size)
        self._array()[slices] = np.broadcast_to(values.astype(self.dtype, copy=False), size)

    def __getitem__(self, region: Region) -> np.ndarray:
        """What has been written in a region."""
        slices, dropped = whole_slices(region, self.shape)
        part = np.array(self._array()[slices], dtype=self.dtype)
        return part.reshape([size for axis, size in enumerate(part.shape) if axis not in dropped])

    def _array(self) -> Any:
        if self._store is None:
            raise GeometryError(f"{self.path.name} is not open for writing.", hint="Use `with create_lazy(...)`.")
        return self._store.array
