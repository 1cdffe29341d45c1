"""Batches drawn where the strokes are.

The known voxels of each class are indexed once; a draw then costs what a patch costs, however large the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from napari_unetseg.data.annotation import count_known
from napari_unetseg.data.normalise import Annotated, about, normalise
from napari_unetseg.errors import AnnotationError, PlanError
from napari_unetseg.plan import Normalisation

__all__ = ["Batch", "PatchSampler", "Prepared", "neighbouring", "prepare"]

_INDEXED = 200_000  # known voxels kept a class and case: more would change nothing but the memory
_SLAB = 2**22


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample ready for patches.

    Attributes
    ----------
    name : str
    image : (C, [Z,] Y, X) float32 ndarray
        Normalised.
    target : ([Z,] Y, X) integer ndarray
        Mask; counts only where known.
    known : ([Z,] Y, X) bool ndarray
    hints : ([Z,] Y, X) uint16 ndarray, optional
        What a teacher believes of it (`napari_unetseg.data.hints`).
    """

    name: str
    image: np.ndarray
    target: np.ndarray
    known: np.ndarray
    hints: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches on their way to the net.

    Attributes
    ----------
    image : (B, C, [Z,] Y, X) float32 tensor
    target : (B, [Z,] Y, X) int64 tensor
        Class indices; 0 where unknown.
    known : (B, [Z,] Y, X) bool tensor
    hints : (B, [Z,] Y, X) int64 tensor, optional
        What a teacher believes, 0 where nothing.
    """

    image: torch.Tensor
    target: torch.Tensor
    known: torch.Tensor
    hints: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Batch on another device (asynchronously, when this one is pinned)."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """Batch of its tensors, each changed the same way."""
        hints = None if self.hints is None else change(self.hints)
        return Batch(change(self.image), change(self.target), change(self.known), hints)


def prepare(sample: Annotated, normalisation: Normalisation) -> Prepared:
    """Normalise a sample's image and make its mask small.

    Raises
    ------
    ReadError
        A channel of the image holds no finite value.
    """
    small = np.uint8 if int(sample.target.max(initial=0)) < 256 else np.int16
    target = np.ascontiguousarray(sample.target).astype(small, copy=False)
    known = np.ascontiguousarray(sample.known)
    with about(sample.name):
        image = normalise(sample.image.data, normalisation)
    return Prepared(sample.name, image, target, known)


class PatchSampler:
    """Draws batches of windows around known voxels.

    Parameters
    ----------
    samples : iterable of Prepared
        Gone through once.
    patch : tuple of int
        ``(Y, X)`` or ``(Z, Y, X)`` in voxels. A 2D patch on a volume is drawn from the plane (axis 0) of the chosen
        voxel.
    n_classes : int
        Classes, the background among them.
    seed : int
        The same seed draws the same batches.
    balance : float
        1: every class is at the centre equally often; 0: as often as it is annotated.
    jitter : float
        How far from the centre the chosen voxel may lie: 0 in the middle, 1 anywhere in the window.
    neighbours : int
        Of a 2D patch on a volume: planes on each side that become channels before and after its own (2.5D).

    Raises
    ------
    AnnotationError
        No sample has a known voxel.
    PlanError
        A 3D patch on a 2D image.
    """

    def __init__(
        self,
        samples: Iterable[Prepared],
        patch: Sequence[int],
        n_classes: int,
        seed: int = 0,
        *,
        balance: float = 1.0,
        jitter: float = 0.75,
        neighbours: int = 0,
    ) -> None:
        self.patch = tuple(int(p) for p in patch)
        self.n_classes = n_classes
        self.jitter = jitter
        self.neighbours = neighbours
        self._rng = np.random.default_rng(seed)
        kept, counts, self._index = [], [], []
        for sample in samples:
            if sample.target.ndim < len(self.patch):
                raise PlanError("A 3D net cannot learn from 2D images.", hint="Choose a net with dims 2.")
            kept.append(sample)
            counts.append(count_known(sample.target, sample.known, n_classes))
            self._index.append(_index(sample, counts[-1], self._rng))
        self.samples = tuple(kept)
        self.counts = np.array(counts).reshape(-1, n_classes)
        total = self.counts.sum(axis=0)
        if not total.any():
            raise AnnotationError("Nothing is annotated in the training images.", hint="Paint a stroke of each class.")
        self._weights = balance * (total > 0) / (total > 0).sum() + (1 - balance) * total / total.sum()
        # each draw pays every class its weight, and the richest is drawn and pays 1: no class waits long
        self._credit = self._rng.random(n_classes) * self._weights
        self._decks: dict[int, list[int]] = {}

    @property
    def state(self) -> dict[str, Any]:
        """Where the drawing stands, in plain values for JSON; set it to go on from there."""
        return {
            "rng": self._rng.bit_generator.state,
            "credit": self._credit.tolist(),
            "decks": [[label, list(deck)] for label, deck in self._decks.items()],
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        self._credit = np.array(state["credit"], float)
        self._decks = {label: list(deck) for label, deck in state["decks"]}

    def draw(self, batch: int) -> Batch:
        """Draw `batch` windows: image float32, target int64, known bool, contiguous on the CPU."""
        channels = self.samples[0].image.shape[0] * (2 * self.neighbours + 1)
        image = np.empty((batch, channels, *self.patch), np.float32)
        target = np.empty((batch, *self.patch), np.int64)
        known = np.empty((batch, *self.patch), bool)
        hints = np.zeros((batch, *self.patch), np.int64) if any(s.hints is not None for s in self.samples) else None
        for row in range(batch):
            sample, voxel = self._choose()
            self._cut(sample, voxel, (image[row], target[row], known[row], None if hints is None else hints[row]))
        drawn = Batch(torch.from_numpy(image), torch.from_numpy(target), torch.from_numpy(known))
        return drawn if hints is None else replace(drawn, hints=torch.from_numpy(hints))

    def _choose(self) -> tuple[Prepared, tuple[int, ...]]:
        """Choose a class, a case that has it, and a known voxel of it there."""
        self._credit += self._weights
        label = int(self._credit.argmax())
        self._credit[label] -= 1
        deck = self._decks.setdefault(label, [])
        if not deck:
            deck.extend(self._rng.permutation(np.flatnonzero(self.counts[:, label])).tolist())
        case = deck.pop()
        voxels = self._index[case][label]
        flat = voxels[int(self._rng.integers(len(voxels)))]
        sample = self.samples[case]
        return sample, tuple(int(i) for i in np.unravel_index(flat, sample.target.shape))

    def _cut(self, sample: Prepared, voxel: tuple[int, ...], row: tuple[Any, ...]) -> None:
        """Copy the window around `voxel` into a row of image, target, known and hints."""
        image, target, known, hints = row
        source, mask, where, said = sample.image, sample.target, sample.known, sample.hints
        if len(voxel) > len(self.patch):
            planes = neighbouring(voxel[0], self.neighbours, len(mask))
            source = source[:, voxel[0]] if len(planes) == 1 else np.concatenate([source[:, i] for i in planes])
            mask, where = mask[voxel[0]], where[voxel[0]]
            said = None if said is None else said[voxel[0]]
            voxel = voxel[1:]
        starts = [self._start(v, s, p) for v, s, p in zip(voxel, mask.shape, self.patch, strict=True)]
        window: tuple[Any, ...] = tuple(slice(a, a + p) for a, p in zip(starts, self.patch, strict=True))
        outside: list[tuple[int, np.ndarray]] = []
        if not all(part.start >= 0 and part.stop <= size for part, size in zip(window, mask.shape, strict=True)):
            places = [np.arange(part.start, part.stop) for part in window]
            outside = [
                (axis, (i < 0) | (i >= size)) for axis, (i, size) in enumerate(zip(places, mask.shape, strict=True))
            ]
            window = np.ix_(*(_reflect(i, s) for i, s in zip(places, mask.shape, strict=True)))
        image[...], known[...] = source[:, *window], where[window]
        if hints is not None and said is not None:
            hints[...] = said[window]
        for axis, rows in outside:  # the mirrored border is to be seen, not believed
            np.moveaxis(known, axis, 0)[rows] = False
            if hints is not None:
                np.moveaxis(hints, axis, 0)[rows] = 0
        np.multiply(mask[window], known, out=target)

    def _start(self, voxel: int, size: int, patch: int) -> int:
        """First index of a window along one axis: jittered about the voxel, inside the image where it fits."""
        if size <= patch:
            return -int(self._rng.integers(patch - size + 1))
        slack = self.jitter * (patch - 1) / 2
        centre = voxel - (patch - 1) / 2 + self._rng.uniform(-slack, slack)
        return int(np.clip(round(centre), max(0, voxel - patch + 1), min(size - patch, voxel)))


def neighbouring(plane: int, neighbours: int, size: int) -> list[int]:
    """A plane of a volume of `size` planes between its neighbours on each side, mirrored at the volume's ends.

    Examples
    --------
    >>> neighbouring(0, 1, 9), neighbouring(4, 1, 9)
    ([1, 0, 1], [3, 4, 5])
    """
    return _reflect(np.arange(plane - neighbours, plane + neighbours + 1), size).tolist()


def _index(sample: Prepared, counts: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Flat indices of known voxels of each class, at most `_INDEXED` of each, chosen evenly at random."""
    found: list[list[np.ndarray]] = [[] for _ in counts]
    target, known = sample.target.reshape(-1), sample.known.reshape(-1)
    for start in range(0, target.size, _SLAB):
        here = np.flatnonzero(known[start : start + _SLAB])
        if not here.size:
            continue
        labels = target[start : start + _SLAB][here]
        for label in np.unique(labels).tolist():
            voxels = here[labels == label] + start
            if counts[label] > _INDEXED:
                wanted = max(1, round(_INDEXED * voxels.size / counts[label]))
                voxels = rng.choice(voxels, min(wanted, voxels.size), replace=False, shuffle=False)
            found[label].append(voxels)
    return [np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in found]


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    """Fold any index into ``0..size-1`` by mirroring at both ends."""
    if size == 1:
        return np.zeros_like(index)
    folded = index % (2 * size - 2)
    return np.minimum(folded, 2 * size - 2 - folded)
