"""A net and the instant model side by side, one answer: what a training from a few strokes gives.

The instant model is right where texture and intensity tell a thing, a young net where its shape and surroundings do.
Their mean is better than either for as long as the strokes are few (``docs/benchmarks.md``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Together"]


class Together(nn.Module):
    """Logits of the mean of two nets' probabilities.

    Parameters
    ----------
    net, instant : nn.Module
        Nets with the same outputs, for sizes that their ``divisor`` divides. `instant` sees only the middle channels,
        where `net` sees the planes on both sides as well.
    channels : int
        That `instant` sees.
    outputs : int
        Of each.

    Attributes
    ----------
    offset : (outputs,) float tensor
        Added to the net's logits: it then says each class as often as the images hold it (`training.shares`).
    """

    offset: Tensor

    SHARE = 0.5  # of the instant model in the mean

    def __init__(self, net: nn.Module, instant: nn.Module, channels: int, outputs: int) -> None:
        super().__init__()
        self.net, self.instant = net, instant
        self.channels = channels
        self.divisor = math.lcm(int(net.divisor), int(instant.divisor))
        self.register_buffer("offset", torch.zeros(outputs))
        self.register_load_state_dict_pre_hook(_as_now)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits (B, outputs, *size) of an image (B, C, *size) whose sizes `divisor` divides."""
        logits = self.net(x)
        if isinstance(logits, list):  # deeply supervised training, which is the net's alone
            return logits
        logits = logits + self.offset.to(logits.dtype).reshape(-1, *[1] * (logits.ndim - 2))
        before = (x.shape[1] - self.channels) // 2
        beside = self.instant(x[:, before : before + self.channels])
        weights = math.log(1 - self.SHARE), math.log(self.SHARE)
        yes = [_log_probability(z.float()) + w for z, w in zip((logits, beside), weights, strict=True)]
        together = torch.logaddexp(*yes)
        if logits.shape[1] > 1:
            return together
        no = [_log_probability(-z.float()) + w for z, w in zip((logits, beside), weights, strict=True)]
        return together - torch.logaddexp(*no)


def _as_now(both: Together, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Models saved while the share was a weight among the others, or before there was an offset."""
    state.pop(f"{prefix}share", None)
    state.setdefault(f"{prefix}offset", torch.zeros_like(both.offset))


def _log_probability(logits: Tensor) -> Tensor:
    return functional.logsigmoid(logits) if logits.shape[1] == 1 else logits.log_softmax(dim=1)
