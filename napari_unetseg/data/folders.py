"""Which image belongs to which label file: the folder layouts that people have.

A layout is a function from a folder to a `Listing`, or None when the folder is not laid out like that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os.path import normpath
from pathlib import Path
from typing import Any

from napari_unetseg.errors import AnnotationError, ReadError
from napari_unetseg.io import find_images, is_image, stem

__all__ = ["Entry", "Listing", "list_folder", "list_pairs"]

_IMAGES = ("images", "image", "imgs")
_LABELS = ("labels", "masks", "label", "mask", "annotations")
_ENDINGS = re.compile(r"[-_. ]?(labels?|masks?|segmentation|seg|gt|annotations?)$", re.IGNORECASE)
_WHOLE = re.compile(r"-?[0-9]{1,10}")
_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Entry:
    """One image with its labels, not read yet.

    Attributes
    ----------
    name : str
        Unique in its listing.
    images : tuple of Path
        One file, or one for each channel.
    label : Path
    page : int, optional
        Plane of the stacks that is meant; the whole files when omitted.
    group : str
        What must not be divided by a split: a patient, a sequence.
    fold : int, optional
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    page: int | None = None
    group: str = ""
    fold: int | None = None


@dataclass(frozen=True)
class Listing:
    """What a folder holds: entries, names of label values where the folder gives them, and what was left out."""

    entries: tuple[Entry, ...]
    names: Mapping[int, str] = field(default_factory=dict)
    unknown: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def list_pairs(pairs: Iterable[tuple[Any, Any]]) -> Listing:
    """Listing of explicit pairs of an image file and a label file."""
    entries = []
    for image, label in pairs:
        for path in map(Path, (image, label)):
            if not (path.is_file() or (path.exists() and is_image(path))):
                what = "is not a file" if path.exists() else "does not exist"
                raise ReadError(f"{path} {what}.", hint="Check the name and the folder.")
        entries.append(Entry(stem(image), (Path(image),), Path(label)))
    return Listing(_unique(entries))


