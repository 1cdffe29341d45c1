"""OME-Zarr 0.4 and 0.5: a folder of chunks with axes, units and scales; read and written in regions.

The finest level is read. Coarser ones are written where an image is larger than one chunk.

The format knows scale and translation only. A rotated volume carries its whole geometry under a key of ours, which
other programs leave alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.io.formats import FORMATS, Format, available_memory, compact, labels_from, native, size_text
from napari_unetseg.io.itk import KEY
from napari_unetseg.io.lazy import Layout, LazyVolume, Store, arranged
from napari_unetseg.io.ome_zarr_axes import Axes, axes_of, geometry_of, to_multiscale
from napari_unetseg.io.pyramid import factors_of, fill_levels
from napari_unetseg.volume import Geometry, LabelVolume, Volume

__all__ = ["OmeZarr", "kinds_of_zarr"]

logger = logging.getLogger(__name__)

_VERSION = "ome-zarr"  # key of our header
_CHUNK = {2: (1024, 1024), 3: (32, 256, 256)}


class OmeZarr(Format):
    """OME-Zarr images and labels; plain Zarr arrays are read as well."""

    suffixes = (".ome.zarr", ".zarr")
    mask_suffix = ".ome.zarr"
    folder = True

    def reads(self, path: Any) -> bool:
        """Also the labels inside an image: ``scan.ome.zarr/labels/cells``."""
        parents = Path(path).parents
        inside = len(parents) > 1 and parents[0].name == "labels" and super().reads(parents[1])
        return inside or super().reads(path)

    def read(self, path: Path) -> Volume:
        """The finest level, in memory."""
        lazy = self.open_lazy(path)
        if lazy.nbytes > (memory := available_memory()):
            raise ReadError(
                f"{path.name} needs {size_text(lazy.nbytes)} of memory, this machine has {size_text(memory)}.",
                hint="Crop the image, or use a machine with more memory.",
            )
        return lazy.volume()

    def read_labels(self, path: Path) -> LabelVolume:
        """Labels: the image itself, or the only one in its group ``labels``."""
        source = _labels_source(_open_node(path), path)
        volume = _lazy(source, path).volume()
        return LabelVolume(labels_from(volume.data, path), volume.geometry, path, volume.header)

    def open_lazy(self, path: Path) -> LazyVolume:
        """The finest level, chunk by chunk."""
        return _lazy(_image_source(_open_node(path), path), path)

    def write(self, path: Path, volume: Volume | LabelVolume, like: Volume | LabelVolume | None) -> None:
        """Write it in the version of `like`, with coarser levels where it is large."""
        labels = isinstance(volume, LabelVolume)
        array = compact(volume.data) if labels else volume.data
        if array.dtype == np.float16:  # a type that few readers know
            array = array.astype(np.float32)
        header = (like if like is not None and _VERSION in like.header else volume).header
        store = self.create_lazy(path, Layout(array.shape, array.dtype, volume.geometry, header, labels))
        store.array[...] = array
        store.close()

    def named(self, path: Path) -> None:
        """Labels that were written into an image are listed there."""
        if path.parent.name == "labels" and super().reads(path.parents[1]):
            _list_labels(path.parents[1], path.name)

    def create_lazy(self, path: Path, layout: Layout) -> Store:
        """Empty arrays with all their metadata, the coarser ones filled at the end; chunks of zeros are not stored."""
        import zarr

        if layout.dtype.kind not in "iuf" or layout.dtype == np.float16:
            raise WriteError(f"OME-Zarr images do not hold {layout.dtype}.", hint="Write float32.")
        version = layout.header.get(_VERSION, "0.4")
        sides = _CHUNK[layout.geometry.ndim]
        spatial = layout.shape[-len(sides) :]
        chunks = tuple(min(side, size) for side, size in zip(sides, spatial, strict=True))
        root = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
        factors = factors_of(spatial, layout.geometry.spacing, sides[-1])
        multiscale, names = to_multiscale(layout.geometry, layout.labels, factors)
        attributes: dict[str, Any] = {"multiscales": [multiscale]}
        if layout.labels:
            attributes["image-label"] = {}
        if version == "0.5":
            attributes = {"ome": {"version": version, **attributes}}
        else:
            multiscale["version"] = version
            if layout.labels:
                attributes["image-label"]["version"] = version
        if (whole := _beyond(layout.geometry)) is not None:
            attributes[KEY] = whole
        root.attrs.update(attributes)
        lead = layout.shape[: -len(sides)]
        arrays = [
            root.create_array(
                str(number),
                shape=(*lead, *(-(-size // by) for size, by in zip(spatial, factor, strict=True))),
                dtype=layout.dtype,
                chunks=(*(1,) * len(lead), *chunks),
                compressors=_compressor(version),
                fill_value=0,
                chunk_key_encoding={"name": "default" if version == "0.5" else "v2", "separator": "/"},
                dimension_names=names if version == "0.5" else None,
            )
            for number, factor in enumerate(factors)
        ]
        return Store(arrays[0], lambda: fill_levels(arrays, factors, layout.labels))


def _list_labels(image: Path, name: str) -> None:
    """Add a name to the list of the labels inside an image, where other programs look for it."""
    import zarr

    node = _open_node(image)
    group = zarr.open_group(image / "labels", mode="a", zarr_format=node.metadata.zarr_format)
    metadata, _ = _metadata(group)
    names = [one for one in metadata.get("labels", ()) if one != name] + [name]
    if node.metadata.zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", **metadata, "labels": names}
    else:
        group.attrs["labels"] = names


def kinds_of_zarr(path: Path) -> tuple[bool, tuple[str, ...]]:
    """Whether `path` holds labels, and the names of the labels inside it; of what is no Zarr, False and none."""
    if not FORMATS["ome-zarr"].reads(path) or not path.is_dir():
        return False, ()
    node = _open_node(path)
    if not hasattr(node, "members"):
        return False, ()
    listed = _metadata(node["labels"])[0].get("labels", ()) if "labels" in node else ()
    return "image-label" in _metadata(node)[0], tuple(name for name in listed if isinstance(name, str))


FORMATS.register("ome-zarr", keeps="affine")(OmeZarr())


@dataclass(frozen=True)
class _Source:
    """An array of the finest level, and what the metadata say about it."""

    array: Any
    axes: Axes
    kept: Mapping[str, Any] | None
    version: str


def _compressor(version: str) -> Any:
    """Zstandard with a checksum, so that a damaged chunk is noticed."""
    if version == "0.5":
        from zarr.codecs import ZstdCodec

        return ZstdCodec(level=1, checksum=True)
    from numcodecs import Zstd

    return Zstd(level=1, checksum=True)


def _open_node(path: Path) -> Any:
    import zarr

    if not path.is_dir():
        raise ReadError(f"{path.name} is not a folder, as Zarr images are.", hint="Unpack it, if it is an archive.")
    try:
        return zarr.open(store=path, mode="r")
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise ReadError(
            f"{path.name} is a folder without Zarr metadata, or they are damaged.",
            hint="Check that it was copied as a whole, with its hidden files.",
        ) from error


def _metadata(node: Any) -> tuple[dict[str, Any], str]:
    """OME metadata of a group, and their version."""
    attributes = dict(node.attrs)
    if isinstance(attributes.get("ome"), dict):
        return attributes["ome"], str(attributes["ome"].get("version", "0.5"))
    many = attributes.get("multiscales")
    first = many[0] if isinstance(many, list) and many and isinstance(many[0], dict) else {}
    return attributes, str(first.get("version", "0.4"))


def _labels_source(node: Any, path: Path) -> _Source:
    metadata, _ = ({}, "") if not hasattr(node, "members") else _metadata(node)
    if "image-label" in metadata or not hasattr(node, "members") or "labels" not in node:
        return _image_source(node, path)
    _, names = kinds_of_zarr(path)
    if len(names) != 1:
        raise ReadError(
            f"{path.name} holds {len(names)} sets of labels: {', '.join(names) or 'none is listed'}.",
            hint=f"Name one: {path.name}/labels/{names[0] if names else 'NAME'}.",
        )
    return _image_source(_member(node["labels"], names[0], path), path)


def _image_source(node: Any, path: Path) -> _Source:
    if not hasattr(node, "members"):
        return _Source(node, Axes.plain(node.shape, path), None, "0.4")
    metadata, version = _metadata(node)
    multiscale = _multiscale(metadata)
    if multiscale is None:
        if "plate" in metadata or "well" in metadata:
            raise ReadError(
                f"{path.name} is a plate of many images.", hint="Give one field of it, as a folder that ends in .zarr."
            )
        if "0" in node and hasattr(node["0"], "members"):  # several images in one folder, as bioformats2raw makes them
            if "1" in node:
                logger.warning("%s holds several images; the first is used", path.name)
            return _image_source(node["0"], path)
        raise ReadError(
            f"{path.name} says nothing about its axes, so it is no OME-Zarr image.", hint="Export it again."
        )
    dataset = multiscale["datasets"][0]
    array = _member(node, str(dataset["path"]), path)
    kept = dict(node.attrs).get(KEY)
    axes = axes_of(multiscale, dataset, array.shape, path)
    return _Source(array, axes, kept if isinstance(kept, dict) else None, version)


def _multiscale(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first of ``multiscales``; None where there is none that names an array."""
    many = metadata.get("multiscales")
    first = many[0] if isinstance(many, list) and many else None
    levels = first.get("datasets") if isinstance(first, dict) else None
    named = isinstance(levels, list) and levels and isinstance(levels[0], dict) and "path" in levels[0]
    return first if named else None


