"""Losses: ``(logits, target, known) -> scalar``, blind to every voxel that is not known.

All take `logits` ``(B, K, [Z,] Y, X)`` of any floating dtype, `target` ``(B, [Z,] Y, X)`` whole numbers (0 background,
1.. classes) and `known` ``(B, [Z,] Y, X)`` bool, and give a float32 scalar. K = 1 means one class against background
through a sigmoid; K > 1 means a softmax over the classes, background first.

What is unknown is dropped *after* the activation and the sums are divided by what is known: masking logits instead
would turn every unknown voxel into a half-wrong one. Where nothing is known the loss is 0, with zero gradients.
In overlap losses the classes that no known voxel has are skipped: what was wrongly given to them is missing from the
others, whose overlap falls, so they are still pushed down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_unetseg.registry import Registry

__all__ = ["LOSSES", "class_logits", "probabilities"]

Loss = Callable[..., Tensor]
LOSSES: Registry[Loss] = Registry("loss")


def class_logits(logits: Tensor) -> Tensor:
    """One output as two: ``(B, 1, ...)`` logits ``z`` to ``(B, 2, ...)`` logits ``[0, z]``; more outputs unchanged."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def probabilities(logits: Tensor) -> Tensor:
    """Probability of each class, background included: ``(B, max(K, 2), ...)`` float32 that sums to 1 over axis 1."""
    return class_logits(logits.float()).softmax(dim=1)


@dataclass(frozen=True)
class _Known:
    """Logits ``(B, K, N)`` and targets ``(B, N)``, both 0 where unknown; `weight` ``(B, N)`` is 0 there, else 1."""

    logits: Tensor
    target: Tensor
    weight: Tensor

    def activated(self) -> Tensor:
        """Probabilities of the outputs as they are: sigmoid of one, softmax of more."""
        return self.logits.sigmoid() if self.logits.shape[1] == 1 else self.logits.softmax(1)

    def wanted(self, outputs: int) -> Tensor:
        """What the activation of known voxels should be, 0 elsewhere."""
        classes = torch.arange(outputs, device=self.target.device) + (outputs == 1)
        return (self.target[:, None] == classes[:, None]).float() * self.weight[:, None]


def _known(logits: Tensor, target: Tensor, known: Tensor) -> _Known:
    expected = (logits.shape[0], *logits.shape[2:])
    if tuple(target.shape) != expected or tuple(known.shape) != expected:
        raise ValueError(
            f"logits {tuple(logits.shape)} want target and known {expected}, "
            f"not {tuple(target.shape)} and {tuple(known.shape)}"
        )
    known = known.bool().flatten(1)
    # float32 whatever the net computes in: sums over a patch overflow float16 and lose small classes in bfloat16.
    # Zeros where unknown, so that not even a NaN there reaches a sum or a gradient.
    flat = torch.where(known[:, None], logits.flatten(2).float(), 0.0)
    return _Known(flat, torch.where(known, target.flatten(1).long(), 0), known.float())


