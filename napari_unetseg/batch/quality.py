"""Which masks deserve a look: flags on a file's row, and the order that puts the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_unetseg.data.seen import unlike
from napari_unetseg.inference import entropy
from napari_unetseg.nets import Model
from napari_unetseg.volume import Volume

__all__ = ["Doubts", "look_at", "undecided", "worst_first"]

UNCERTAIN = 0.5  # mean doubt, of at most 1, where something is or nearly is
_FEW = 5  # files, among which none stands out
_LOOKED_AT = 20_000  # voxels


def look_at(probability: np.ndarray, mask: np.ndarray, image: Volume, model: Model) -> dict[str, Any]:
    """What a file's row says about the quality of its mask.

    Returns
    -------
    dict
        ``doubt``, the mean entropy over the voxels that are of a class or come near it (0 sure, 1 undecided);
        ``flags``, of ``empty`` and ``unlike``; and ``why``, in words, for the last. Whether it is ``uncertain`` depends
        on the other files: see `Doubts`.
    """
    doubt = _doubt(probability, model.plan.inference.threshold)
    why = unlike(model.facts.get("seen") or {}, image, model.plan.normalisation)
    found = {"empty": not mask.any(), "unlike": bool(why)}
    return {"doubt": round(doubt, 4), "flags": [flag for flag, holds in found.items() if holds], "why": why}


def _doubt(probability: np.ndarray, threshold: float) -> float:
    flat = probability.reshape(len(probability), -1)
    some = flat[:, :: max(1, flat.shape[1] // _LOOKED_AT) | 1]
    near = some[:, 1 - some[0] > threshold / 2]
    return float(entropy(near).mean()) if near.size else 0.0


class Doubts:
    """Doubt of the files of a run; what stands out from the others is flagged.

    After a short training a model is undecided over nearly every file, which says nothing about any of them.

    Examples
    --------
    >>> doubts = Doubts()
    >>> [doubts.flagged({"doubt": d, "flags": []})["flags"] for d in (0.6, 0.62, 0.58, 0.61, 0.8, 0.6)]
    [[], [], [], [], ['uncertain'], []]
    """

    def __init__(self) -> None:
        self._known: list[float] = []
        self._judged, self._fence = 0, UNCERTAIN

    def flagged(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """The entry of one more file, with the flag ``uncertain`` where it stands out from those so far, if not few."""
        if entry.get("doubt") is not None:
            self._known.append(entry["doubt"])
            # at each file while they are few, then so seldom that a million of them cost seconds
            if len(self._known) > 1.01 * self._judged:
                self._judge()
        return self._marked(entry, few=False)

    def settled(self, entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Entries at the end of the run, each held against all files."""
        self._judge()
        return [self._marked(entry) for entry in entries]

    def _judge(self) -> None:
        self._known.sort()
        self._judged, self._fence = len(self._known), _fence(self._known)

    def _marked(self, entry: Mapping[str, Any], few: bool = True) -> dict[str, Any]:
        rest = [flag for flag in entry.get("flags") or () if flag != "uncertain"]
        judged = entry.get("doubt") is not None and (few or len(self._known) >= _FEW)
        stands_out = judged and entry["doubt"] > self._fence
        return {**entry, "flags": [*rest, "uncertain"] if stands_out else rest}


def _fence(known: Sequence[float]) -> float:
    """Doubt above which a file stands out among those known, in order: one spread of the upper half over the median."""
    if len(known) < _FEW:
        return UNCERTAIN
    median, upper = known[len(known) // 2], known[3 * len(known) // 4]
    return max(UNCERTAIN, median + 1.4826 * (upper - median))


def undecided(doubts: Iterable[float | None]) -> str:
    """A sentence where a model is in doubt over most files, so that it is the model that needs a look; else empty."""
    known = sorted(doubt for doubt in doubts if doubt is not None)
    median = known[len(known) // 2] if known else 0.0
    if median <= UNCERTAIN:
        return ""
    return (
        f"The model is undecided over much of what it finds in most files (median doubt {median:.2f} of 1): "
        "more strokes or a longer training would help all of them."
    )


def worst_first(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Failed files, then those with most flags, then those with most doubt."""
    return sorted(entries, key=_badness, reverse=True)


def _badness(entry: Mapping[str, Any]) -> float:
    if entry["status"] == "failed":
        return 10.0
    return len(entry.get("flags") or ()) + float(entry.get("doubt") or 0.0)
