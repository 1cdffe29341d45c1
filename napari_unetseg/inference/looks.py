"""All passes over one tile before the next: averages and doubt of images that are larger than memory.

In memory (`ensemble`) each pass goes over the whole image. Here a tile is looked at by every model, mirrored, turned
and with dropout, and averaged at once, so that however many passes there are, no more than a tile is held twice.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_unetseg.data.normalise import Intensities
from napari_unetseg.errors import ModelError
from napari_unetseg.inference.ensemble import Ensemble, Symmetry, dropping, symmetries
from napari_unetseg.inference.sliding import Predictor, each_once
from napari_unetseg.inference.tiling import Grid, grid_for, one_value
from napari_unetseg.plan import Normalisation

__all__ = ["LABELS", "LAYERS", "Looks", "Tile"]

LABELS = "labels"
LAYERS = ("probability", "entropy", "disagreement")
_FULL = 255  # what 1 is kept as


@dataclass(frozen=True)
class Tile:
    """A tile ``(C, ...)`` normalised for each model, and its value where it is the same everywhere."""

    seen: tuple[np.ndarray, ...]
    value: bytes | None


@dataclass(frozen=True)
class Looks:
    """Passes that are averaged tile by tile.

    Attributes
    ----------
    predictors : tuple of Predictor
        For the same classes, dims and neighbours.
    intensities : tuple of Intensities
        How the channels of the image are normalised for each of them.
    symmetries : tuple of Symmetry
        Under which each looks at a tile.
    dropout_passes : int
        Passes with dropout kept on, for each symmetry; 0 for one without.
    layers : tuple of str
        What is wanted besides labels, of `LAYERS`.
    """

    predictors: tuple[Predictor, ...]
    intensities: tuple[Intensities, ...]
    symmetries: tuple[Symmetry, ...] = (Symmetry(),)
    dropout_passes: int = 0
    layers: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        ensemble: Ensemble,
        intensities: Mapping[Normalisation, Intensities],
        spacing: Sequence[float],
        layers: Collection[str] = (),
    ) -> Looks:
        """The passes of an ensemble over an image with voxels of a size.

        Raises
        ------
        ModelError
            When its models see different things, planes and volumes.
        """
        plans = [predictor.plan for predictor in ensemble.predictors]
        if len({(plan.net.dims, plan.data.neighbours) for plan in plans}) > 1:
            raise ModelError(
                "Models of planes, of planes with their neighbours, and of volumes are not averaged on an image that "
                "is larger than memory.",
                hint="Give models of one kind, or allow more memory.",
            )
        how = tuple(intensities[plan.normalisation] for plan in plans)
        ways = symmetries(ensemble.tta, plans[0].net.dims, spacing)
        passes = len(plans) * len(ways) * max(1, ensemble.dropout_passes)
        wanted = tuple(layer for layer in LAYERS if layer in layers and (passes > 1 or layer != "disagreement"))
        return cls(ensemble.predictors, how, ways, ensemble.dropout_passes, wanted)

    @property
    def first(self) -> Predictor:
        """The model whose plan decides what is the same for all."""
        return self.predictors[0]

    @property
    def channels(self) -> int:
        """Numbers a voxel that are summed: probabilities, and the mean entropy of the passes where that is wanted."""
        return self.first.channels + self._doubts

    @property
    def bytes_kept(self) -> int:
        """Bytes a voxel of what leaves, labels among it."""
        classes = max(2, self.first.channels)
        return 1 + sum(classes if layer == "probability" else 1 for layer in self.layers)

    @property
    def batch(self) -> int:
        """Tiles that go through a net at once."""
        return min(predictor.batch for predictor in self.predictors)

    @property
    def _doubts(self) -> bool:
        return "disagreement" in self.layers

    def grid(self, shape: Sequence[int]) -> Grid:
        """Tiles that are large enough for each model, with as much overlap and margin as any of them wants."""
        return grid_for(shape, [predictor.wish for predictor in self.predictors])

    def tile(self, raw: np.ndarray) -> Tile:
        """Normalise a tile as read."""
        value, made = one_value(raw), dict.fromkeys(self.intensities, raw)
        for how in made:
            each = how.repeated(len(raw) // len(how.low))  # neighbouring planes are further channels
            # background is not worth normalising
            made[how] = each.apply(raw) if value is None else np.broadcast_to(each.apply(value), raw.shape)
        return Tile(tuple(made[how] for how in self.intensities), None if value is None else value.tobytes())

    def answered(self, tiles: Sequence[Tile], answers: dict[bytes, Tensor]) -> list[Tensor]:
        """Results of `run`; of tiles that are one value everywhere each is computed once, and kept in `answers`."""
        return each_once([tile.value for tile in tiles], lambda some: self.run([tiles[i] for i in some]), answers)

    @torch.inference_mode()
    def run(self, tiles: Sequence[Tile]) -> Tensor:
        """What is to be summed, ``(B, channels, ...)`` float32: means over the passes."""
        passes = len(self.predictors) * len(self.symmetries) * max(1, self.dropout_passes)
        total = doubt = None
        for number, predictor in enumerate(self.predictors):
            stack = np.stack([tile.seen[number] for tile in tiles])
            for symmetry in self.symmetries:
                moved = symmetry.apply(stack)
                for seed in range(max(1, self.dropout_passes)):
                    with dropping(predictor.net, seed) if self.dropout_passes else contextlib.nullcontext():
                        found = _undone(symmetry, predictor.run(moved))
                    if self._doubts:
                        said = _entropy(_all_classes(found, 1), 1)
                        doubt = said if doubt is None else doubt.add_(said)
                    total = found if total is None else total.add_(found)
        assert total is not None  # an ensemble has models
        total = total if passes == 1 else total / passes
        return total if doubt is None else torch.cat([total, doubt / passes], dim=1)

    def finished(self, sums: Tensor) -> dict[str, Tensor]:
        """Labels and the wanted layers, ``(C, ...)`` uint8, of complete sums ``(channels, ...)``.

        In the layers 255 stands for 1.
        """
        probability = sums[: self.first.channels]
        if len(probability) == 1:
            labels = probability > self.first.plan.inference.threshold
        else:
            labels = probability.argmax(dim=0, keepdim=True)
        found = {LABELS: labels.to(torch.uint8)}
        if self.layers:
            probability = _all_classes(probability.float().clamp(0, 1), 0)
            entropy = _entropy(probability, 0)
            kept = {"probability": probability, "entropy": entropy}
            if self._doubts:
                kept["disagreement"] = entropy - sums[-1:].float()
            found |= {layer: kept[layer].clamp(0, 1).mul(_FULL).round().to(torch.uint8) for layer in self.layers}
        return found


def _undone(symmetry: Symmetry, found: Tensor) -> Tensor:
    turned = found.flip(symmetry.flips)
    return turned.transpose(-1, -2) if symmetry.transposed else turned


def _all_classes(probability: Tensor, dim: int) -> Tensor:
    return torch.cat([1 - probability, probability], dim=dim) if probability.shape[dim] == 1 else probability


def _entropy(probability: Tensor, dim: int) -> Tensor:
    """As `napari_unetseg.inference.entropy`; the axis of the classes stays, one long."""
    p = probability.clamp(1e-7, 1)
    return -(p * p.log()).sum(dim=dim, keepdim=True) / math.log(probability.shape[dim])
