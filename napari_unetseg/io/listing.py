"""Names of image files: which format knows them, what is listed in a folder, how a mask is called."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from napari_unetseg.errors import ReadError, UnetSegError
from napari_unetseg.io.dicom import inputs_of, is_input, list_series, one_per_series
from napari_unetseg.io.files import natural_key
from napari_unetseg.io.formats import FORMATS, Format

__all__ = ["find_images", "format_of", "is_image", "known_suffixes", "mask_suffix", "names_patients", "stem"]

AnyPath = str | os.PathLike[str]


def find_images(source: AnyPath | Iterable[AnyPath], recursive: bool = True) -> list[Path]:
    """List image files in natural order (``scan2`` before ``scan10``), each once.

    Parameters
    ----------
    source : path or iterable of paths
        A folder, a file, a pattern such as ``"scans/*.tif"``, or several of these. Folders give the files whose suffix
        a format knows, without hidden ones; files that are named are listed whatever their suffix. The files of a DICOM
        series are one image, known by their folder where they have it to themselves, else by the first of them.
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
    named = one_per_series(path for one in sources if is_input(path := Path(one)))
    for one in sources:
        paths = [named[Path(one)]] if Path(one) in named else _expand(Path(one), recursive)
        found.update(dict.fromkeys(paths))
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
    # folders, and files that are called by a UID, have dots in their names
    return Path(path).name if Path(path).is_dir() or Path(path).suffix[1:].isdigit() else Path(path).stem


def mask_suffix(path: AnyPath, nameless: bool = False) -> str:
    """Suffix of the mask of an image.

    Parameters
    ----------
    path : path
        The image; whether a DICOM image can have a DICOM-SEG is looked up in it.
    nameless : bool
        Choose a format that does not have to name the patient, whatever the image is.

    Examples
    --------
    >>> mask_suffix("a.jpg"), mask_suffix("a.tif"), mask_suffix("a.nii")
    ('.png', '.tif', '.nii.gz')
    """
    path = Path(path)
    if not nameless:
        return format_of(path, ReadError).mask_suffix_of(path)
    known = next((FORMATS[name] for name in FORMATS if FORMATS[name].reads(path)), None)
    # images without a suffix are DICOM's, which may have been moved away by now
    return ".nii.gz" if known is None or known.names_patients else known.mask_suffix


def names_patients(path: AnyPath) -> bool:
    """Whether an image is of a format whose files say whose it is."""
    return format_of(Path(path), ReadError).names_patients


def format_of(path: Path, error: type[UnetSegError]) -> Format:
    """Format that knows the suffix of `path` or, when it is to be read, what lies there; else `error` is raised."""
    for name in FORMATS:
        if FORMATS[name].reads(path):
            return FORMATS[name]
    if error is ReadError and path.exists():
        for name in FORMATS:
            if FORMATS[name].recognises(path):
                return FORMATS[name]
    raise error(
        f"{path.name} has a suffix that no format knows." if path.suffix else f"{path.name} has no suffix.",
        hint=f"Known: {known_suffixes()}.",
    )


def known_suffixes() -> str:
    """All suffixes, in a line for people."""
    return " ".join(suffix for name in FORMATS for suffix in FORMATS[name].suffixes)


def _expand(path: Path, recursive: bool) -> Iterator[Path]:
    if path.is_dir() and not _is_item(path):
        yield from sorted(_walk(path, recursive, set()), key=lambda p: natural_key(p.relative_to(path).as_posix()))
    elif path.name.upper() == "DICOMDIR" and path.is_file():
        yield from (series.path for series in list_series(path) if series.kind == "image")
    elif path.exists():
        yield path
    elif glob.has_magic(str(path)):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
        images = sorted((m for m in matches if is_image(m) or is_input(m)), key=lambda p: natural_key(p.as_posix()))
        yield from dict.fromkeys(one_per_series(images).values())
    else:
        raise ReadError(f"{path} does not exist.", hint="Check the name and the folder.")


def _is_item(path: Path) -> bool:
    """Whether `path` is called like an image: a folder like a format whose images are folders."""
    return is_image(path) and (format_of(path, ReadError).folder or not path.is_dir())


def _walk(folder: Path, recursive: bool, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back up
        return
    seen.add(real)
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise ReadError(f"The folder {folder} could not be listed: {error.strerror}.", hint="Check it.") from error
    slices = [entry for entry in entries if is_input(entry)]
    yield from inputs_of(folder, slices) if slices else ()
    for entry in entries:
        if entry in slices:
            continue
        if _is_item(entry):
            yield entry
        elif recursive and entry.is_dir():
            yield from _walk(entry, recursive, seen)
