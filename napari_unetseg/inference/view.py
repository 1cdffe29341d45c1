"""The plane that the user looks at, with no more around it than the net needs to see."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unetseg.errors import PlanError
from napari_unetseg.plan import Plan

__all__ = ["slab"]


def slab(plan: Plan, shape: Sequence[int], index: int | None) -> tuple[tuple[slice, ...], int | None]:
    """Part of an image that a net needs for one plane of it.

    Parameters
    ----------
    plan : Plan
        Of a model.
    shape : sequence of int
        ``([Z,] Y, X)`` of the image.
    index : int or None
        The plane; None for the whole image.

    Returns
    -------
    region : tuple of slice
        ``([Z,] Y, X)``: the plane alone for a 2D net, as many planes as a training patch has for a 3D net.
    inner : int or None
        Where the plane is in it; None for the whole image, or where the image has no planes.

    Raises
    ------
    PlanError
        When there is no such plane.
    """
    everything = tuple(slice(0, n) for n in shape)
    if index is None or len(shape) == 2:
        return everything, None
    if not 0 <= index < shape[0]:
        raise PlanError(f"There is no plane {index}: the image has {shape[0]}.", hint="Count planes from 0.")
    half = 0 if plan.net.dims == 2 else (plan.training.patch or (32,))[0] // 2
    first = max(0, index - half)
    return (slice(first, min(shape[0], index + half + 1)), *everything[1:]), index - first
