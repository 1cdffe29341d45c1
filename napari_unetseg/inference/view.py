"""The plane that the user looks at, with no more around it than the net needs to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_unetseg.errors import PlanError
from napari_unetseg.inference.sliding import Predictor

__all__ = ["seen_of_plane"]


def seen_of_plane(
    predictor: Predictor, image: np.ndarray, index: int | None, window: Sequence[slice] = (slice(None), slice(None))
) -> tuple[np.ndarray, int | None]:
    """What a net needs to segment one plane of a volume, or a window of it.

    Parameters
    ----------
    predictor : Predictor
    image : (C, [Z,] Y, X) float32 ndarray
        Normalised as the plan says.
    index : int or None
        The plane; None for the image as it is.
    window : sequence of slice
        ``(Y, X)``.

    Returns
    -------
    part : (C', [Z',] Y', X') ndarray
        For a 2D net the plane, its neighbours as channels where it sees them; for a 3D net as many planes as a training
        patch has.
    inner : int or None
        Where the plane is in the part; None where the part has no planes, or `index` was None.

    Raises
    ------
    PlanError
        When there is no such plane.
    """
    where: tuple[Any, ...] = (..., *window)
    if index is None or image.ndim == 3:
        return image[where], None
    planes = image.shape[1]
    if not 0 <= index < planes:
        raise PlanError(f"There is no plane {index}: the image has {planes}.", hint="Count planes from 0.")
    if predictor.plan.net.dims == 2:
        return predictor.planes(image, (index,))[where], None
    half = (predictor.plan.training.patch or (32,))[0] // 2
    first = max(0, index - half)
    return image[:, first : index + half + 1][where], index - first
