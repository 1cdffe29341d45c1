"""What a run over a folder writes, and where it computes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from napari_unetseg.inference import Ensemble
from napari_unetseg.io import stem
from napari_unetseg.nets import Model

__all__ = ["FLOATS", "Cluster", "Job", "Outputs", "all_beside", "beside", "thumbnail"]

FLOATS = ("_prob", "_uncertainty", "_disagreement")


@dataclass(frozen=True)
class Outputs:
    """What is written beside the masks, and how the probabilities are made.

    Attributes
    ----------
    probabilities : bool
        A ``_prob`` image per input, one channel a class.
    uncertainty : bool
        An ``_uncertainty`` image per input: the entropy, 0 sure to 1 undecided; and, where several passes were
        averaged, a ``_disagreement`` image: how much of it is because they contradict each other.
    tta, turns : bool
        Average over mirrored copies, and over quarter turns where pixels are square; the model's plan may say so too.
    dropout : int
        Passes with dropout kept on; 0 for as many as the model's plan says.
    nameless : bool
        Masks of DICOM images as NIfTI, not as DICOM-SEG, which has to name the patient.
    memory : int or None
        Most bytes that the program may hold for one image; larger ones are segmented from disk to disk. As the model's
        plan says when None. It decides no mask, so that files finished under another ceiling stay.
    verify : bool
        Read every file of an earlier run to know whether it is unchanged; otherwise one of the same size and time of
        change is taken as unchanged.
    """

    probabilities: bool = False
    uncertainty: bool = False
    tta: bool = False
    turns: bool = False
    dropout: int = 0
    nameless: bool = False
    memory: int | None = field(default=None, compare=False, repr=False)
    verify: bool = field(default=False, compare=False, repr=False)

    def ensemble(self, models: Sequence[Model]) -> Ensemble:
        """Models made ready to be averaged in the way that was asked for."""
        tta: Literal["turns"] | None = "turns" if self.turns else None
        return Ensemble.of(models, self.tta, tta=tta, dropout_passes=self.dropout or None)


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
    """File for floats beside a mask: PNG and DICOM-SEG cannot hold them, TIFF and NIfTI can."""
    return Path(all_beside(str(target), (suffix,))[0])


def all_beside(target: str, suffixes: Sequence[str] = FLOATS) -> list[str]:
    """Files for floats beside a mask; as text, and its name taken apart once, for a ledger may have a million."""
    folder, file = os.path.split(target)
    name = stem(Path(target))
    end = file[len(name) :]
    end = {".png": ".tif", ".dcm": ".nii.gz"}.get(end.lower(), end)
    return [os.path.join(folder, name + suffix + end) for suffix in suffixes]


def thumbnail(target: Path, folder: Path) -> Path:
    """Where the small picture of a mask lies; hidden, so that no listing takes it for an image."""
    return folder / ".thumbnails" / target.relative_to(folder).with_name(target.name + ".jpg")
