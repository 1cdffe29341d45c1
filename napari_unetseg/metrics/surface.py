"""Distances between the outlines of two masks, in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_unetseg.metrics.overlap import check_shapes
from napari_unetseg.volume import check_spacing

__all__ = ["Distances", "assd", "distances", "hausdorff", "hausdorff95"]


@dataclass(frozen=True, eq=False)
class Distances:
    """What the distance metrics are read from; all in the unit of the spacing.

    Undefined (not a number) if one mask is empty and the other is not; 0 if both are.

    Attributes
    ----------
    outwards, inwards : (N,), (M,) float ndarray
        Distance of every boundary voxel of the first mask to the boundary of the second, and the reverse.
    farthest : float
        Largest distance of a voxel of either mask to the other mask.
    """

    outwards: np.ndarray
    inwards: np.ndarray
    farthest: float

    @property
    def hausdorff(self) -> float:
        """The larger of the two directed distances between the sets of voxels."""
        return self.farthest

    @property
    def hausdorff95(self) -> float:
        """The larger of the 95th percentiles of the two directed boundary distances."""
        if not self.outwards.size:
            return self.farthest
        return float(max(np.percentile(self.outwards, 95), np.percentile(self.inwards, 95)))

    @property
    def assd(self) -> float:
        """Mean over the voxels of both boundaries of the distance to the other boundary."""
        if not self.outwards.size:
            return self.farthest
        return float((self.outwards.sum() + self.inwards.sum()) / (self.outwards.size + self.inwards.size))


def distances(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> Distances:
    """Measure how far two bool masks lie apart.

    The boundary of a mask is its voxels that touch the background, or the image's edge, with a face.

    Parameters
    ----------
    pred, truth : ndarray of bool
        Masks of one shape, 2D or 3D.
    spacing : sequence of float, optional
        Distance of neighbouring voxels along each axis; 1 when omitted.

    Returns
    -------
    Distances
    """
    pred, truth = np.asarray(pred, bool), np.asarray(truth, bool)
    check_shapes(pred, truth)
    spacing = check_spacing(spacing, pred.ndim)
    empty = not pred.any(), not truth.any()
    if any(empty):
        return Distances(np.empty(0), np.empty(0), 0.0 if all(empty) else float("nan"))
    # both masks lie inside this box, so that nothing outside it is nearest to anything
    box = ndimage.find_objects((pred | truth).view(np.uint8))[0]
    pred, truth = pred[box], truth[box]
    pred_edge, truth_edge = _boundary(pred), _boundary(truth)
    to_truth = ndimage.distance_transform_edt(~truth_edge, sampling=spacing)
    outwards, far = to_truth[pred_edge], _largest(to_truth[pred & ~truth])
    to_pred = ndimage.distance_transform_edt(~pred_edge, sampling=spacing)
    return Distances(outwards, to_pred[truth_edge], max(far, _largest(to_pred[truth & ~pred])))


def hausdorff(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Hausdorff distance of the voxels of two bool masks, in the unit of `spacing`.

    The larger of the two directed distances between the sets of foreground voxels (Gudhe et al. 2021, eq. 6-8).
    """
    return distances(pred, truth, spacing).hausdorff


def hausdorff95(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """95th percentile of the boundary distances, the larger of both directions, in the unit of `spacing`."""
    return distances(pred, truth, spacing).hausdorff95


def assd(pred: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Average symmetric surface distance of two bool masks, in the unit of `spacing`."""
    return distances(pred, truth, spacing).assd


def _boundary(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def _largest(values: np.ndarray) -> float:
    return float(values.max()) if values.size else 0.0
