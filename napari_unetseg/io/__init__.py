"""Images and masks in and out of files: one format family a file, behind `read`, `read_labels` and `write`.

A mask written ``like`` its image lies on the image's grid, in its format family where that can hold a mask. Nothing
here imports torch; the libraries that decode are imported when a file of theirs is met.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_unetseg.errors import GeometryError, ReadError, UnetSegError, WriteError
from napari_unetseg.io.dicom import Series, list_series, one_per_series
from napari_unetseg.io.files import atomic_write, natural_key, written_beside
from napari_unetseg.io.formats import FORMATS, Format
from napari_unetseg.io.lazy import Layout, LazyVolume, LazyWriter, RawFile, Store
from napari_unetseg.io.listing import find_images, format_of, is_image, mask_suffix, names_patients, stem
from napari_unetseg.volume import Geometry, LabelVolume, Volume

# each import registers a family in FORMATS
from napari_unetseg.io import metaimage, nifti, nrrd, ome_zarr, raster, tiff  # isort: skip  # noqa: F401

__all__ = [
    "FORMATS",
    "Format",
    "LazyVolume",
    "LazyWriter",
    "Series",
    "atomic_write",
    "create_lazy",
    "find_images",
    "is_image",
    "list_series",
    "mask_suffix",
    "names_patients",
    "natural_key",
    "one_per_series",
    "open_lazy",
    "read",
    "read_labels",
    "stem",
    "write",
]

logger = logging.getLogger(__name__)

AnyPath = str | os.PathLike[str]
V = TypeVar("V", Volume, LabelVolume, LazyVolume)


def read(path: AnyPath) -> Volume:
    """Read an image.

    Parameters
    ----------
    path : path
        TIFF, NIfTI, NRRD, MHA/MHD, PNG, JPEG or BMP file, OME-Zarr folder, DICOM file or series.

    Returns
    -------
    Volume
        ``(C, [Z,] Y, X)`` in the file's own dtype, with its geometry. Colours are three channels; an alpha channel is
        kept as the last one only where it varies.

    Raises
    ------
    ReadError
        The file is missing, damaged, or no image.
    """
    return _guarded(path, lambda fmt, file: fmt.read(file))


def read_labels(path: AnyPath) -> LabelVolume:
    """Read labels: a Mask or an Annotation.

    Parameters
    ----------
    path : path
        File of any format that `read` knows. Palette images give their indices, 1-bit images 0 and 1, whole floats
        integers, and colour images with equal channels one channel.

    Returns
    -------
    LabelVolume
        Integers of shape ``([Z,] Y, X)``.

    Raises
    ------
    ReadError
        The file is missing, damaged, or its values are no labels.
    """
    return _guarded(path, lambda fmt, file: fmt.read_labels(file))


def write(path: AnyPath, volume: Volume | LabelVolume, like: Volume | LabelVolume | None = None) -> Path:
    """Write an image or labels; read them back and compare before the file takes its name.

    Parameters
    ----------
    path : path
        File to write; its suffix chooses the format. Labels go out in the smallest integer dtype that holds them.
    volume : Volume or LabelVolume
        What to write.
    like : Volume or LabelVolume, optional
        The image it belongs to: its geometry and header are written.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WriteError
        The format cannot hold it, the disk is full, the folder read-only; the old file, if any, is untouched.
    GeometryError
        `volume` and `like` do not lie on one grid.
    """
    path = Path(path)
    fmt = format_of(path, WriteError)
    if volume.data.size == 0:
        raise WriteError(
            f"{path.name} could not be written: there are no voxels in it.", hint="Choose a larger region."
        )
    if like is not None:
        volume = replace(volume, geometry=_settle(path, volume, like))

    def write_and_check(beside: Path) -> None:
        with _refusals(path):
            fmt.write(beside, volume, like)
        _check_written(fmt, beside, path, volume)

    atomic_write(path, write_and_check, fmt.folder)
    fmt.named(path)
    return path


def open_lazy(path: AnyPath) -> LazyVolume:
    """Open an image whose voxels stay on disk until a region of them is asked for.

    OME-Zarr, TIFF, and the uncompressed kinds of NIfTI, NRRD and MHA/MHD are read in parts; the others are decoded as
    a whole (`LazyVolume.in_memory`).

    Parameters
    ----------
    path : path
        File or folder of any format that `read` knows.

    Returns
    -------
    LazyVolume
        ``lazy[region]`` over ``(C, [Z,] Y, X)`` gives what ``read(path).data[region]`` would.

    Raises
    ------
    ReadError
        As `read`.
    """
    return _guarded(path, lambda fmt, file: fmt.open_lazy(file))


def create_lazy(
    path: AnyPath, like: Volume | LabelVolume | LazyVolume, dtype: Any = np.uint8, channels: int | None = None
) -> LazyWriter:
    """Write a file region by region, on the grid of an image.

    Parameters
    ----------
    path : path
        File to write; its suffix chooses the format. What cannot be written in parts (PNG, compressed NIfTI) is kept in
        an uncompressed file beside it until the end.
    like : Volume, LabelVolume or LazyVolume
        The image it belongs to: its spatial shape, geometry and header.
    dtype : dtype
        Of the values.
    channels : int, optional
        Write an image ``(C, [Z,] Y, X)`` with so many channels; a mask ``([Z,] Y, X)`` when omitted.

    Returns
    -------
    LazyWriter
        ``with create_lazy(...) as file: file[region] = values``. The file takes its name at the end of the context, and
        is removed when that is left by an error.

    Raises
    ------
    WriteError
        On entering or leaving the context: the format cannot hold it, the disk is full, the folder read-only.
    """
    path = Path(path)
    spatial = like.spatial if isinstance(like, LazyVolume) else like.shape
    shape = spatial if channels is None else (channels, *spatial)
    layout = Layout(shape, np.dtype(dtype), like.geometry, like.header, labels=channels is None)
    return LazyWriter(path, shape, layout.dtype, _filled(format_of(path, WriteError), path, layout))


@contextlib.contextmanager
def _filled(fmt: Format, path: Path, layout: Layout) -> Iterator[Store]:
    """Store of a new file, which takes its name at the end of the context."""
    with _unnamed(fmt, path, layout) as store:
        yield store
    fmt.named(path)


@contextlib.contextmanager
def _unnamed(fmt: Format, path: Path, layout: Layout) -> Iterator[Store]:
    with written_beside(path, fmt.folder) as beside:
        with _refusals(path):
            store = fmt.create_lazy(beside, layout)
        if store is not None:
            yield store
            with _refusals(path):
                store.close()
            return
        scratch = beside.with_name(f"{beside.name}.raw")
        try:
            raw = RawFile.make(scratch, 0, layout.shape, layout.dtype)
            yield Store(raw)
            array = np.memmap(scratch, layout.dtype, "r", 0, layout.shape)
            kind = LabelVolume if layout.labels else Volume
            volume = kind(array, layout.geometry, path, layout.header)
            with _refusals(path):
                fmt.write(beside, volume, None)
            _check_written(fmt, beside, path, volume)
        finally:
            scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Say whatever an encoder raises in one sentence about the file."""
    try:
        yield
    except OSError:
        raise
    except WriteError as error:
        raise WriteError(f"{path.name} could not be written: {error.message}", hint=error.hint) from error
    except Exception as error:  # an encoder may refuse in any way it likes
        raise WriteError(
            f"{path.name} could not be written: {_first_line(error)}", hint="Try another format, such as .tif."
        ) from error


