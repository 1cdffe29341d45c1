"""One file: read, through the net, mask written and measured; whatever goes wrong with it becomes its row."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.batch.large import opened, segment_large
from napari_unetseg.batch.ledger import file_state, hash_file
from napari_unetseg.batch.objects import keep_objects
from napari_unetseg.batch.outputs import FLOATS, Job, Outputs, beside, thumbnail
from napari_unetseg.batch.quality import look_at
from napari_unetseg.batch.thumbnails import save_thumbnail
from napari_unetseg.errors import Stopped, UnetSegError, WriteError
from napari_unetseg.events import Control, Event
from napari_unetseg.inference import Belief, Ensemble
from napari_unetseg.io import read_labels, write
from napari_unetseg.io.lazy import LazyVolume
from napari_unetseg.postprocess import after_net
from napari_unetseg.volume import LabelVolume, Volume

__all__ = ["Entry", "Loaded", "Segmenter", "failed", "keep", "measure_classes"]

logger = logging.getLogger(__name__)

Entry = dict[str, Any]

_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Loaded:
    """An image, in memory where it fits, hash and state of its file, and how long reading took."""

    image: Volume | LazyVolume
    file: Entry
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return 0 if isinstance(self.image, LazyVolume) else self.image.data.nbytes


class Segmenter:
    """The three steps of a file, which may run at the same time for three files: read, think, finish.

    Each gives what the next one needs, or the row of a file that failed.

    Parameters
    ----------
    ensemble : Ensemble
        Ready on its device.
    outputs : Outputs
        What is written.
    """

    def __init__(self, ensemble: Ensemble, outputs: Outputs) -> None:
        self.ensemble, self.outputs = ensemble, outputs
        self.ids = tuple(model.id for model in ensemble.models)

    @property
    def recipe(self) -> str:
        """Hash of all that decides a mask besides its image."""
        return self._hash(model.plan.deciding() for model in self.ensemble.models)

    @property
    def earlier_recipe(self) -> str:
        """The same as it was taken from plans with all their fields, of which there may be more since."""
        return self._hash(model.plan.to_json() for model in self.ensemble.models)

    def _hash(self, plans: Iterable[str]) -> str:
        text = "".join(itertools.chain(*zip(self.ids, plans, strict=True))) + repr(self.outputs)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def read(self, job: Job) -> Loaded | Entry:
        """Read a file."""
        begin = time.monotonic()
        try:
            before = file_state(job.file)
            image = opened(job.file, self.ensemble, self.outputs.memory)
            known = {"image_hash": hash_file(job.file), "image_state": before}
            return Loaded(image, known, time.monotonic() - begin)
        except Exception as error:  # a damaged file makes a decoder raise anything
            return self._failed(job, error, time.monotonic() - begin)

    def think(self, job: Job, loaded: Loaded, control: Control) -> Generator[Event, None, Belief | Entry]:
        """What the models say of an image; yields `TileDone`."""
        begin = time.monotonic()
        try:
            if isinstance(loaded.image, LazyVolume):
                entry = yield from segment_large(job, loaded.image, self.ensemble, self.outputs, control)
                facts = self._facts(loaded.seconds + time.monotonic() - begin)
                return {**entry, **_known(job, loaded, Path(entry["mask"])), **facts}
            return (yield from self.ensemble.believe(loaded.image, control))
        except Stopped:
            raise
        except Exception as error:
            return self._failed(job, error, loaded.seconds + time.monotonic() - begin)

    def finish(self, job: Job, loaded: Loaded, belief: Belief, seconds: float) -> Entry:
        """Write the mask, measure it, and say how much it deserves trust.

        Raises
        ------
        WriteError
            When there is no place left on the disk: no file would do better.
        """
        begin = time.monotonic()
        image, ensemble, probability = loaded.image, self.ensemble, belief.probability
        assert isinstance(image, Volume)  # think() has already written the mask of any other
        try:
            steps = ensemble.models[0].plan.post.steps
            classes, objects = after_net(ensemble.mask(probability), steps, image.geometry.spacing)
            mask = classes if objects is None else objects
            names = {"classes": ensemble.classes} if objects is None else {}
            labels = LabelVolume(mask, image.geometry, image.path, {**image.header, **names})
            written = write(job.target, labels, like=image)
            if self.outputs.probabilities:
                _write_float(beside(job.target, FLOATS[0]), probability, image)
            if self.outputs.uncertainty:
                _write_float(beside(job.target, FLOATS[1]), belief.entropy[None], image)
                if belief.disagreement is not None:
                    _write_float(beside(job.target, FLOATS[2]), belief.disagreement[None], image)
            if objects is not None:
                keep_objects(job, classes, objects, image, ensemble.classes)
            save_thumbnail(thumbnail(job.target, job.folder), image.data, classes)
            return {
                "status": "done",
                "error": "",
                "mask": str(written),
                "classes": measure_classes(classes, labels, ensemble.classes),
                "objects": objects is not None,
                **look_at(probability, classes, image, ensemble.models[0]),
                **_known(job, loaded, written),
                **self._facts(loaded.seconds + seconds + time.monotonic() - begin),
            }
        except Exception as error:
            if _no_place(error):
                raise
            return self._failed(job, error, loaded.seconds + seconds + time.monotonic() - begin, loaded.file)

    def _failed(self, job: Job, error: Exception, seconds: float, known: Entry | None = None) -> Entry:
        if isinstance(error, UnetSegError):
            said = str(error)
        else:
            logger.debug("%s failed", job.file.name, exc_info=error)
            said = f"{type(error).__name__}: {error}".splitlines()[0]
        known = known or {"image_hash": _hash_anyway(job.file)}
        return {**failed(said), **known, **self._facts(seconds)}

    def _facts(self, seconds: float) -> Entry:
        return {
            "model": "+".join(self.ids),
            "seconds": round(seconds, 3),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }


def failed(error: str) -> Entry:
    """Row of a file that has no mask, for `error`."""
    nothing: Entry = {
        "mask": "",
        "classes": [],
        "doubt": None,
        "flags": [],
        "why": "",
        "image_hash": "",
        "mask_hash": "",
    }
    return {"status": "failed", "error": error, **nothing, "model": "", "seconds": 0.0, "worker": ""}


def keep(before: Mapping[str, Any], target: Path, classes: Sequence[str]) -> Entry:
    """Row of a mask that somebody corrected by hand: left as it is, and measured as it is."""
    entry = {**before, "status": "kept", "error": "", "classes": [], "flags": [], "doubt": None, "seconds": 0.0}
    try:
        labels = read_labels(target)
        return {**entry, "classes": measure_classes(labels.data, labels, classes)}
    except UnetSegError as error:
        return {**entry, "status": "failed", "error": str(error)}


def measure_classes(mask: np.ndarray, labels: LabelVolume, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Voxels, physical size and components of every class: connected parts (over corners too), or objects numbered."""
    from scipy import ndimage

    geometry = labels.geometry
    voxel = float(np.prod(geometry.spacing))
    unit = geometry.unit + ("2" if labels.ndim == 2 else "3")
    found = []
    for label, name in enumerate(classes[1:], start=1):
        where = mask == label
        voxels = int(np.count_nonzero(where))
        if labels.data is mask:
            components = int(ndimage.label(where, np.ones((3,) * labels.ndim))[1]) if voxels else 0
        else:
            components = len(np.unique(labels.data[where & (labels.data > 0)]))
        found.append({"class": name, "voxels": voxels, "size": voxels * voxel, "unit": unit, "components": components})
    return found


def _write_float(path: Path, data: np.ndarray, image: Volume) -> None:
    write(path, Volume(data.astype(np.float32), image.geometry, image.path, image.header), like=image)


def _known(job: Job, loaded: Loaded, mask: Path) -> Entry:
    """Hash and state of image and mask; no hash of an image that was changed while it was segmented, so done again."""
    state = file_state(mask)  # before its hash: what changes it from here on shows
    image = loaded.file if file_state(job.file) == loaded.file["image_state"] else {"image_hash": ""}
    return {**image, "mask_hash": hash_file(mask), "mask_state": state}


def _hash_anyway(file: Path) -> str:
    try:
        return hash_file(file)
    except OSError:
        return ""


def _no_place(error: Exception) -> bool:
    cause = error.__cause__ if isinstance(error, WriteError) else error
    return isinstance(cause, OSError) and cause.errno in _NO_PLACE
