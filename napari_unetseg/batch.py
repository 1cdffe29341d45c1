"""Folders of files to masks and a table: `segment_folder`.

One mask per input in the family of its image, ``table.csv`` with one row a file and class, ``run.json`` that says how.
A ledger beside them, one line a file, lets a second run redo only what changed. One bad file never stops the run.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import napari_unetseg
from napari_unetseg.errors import ReadError, Stopped, UnetSegError, WriteError
from napari_unetseg.events import Control, Event, FileDone, Started, TileDone, verb
from napari_unetseg.inference import Ensemble, entropy
from napari_unetseg.io import atomic_write, find_images, mask_suffix, read, read_labels, stem, write
from napari_unetseg.nets import Model
from napari_unetseg.postprocess import STEPS, apply_steps
from napari_unetseg.volume import LabelVolume, Volume

__all__ = ["Outputs", "segment_folder"]

logger = logging.getLogger(__name__)

_FLOATS = ("_prob", "_uncertainty")
COLUMNS = ("file", "class", "voxels", "size", "unit", "components", "status", "error", "seconds", "mask")


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


@verb
def segment_folder(
    inputs: str | Path | Iterable[str | Path],
    model: Model | str | Path | Sequence[Model | str | Path],
    out: str | Path,
    outputs: Outputs = Outputs(),
    *,
    control: Control | None = None,
) -> Generator[Event, None, list[dict[str, Any]]]:
    """Segment files and folders.

    Parameters
    ----------
    inputs : path or iterable of paths
        Image files, folders (searched recursively) or glob patterns.
    model : Model or path, or several
        Several are averaged.
    out : path
        Folder for masks, ``table.csv``, ``run.json`` and the ledger.
    outputs : Outputs
        What else to write.
    control : Control, optional
        To stop it, within a tile; finished files stay and are skipped the next time.

    Returns
    -------
    list of dict
        The rows of ``table.csv``.

    Raises
    ------
    ReadError
        When there is no image at all.
    WriteError
        When the output folder cannot be written.
    ModelError
        When a model is incomplete.
    """
    models = [model] if isinstance(model, (Model, str, Path)) else list(model)
    ensemble = Ensemble.of([m if isinstance(m, Model) else Model.load(m) for m in models], outputs.tta)
    files = _list(inputs)
    folder = _make_folder(Path(out))
    ledger = _Ledger(folder / "ledger.jsonl", _recipe(ensemble, outputs))
    files = [file for file in files if file not in ledger.written] or files  # where the masks lie among the images
    targets = _targets(files, folder, ledger.written)
    control = control or Control()
    device = str(ensemble.predictors[0].compute.device)
    yield Started(f"segmenting {len(files)} files", device, len(files))
    begin, rows = time.monotonic(), []
    for index, (file, target) in enumerate(zip(files, targets, strict=True)):
        start = time.monotonic()
        entry = ledger.finished(file, target)
        if entry is None and ledger.corrected(file, target):
            entry = _keep(target, ensemble.classes)
            status = entry["status"]
        elif entry is None:
            ledger.add(file, {"status": "started", "mask": str(target)})  # so that a kill leaves no mask unclaimed
            try:
                entry = yield from _segment_file(file, target, ensemble, outputs, control)
            except Stopped:
                break
            entry = ledger.add(file, {**entry, "seconds": round(time.monotonic() - start, 3)})
            status = entry["status"]
        else:
            status = "skipped"
        rows += _rows(file, entry, folder)
        passed = time.monotonic() - begin
        left = passed / (index + 1) * (len(files) - index - 1)
        yield FileDone(index, len(files), str(file), status, entry["error"], time.monotonic() - start, left)
        if control.stopped:
            break
    _write_table(folder, rows)
    _write_run(folder, ensemble, outputs, rows)
    return rows


def _segment_file(
    file: Path, target: Path, ensemble: Ensemble, outputs: Outputs, control: Control
) -> Generator[Event, None, dict[str, Any]]:
    """Segment one file; whatever goes wrong with it becomes the error of its row."""
    try:
        image = read(file)
        probability = yield from _tiles(ensemble, image, control)
        classes, mask = _after_net(ensemble.mask(probability), ensemble, image)
        labels = LabelVolume(mask, image.geometry, image.path, image.header)
        target.parent.mkdir(parents=True, exist_ok=True)
        written = write(target, labels, like=image)
        if outputs.probabilities:
            _write_float(_beside(target, _FLOATS[0]), probability, image)
        if outputs.uncertainty:
            _write_float(_beside(target, _FLOATS[1]), entropy(probability)[None], image)
        return {
            "status": "done",
            "error": "",
            "mask": str(written),
            "classes": _measure(classes, labels, ensemble.classes),
        }
    except Stopped:
        raise
    except UnetSegError as error:
        return {"status": "failed", "error": str(error), "mask": "", "classes": []}
    except (MemoryError, OSError, ValueError, RuntimeError, ArithmeticError, LookupError) as error:
        logger.debug("%s failed", file.name, exc_info=True)
        return {
            "status": "failed",
            "error": f"{type(error).__name__}: {error}".splitlines()[0],
            "mask": "",
            "classes": [],
        }


def _keep(target: Path, classes: Sequence[str]) -> dict[str, Any]:
    """Entry of a mask that somebody corrected by hand: left as it is, and measured as it is."""
    entry: dict[str, Any] = {"status": "kept", "error": "", "mask": str(target), "classes": [], "seconds": 0.0}
    try:
        labels = read_labels(target)
        return {**entry, "classes": _measure(labels.data, labels, classes)}
    except UnetSegError as error:
        return {**entry, "status": "failed", "error": str(error)}


def _tiles(ensemble: Ensemble, image: Volume, control: Control) -> Generator[Event, None, np.ndarray]:
    last = 0.0
    run = ensemble.tiles(image, control)
    while True:
        try:
            event = next(run)
        except StopIteration as end:
            return end.value
        if isinstance(event, TileDone) and time.monotonic() - last > 0.5:
            last = time.monotonic()
            yield event


def _after_net(mask: np.ndarray, ensemble: Ensemble, image: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Mask of classes to be measured, and the mask to be written: the same, unless a step numbers the objects."""
    steps = list(ensemble.models[0].plan.post.steps)
    split = next((i for i, (name, _) in enumerate(steps) if STEPS.facts(name)["instances"]), len(steps))
    classes = apply_steps(mask, steps[:split], image.geometry.spacing)
    return classes, apply_steps(classes, steps[split:], image.geometry.spacing)