def _facts(fmt: Format) -> Mapping[str, Any]:
    return next(FORMATS.facts(name) for name in FORMATS if FORMATS[name] is fmt)


def _guarded(path: AnyPath, decode: Callable[[Format, Path], V]) -> V:
    """Decode a file, and turn whatever goes wrong into one sentence about it."""
    path = Path(path)
    again = "Copy or export it again, or open it in the program that made it."
    try:
        return replace(decode(_readable(path), path), path=path)
    except (ReadError, GeometryError) as error:
        if path.name in error.message:
            raise
        raise ReadError(f"{path.name}: {error.message}", hint=error.hint) from error
    except PermissionError as error:
        raise ReadError(f"You are not allowed to read {path}.", hint="Ask its owner, or copy it elsewhere.") from error
    except MemoryError as error:
        raise ReadError(
            f"{path.name} is too large for the memory of this machine.", hint="Crop the image, or save it in parts."
        ) from error
    except Exception as error:  # damaged bytes make a decoder raise anything
        logger.debug("%s", path, exc_info=True)
        raise ReadError(
            f"{path.name} is damaged, or of a kind that is not supported: {_first_line(error)}", hint=again
        ) from error


def _readable(path: Path) -> Format:
    """Format of a file that is there, holds something, and may be read."""
    if not path.exists():
        raise ReadError(f"{path} does not exist.", hint="Check the name and the folder.")
    fmt = format_of(path, ReadError)
    if path.is_dir() and not (fmt.folder or fmt.recognises(path)):
        raise ReadError(f"{path.name} is a folder, not an image.", hint="Give the files inside it.")
    if path.is_dir():
        return fmt
    if path.stat().st_size == 0:
        raise ReadError(f"{path.name} is empty (0 bytes).", hint="Copy or export it again.")
    with path.open("rb"):  # permission is asked here, so that the message does not depend on the decoder
        return fmt


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _settle(path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume) -> Geometry:
    """Geometry to write: that of `like`, provided that nothing speaks against it."""
    if volume.shape != like.shape:
        raise GeometryError(
            f"{path.name} could not be written: its shape {volume.shape} is not the shape {like.shape} of its image.",
            hint="Give the image that the mask was made from.",
        )
    plain = volume.geometry.matches(Geometry((1.0,) * volume.ndim))
    if not plain and not volume.geometry.matches(like.geometry, tolerance=0.01):
        raise GeometryError(
            f"{path.name} could not be written: it lies elsewhere in the world than its image.",
            hint="Bring it onto the grid of the image first.",
        )
    return like.geometry


def _check_written(fmt: Format, beside: Path, path: Path, volume: Volume | LabelVolume) -> None:
    try:
        back = fmt.read_labels(beside) if isinstance(volume, LabelVolume) else fmt.read(beside)
    except (UnetSegError, ValueError) as error:
        raise WriteError(
            f"{path.name} could not be written: it could not be read back.", hint="Check the disk, and try again."
        ) from error
    if not np.array_equal(back.data, volume.data, equal_nan=back.data.dtype.kind == "f"):
        raise WriteError(
            f"{path.name} could not be written: what was read back differs.", hint="Check the disk, and try again."
        )
    # a tenth of a voxel: NIfTI keeps its numbers in 32 bits
    if _facts(fmt)["keeps"] == "affine" and not back.geometry.matches(volume.geometry, tolerance=0.1):
        raise WriteError(
            f"{path.name} could not be written: {path.suffix} would move it in the world.",
            hint="Check the voxel size and origin of the image, or choose another format.",
        )
