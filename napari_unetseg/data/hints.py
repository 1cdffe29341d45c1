"""Hints: what a teacher believes of voxels that nobody labelled, in one small whole number a voxel.

0 says nothing; any other number holds a class and how sure the teacher is of it. So a hint is cut, mirrored and
resampled like a label, and costs two bytes a voxel for any number of classes.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["encode_hints", "read_hints"]

_LEVELS = 64


def encode_hints(probabilities: np.ndarray) -> np.ndarray:
    """Likeliest class and its probability in steps of 1/63: ``(K, ...)`` float to ``(...)`` uint16, nowhere 0."""
    sure = np.rint(probabilities.max(axis=0) * (_LEVELS - 1)).astype(np.uint16)
    return (1 + probabilities.argmax(axis=0).astype(np.uint16) * _LEVELS + sure).astype(np.uint16)


def read_hints(hints: torch.Tensor, n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and where there are any.

    Parameters
    ----------
    hints : (B, ...) int64 tensor
    n_classes : int

    Returns
    -------
    (B, n_classes, ...) float32 tensor
        The likeliest class as it was said, the rest shared evenly by the others.
    (B, ...) bool tensor
        True where there is a hint.
    """
    said = hints > 0
    code = (hints - 1).clamp_min(0)
    likeliest = (code // _LEVELS).clamp_max(n_classes - 1)
    sure = (code % _LEVELS).float() / (_LEVELS - 1)
    rest = ((1 - sure) / max(1, n_classes - 1))[:, None].expand(-1, n_classes, *hints.shape[1:])
    return rest.scatter(1, likeliest[:, None], sure[:, None]), said
