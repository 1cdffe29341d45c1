"""Which files a run is about, and where the mask of each goes."""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from napari_unetseg.errors import ReadError, UnetSegError
from napari_unetseg.io import find_images, is_image, mask_suffix, one_per_series, stem

__all__ = ["list_files", "place_masks", "without"]

Inputs = str | Path | Iterable[str | Path]

_LISTS = (".txt", ".lst", ".list")


def list_files(inputs: Inputs, out: Path) -> list[Path]:
    """Images to be segmented, each once, in natural order; symbolic links keep their own names.

    Parameters
    ----------
    inputs : path or iterable of paths
        Images, folders (searched recursively), glob patterns, or text files with one of these a line.
    out : Path
        The output folder. Where it lies inside an input folder, nothing in it is an input.

    Raises
    ------
    ReadError
        A path that does not exist (but in a list), or no image at all.
    """
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    _real.cache_clear()
    files: dict[Path, None] = {}
    for one in given:
        files.update(dict.fromkeys(_expand(one, out)))
    files = dict.fromkeys(one_per_series(files).values())
    if not files:
        raise ReadError(
            f"There is no image in {', '.join(map(str, given))}.", hint="Give image files or a folder of them."
        )
    return list(files)


def without(files: Sequence[Path], written: Iterable[str]) -> list[Path]:
    """Files that no earlier run has written; all of them where nothing else was given."""
    homes = {_real(str(file.parent)) for file in files}
    ours = {_place(path) for path in written if _real(os.path.dirname(path)) in homes}
    return [file for file in files if _place(str(file)) not in ours] or list(files)


def _place(path: str) -> str:
    """Where a file is, links among its folders followed, but not itself."""
    folder, name = os.path.split(path)
    return os.path.join(_real(folder), name)


@functools.lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _expand(one: str | Path, out: Path) -> list[Path]:
    path = _absolute(one)
    if path.is_dir() and not is_image(path):
        try:
            found = [_absolute(image) for image in find_images(path)]
        except ReadError as error:
            if "no image" in error.message:  # another input may hold some
                return []
            raise
        return found if _real(str(path)) == _real(str(out)) else _outside(found, out)
    if path.suffix.lower() in _LISTS and path.is_file():
        return _read_list(path, out)
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(str(one)):
        return _outside(_found(glob.glob(str(path), recursive=True)), out)
    raise ReadError(f"There is no file or folder {one}.", hint="Check the path.")


def _outside(files: Iterable[Path], out: Path) -> list[Path]:
    inside = _real(str(out)) + os.sep
    return [file for file in map(_absolute, files) if not _place(str(file)).startswith(inside)]


def _found(matches: Iterable[str]) -> list[Path]:
    """Images among what a pattern gives: files by their suffix, folders for what is in them."""
    wanted = [match for match in matches if is_image(match) or os.path.isdir(match)]
    try:
        return find_images(wanted) if wanted else []
    except ReadError:
        return []


def _read_list(path: Path, out: Path) -> list[Path]:
    """Files of a list; a line that leads nowhere stays, and becomes a failed row."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ReadError(f"The list {path.name} could not be read: {error.strerror}.", hint="Check it.") from error
    if "\0" in text:
        raise ReadError(f"{path.name} is no list of paths.", hint="Give a text file with one path a line.")
    files: list[Path] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        here = path.parent / Path(line).expanduser()
        try:
            files += _expand(here, out)
        except ReadError:
            files.append(_absolute(here))
    return files


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))  # not resolve(): a link is called by its own name


def place_masks(files: Sequence[Path], folder: Path, written: Collection[str], nameless: bool = False) -> list[Path]:
    """Where each mask goes: the input's own path below the common folder, unique, and never on a file not `written`.

    With `nameless`, no mask goes out in a format that names the patient.
    """
    common = Path(os.path.commonpath([file.parent for file in files]))
    taken: set[Path] = set(files)

    def free(path: Path) -> bool:
        return path not in taken and (str(path) in written or not os.path.lexists(path))

    targets = []
    for file in files:
        place, suffix = folder / file.relative_to(common).parent, _suffix(file, nameless)
        target = place / (stem(file) + suffix)
        if not free(target):
            target = place / (file.name.replace(".", "_") + "_mask" + suffix)
        count = 2
        while not free(target):
            target = place / f"{file.name.replace('.', '_')}_mask{count}{suffix}"
            count += 1
        taken.add(target)
        targets.append(target)
    return targets


def _suffix(file: Path, nameless: bool) -> str:
    try:
        return mask_suffix(file, nameless)
    except UnetSegError:  # its name is of no format: it will fail, but needs its row
        return ".tif"
