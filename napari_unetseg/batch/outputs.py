"""What a run over a folder writes, and where it computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_unetseg.io import stem

__all__ = ["FLOATS", "Cluster", "Job", "Outputs", "beside", "thumbnail"]

FLOATS = ("_prob", "_uncertainty")


@dataclass(frozen=True)
class Outputs:
    """What is written beside the masks, and how the probabilities are made.

    Attributes
    ----------
    probabilities : bool
        A ``_prob`` image per input, one channel a class.
    uncertainty : bool
        An ``_uncertainty`` image per input: the entropy, 0 sure to 1 undecided.
    tta : bool
        Average over mirrored copies.
    """

    probabilities: bool = False
    uncertainty: bool = False
    tta: bool = False


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster to compute on.

    Attributes
    ----------
    address : str
        Of the scheduler, such as ``tcp://node7:8786``; empty starts a cluster of processes on this machine.
    workers : int or None
        Processes to start on this machine; one a graphics card or, without any, one for two cores when None.
    """

    address: str = ""
    workers: int | None = None


@dataclass(frozen=True)
class Job:
    """One file to be segmented.

    Attributes
    ----------
    file, target : Path
        The image, and where its mask goes.
    folder : Path
        The output folder.
    starts : int
        How often it was begun before and neither done nor failed: the program ended meanwhile.
    """

    file: Path
    target: Path
    folder: Path
    starts: int = 0


def beside(target: Path, suffix: str) -> Path:
    """File for floats beside a mask: PNG cannot hold them, TIFF can."""
    name = target.name[len(stem(target)) :]
    return target.with_name(stem(target) + suffix + (".tif" if name.lower() == ".png" else name))


def thumbnail(target: Path, folder: Path) -> Path:
    """Where the small picture of a mask lies; hidden, so that no listing takes it for an image."""
    return folder / ".thumbnails" / target.relative_to(folder).with_name(target.name + ".jpg")