def list_folder(folder: Path) -> Listing:
    """Pair the images of a folder with their labels.

    Raises
    ------
    ReadError
        No folder, no images, or no layout that is known.
    AnnotationError
        No image has labels.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ReadError(f"{folder} {what}.", hint="Give a project, or a folder with images/ and labels/.")
    for layout in _LAYOUTS:
        listing = layout(folder)
        if listing is not None:
            if not listing.entries:
                raise AnnotationError(
                    f"No image in {folder.name} has a label file.", hint="Give labels the names of their images."
                )
            return listing
    hint = "Put images into images/ and labels of the same names into labels/, or give imagesTr/ and labelsTr/."
    if any(is_image(path) for path in folder.iterdir()):
        raise ReadError(f"{folder.name} has images but no folder of labels.", hint=hint)
    raise ReadError(f"{folder.name} has no images/ and labels/ folders.", hint=hint)


def _split_json(folder: Path) -> Listing | None:
    """``split.json`` that lists image, label, fold, group and page of each case."""
    path = folder / "split.json"
    if not path.is_file():
        return None
    cases = _json(path).get("cases")
    if not isinstance(cases, dict):
        raise ReadError(f"{folder.name}/split.json has no cases.", hint='It needs {"cases": {name: {"image": ..}}}.')
    entries, notes = [], []
    for name, facts in cases.items():
        if not isinstance(facts, dict) or "image" not in facts:
            raise ReadError(f"Case {name!r} in {folder.name}/split.json names no image.", hint="Add it.")
        if not facts.get("label"):
            notes.append(str(name))
            continue
        image, label = (_inside(folder, facts[key]) for key in ("image", "label"))
        page, fold = facts.get("page"), facts.get("fold")
        if not all(number is None or type(number) is int for number in (page, fold)):
            raise ReadError(
                f"Case {name!r} in {folder.name}/split.json has a page or fold that is no whole number.",
                hint="Correct it, or leave it out.",
            )
        entries.append(Entry(name, (image,), label, page, str(facts.get("group", name)), fold))
    names, unknown = _label_names(folder)
    return Listing(tuple(entries), names, unknown, _without_labels(notes))


def _decathlon(folder: Path) -> Listing | None:
    """Medical Segmentation Decathlon and nnU-Net: ``imagesTr``, ``labelsTr``, channels as ``_0000``."""
    if not (folder / "imagesTr").is_dir():
        return None
    if not (folder / "labelsTr").is_dir():
        raise ReadError(f"{folder.name} has imagesTr but no labelsTr.", hint="Add the folder of labels.")
    labels = {stem(path): path for path in find_images(folder / "labelsTr", recursive=False)}
    channels: dict[str, dict[int, Path]] = {}
    for path in find_images(folder / "imagesTr", recursive=False):
        name, number = stem(path), 0
        match = _CHANNEL.search(name)
        if match and name not in labels:
            name, number = name[: match.start()], int(match[1])
        channels.setdefault(name, {})[number] = path
    entries = []
    for name, files in channels.items():
        if name in labels:
            if sorted(files) != list(range(len(files))):
                missing = min(set(range(len(files))) - set(files))
                raise ReadError(f"Case {name} has no channel _{missing:04d}.", hint="Add the file, or remove the case.")
            entries.append(Entry(name, tuple(files[i] for i in sorted(files)), labels[name], group=name))
    names, unknown = _label_names(folder)
    return Listing(tuple(entries), names, unknown, _without_labels([n for n in channels if n not in labels]))


def _images_and_labels(folder: Path) -> Listing | None:
    """``images/`` beside ``labels/`` or ``masks/``, paired by name; images in one subfolder are one group."""
    inside = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    images = next((inside[name] for name in _IMAGES if name in inside), None)
    labels = next((inside[name] for name in _LABELS if name in inside), None)
    if images is None or labels is None:
        return None
    masks: dict[str, Path] = {}
    for path in find_images(labels):
        for key in (_key(path, labels), _ENDINGS.sub("", _key(path, labels))):
            masks.setdefault(key, path)
    entries, missing = [], []
    seen: dict[str, Path] = {}
    for path in find_images(images):
        key = _key(path, images)
        if key in seen:
            raise AnnotationError(
                f"{seen[key].name} and {path.name} would share one label file.", hint="Keep one of the two images."
            )
        seen[key] = path
        if key not in masks:
            missing.append(key)
            continue
        parent = str(Path(key).parent)
        entries.append(Entry(key, (path,), masks[key], group=key if parent == "." else parent))
    names, unknown = _label_names(folder)
    return Listing(tuple(entries), names, unknown, _without_labels(missing))


_LAYOUTS: tuple[Callable[[Path], Listing | None], ...] = (_split_json, _decathlon, _images_and_labels)


def _key(path: Path, root: Path) -> str:
    """Name by which image and label find each other: path below the root, without suffix."""
    return (path.relative_to(root).parent / stem(path)).as_posix()


def _label_names(folder: Path) -> tuple[dict[int, str], tuple[int, ...]]:
    """Label values with names, and those that mean "ignore", from ``dataset.json`` in either of its two styles."""
    path = folder / "dataset.json"
    labels = _json(path).get("labels") if path.is_file() else None
    if not isinstance(labels, dict):
        return {}, ()
    names: dict[int, str] = {}
    for key, value in labels.items():
        # MSD has {"1": "liver"}, nnU-Net {"liver": 1}; overlapping regions {"tumour": [2, 3]} are no classes
        number, name = (key, value) if _WHOLE.fullmatch(str(key)) else (value, key)
        if isinstance(number, bool) or not _WHOLE.fullmatch(str(number)):
            return {}, ()
        names[int(number)] = str(name)
    unknown = tuple(number for number, name in names.items() if name.lower() == "ignore")
    return {number: name for number, name in sorted(names.items()) if number not in unknown}, unknown


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError(
            f"{path.parent.name}/{path.name} could not be read: {error}.", hint="Correct the file."
        ) from None
    if not isinstance(values, dict):
        raise ReadError(f"{path.parent.name}/{path.name} is not a JSON object.", hint="Correct the file.")
    return values


def _inside(folder: Path, name: Any) -> Path:
    """Path below `folder` that a file names; it may not lead outside, and must exist."""
    relative = Path(normpath(str(name)))
    if relative.is_absolute() or ".." in relative.parts:
        raise ReadError(f"{folder.name}/split.json names {name}, outside its folder.", hint="Use names inside it.")
    if not (folder / relative).exists():
        raise ReadError(f"{folder.name}/split.json names {name}, which does not exist.", hint="Correct the name.")
    return folder / relative


def _without_labels(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    one = len(names) == 1
    return (f"{len(names)} image{'' if one else 's'} without labels {'is' if one else 'are'} left out: {listed}.",)


def _unique(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entries whose names differ, by a number where they did not; each its own group."""
    taken: set[str] = set()
    out = []
    for entry in entries:
        name, number = entry.name, 2
        while name in taken:
            name, number = f"{entry.name}-{number}", number + 1
        taken.add(name)
        out.append(replace(entry, name=name, group=entry.group or name))
    return tuple(out)
