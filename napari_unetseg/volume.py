"""`Geometry`, `Volume` and `LabelVolume`: an image array, and where it lies in the world.

Arrays are in axis order ``([Z,] Y, X)``; an image has a channel axis in front, labels have none. The affine maps an
array index ``(z, y, x, 1)`` to the world (mm and RAS+ for medical formats); a 2D image has ``z = 0``. What `crop`,
`pad` and `resample` do to an array they also do to its geometry, so that a mask always finds the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_unetseg.errors import GeometryError

__all__ = ["Geometry", "LabelVolume", "Volume", "check_spacing"]

_NANOMETRES = {"mm": 1e6, "um": 1e3, "nm": 1.0}


def _invertible(affine: np.ndarray) -> bool:
    """Whether an affine can be inverted, however small its voxels are."""
    if not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-9)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the voxels of an array lie.

    Parameters
    ----------
    spacing : sequence of float
        Distance between neighbouring voxels along ``([Z,] Y, X)``, in `unit`.
    unit : str
        ``"mm"``, ``"um"``, ``"nm"`` or ``"pixel"`` when the file does not say.
    affine : (4, 4) float ndarray, optional
        From the array index ``(z, y, x, 1)`` to the world, in `unit`. Diagonal with the spacing when omitted.
    world : str
        ``"RAS+"`` when the affine leads to patient space, ``""`` when it only scales.
    """

    spacing: tuple[float, ...]
    unit: str = "pixel"
    affine: np.ndarray = None  # type: ignore[assignment]
    world: str = ""

    def __post_init__(self) -> None:
        spacing = tuple(float(s) for s in self.spacing)
        if len(spacing) not in (2, 3) or not all(np.isfinite(s) and s > 0 for s in spacing):
            raise GeometryError(
                f"The voxel spacing {spacing} is not two or three positive numbers.",
                hint="Correct the pixel size in the file's header.",
            )
        affine = np.diag((*((1.0,) * (3 - len(spacing))), *spacing, 1.0)) if self.affine is None else self.affine
        affine = np.array(affine, dtype=float)
        if affine.shape != (4, 4) or not _invertible(affine):
            raise GeometryError("The affine is not an invertible 4 by 4 matrix.", hint="Correct the file's header.")
        affine.setflags(write=False)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "affine", affine)

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.spacing)

    @property
    def axes(self) -> str:
        """``"YX"`` or ``"ZYX"``."""
        return "ZYX"[-self.ndim :]

    @property
    def origin(self) -> tuple[float, ...]:
        """World position of the first voxel, ``(3,)`` in the world's own axis order."""
        return tuple(float(v) for v in self.affine[:3, 3])

    @property
    def oblique(self) -> bool:
        """Whether some array axis is not parallel to a world axis."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return bool((np.abs(directions).max(axis=0) < 1 - 1e-4).any())

    def matches(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Whether the two describe the same grid, to `tolerance` of a voxel; 1 um is 0.001 mm, a pixel anything."""
        if self.ndim != other.ndim:
            return False
        if "pixel" not in (self.unit, other.unit):
            other = other.to_unit(self.unit)
        step = min(self.spacing)
        return bool(np.abs(self.affine - other.affine).max() <= tolerance * step)

    def to_unit(self, unit: str) -> Geometry:
        """The same grid, measured in another unit of length; pixels have none."""
        if unit == self.unit:
            return self
        if unit not in _NANOMETRES or self.unit not in _NANOMETRES:
            raise GeometryError(
                f"A voxel size in {self.unit} cannot be given in {unit}.", hint="Set the pixel size of both images."
            )
        factor = _NANOMETRES[self.unit] / _NANOMETRES[unit]
        affine = self.affine.copy()
        affine[:3] *= factor
        return replace(self, spacing=tuple(s * factor for s in self.spacing), unit=unit, affine=affine)

    def to_world(self, index: Sequence[float]) -> np.ndarray:
        """World position ``(3,)`` of an array index ``([z,] y, x)``."""
        full = (*(0.0,) * (3 - self.ndim), *index, 1.0)
        return (self.affine @ np.asarray(full, dtype=float))[:3]

    def shifted(self, start: Sequence[int]) -> Geometry:
        """Geometry of the part of the array that begins at index `start` (negative when padded)."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(start)
        return replace(self, affine=affine)

    def scaled(self, factors: Sequence[float]) -> Geometry:
        """Geometry after the array was resampled to ``shape * factors``, corners of the field of view kept."""
        factors = tuple(float(f) for f in factors)
        full = np.array((*(1.0,) * (3 - self.ndim), *factors))
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] / full
        # voxel centres move: the first centre lies half a new voxel inside the old edge
        affine[:3, 3] = (self.affine @ np.array([*(0.5 / full - 0.5), 1.0]))[:3]
        return replace(self, spacing=tuple(s / f for s, f in zip(self.spacing, factors, strict=True)), affine=affine)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"spacing": list(self.spacing), "unit": self.unit, "affine": self.affine.tolist(), "world": self.world}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """Undo `to_dict`."""
        return cls(tuple(values["spacing"]), values["unit"], np.asarray(values["affine"]), values.get("world", ""))


def check_spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    """`spacing` as floats, ones when None; `GeometryError` if there is not one positive number an axis."""
    if spacing is None:
        return (1.0,) * ndim
    spacing = tuple(float(s) for s in spacing)
    if len(spacing) != ndim or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise GeometryError(
            f"The voxel spacing {spacing} does not fit a mask with {ndim} axes.",
            hint="Give one positive number for each axis.",
        )
    return spacing


V = TypeVar("V", bound="_OnGrid")


@dataclass(frozen=True, eq=False, repr=False)
class _OnGrid:
    """An array on a grid; what images and labels share.

    Parameters
    ----------
    data : ndarray
        The array; its last two or three axes are ``([Z,] Y, X)``.
    geometry : Geometry, optional
        One pixel a voxel when omitted.
    path : Path, optional
        The file it came from.
    header : mapping
        What the format wants back when something is written "like" this file; private to `napari_unetseg.io`. The
        names under ``"classes"``, background first, are for formats that can say what labels mean.
    notes : tuple of str
        What its reader has to say about it, in sentences for the user.
    """

    data: np.ndarray
    geometry: Geometry = None  # type: ignore[assignment]
    path: Path | None = None
    header: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    _channels = 0
    _order = 0  # of interpolation: the type decides, so that labels are never blurred

    def __post_init__(self) -> None:
        ndim = self.data.ndim - self._channels
        if self.geometry is None:
            object.__setattr__(self, "geometry", Geometry((1.0,) * ndim))
        if ndim != self.geometry.ndim:
            raise GeometryError(
                f"An array of shape {self.data.shape} does not fit a geometry with axes {self.geometry.axes}.",
                hint="Images need a channel axis in front, labels none.",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape ``([Z,] Y, X)``, without channels."""
        return tuple(self.data.shape[self._channels :])

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    def crop(self: V, region: Sequence[slice]) -> V:
        """Part of the array, with its geometry; a view, nothing is copied. `uncrop` undoes it."""
        if any(part.step not in (None, 1) for part in region):
            raise GeometryError("A crop cannot skip voxels.", hint="Use resample() to make an image smaller.")
        starts = [part.indices(size)[0] for part, size in zip(region, self.shape, strict=True)]
        data = self.data[(slice(None),) * self._channels + tuple(region)]
        return replace(self, data=data, geometry=self.geometry.shifted(starts))

    def uncrop(self: V, region: Sequence[slice], shape: Sequence[int], value: float = 0) -> V:
        """Array of `shape`, filled with `value`, with this one at the `region` that `crop` took it from."""
        starts = [part.indices(size)[0] for part, size in zip(region, shape, strict=True)]
        data = np.full((*self.data.shape[: self._channels], *shape), value, self.data.dtype)
        data[(slice(None),) * self._channels + tuple(region)] = self.data
        return replace(self, data=data, geometry=self.geometry.shifted([-start for start in starts]))

    def pad(self: V, widths: Sequence[tuple[int, int]], value: float = 0) -> V:
        """Array with ``widths[axis] = (before, after)`` voxels of `value` around it; `unpad` undoes it."""
        full = ((0, 0),) * self._channels + tuple(widths)
        data = np.pad(self.data, full, constant_values=value)
        return replace(self, data=data, geometry=self.geometry.shifted([-before for before, _ in widths]))

    def unpad(self: V, widths: Sequence[tuple[int, int]]) -> V:
        """Array without the ``widths[axis] = (before, after)`` voxels that `pad` put around it."""
        sizes = zip(widths, self.shape, strict=True)
        return self.crop([slice(before, size - after) for (before, after), size in sizes])

    def resample(self: V, shape: Sequence[int]) -> V:
        """Array on a grid of `shape` over the same field of view (linear for images, nearest for labels).

        Resampling back to the old shape gives the old grid again, and values as good as the coarser of the two holds.
        """
        from scipy import ndimage

        factors = [new / old for new, old in zip(shape, self.shape, strict=True)]
        # channel by channel, so that none mixes with its neighbours; scipy knows no float16
        half = self.data.dtype == np.float16
        parts = self.data.reshape(-1, *self.shape).astype(np.float32 if half else self.data.dtype, copy=False)
        new = [ndimage.zoom(part, factors, order=self._order, mode="nearest", grid_mode=True) for part in parts]
        data = np.stack(new).reshape(*self.data.shape[: self._channels], *shape).astype(self.data.dtype, copy=False)
        return replace(self, data=data, geometry=self.geometry.scaled(factors))

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        step = " x ".join(f"{s:.4g}" for s in self.geometry.spacing)
        channels = f"{self.data.shape[0]} channel{'s' * (self.data.shape[0] != 1)}, " if self._channels else ""
        oblique = ", oblique" if self.geometry.oblique else ""
        return (
            f"{type(self).__name__}({channels}{size} {self.geometry.axes}, {step} {self.geometry.unit}{oblique}, "
            f"{self.data.dtype}, {self.data.nbytes / 2**20:.1f} MiB)"
        )


