"""NIfTI: ``(X, Y, Z, channels)`` in patient space, turned into our axis order and millimetres, and back."""

from __future__ import annotations

import contextlib
import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.formats import DEFLATED, FORMATS, Format, check_size, compact, hushed, labels_from, native
from napari_unetseg.io.lazy import Layout, LazyVolume, RawFile, Store
from napari_unetseg.volume import Geometry, LabelVolume, Volume

logger = logging.getLogger(__name__)

# a NIfTI index is (x, y, z), ours (z, y, x)
_SWAP = [2, 1, 0, 3]
_TO_MM = {"meter": 1000.0, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_UNIT_TO_MM = {"mm": 1.0, "um": 1e-3, "nm": 1e-6, "pixel": 1.0}
# a microscope's volume at some place: no patient is meant, which the forms alone cannot say
_PLAIN = b"napari-unetseg: in no patient"
_PLAIN_UNITS = {"mm": "mm", "micron": "um", "unknown": "pixel"}
_FRESH = {"pixel": "unknown", "mm": "mm", "um": "micron", "nm": "micron"}


class Nifti(Format):
    """NIfTI-1 and NIfTI-2, plain or gzipped."""

    suffixes = (".nii.gz", ".nii")
    mask_suffix = ".nii.gz"

    def read(self, path: Path) -> Volume:
        """Image with its scale factor applied; time points and components are channels."""
        from nibabel.arrayproxy import ArrayProxy
        from nibabel.openers import Opener

        header = _read_header(path)
        most = DEFLATED if path.name.lower().endswith(".gz") else 1
        check_size(path, header.get_data_shape(), 8 * header.get_data_dtype().itemsize, most)
        with Opener(str(path)) as file:
            array = np.asanyarray(ArrayProxy(file, header, mmap=False))
            file.read(1)  # only at its end does a gzipped file say whether these are the bytes that were packed
        if array.dtype == np.float64 and header.get_data_dtype().kind in "iu" and header.get_data_dtype().itemsize < 3:
            array = array.astype(np.float32)  # scaled 16-bit values need no more
        geometry = _geometry(header, path)
        return Volume(native(_to_channels(array, geometry.ndim), path), geometry, path, {"nifti": header.binaryblock})

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels on the grid that the header gives."""
        volume = self.read(path)
        return LabelVolume(labels_from(volume.data, path), volume.geometry, path, volume.header)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write with the header of `like` or of `volume`, but unscaled and with the dtype of the array."""
        import nibabel as nib

        array = _from_channels(volume)
        header = _header_for(array, volume, like)
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        _save(kind(array, None, header, dtype=array.dtype), path)

    def open_lazy(self, path: Path) -> LazyVolume:
        """Regions of an uncompressed file."""
        from nibabel.arrayproxy import ArrayProxy

        if path.name.lower().endswith(".gz"):
            return super().open_lazy(path)
        header = _read_header(path)
        stored = header.get_data_dtype()
        shape = header.get_data_shape()
        check_size(path, shape, 8 * stored.itemsize, 1, memory=False)
        slope, inter = header.get_slope_inter()
        if stored.kind not in "iuf" or stored.itemsize > 8:
            return super().open_lazy(path)
        geometry = _geometry(header, path)
        channels = int(np.prod(shape[geometry.ndim :], dtype=int))
        offset = int(header.get_data_offset())
        raw = RawFile(path, offset, (channels, *shape[: geometry.ndim][::-1]), stored)
        if offset + raw.nbytes > path.stat().st_size:
            raise ReadError(f"{path.name} is cut short: part of its values is missing.", hint="Copy it again.")
        scaled = (slope is not None and slope != 1) or bool(inter)
        small = stored.kind in "iu" and stored.itemsize < 3
        one = ArrayProxy(str(path), header, mmap=False)[(slice(1),) * len(shape)]
        dtype = np.dtype(np.float32) if scaled and small else one.dtype.newbyteorder("=")

        def fetch(region: tuple[slice, ...]) -> np.ndarray:
            part = raw[region]
            return part * float(slope) + float(inter) if scaled else part

        return LazyVolume(raw.shape, dtype, geometry, fetch, path, {"nifti": header.binaryblock})

    def create_lazy(self, path: Path, layout: Layout) -> Store | None:
        """Uncompressed file with its header written first; a compressed one is written as a whole."""
        if path.name.lower().endswith(".gz"):
            return None
        if layout.dtype == np.float16:
            raise WriteError("NIfTI has no half floats.", hint="Write float32.")
        # an empty array says the shape and dtype without taking their memory
        array = np.broadcast_to(np.zeros((), layout.dtype), layout.shape)
        volume = (LabelVolume if layout.labels else Volume)(array, layout.geometry, path, layout.header)
        header = _header_for(_axes_of_nifti(volume, array), volume, None)
        header["vox_offset"] = 544 if header.sizeof_hdr == 540 else 352
        with path.open("wb") as file:
            header.write_to(file)
            file.write(bytes(int(header["vox_offset"]) - file.tell()))
        return Store(RawFile.make(path, int(header["vox_offset"]), layout.shape, header.get_data_dtype()))


FORMATS.register("nifti", keeps="affine")(Nifti())


def _header_for(array: np.ndarray, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> Any:
    """Header of a single file that holds `array` at the place of `volume`."""
    import nibabel as nib

    kept = (like if like is not None and "nifti" in like.header else volume).header.get("nifti")
    header = _header_class(kept)(kept) if kept else nib.Nifti1Header()
    if kept is None and max(array.shape) > 32767:  # an axis of NIfTI-1 has 15 bits
        header = nib.Nifti2Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    for name in ("descrip", "db_name", "aux_file"):  # free text, in which some scanners name the patient
        if name in header and header[name].item() != _PLAIN:
            header[name] = b""
    header["vox_offset"] = 0
    header["magic"] = header.single_magic
    header.set_slope_inter(1, 0)
    _place(header, volume.geometry, fresh=kept is None)
    return header


def _header_class(block: bytes) -> Any:
    import nibabel as nib

    return next((c for c in (nib.Nifti1Header, nib.Nifti2Header) if c.may_contain_header(block)), None)


def _save(image: Any, path: Path) -> None:
    """Write under exactly this name; nibabel would change the case of its suffix."""
    from nibabel.fileholders import FileHolder

    with path.open("wb") as raw, contextlib.ExitStack() as stack:
        file: Any = raw
        if path.name.lower().endswith(".gz"):
            # without name and time, equal masks make equal files
            file = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0))
        image.to_file_map({"header": FileHolder(fileobj=file), "image": FileHolder(fileobj=file)})


