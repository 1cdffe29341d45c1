"""`Model`: net weights, Plan, class names, scores and parents, as one folder on disk.

The folder holds ``weights.safetensors``, ``model.json``, ``history.csv`` and ``curves.png``. Nothing in it is code and
nothing is pickled, so that a model from a stranger can be opened.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_unetseg.errors import ModelError, UnetSegError, WriteError
from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores

__all__ = ["Model", "save_tensors"]

logger = logging.getLogger(__name__)

_SCHEMA = 1
_WEIGHTS, _FACTS, _HISTORY, _CURVES = "weights.safetensors", "model.json", "history.csv", "curves.png"


@dataclass(repr=False)
class Model:
    """A net that was trained, and all that is needed to use it and to know where it comes from.

    Attributes
    ----------
    net : torch.nn.Module
        Maps ``(B, C, [Z,] Y, X)`` float32 to logits of the same size.
    plan : Plan
        Resolved: no decision left open.
    classes : tuple of str
        Names, background first.
    scores : Scores or None
        Of the weights kept, on what was held out.
    history : list of dict
        One row a logged step: ``step, seconds, loss`` or, where validated, also ``dice`` and ``jaccard`` per class.
    parents : tuple of str
        Identifiers of the models it was trained on from, oldest first.
    facts : mapping
        Whatever else should be remembered (versions, device, images learned from).
    folder : Path or None
        Where it was saved or loaded.
    """

    net: nn.Module
    plan: Plan
    classes: tuple[str, ...]
    scores: Scores | None = None
    history: Sequence[Mapping[str, Any]] = ()
    parents: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    _known: tuple[str, str] = ("", "")  # hash of the weights as they were loaded, and the id in their file

    def __repr__(self) -> str:
        return f"Model({self.plan.net.name} {self.id}, {', '.join(self.classes)}; {self._said()})"

    def _said(self) -> str:
        return self.scores.sentence() if self.scores else "not scored"

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the hash of the weights; once saved, those of the version that saved them."""
        found = _hash(self.net)
        return self._known[1] if found == self._known[0] else found

    def save(self, folder: str | Path) -> Path:
        """Write the model folder beside its place, then move it there; another model that is
        there goes to ``<folder>-<its id>``.

        Raises
        ------
        WriteError
            When the disk is full or the place is not writable; the old folder is then untouched.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / _FACTS).exists() and any(folder.iterdir()):
            raise WriteError(
                f"{folder.name} exists and is not a model folder.", hint="Choose a new folder for the model."
            )
        part = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            self._write(part)
            _replace_folder(part, folder)
        except OSError as error:
            raise WriteError(
                f"The model could not be written to {folder}: {error.strerror or error}.",
                hint="Free some space or choose another folder; nothing was changed.",
            ) from error
        finally:
            if part is not None:
                shutil.rmtree(part, ignore_errors=True)
        self.folder = folder
        return folder

    def _write(self, folder: Path) -> None:
        from napari_unetseg.figures import curves

        folder.chmod(0o755)
        save_tensors(self.net.state_dict(), folder / _WEIGHTS)
        facts = {
            "schema": _SCHEMA,
            "id": self.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "classes": list(self.classes),
            "plan": json.loads(self.plan.to_json()),
            "scores": self.scores.to_dict() if self.scores else None,
            "parents": list(self.parents),
            "weights_sha256": hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest(),
            **{k: v for k, v in self.facts.items() if k not in ("weights_sha256",)},
        }
        (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        columns = list(dict.fromkeys(key for row in self.history for key in row)) or ["step", "seconds", "loss"]
        with (folder / _HISTORY).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)
        curves(list(self.history), folder / _CURVES)
        for name in (_WEIGHTS, _FACTS, _HISTORY):
            with (folder / name).open("rb+") as file:
                os.fsync(file.fileno())

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Model:
        """Read a model folder.

        Raises
        ------
        ModelError
            When a piece is missing, damaged, or does not fit the others; the message names it.
        """
        from napari_unetseg.nets import build

        folder = Path(folder)
        if not folder.is_dir():
            raise ModelError(f"There is no model folder {folder}.", hint="Give the folder that `train -o` wrote.")
        for name in (_FACTS, _WEIGHTS):
            if not (folder / name).is_file():
                raise ModelError(
                    f"The model folder {folder.name} lacks {name}.", hint="Copy the whole folder again, or train anew."
                )
        facts = _read_facts(folder)
        try:
            plan = Plan.from_json(json.dumps(facts["plan"]))
            scores = Scores.from_dict(facts["scores"]) if facts.get("scores") else None
            classes = _classes(facts["classes"], plan)
            plan.normalisation  # noqa: B018 - raises where it is missing
            parents = tuple(str(parent) for parent in facts.get("parents", ()))
            net = build(plan.net, start=False)
        except UnetSegError as error:
            raise ModelError(
                f"{_FACTS} of {folder.name} holds a plan that cannot be used: {error.message}", hint=error.hint
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{_FACTS} of {folder.name} is incomplete ({error}).", hint="Copy the model again, or train anew."
            ) from error
        _load_weights(net, folder, facts.get("weights_sha256"))
        extra = {k: v for k, v in facts.items() if k not in ("schema", "id", "classes", "plan", "scores", "parents")}
        return cls(
            net.to(device).eval(),
            plan,
            classes,
            scores,
            _read_history(folder),
            parents,
            extra,
            folder,
            _known_as(net, facts),
        )


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors; a full disk is an `OSError`, as it is for every other file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code)) from error


def _replace_folder(part: Path, folder: Path) -> None:
    if not folder.exists():
        part.rename(folder)
        return
    old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    kept = folder.with_name(f"{folder.name}-{_id_of(old)}")
    if kept.exists() or _id_of(old) in ("", _id_of(folder)):
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.rename(kept)
        logger.warning("The model that was in %s is now in %s.", folder.name, kept.name)


def _id_of(folder: Path) -> str:
    try:
        name = str(json.loads((folder / _FACTS).read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return name if name.isalnum() else ""  # a name from a file never leads elsewhere


def _hash(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()[:12]


def _known_as(net: nn.Module, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Hash of weights that were just loaded, and their id: an earlier version may have had them without some tensor."""
    name = str(facts.get("id"))
    if not facts.get("weights_sha256") or not re.fullmatch("[0-9a-f]{12}", name):
        return "", ""  # nothing says that the id is of these weights
    return _hash(net), name


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(
            f"{_FACTS} of {folder.name} cannot be read ({error}).", hint="Copy the model again, or train anew."
        ) from error
    schema = facts.get("schema", 0) if isinstance(facts, dict) else None
    if not isinstance(schema, int):
        raise ModelError(
            f"{_FACTS} of {folder.name} does not describe a model.", hint="Copy the model again, or train anew."
        )
    if schema > _SCHEMA:
        raise ModelError(f"The model {folder.name} was written by a newer version.", hint="Update napari-unetseg.")
    return facts


