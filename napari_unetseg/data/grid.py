"""Labels brought onto the grid of their image: through the world where both have a place, else by field of view."""

from __future__ import annotations

import numpy as np

from napari_unetseg.errors import AnnotationError
from napari_unetseg.volume import LabelVolume, Volume

__all__ = ["on_grid"]


def on_grid(labels: LabelVolume, image: Volume, label_name: str, image_name: str) -> tuple[LabelVolume, bool]:
    """Labels on the grid of the image, and whether they had to be resampled.

    Parameters
    ----------
    labels : LabelVolume
    image : Volume
    label_name, image_name : str
        Names of the files, for messages.

    Raises
    ------
    AnnotationError
        When they lie elsewhere, or cover another field of view than the image.
    """
    if labels.ndim != image.ndim and labels.data.size == np.prod(image.shape):
        labels = LabelVolume(labels.data.reshape(image.shape), image.geometry, labels.path)  # a plane of one, or not
    placed = labels.geometry.world and image.geometry.world and labels.ndim == image.ndim == 3
    if labels.shape == image.shape and (not placed or labels.geometry.matches(image.geometry, tolerance=0.1)):
        return labels, False
    if not placed:
        if not _same_view(labels, image):
            raise AnnotationError(
                f"The labels {label_name} have shape {labels.shape}, their image {image_name} {image.shape}.",
                hint="Labels need a value for every voxel of their image, or the same field of view.",
            )
        moved = labels.resample(image.shape)
        return LabelVolume(moved.data, image.geometry, labels.path, labels.header), True
    moved = labels.on(image.geometry, image.shape)
    if labels.data.any() and not moved.data.any():
        raise AnnotationError(
            f"The labels {label_name} lie outside their image {image_name}, by what the two headers say.",
            hint="Export both from the same scan.",
        )
    return moved, True


def _same_view(labels: LabelVolume, image: Volume) -> bool:
    """Whether two grids without a place in the world cover the same field of view, to a voxel of the coarser.

    By their sizes where both files tell the voxel size; else when the image is the labels enlarged or reduced by one
    factor in the plane, as a preview of a scan is.
    """
    if labels.ndim != image.ndim:
        return False
    if "pixel" not in (labels.geometry.unit, image.geometry.unit):
        steps = np.array([labels.geometry.spacing, image.geometry.to_unit(labels.geometry.unit).spacing])
    else:
        factor = image.shape[-1] / labels.shape[-1]
        if 0.9 < factor < 1.1:  # so little is a cut rim and not another resolution
            return False
        plane = np.array([[factor, factor], [1, 1]])
        steps = np.hstack([np.ones((2, 1)), plane]) if image.ndim == 3 else plane
    views = np.array([labels.shape, image.shape]) * steps
    return bool((np.abs(views[0] - views[1]) < steps.max(axis=0)).all())
