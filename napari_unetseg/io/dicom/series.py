"""Series: which images a file, a folder or a whole study holds, and the path by which each is known."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_unetseg.errors import ReadError
from napari_unetseg.io.dicom.headers import SUFFIXES, is_dicom, maybe_dicom, quiet, read_header
from napari_unetseg.io.dicom.planes import Plane, gather, planes_of
from napari_unetseg.io.files import natural_key

__all__ = [
    "Series",
    "inputs_of",
    "is_input",
    "is_segmentation",
    "list_series",
    "one_per_series",
    "series_of",
    "sniffed",
]


_LOOKED_AT = 500  # files of a folder, before it is none of DICOM


@dataclass(frozen=True, eq=False)
class Series:
    """One image of a study: what can be said about it without saying whose it is.

    Attributes
    ----------
    path : Path
        What `napari_unetseg.io.read` wants: its folder where it has one to itself, else its first file.
    number : int or None
        The series' number in the study.
    modality : str
        ``"CT"``, ``"MR"``, ...
    slices : int
        Number of planes.
    size : tuple of int
        Rows and columns.
    kind : str
        ``"image"``, ``"segmentation"`` or ``"screenshot"``.
    unread : tuple of Path
        Files beside it whose headers could not be read.
    """

    path: Path
    number: int | None
    modality: str
    slices: int
    size: tuple[int, int]
    kind: str
    unread: tuple[Path, ...] = ()
    planes: tuple[Plane, ...] = field(default=(), repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, in natural order."""
        return tuple(dict.fromkeys(plane.header.path for plane in self.planes))

    def __str__(self) -> str:
        number = f"number {self.number}, " if self.number is not None else ""
        count = f"{self.slices} slice{'s' * (self.slices != 1)} of " if self.kind == "image" else f"{self.kind}, "
        return f"{self.path.name}: {number}{self.modality}, {count}{self.size[0]} x {self.size[1]}"


def list_series(path: str | os.PathLike[str], recursive: bool = True) -> list[Series]:
    """The series in a folder, in the folder of a file, or in what a DICOMDIR lists.

    Parameters
    ----------
    path : path
        A folder, a DICOM file, or a DICOMDIR.
    recursive : bool
        Whether to look into the folders inside a folder.

    Returns
    -------
    list of Series
        In the order of their numbers; empty when there is no DICOM file.

    Raises
    ------
    ReadError
        If `path` is missing, may not be listed, or names a DICOMDIR that is damaged.
    """
    path = Path(path)
    if path.is_dir():
        found = [series for folder, files in _folders(path, recursive) for series in _grouped(folder, files)]
    elif _is_directory(path):
        files = _listed(path)
        folders = dict.fromkeys(file.parent for file in files)
        found = [s for folder in folders for s in _grouped(folder, [f for f in files if f.parent == folder])]
    else:
        found = _grouped(path.parent, _dicom_files(path.parent))
    return sorted(found, key=lambda s: (s.number is None, s.number or 0, natural_key(s.path.as_posix())))


def series_of(path: Path) -> Series:
    """The one series that `path` stands for.

    Raises
    ------
    ReadError
        If there is none, or several: the message lists them.
    """
    if path.is_dir() or _is_directory(path):
        found = [series for series in list_series(path) if series.kind != "segmentation"]
        # pages and screens beside a scan are not what a folder is opened for
        images = [series for series in found if series.kind == "image"] or found
        if len(images) == 1:
            return images[0]
        if not images:
            raise ReadError(
                f"{path.name} is a folder without DICOM images." if path.is_dir() else f"{path.name} lists no images.",
                hint="Give an image, or a folder of DICOM files.",
            )
        lines = "; ".join(str(series) for series in images[:12]) + ("; ..." if len(images) > 12 else "")
        raise ReadError(
            f"{path.name} holds {len(images)} series: {lines}.", hint="Give the folder or a file of the one you want."
        )
    own = read_header(path)
    if not own.is_image:
        what = "a segmentation" if own.is_segmentation else f"no image ({own.modality})"
        raise ReadError(f"{path.name} is {what}.", hint="Give the images themselves.")
    for series in _grouped(path.parent, [path] if own.frames > 1 else _dicom_files(path.parent, sure=path)):
        if any(_same(file, path) for file in series.files):
            return series
    raise ReadError(f"{path.name} could not be found in its folder.", hint="Check the file.")