def _load_weights(net: nn.Module, folder: Path, sha256: str | None) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        raw = (folder / _WEIGHTS).read_bytes()
        if sha256 and hashlib.sha256(raw).hexdigest() != sha256:
            raise ModelError(
                f"{_WEIGHTS} of {folder.name} is damaged or belongs to another model.", hint="Copy the model again."
            )
        tensors = load(raw)
    except (SafetensorError, OSError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(
            f"{_WEIGHTS} of {folder.name} cannot be loaded: {first}.", hint="Copy the model again, or train anew."
        ) from error
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"{_WEIGHTS} of {folder.name} does not fit the net that its {_FACTS} describes.",
            hint="Copy the model again, or train anew.",
        ) from error
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ModelError(f"{_WEIGHTS} of {folder.name} holds numbers that are none (NaN).", hint="Train anew.")


def _read_history(folder: Path) -> list[dict[str, Any]]:
    path = folder / _HISTORY
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items() if k and v} for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(
            f"{_HISTORY} of {folder.name} cannot be read ({error}).", hint="Copy the model again, or remove that file."
        ) from error


def _classes(names: Any, plan: Plan) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) != max(2, plan.net.outputs):
        raise ValueError(f"its classes {names!r} do not fit a net with {plan.net.outputs} outputs")
    return tuple(str(name) for name in names)
