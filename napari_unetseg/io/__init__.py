"""Images and masks in and out of files: one format family a file, behind `read`, `read_labels` and `write`.

A mask written ``like`` its image lies on the image's grid, in its format family where that can hold a mask. Nothing
here imports torch; the libraries that decode are imported when a file of theirs is met.
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_unetseg.errors import GeometryError, ReadError, UnetSegError, WriteError
from napari_unetseg.io.files import atomic_write, natural_key
from napari_unetseg.io.formats import FORMATS, Format
from napari_unetseg.volume import Geometry, LabelVolume, Volume

# each import registers a family in FORMATS
from napari_unetseg.io import nifti, raster, tiff  # isort: skip  # noqa: F401

__all__ = [
    "FORMATS",
    "Format",
    "atomic_write",
    "find_images",
    "is_image",
    "mask_suffix",
    "natural_key",
    "read",
    "read_labels",
    "stem",
    "write",
]

logger = logging.getLogger(__name__)

AnyPath = str | os.PathLike[str]
V = TypeVar("V", Volume, LabelVolume)


def read(path: AnyPath) -> Volume:
    """Read an image.

    Parameters
    ----------
    path : path
        TIFF, NIfTI, PNG, JPEG or BMP file.

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
    fmt = _format_of(path, WriteError)
    if volume.data.size == 0:
        raise WriteError(
            f"{path.name} could not be written: there are no voxels in it.", hint="Choose a larger region."
        )
    if like is not None:
        volume = replace(volume, geometry=_settle(path, volume, like))

    def write_and_check(beside: Path) -> None:
        try:
            fmt.write(beside, volume, like)
        except OSError:
            raise
        except WriteError as error:
            raise WriteError(f"{path.name} could not be written: {error.message}", hint=error.hint) from error
        except Exception as error:  # an encoder may refuse in any way it likes
            raise WriteError(
                f"{path.name} could not be written: {_first_line(error)}", hint="Try another format, such as .tif."
            ) from error
        _check_written(fmt, beside, path, volume)

    atomic_write(path, write_and_check)
    return path


def find_images(source: AnyPath | Iterable[AnyPath], recursive: bool = True) -> list[Path]:
    """List image files in natural order (``scan2`` before ``scan10``), each once.

    Parameters
    ----------
    source : path or iterable of paths
        A folder, a file, a pattern such as ``"scans/*.tif"``, or several of these. Folders give the files whose suffix
        a format knows, without hidden ones; files that are named are listed whatever their suffix.
    recursive : bool
        Whether to look into folders inside the folder.

    Returns
    -------
    list of Path
        At least one file.

    Raises
    ------
    ReadError
        A path that does not exist, or no image found at all.
    """
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    found: dict[Path, None] = {}
    for one in sources:
        found.update(dict.fromkeys(_expand(Path(one), recursive)))
    if not found:
        where = ", ".join(str(s) for s in sources[:3]) or "An empty list"
        raise ReadError(f"{where} holds no image.", hint=f"Known suffixes: {_known_suffixes()}.")
    return list(found)


def is_image(path: AnyPath) -> bool:
    """Whether the name of `path` ends in a suffix that some format reads; the file is not opened."""
    return any(FORMATS[name].reads(path) for name in FORMATS)


def stem(path: AnyPath) -> str:
    """Name without folder and image suffix.

    Examples
    --------
    >>> stem("scans/scan.nii.gz"), stem("a.ome.tif"), stem("b.2.PNG")
    ('scan', 'a', 'b.2')
    """
    for name in FORMATS:
        if suffix := FORMATS[name].suffix(path):
            return Path(path).name[: -len(suffix)]
    return Path(path).stem


def mask_suffix(path: AnyPath) -> str:
    """Suffix of the mask of an image.

    Examples
    --------
    >>> mask_suffix("a.jpg"), mask_suffix("a.tif"), mask_suffix("a.nii")
    ('.png', '.tif', '.nii.gz')
    """
    return _format_of(Path(path), ReadError).mask_suffix


def _format_of(path: Path, error: type[UnetSegError]) -> Format:
    for name in FORMATS:
        if FORMATS[name].reads(path):
            return FORMATS[name]
    raise error(
        f"{path.name} has a suffix that no format knows." if path.suffix else f"{path.name} has no suffix.",
        hint=f"Known: {_known_suffixes()}.",
    )


def _facts(fmt: Format) -> Mapping[str, Any]:
    return next(FORMATS.facts(name) for name in FORMATS if FORMATS[name] is fmt)


def _known_suffixes() -> str:
    return " ".join(suffix for name in FORMATS for suffix in FORMATS[name].suffixes)


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
    fmt = _format_of(path, ReadError)
    if path.is_dir():
        raise ReadError(f"{path.name} is a folder, not an image.", hint="Give the files inside it.")
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


def _expand(path: Path, recursive: bool) -> Iterator[Path]:
    if path.is_dir() and not is_image(path):
        yield from sorted(_walk(path, recursive, set()), key=lambda p: natural_key(p.relative_to(path).as_posix()))
    elif path.exists():
        yield path
    elif glob.has_magic(str(path)):
        matches = (Path(match) for match in glob.glob(str(path), recursive=True))
        yield from sorted((m for m in matches if is_image(m)), key=lambda p: natural_key(p.as_posix()))
    else:
        raise ReadError(f"{path} does not exist.", hint="Check the name and the folder.")


def _walk(folder: Path, recursive: bool, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back up
        return
    seen.add(real)
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise ReadError(f"The folder {folder} could not be listed: {error.strerror}.", hint="Check it.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if is_image(entry):
            yield entry
        elif recursive and entry.is_dir():
            yield from _walk(entry, recursive, seen)