def _member(group: Any, name: str, path: Path) -> Any:
    if ".." in PurePosixPath(name).parts or name.startswith(("/", "\\")):
        raise ReadError(f"{path.name} says that its values lie outside its folder.", hint="Export it again.")
    if name not in group:
        raise ReadError(f"{path.name} lacks its part {name}.", hint="Copy it again, as a whole.")
    return group[name]


def _lazy(source: _Source, path: Path) -> LazyVolume:
    array, axes = source.array, source.axes
    stored = np.dtype(array.dtype)
    block = int(np.prod(array.chunks, dtype=object)) * stored.itemsize
    if block > available_memory():
        raise ReadError(
            f"{path.name} has chunks of {size_text(block)}, more than this machine has memory.", hint="Chunk it anew."
        )
    native(np.zeros(1, stored), path)  # refuses complex numbers and text
    shape, fetch = arranged(array, array.shape, axes.channels, axes.spatial)
    if not all(shape):
        raise ReadError(f"{path.name} holds no voxels (shape {shape}).", hint="Save the image again.")
    geometry = geometry_of(axes)
    if source.kept is not None:
        whole = Geometry.from_dict(source.kept)
        # metadata that somebody has changed since count more than ours
        if whole.ndim == geometry.ndim and _as_read(whole).matches(geometry, 1e-6):
            geometry = whole
    dtype = np.dtype(np.uint8) if stored.kind == "b" else stored.newbyteorder("=")
    chunks = (1, *(array.chunks[axis] for axis in axes.spatial))
    return LazyVolume(shape, dtype, geometry, fetch, path, {_VERSION: source.version}, chunks)


def _as_read(geometry: Geometry) -> Geometry:
    """What scale, translation and units alone say of a geometry."""
    multiscale, names = to_multiscale(geometry, labels=True)
    return geometry_of(axes_of(multiscale, multiscale["datasets"][0], (1,) * len(names), Path("written")))


def _beyond(geometry: Geometry) -> dict[str, Any] | None:
    """The geometry, where they do not say all of it."""
    back = _as_read(geometry)
    same = back.matches(geometry, 1e-9) and (back.unit, back.world) == (geometry.unit, geometry.world)
    return None if same else geometry.to_dict()