class Volume(_OnGrid):
    """An image: ``(C, [Z,] Y, X)`` of any real dtype, channel axis always present."""

    _channels = 1
    _order = 1


class LabelVolume(_OnGrid):
    """Integer labels ``([Z,] Y, X)``: a Mask or an Annotation."""

    def __post_init__(self) -> None:
        if not np.issubdtype(self.data.dtype, np.integer):
            raise GeometryError(f"Labels are whole numbers, not {self.data.dtype}.", hint="Convert them to integers.")
        super().__post_init__()

    def on(self, geometry: Geometry, shape: Sequence[int]) -> LabelVolume:
        """Labels on another grid (nearest neighbour through the world, 0 outside): from drawn-there to needed-here."""
        from scipy import ndimage

        if self.geometry.matches(geometry) and self.shape == tuple(shape):
            return self
        there = geometry if "pixel" in (geometry.unit, self.geometry.unit) else geometry.to_unit(self.geometry.unit)
        back = np.linalg.inv(self.geometry.affine) @ there.affine
        full = self.data if self.ndim == 3 else self.data[None]
        out = (*(1,) * (3 - len(shape)), *shape)
        # "grid-constant": a voxel reaches half a step around its centre, also at the border
        data = ndimage.affine_transform(
            full, back[:3, :3], back[:3, 3], output_shape=out, order=0, mode="grid-constant"
        )
        return replace(self, data=data.reshape(shape), geometry=geometry)
