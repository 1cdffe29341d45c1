"""The journal of strokes: what was painted since the last revision of an annotation.

One file for each base revision, so that writing a new revision retires the journal in the same instant. A record is a
region and its values, framed with length and checksum; a record that was cut off by a crash is passed over, and the
next one is written where the last whole one ends.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

__all__ = ["Journal"]

_MAGIC = b"UJ1\n"
_HEAD = struct.Struct("<4sII")  # magic, length of the payload, its CRC-32

Region = tuple[slice, ...]


class Journal:
    """Strokes on one annotation, in the order in which they were painted.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    shape : tuple of int
        Shape ``([Z,] Y, X)`` of the annotation.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        self.shape = shape
        self._end: int | None = None  # where the last whole record ends; None until looked up

    def append(self, region: Region, values: np.ndarray) -> None:
        """Write one record and wait until it is on the disk; on an error the file is as it was.

        Parameters
        ----------
        region : tuple of slice
            Start and stop along each axis, inside the shape.
        values : uint8 ndarray
            New values in the region.

        Raises
        ------
        OSError
            If the disk is full or the folder may not be written.
        """
        bounds = [number for part in region for number in (part.start, part.stop)]
        where = struct.pack(f"<{len(bounds)}Q", *bounds)
        payload = where + zlib.compress(np.ascontiguousarray(values).tobytes(), 1)
        record = _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload
        end = self.end
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # unbuffered, so that an error comes from the write and not from closing
        with open(self.path, "r+b" if self.path.exists() else "x+b", buffering=0) as file:
            try:
                file.seek(end)
                left = memoryview(record)
                while left:
                    left = left[file.write(left) :]
                file.truncate()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        if end == 0:
            _sync_folder(self.path.parent)
        self._end = end + len(record)

    @property
    def end(self) -> int:
        """Where the last whole record ends."""
        if self._end is None:
            self._end = max((end for end, _, _ in self._records()), default=0)
        return self._end

    def tail(self, start: int) -> bytes:
        """What was written from `start` on, an `end` of before."""
        return self.path.read_bytes()[start : self.end] if self.path.is_file() else b""

    def replay(self, labels: np.ndarray, end: int | None = None) -> int:
        """Paint all whole records (those up to an `end`) into `labels`, in place; return how many there were."""
        count = 0
        for stop, region, values in self._records():
            if end is not None and stop > end:
                break
            labels[region] = values
            count += 1
        return count

    def _records(self) -> Iterator[tuple[int, Region, np.ndarray]]:
        """Whole records: where each ends, its region and its values."""
        if not self.path.is_file():
            return
        data, start = self.path.read_bytes(), 0
        while (start := data.find(_MAGIC, start)) >= 0:
            payload = b""
            if start + _HEAD.size <= len(data):
                _, length, checksum = _HEAD.unpack_from(data, start)
                payload = data[start + _HEAD.size : start + _HEAD.size + length]
            whole = payload and len(payload) == length and zlib.crc32(payload) == checksum
            record = self._decode(payload) if whole else None
            if record is None:
                start += 1  # damaged: look for the next
            else:
                start += _HEAD.size + length
                yield start, *record

    def _decode(self, payload: bytes) -> tuple[Region, np.ndarray] | None:
        split = 16 * len(self.shape)
        if len(payload) < split:
            return None
        bounds = struct.unpack_from(f"<{2 * len(self.shape)}Q", payload)
        region = tuple(slice(*pair) for pair in zip(bounds[::2], bounds[1::2], strict=True))
        if not all(part.start <= part.stop <= limit for part, limit in zip(region, self.shape, strict=True)):
            return None
        size = [part.stop - part.start for part in region]
        try:
            # never unpack more than the region holds, whatever the file claims
            values = zlib.decompressobj().decompress(payload[split:], math.prod(size) + 1)
        except zlib.error:
            return None
        if len(values) != math.prod(size):
            return None
        return region, np.frombuffer(values, dtype=np.uint8).reshape(size)


def _sync_folder(folder: Path) -> None:
    """Make the new entry of a folder last through a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