def _measure(mask: np.ndarray, labels: LabelVolume, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Voxels, physical size and components of every class: connected parts (over corners too), or objects numbered."""
    from scipy import ndimage

    geometry = labels.geometry
    voxel = float(np.prod(geometry.spacing))
    unit = geometry.unit + ("2" if labels.ndim == 2 else "3")
    found = []
    for label, name in enumerate(classes[1:], start=1):
        where = mask == label
        voxels = int(where.sum())
        if labels.data is mask:
            components = int(ndimage.label(where, np.ones((3,) * labels.ndim))[1]) if voxels else 0
        else:
            components = len(np.unique(labels.data[where & (labels.data > 0)]))
        found.append({"class": name, "voxels": voxels, "size": voxels * voxel, "unit": unit, "components": components})
    return found


def _write_float(path: Path, data: np.ndarray, image: Volume) -> None:
    write(path, Volume(data.astype(np.float32), image.geometry, image.path, image.header), like=image)


def _beside(target: Path, suffix: str) -> Path:
    """File for floats beside a mask: PNG cannot hold them, TIFF can."""
    name = target.name[len(stem(target)) :]
    return target.with_name(stem(target) + suffix + (".tif" if name.lower() == ".png" else name))


# ------------------------------------------------------------------------------------------------- files and ledger
def _list(inputs: str | Path | Iterable[str | Path]) -> list[Path]:
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    files: list[Path] = []
    for one in given:
        path = Path(one)
        if path.is_dir() or any(sign in str(one) for sign in "*?["):
            files += find_images(one)
        elif path.exists():
            files.append(path)
        else:
            raise ReadError(f"There is no file or folder {one}.", hint="Check the path.")
    if not files:
        raise ReadError(
            f"There is no image in {', '.join(map(str, given))}.", hint="Give image files or a folder of them."
        )
    return list(dict.fromkeys(path.resolve() for path in files))


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"The output folder {folder} cannot be written: {error.strerror or error}.",
            hint="Choose another folder or free some space.",
        ) from error
    return folder.resolve()


def _targets(files: Sequence[Path], folder: Path, written: Collection[Path]) -> list[Path]:
    """Where each mask goes: the input's own path below the common folder, unique, and never on a file not `written`."""
    common = Path(os.path.commonpath([file.parent for file in files]))
    taken: set[Path] = set(files)

    def free(path: Path) -> bool:
        return path not in taken and (path in written or not os.path.lexists(path))

    targets = []
    for file in files:
        place = folder / file.relative_to(common).parent
        target = place / (stem(file) + mask_suffix(file))
        if not free(target):
            target = place / (file.name.replace(".", "_") + "_mask" + mask_suffix(file))
        count = 2
        while not free(target):
            target = place / f"{file.name.replace('.', '_')}_mask{count}{mask_suffix(file)}"
            count += 1
        taken.add(target)
        targets.append(target)
    return targets


def _recipe(ensemble: Ensemble, outputs: Outputs) -> str:
    """Hash of all that decides a mask besides its image."""
    text = "".join(model.id + model.plan.to_json() for model in ensemble.models) + repr(outputs)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


class _Ledger:
    """What happened to each file, one JSON line each, appended as it happens; the last line of a file counts."""

    def __init__(self, path: Path, recipe: str) -> None:
        self.path, self.recipe = path, recipe
        self.written: set[Path] = set()  # every file of an earlier run
        self._entries: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    self._entries[entry["file"]] = entry
                    if mask := entry["mask"]:
                        self.written |= {Path(mask), *(_beside(Path(mask), suffix) for suffix in _FLOATS)}
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill

    def finished(self, file: Path, target: Path) -> dict[str, Any] | None:
        """Entry of a file that was done with this recipe, is unchanged, and whose mask is still there."""
        entry = self._entries.get(str(file))
        if not entry or entry["status"] != "done" or entry["recipe"] != self.recipe or entry["mask"] != str(target):
            return None
        if not target.is_file() or entry["mask_hash"] != _hash(target) or entry["image_hash"] != _hash(file):
            return None
        return entry

    def corrected(self, file: Path, target: Path) -> bool:
        """Whether the mask that was written for a file is no longer what was written: somebody's work, to be kept."""
        entry = self._entries.get(str(file), {})
        if entry.get("status") != "done" or entry["mask"] != str(target) or not target.is_file():
            return False
        return entry["mask_hash"] != _hash(target)

    def add(self, file: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Append what happened to `file`."""
        done = entry["status"] == "done"
        whole = {
            "file": str(file),
            **entry,
            "recipe": self.recipe,
            "image_hash": _hash(file) if done else "",
            "mask_hash": _hash(Path(entry["mask"])) if done else "",
        }
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(whole) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise WriteError(
                f"The ledger {self.path} cannot be written: {error.strerror or error}.",
                hint="Free some space and run the same command again; finished files are skipped.",
            ) from error
        return whole


def _rows(file: Path, entry: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    mask = os.path.relpath(entry["mask"], folder) if entry["mask"] else ""
    common = {
        "file": str(file),
        "status": entry["status"],
        "error": entry["error"],
        "seconds": entry["seconds"],
        "mask": mask,
    }
    return [{**dict.fromkeys(COLUMNS, ""), **common, **measured} for measured in entry["classes"] or [{}]]


def _write_table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    def fill(path: Path) -> None:
        # a name on disk need not be valid text
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    atomic_write(folder / "table.csv", fill)


def _write_run(folder: Path, ensemble: Ensemble, outputs: Outputs, rows: Sequence[Mapping[str, Any]]) -> None:
    import torch

    run = {
        "napari-unetseg": napari_unetseg.__version__,
        "torch": torch.__version__,
        "device": str(ensemble.predictors[0].compute.device),
        "models": [
            {"id": m.id, "folder": str(m.folder or ""), "plan": json.loads(m.plan.to_json())} for m in ensemble.models
        ],
        "classes": list(ensemble.classes),
        "outputs": {"probabilities": outputs.probabilities, "uncertainty": outputs.uncertainty, "tta": outputs.tta},
        "files": len({row["file"] for row in rows}),
        "failed": len({row["file"] for row in rows if row["status"] == "failed"}),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    atomic_write(
        folder / "run.json", lambda path: path.write_text(json.dumps(run, indent=1), encoding="utf-8") and None
    )