@LOSSES.register(
    "bce",
    title="Each class by itself (binary cross-entropy)",
    sentence="Every voxel counts alike: steady, but small objects weigh little.",
    lowest=0.0,
    paper="MultiResUNet, eq. 2-3",
)
def bce(
    logits: Tensor, target: Tensor, known: Tensor, *, weights: Sequence[float] | None = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy; with several outputs each class against the rest, averaged over classes.

    `weights` multiplies the terms of each output. `reduction` ``"mean"`` is over known voxels, ``"sum"`` sums the
    voxels and averages the images that have known ones, as MultiResUNet's paper writes it.
    """
    part = _known(logits, target, known)
    each = F.binary_cross_entropy_with_logits(part.logits, part.wanted(logits.shape[1]), reduction="none")
    if weights is not None:
        each = each * _class_weights(weights, logits.shape[1], each)[:, None]
    return _reduce(each.mean(1) * part.weight, part, reduction)


@LOSSES.register(
    "ce",
    title="One class a voxel (cross-entropy)",
    sentence="Every voxel counts alike: steady, but small objects weigh little.",
    lowest=0.0,
    paper="Sharp U-Net, eq. 3",
)
def ce(
    logits: Tensor, target: Tensor, known: Tensor, *, weights: Sequence[float] | None = None, reduction: str = "mean"
) -> Tensor:
    """Categorical cross-entropy; one output counts as two, background and class.

    `weights` (one a class, background first) makes it the weighted mean. `reduction` as in ``bce``.
    """
    part = _known(class_logits(logits), target, known)
    return _cross_entropy(part, part.logits.log_softmax(1), weights, reduction)


@LOSSES.register(
    "dice",
    title="Overlap (Dice)",
    sentence="Classes count alike, however small; less steady on few strokes.",
    lowest=0.0,
    paper="Laird 2019",
)
def dice(
    logits: Tensor, target: Tensor, known: Tensor, *, smooth: float = 1.0, weights: Sequence[float] | None = None
) -> Tensor:
    """One minus Dice, averaged over images and the classes they have.

    ``1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth)`` of the class for one output; for several the mean over
    classes, background included.
    """
    return _dice(_known(logits, target, known), 1, smooth, weights)


@LOSSES.register(
    "dice-squared",
    title="Overlap, squared (Dice of V-Net)",
    sentence="As the overlap, gentler where the net is unsure.",
    lowest=0.0,
    paper="Laird 2019; V-Net",
)
def dice_squared(
    logits: Tensor, target: Tensor, known: Tensor, *, smooth: float = 1.0, weights: Sequence[float] | None = None
) -> Tensor:
    """One minus Dice with squares in the denominator, averaged over images and the classes they have."""
    return _dice(_known(logits, target, known), 2, smooth, weights)


@LOSSES.register(
    "batch-dice",
    title="Overlap of all patches of a step (Dice)",
    sentence="For objects that many patches do not show at all.",
    lowest=-1.0,
    paper="Drozdzal et al. 2017, eq. 2",
)
def batch_dice(
    logits: Tensor, target: Tensor, known: Tensor, *, smooth: float = 1.0, weights: Sequence[float] | None = None
) -> Tensor:
    """Minus the Dice of the whole batch taken together; best is -1.

    The smooth term is 1 in the authors' code and 0 in the paper's equation.
    """
    part = _known(logits, target, known)
    p, y = part.activated() * part.weight[:, None], part.wanted(logits.shape[1])
    return -_over_classes(_overlap(p, y, smooth, dims=(0, 2)), y.sum((0, 2)), weights) * part.weight.amax()


@LOSSES.register(
    "focal-tversky",
    title="Overlap, misses weigh more (focal Tversky)",
    sentence="For small or thin objects that are easily missed.",
    lowest=0.0,
    paper="Abraham & Khan 2019, as used by Laird 2019",
)
def focal_tversky(
    logits: Tensor,
    target: Tensor,
    known: Tensor,
    *,
    alpha: float = 0.7,
    gamma: float = 4 / 3,
    smooth: float = 1.0,
) -> Tensor:
    """``(1 - TI) ** (1 / gamma)`` with the Tversky index TI of the whole batch; misses weigh more than false alarms.

    ``TI = (TP + smooth) / (TP + alpha FN + (1 - alpha) FP + smooth)``. With several outputs the mean over the classes
    but the background, whose misses are the others' false alarms and would undo `alpha`.
    """
    part = _known(logits, target, known)
    p, y = part.activated() * part.weight[:, None], part.wanted(logits.shape[1])
    if logits.shape[1] > 1:
        p, y = p[:, 1:], y[:, 1:]
    tp, fn, fp = ((a * b).sum((0, 2)) for a, b in ((p, y), (1 - p, y), (p, part.weight[:, None] - y)))
    index = _ratio(tp + smooth, tp + alpha * fn + (1 - alpha) * fp + smooth)
    # the root is infinitely steep at 0: cut off where the loss is 1e-5 and all is said
    loss = (1 - index).clamp_min(1e-7) ** (1 / gamma)
    return _over_classes(loss, y.sum((0, 2))) * part.weight.amax()


@LOSSES.register(
    "ce+dice",
    title="Voxels and overlap (cross-entropy + Dice)",
    sentence="Steady, and small classes count too: the usual choice, and the one decided for you.",
    lowest=0.0,
    paper="",
)
def ce_dice(
    logits: Tensor, target: Tensor, known: Tensor, *, smooth: float = 1.0, weights: Sequence[float] | None = None
) -> Tensor:
    """Cross-entropy plus one minus the Dice of the batch, background included; the default.

    Strokes leave most patches with one class only, whose Dice by itself says little; taken over the batch, and with
    background as a class of its own, both terms stay well conditioned at ten known voxels as at a million. One output
    gives exactly what the two outputs ``[0, z]`` give.
    """
    part = _known(class_logits(logits), target, known)
    log_p = part.logits.log_softmax(1)
    p, y = log_p.exp() * part.weight[:, None], part.wanted(part.logits.shape[1])
    overlap = _over_classes(1 - _overlap(p, y, smooth, dims=(0, 2)), y.sum((0, 2)), weights)
    return _cross_entropy(part, log_p, weights, "mean") + overlap * part.weight.amax()


def _dice(part: _Known, power: int, smooth: float, weights: Sequence[float] | None) -> Tensor:
    outputs = part.logits.shape[1]
    p, y = part.activated() * part.weight[:, None], part.wanted(outputs)
    each = _over_classes(1 - _overlap(p, y, smooth, dims=(2,), power=power), y.sum(2), weights)
    seen = part.weight.amax(1)
    return (each * seen).sum() / seen.sum().clamp_min(1)


def _overlap(p: Tensor, y: Tensor, smooth: float, dims: tuple[int, ...], power: int = 1) -> Tensor:
    return _ratio(2 * (p * y).sum(dims) + smooth, (p**power).sum(dims) + y.sum(dims) + smooth)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part` of `whole`, and 1 where both are nothing, as the metrics have it."""
    return torch.where(whole > 0, part / whole.clamp_min(torch.finfo(whole.dtype).tiny), 1.0)


