"""Names of image files: which format knows them, what is listed in a folder, how a mask is called."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_unetseg.errors import ReadError, UnetSegError
from napari_unetseg.io.files import natural_key
from napari_unetseg.io.formats import FORMATS, Format

__all__ = ["find_images", "format_of", "is_image", "known_suffixes", "mask_suffix", "stem"]

AnyPath = str | os.PathLike[str]


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
        raise ReadError(f"{where} holds no image.", hint=f"Known suffixes: {known_suffixes()}.")
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
    return format_of(Path(path), ReadError).mask_suffix


def format_of(path: Path, error: type[UnetSegError]) -> Format:
    """Format that knows the suffix of `path`; `error` is raised when none does."""
    for name in FORMATS:
        if FORMATS[name].reads(path):
            return FORMATS[name]
    raise error(
        f"{path.name} has a suffix that no format knows." if path.suffix else f"{path.name} has no suffix.",
        hint=f"Known: {known_suffixes()}.",
    )


def known_suffixes() -> str:
    """All suffixes, in a line for people."""
    return " ".join(suffix for name in FORMATS for suffix in FORMATS[name].suffixes)


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
