"""The sample data: what is there, a demo project made of it, and what napari shows under *File > Open Sample*.

`sample_data/README.md` says where each set comes from; the masks of the real pictures are no clinical truth.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.io import find_images, read, read_labels, stem
from napari_unetseg.project import Project
from napari_unetseg.registry import Registry
from napari_unetseg.volume import Volume

__all__ = [
    "SAMPLES",
    "SampleSet",
    "demo_project",
    "open_cell",
    "open_ihc",
    "open_microaneurysms",
    "open_nuclei_2d",
    "open_organ_3d",
    "open_retina",
    "sample",
]

LayerData = tuple[Any, dict[str, Any], str]

HELD_OUT = "held-out"  # images of this group are never trained on


@dataclass(frozen=True)
class SampleSet:
    """Images of one kind with their masks.

    Attributes
    ----------
    name, title, sentence : str
        Short name, title for a menu, and what is to be seen.
    licence : str
        Under which it may be used.
    folder : Path
        Folder with ``images`` and ``masks``.
    classes : tuple of str
        Background first; a mask holds their index.
    pairs : tuple of (Path, Path)
        Image and mask, in natural order.
    held_out : tuple of str
        Beginnings of the names of those images that a demo holds out.
    exact : bool
        Whether the masks are the exact truth; else they are an algorithm's.
    """

    name: str
    title: str
    sentence: str
    licence: str
    folder: Path
    classes: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]
    held_out: tuple[str, ...] = ()
    exact: bool = False

    def group(self, image: Path) -> str | None:
        """Group of an image in a project: that of its slide or patient, or the one that is held out."""
        if image.name.startswith(self.held_out):
            return HELD_OUT
        return stem(image).partition("_")[0] if len(self.pairs) > 1 else None


SAMPLES: Registry[Callable[[], SampleSet]] = Registry("sample set")

_BSD, _CC0 = "BSD-3-Clause", "CC0"


@SAMPLES.register("nuclei-2d")
def nuclei_2d() -> SampleSet:
    """Nuclei, 12 generated fields from three slides, 2D."""
    sentence = "Touching nuclei among debris and nuclei out of focus; the truth is exact."
    classes = ("background", "nucleus")
    return _find("nuclei-2d", "Nuclei (2D, generated)", sentence, _BSD, classes, held_out=("slide-c",), exact=True)


@SAMPLES.register("organ-3d")
def organ_3d() -> SampleSet:
    """Organ with lesions, 4 generated oblique scans, 3D."""
    sentence = "An organ with lesions in four thick-sliced, oblique scans; the truth is exact."
    classes = ("background", "organ", "lesion")
    return _find("organ-3d", "Organ and lesions (3D, generated)", sentence, _BSD, classes, held_out=("scan-4",),
                 exact=True)  # fmt: skip


@SAMPLES.register("cell")
def cell() -> SampleSet:
    """Cell, one quantitative phase image, 2D."""
    return _find("cell", "Cell (2D, phase)", "One cell floating in saline.", _CC0, ("background", "cell"))


@SAMPLES.register("ihc")
def ihc() -> SampleSet:
    """Colonic glands, one stained section in colour, 2D."""
    sentence = "Colonic glands: brown tissue (DAB) and blue nuclei (haematoxylin)."
    classes = ("background", "stained tissue", "nucleus")
    return _find("ihc", "Colonic glands (2D, colour)", sentence, "no known copyright restrictions", classes)


@SAMPLES.register("retina")
def retina() -> SampleSet:
    """Retina, one fundus photograph in colour, 2D."""
    return _find("retina", "Retina (2D, colour)", "Vessels of a normal eye.", _CC0, ("background", "vessel"))


@SAMPLES.register("microaneurysms")
def microaneurysms() -> SampleSet:
    """Microaneurysms, a small detail of a diabetic retina, 2D."""
    sentence = "Small dark spots between vessels."
    return _find("microaneurysms", "Microaneurysms (2D)", sentence, _CC0, ("background", "microaneurysm"))


def sample(name: str) -> SampleSet:
    """One set of sample data, by name.

    Raises
    ------
    UnknownName
        If there is no such set.
    ReadError
        If its files are not where they were installed.
    """
    return SAMPLES[name]()


def demo_project(folder: str | os.PathLike[str], name: str = "nuclei-2d") -> Project:
    """Make a project with copies of a set's images, and no stroke yet.

    Parameters
    ----------
    folder : path
        The project folder to make.
    name : str
        Which set.

    Returns
    -------
    Project
        Open for work. The images that a demo holds out are in the group ``"held-out"``; the truth stays outside, in
        the set's ``pairs``.

    Raises
    ------
    ProjectError
        If there is something in `folder`.
    """
    chosen = sample(name)
    project = Project.create(folder, chosen.classes, name=chosen.title)
    for image, _ in chosen.pairs:
        project.add(image, group=chosen.group(image), copy=True)
    return project


# ---- File > Open Sample --------------------------------------------------------------------------------------------


def open_nuclei_2d() -> list[LayerData]:
    """All fields of `nuclei-2d` as one stack of planes, and the truth."""
    chosen = sample("nuclei-2d")
    images = [read(image) for image, _ in chosen.pairs]
    masks = [read_labels(mask).data for _, mask in chosen.pairs]
    placed = _place(images[0])
    placed = {
        "scale": (1.0, *placed["scale"]),
        "units": ("pixel", *placed["units"]),
        "axis_labels": ("image", *placed["axis_labels"]),
    }
    return _layers(chosen, np.stack([image.data[0] for image in images]), np.stack(masks), placed)


def open_organ_3d() -> list[LayerData]:
    """First scan of `organ-3d`, and the truth."""
    return _open_first("organ-3d")


def open_cell() -> list[LayerData]:
    """The picture of `cell`, and a mask."""
    return _open_first("cell")


def open_ihc() -> list[LayerData]:
    """The picture of `ihc`, and a mask."""
    return _open_first("ihc")


def open_retina() -> list[LayerData]:
    """The picture of `retina`, and a mask."""
    return _open_first("retina")


def open_microaneurysms() -> list[LayerData]:
    """The picture of `microaneurysms`, and a mask."""
    return _open_first("microaneurysms")


def _open_first(name: str) -> list[LayerData]:
    chosen = sample(name)
    image_path, mask_path = chosen.pairs[0]
    volume = read(image_path)
    pixels = np.moveaxis(volume.data, 0, -1) if len(volume.data) == 3 else volume.data[0]
    return _layers(chosen, pixels, read_labels(mask_path).data, _place(volume))


def _place(volume: Volume) -> dict[str, Any]:
    """Where napari shall put a layer. Scale only: it shows oblique affines skewed, and cannot paint on them well."""
    geometry = volume.geometry
    return {
        "scale": geometry.spacing,
        "units": (geometry.unit,) * geometry.ndim,
        "axis_labels": tuple(geometry.axes.lower()),
    }


def _layers(chosen: SampleSet, pixels: np.ndarray, mask: np.ndarray, placed: dict[str, Any]) -> list[LayerData]:
    colour = pixels.ndim > mask.ndim
    look: dict[str, Any] = {"rgb": True} if colour else {"colormap": "gray"}
    truth = "truth" if chosen.exact else "mask, made by an algorithm"
    return [
        (pixels, {"name": chosen.title, **look, **placed}, "image"),
        # hidden, since a look at the answer spoils the exercise
        (mask, {"name": f"{chosen.title}: {truth}", "visible": False, "opacity": 0.5, **placed}, "labels"),
    ]


# ---- where the files are -------------------------------------------------------------------------------------------


def _find(
    name: str,
    title: str,
    sentence: str,
    licence: str,
    classes: tuple[str, ...],
    *,
    held_out: tuple[str, ...] = (),
    exact: bool = False,
) -> SampleSet:
    package = Path(__file__).resolve().parent
    # inside the package when it was installed, beside it in a checkout
    for folder in (package / "sample_data" / name, package.parent / "sample_data" / name):
        if folder.is_dir():
            images, masks = find_images(folder / "images"), find_images(folder / "masks")
            pairs = tuple(zip(images, masks, strict=True))
            return SampleSet(name, title, sentence, licence, folder, classes, pairs, held_out, exact)
    raise ReadError(f"The sample data {name!r} is not installed.", hint="Install napari-unetseg again.")