def sniffed(path: Path) -> bool:
    """Whether a path whose name says nothing is DICOM: a file that begins so, or a folder with such a file in it."""
    if not path.is_dir():
        return maybe_dicom(path) and is_dicom(path)
    # a tree of many files that only might be DICOM, such as the chunks of an array, is given up early
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in sorted(names) if name[0] != ".")
    return any(is_dicom(file) for file in itertools.islice(filter(maybe_dicom, inside), _LOOKED_AT))


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM-SEG."""
    return is_input(path) and is_dicom(path) and read_header(path).is_segmentation


def inputs_of(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Paths that stand for the images among the `files` of one `folder`, each image once.

    Screenshots and segmentations are left out where there are images to choose.
    """
    found = _grouped(folder, files)
    for kind in ("image", "segmentation", "screenshot"):
        if chosen := [series.path for series in found if series.kind == kind]:
            # damaged files are inputs too: somebody wants to know
            return chosen + list(found[0].unread)
    return list(files) if not found else []


def is_input(path: Path) -> bool:
    """Whether a file's name or, where that says nothing, its beginning is DICOM's; a DICOMDIR is none."""
    if path.name.upper() == "DICOMDIR" or not maybe_dicom(path) or not path.is_file():
        return False
    return path.name.lower().endswith(SUFFIXES) or is_dicom(path)


def one_per_series(paths: Iterable[Path]) -> dict[Path, Path]:
    """What each of `paths` is to be known by: a file of a series by the series' own path, others by their own."""
    known: dict[Path, Path] = {}
    listed: set[Path] = set()
    found = {}
    for path in paths:
        if is_input(path) and path.parent not in listed:
            listed.add(path.parent)
            for series in _grouped(path.parent, _dicom_files(path.parent)):
                known.update(dict.fromkeys(series.files, series.path) if series.kind == "image" else {})
        found[path] = known.get(path, path)
    return found


# ---------------------------------------------------------------------------------------------------------------
def _grouped(folder: Path, files: Sequence[Path]) -> list[Series]:
    planes: list[Plane] = []
    masks: list[list[Plane]] = []
    unread: list[Path] = []
    for file in sorted(files, key=lambda path: natural_key(path.name)):
        try:
            header = read_header(file)
            planes += planes_of(header) if header.is_image else []
        except (ReadError, OSError):
            unread.append(file)
            continue
        if header.is_segmentation:
            masks.append([Plane(header, 0, None, None, None, (1.0, 0.0))])
    images = gather(planes)
    alone = len(images) == 1
    return [_series(folder, group, alone, tuple(unread)) for group in images] + [
        _series(folder, group, False, tuple(unread)) for group in masks
    ]


def _series(folder: Path, planes: list[Plane], alone: bool, unread: tuple[Path, ...]) -> Series:
    header = planes[0].header
    several = len({plane.header.path for plane in planes}) > 1
    number = header.number("SeriesNumber")
    kind = "segmentation" if header.is_segmentation else "screenshot" if header.is_screenshot else "image"
    return Series(
        folder if alone and several else header.path,
        None if number is None else int(number),
        header.modality,
        len(planes) if kind == "image" else header.frames,
        planes[0].shape,
        kind,
        unread,
        tuple(planes),
    )


def _folders(folder: Path, recursive: bool, seen: set[str] | None = None) -> Iterable[tuple[Path, list[Path]]]:
    """Folders from `folder` down that hold DICOM files, with these."""
    seen = set() if seen is None else seen
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back up
        return
    seen.add(real)
    if files := _dicom_files(folder):
        yield folder, files
    if recursive:
        for inner in sorted((p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."), key=_natural):
            yield from _folders(inner, recursive, seen)


def _dicom_files(folder: Path, sure: Path | None = None) -> list[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise ReadError(f"The folder {folder} could not be listed: {error.strerror}.", hint="Check it.") from error
    found = sorted((path for path in entries if path.name[0] != "." and is_input(path)), key=_natural)
    return found if sure is None or sure in found else [*found, sure]


def _is_directory(path: Path) -> bool:
    return path.name.upper() == "DICOMDIR" and path.is_file()


def _listed(path: Path) -> list[Path]:
    """Files that a DICOMDIR names and that are there."""
    import pydicom

    if not is_dicom(path):
        raise ReadError(f"{path.name} is not a DICOM directory.", hint="Give the folder it lies in.")
    try:
        with quiet():
            found = pydicom.dcmread(path, specific_tags=["DirectoryRecordSequence"])
            names = [record.get("ReferencedFileID") for record in found.DirectoryRecordSequence]
    except Exception:  # a damaged header raises anything, and its words may name the patient
        names = None
    if names is None:
        raise ReadError(f"{path.name} is a DICOM directory that is damaged.", hint="Give the folder it lies in.")
    parts = ([name] if isinstance(name, str) else [str(part) for part in name] for name in names if name)
    base = path.parent.resolve()
    files = (base.joinpath(*part) for part in parts if ".." not in part)
    return [file for file in files if file.is_file() and file.resolve().is_relative_to(base)]


def _natural(path: Path) -> tuple:
    return natural_key(path.name)


def _same(a: Path, b: Path) -> bool:
    return a == b or os.path.realpath(a) == os.path.realpath(b)