def _over_classes(each: Tensor, voxels: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Mean of ``(..., K)`` over the classes that have voxels; over all where none has."""
    present = (voxels > 0).float()
    share = torch.where(present.sum(-1, keepdim=True) > 0, present, 1.0)
    if weights is not None:
        share = share * _class_weights(weights, each.shape[-1], each)
    return (each * share).sum(-1) / share.sum(-1).clamp_min(1e-12)


def _cross_entropy(part: _Known, log_p: Tensor, weights: Sequence[float] | None, reduction: str) -> Tensor:
    each = -log_p.gather(1, part.target[:, None])[:, 0] * part.weight
    if weights is None:
        return _reduce(each, part, reduction)
    weight = _class_weights(weights, log_p.shape[1], each)[part.target] * part.weight
    return _reduce(each * weight, _Known(part.logits, part.target, weight), reduction)


def _reduce(each: Tensor, part: _Known, reduction: str) -> Tensor:
    if reduction == "mean":
        return each.sum() / part.weight.sum().clamp_min(1e-12)
    if reduction == "sum":
        return each.sum() / part.weight.amax(1).gt(0).sum().clamp_min(1)
    raise ValueError(f"reduction is 'mean' or 'sum', not {reduction!r}")


def _class_weights(weights: Sequence[float], classes: int, like: Tensor) -> Tensor:
    if len(weights) != classes:
        raise ValueError(f"{len(weights)} class weights for {classes} classes")
    return torch.as_tensor(weights, dtype=like.dtype, device=like.device)
