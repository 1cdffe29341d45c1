"""Where a volume lies, as ITK says it: index ``(x, y, z)``, world in mm, left, posterior and superior positive.

NRRD and MetaImage share it. Ours is ``(z, y, x)`` and right, anterior, superior (RAS+).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from napari_unetseg.errors import GeometryError
from napari_unetseg.volume import Geometry

__all__ = ["KEY", "frame_of", "geometry_in_frame", "said", "saying"]

# what the file's own fields cannot say (a unit, a plane's place in space) travels under this key
KEY = "unetseg_geometry"

_FLIP = {"LPS": (-1, -1, 1), "RAS": (1, 1, 1), "LAS": (-1, 1, 1)}


def geometry_in_frame(directions: np.ndarray, origin: np.ndarray, space: str = "LPS", unit: str = "mm") -> Geometry:
    """Geometry of a file.

    Parameters
    ----------
    directions : (n, m) array
        Step of each array axis, x first, in the world's m axes; the length is the spacing.
    origin : (m,) array
        World position of the first voxel.
    space : str
        ``"LPS"``, ``"RAS"``, ``"LAS"``, or empty when the world is none of a patient.
    unit : str
        Of the lengths.

    Raises
    ------
    GeometryError
        The numbers are no place.
    """
    directions, origin = np.asarray(directions, dtype=float), np.asarray(origin, dtype=float)
    ndim = len(directions)
    spacing = np.linalg.norm(directions, axis=1)
    if not (np.isfinite(spacing) & (spacing > 0)).all() or not np.isfinite(origin).all():
        raise GeometryError("Its voxel size or position is not a number.", hint="Correct the file's header.")
    full, start = np.zeros((3, 3)), np.zeros(3)
    full[:ndim, : directions.shape[1]], start[: len(origin)] = directions, origin
    if ndim == 2:  # a plane: its normal completes the frame
        full[2] = np.cross(full[0], full[1])
        full[2] /= np.linalg.norm(full[2]) or 1.0
    world = (space in _FLIP and ndim == 3) or (space in _FLIP and directions.shape[1] == 3)
    affine = np.eye(4)
    if world:
        affine[:3, :3] = (full * _FLIP[space])[::-1].T
        affine[:3, 3] = start * _FLIP[space]
        return Geometry(tuple(spacing[::-1]), unit, affine, "RAS+")
    affine[:3, :3] = full[::-1].T[::-1]
    affine[:3, 3] = start[::-1]
    return Geometry(tuple(spacing[::-1]), unit, affine)


def frame_of(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Steps ``(n, n)`` of each array axis, x first, and position ``(n,)`` of the first voxel, in LPS where it is known.

    A plane that stands upright in the world has its steps along x and y, as nothing else fits two numbers.
    """
    n = geometry.ndim
    matrix, start = geometry.affine[:3, :3], geometry.affine[:3, 3]
    if geometry.world:
        steps, origin = matrix.T[::-1] * _FLIP["LPS"], start * _FLIP["LPS"]
    else:
        steps, origin = matrix[::-1].T[::-1], start[::-1]
    steps, origin = steps[:n, :n], origin[:n]
    lengths = np.linalg.norm(steps, axis=1)
    if not np.allclose(lengths, geometry.spacing[::-1], rtol=1e-6):
        return np.diag(geometry.spacing[::-1]), np.zeros(n)
    return steps, origin


def said(text: Any, shape_ndim: int) -> Geometry | None:
    """Geometry under `KEY` of one of our files."""
    if not text:
        return None
    geometry = Geometry.from_dict(json.loads(str(text)))
    return geometry if geometry.ndim == shape_ndim else None


def saying(geometry: Geometry, read_back: Geometry) -> str:
    """Text for `KEY`, empty where the fields of the file, read back, say the same."""
    alike = (geometry.unit, geometry.world) == (read_back.unit, read_back.world)
    if alike and geometry.matches(read_back, 1e-6):
        return ""
    return json.dumps(geometry.to_dict(), separators=(",", ":"))
