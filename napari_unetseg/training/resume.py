"""`Checkpoint`: what a killed training run leaves behind so that it can go on."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from napari_unetseg.errors import ModelError, WriteError
from napari_unetseg.nets.checkpoint import save_tensors
from napari_unetseg.scores import Scores
from napari_unetseg.training.job import Job
from napari_unetseg.training.ladder import rungs, step_to

__all__ = ["Checkpoint"]

logger = logging.getLogger(__name__)

_FILES = "state.safetensors", "state.json"
_NOTHING = "No training was broken off here: this one begins anew."
_AFRESH = "The labels changed since: the weights are gone on from, learning rate and patience start afresh."


class Checkpoint:
    """What a killed run leaves beside its model folder, so that it can go on: safetensors and JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder.with_name(f".{folder.name}.training")
        self._part = self.place.with_name(self.place.name + ".part")
        self._labels: str | None = None

    def save(self, job: Job) -> None:
        """Write beside, then rename.

        Raises
        ------
        WriteError
            When it cannot be written; the training itself has lost nothing.
        """
        try:
            self._write(job)
        except OSError as error:
            shutil.rmtree(self._part, ignore_errors=True)
            raise WriteError(
                f"No checkpoint could be written to {self.place.parent}: {error.strerror or error}.",
                hint="The training goes on; free some space before it ends, so that the model can be saved.",
            ) from error

    def _write(self, job: Job) -> None:
        progress = job.progress
        tensors = {f"net.{k}": v for k, v in job.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in job.average.average.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in (progress.best or {}).items()}
        for index, state in job.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        part = self._part
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_tensors(tensors, part / "state.safetensors")
        facts = {
            "step": progress.step,
            "seconds": progress.seconds,
            "history": progress.history,
            "best_scores": progress.best_scores.to_dict() if progress.best_scores else None,
            "top": progress.top,
            "floor": progress.floor,
            "scored": progress.scored,
            "kept": progress.kept,
            "validated_at": progress.validated_at,
            "offset": progress.offset,
            "led": job.lead.handed_over,
            "labels": self._labels_of(job),
            "sampler": job.feed.state,
            "rungs": rungs(job),
            "scale": job.scaler.state_dict(),
        }
        (part / "state.json").write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(self.place, ignore_errors=True)
        part.rename(self.place)

    def load(self, job: Job) -> None:
        """Put a job where the killed run was; nothing to load is no error, the run then begins anew and says so.

        Where the labels have changed since, only the weights are taken: learning rate, patience and scores belong to
        what was learned from before.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        # a kill between the two steps of a save leaves half of the old one, or none, and the new one beside it
        whole = (one for one in (self.place, self._part) if all((one / name).is_file() for name in _FILES))
        place = next(whole, None)
        if place is None:
            job.notes = (*job.notes, _NOTHING)
            return
        try:
            facts = json.loads((place / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(place / "state.safetensors")
            job.net.load_state_dict(_under(tensors, "net."))
            job.average.average.load_state_dict(_under(tensors, "average."))
            if facts["labels"] != self._labels_of(job):
                job.notes = (*job.notes, _AFRESH)
                return
            state = job.optimiser.state_dict()
            parameters = [p for group in job.optimiser.param_groups for p in group["params"]]
            for key, value in _under(tensors, "optimiser.").items():
                index, name = key.split(".", 1)
                if value.shape == parameters[int(index)].shape:  # fused kernels want the memory order of the parameter
                    value = torch.empty_like(parameters[int(index)]).copy_(value)
                state["state"].setdefault(int(index), {})[name] = value
            job.optimiser.load_state_dict(state)
            progress = job.progress
            progress.step, progress.seconds, progress.history = facts["step"], facts["seconds"], facts["history"]
            progress.best = _under(tensors, "best.") or None
            progress.best_scores = Scores.from_dict(facts["best_scores"]) if facts["best_scores"] else None
            progress.validated_at = facts.get("validated_at", progress.step)
            progress.top, progress.floor, progress.scored = facts["top"], facts["floor"], facts["scored"]
            progress.kept, job.lead.handed_over = tuple(facts["kept"]), facts["led"]
            progress.offset = tuple(facts.get("offset", ()))
            step_to(job, facts["rungs"])
            job.feed.state = facts["sampler"]
            job.scaler.load_state_dict(facts["scale"])
        except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"The checkpoint beside {self.folder.name} does not fit this training ({why}).",
                hint="Give the same data and plan as before, or leave out --resume.",
            ) from error
        job.clock.start_at(progress.seconds)
        logger.info("Resumed at step %d", progress.step)

    def _labels_of(self, job: Job) -> str:
        """What is learned from and scored on, as a few digits."""
        if self._labels is None:
            digest = hashlib.blake2b(digest_size=8)
            for image in (*job.train, *job.heldout):
                digest.update(f"{image.name} {image.target.shape}".encode())
                digest.update(np.packbits(image.known).tobytes())
                digest.update(image.target[image.known].tobytes())
            self._labels = digest.hexdigest()
        return self._labels

    def clear(self) -> None:
        """Forget the checkpoint, once the model is saved."""
        for place in (self.place, self._part):
            shutil.rmtree(place, ignore_errors=True)


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