def _read_header(path: Path) -> Any:
    from nibabel.openers import Opener

    try:
        with Opener(str(path)) as file:
            block = file.read(540)
    except (EOFError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ReadError(
            f"{path.name} is not a gzipped NIfTI file, or its beginning is damaged.", hint="Copy or export it again."
        ) from error
    kind = _header_class(block)
    if kind is None:
        raise ReadError(f"{path.name} is not a NIfTI file.", hint="Check what it is, or export it as NIfTI again.")
    with Opener(str(path)) as file, hushed("nibabel.global"):
        header = kind.from_fileobj(file)
    said = kind(block[: kind.sizeof_hdr], check=False)["pixdim"][1 : int(header["dim"][0]) + 1]
    if (said[:3] == 0).any() and not header["sform_code"]:
        logger.warning("%s: its voxel size %s is no size; 1 is used for 0", path.name, tuple(said[:3].tolist()))
    return header


def _geometry(header: Any, path: Path) -> Geometry:
    """Geometry in millimetres; plain, and of no world, when the header gives no orientation that can be used."""
    ndim = min(int(header["dim"][0]), 3)
    if ndim < 2:
        raise ReadError(f"{path.name} holds a line of values, not an image.", hint="Check what it is.")
    unit = _unit(header)
    codes = int(header["sform_code"]), int(header["qform_code"])
    for code, form in zip(codes, (header.get_sform, header.get_qform), strict=True):
        affine = _usable(form) if code > 0 else None
        if affine is not None:
            affine = affine[:, _SWAP]
            if header["descrip"].item() == _PLAIN and unit in _PLAIN_UNITS:
                return Geometry(
                    tuple(np.linalg.norm(affine[:3, 3 - ndim : 3], axis=0)), _PLAIN_UNITS[unit], affine[_SWAP]
                )
            affine[:3] *= _TO_MM[unit]
            return Geometry(tuple(np.linalg.norm(affine[:3, 3 - ndim : 3], axis=0)), "mm", affine, "RAS+")
    zooms = np.abs(np.asarray(header["pixdim"][1 : ndim + 1], dtype=float))[::-1]
    if any(codes):
        logger.warning("%s: its orientation is damaged; only its voxel size is used", path.name)
    if not (np.isfinite(zooms) & (zooms > 0)).all():
        logger.warning("%s: its voxel size %s is no size; one pixel is used", path.name, tuple(zooms))
        return Geometry((1.0,) * ndim)
    if unit == "unknown" and (zooms == 1).all():
        return Geometry((1.0,) * ndim)
    return Geometry(tuple(zooms), "um") if unit == "micron" else Geometry(tuple(zooms * _TO_MM[unit]), "mm")


def _unit(header: Any) -> str:
    try:
        return header.get_xyzt_units()[0]
    except KeyError:  # a number that stands for no unit
        return "unknown"


def _usable(form: Any) -> np.ndarray | None:
    """The affine of `form` when it can be computed and inverted."""
    try:
        affine = np.asarray(form(), dtype=float)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return None
    if not np.isfinite(affine).all():
        return None
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths <= 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
        return None
    return affine


def _place(header: Any, geometry: Geometry, fresh: bool) -> None:
    """Make `header` say `geometry`, leaving every form that already says it as it is."""
    flat = not geometry.world and geometry.matches(Geometry(geometry.spacing, geometry.unit), 1e-9)
    if fresh or not (geometry.world or flat):
        header.set_xyzt_units("mm" if geometry.world else _FRESH[geometry.unit])
    unit = _unit(header)
    factor = _UNIT_TO_MM[geometry.unit] / _TO_MM[unit]
    zooms = np.array(geometry.spacing[::-1]) * factor
    if flat:
        for name in ("srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"):
            header[name] = 0
        header["sform_code"] = header["qform_code"] = 0
        header["pixdim"][1 : len(zooms) + 1] = zooms
        return
    affine = geometry.affine[:, _SWAP].copy()
    affine[:3] *= factor
    if not geometry.world:  # our plain world counts z, y, x; all others x, y, z
        affine = affine[_SWAP]
        header["descrip"] = _PLAIN
    elif header["descrip"].item() == _PLAIN:
        header["descrip"] = b""
    codes = int(header["sform_code"]), int(header["qform_code"])
    said = _usable(header.get_sform if codes[0] else header.get_qform) if any(codes) else None
    if said is not None and np.allclose(said, affine, rtol=1e-6, atol=1e-5 * zooms.min()):
        return
    # both forms are renewed: a stale one would put the mask elsewhere in programs that prefer it
    code = max(codes) or (1 if geometry.world else 2)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    straight = np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    header.set_sform(affine, code)
    header.set_qform(affine, code if straight else 0)


def _to_channels(array: np.ndarray, ndim: int) -> np.ndarray:
    """``(C, [Z,] Y, X)`` from ``(X, Y[, Z[, ...]])``, of numbers or of RGB(A) records."""
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
    return array.reshape(*array.shape[:ndim], -1, order="F").T


def _from_channels(volume: Volume | LabelVolume) -> np.ndarray:
    array = compact(volume.data) if isinstance(volume, LabelVolume) else volume.data
    return _axes_of_nifti(volume, array.astype(np.float32) if array.dtype == np.float16 else array)


def _axes_of_nifti(volume: Volume | LabelVolume, array: np.ndarray) -> np.ndarray:
    """``(X, Y[, Z[, channels]])``, as a view."""
    if isinstance(volume, LabelVolume):
        return array.T
    if len(array) == 1:
        return array[0].T
    if volume.ndim == 2:
        raise WriteError(
            f"NIfTI has no 2D images with {len(array)} channels.",
            hint="Choose .tif instead.",
        )
    return array.T
