"""OME-Zarr by the letter of the specification, written here with plain zarr."""

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr

import napari_unetseg.io as io
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RNG = np.random.default_rng(8)
VALUES = RNG.integers(0, 999, (5, 6, 7)).astype(np.uint16)
TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def axes_named(names, unit="micrometer"):
    return [{"name": n, "type": TYPES[n], **({"unit": unit} if n in "zyx" and unit else {})} for n in names]


def group(path, array, names="zyx", version="0.4", *, dataset=(), common=(), unit="micrometer", **more):
    """An image with two levels, the finest first."""
    v3 = version == "0.5"
    root = zarr.create_group(path, zarr_format=3 if v3 else 2, overwrite=True)
    for level in range(2):
        part = array[..., :: level + 1, :: level + 1]
        keys = {"name": "default" if v3 else "v2", "separator": "/"}
        made = root.create_array(
            f"s{level}",
            shape=part.shape,
            dtype=part.dtype,
            chunks=(1,) * (part.ndim - 2) + (4, 4),
            chunk_key_encoding=keys,
        )
        made[...] = part
    steps = list(dataset) or [{"type": "scale", "scale": [1.0] * array.ndim}]
    multiscale = {
        "axes": axes_named(names, unit),
        "datasets": [{"path": f"s{level}", "coordinateTransformations": steps} for level in range(2)],
        **({"coordinateTransformations": list(common)} if common else {}),
    }
    meta = {"multiscales": [multiscale], **more}
    if not v3:
        multiscale["version"] = version
    root.attrs.update({"ome": {"version": version, **meta}} if v3 else meta)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("names", "shape", "expected"),
    [
        ("yx", (6, 7), (1, 6, 7)),
        ("zyx", (5, 6, 7), (1, 5, 6, 7)),
        ("cyx", (3, 6, 7), (3, 6, 7)),
        ("tczyx", (1, 2, 5, 6, 7), (2, 5, 6, 7)),
        ("tcyx", (1, 2, 6, 7), (2, 6, 7)),
    ],
)
def test_axes_come_in_our_order(names, shape, expected, version, tmp_path):
    array = RNG.integers(0, 255, shape).astype(np.uint8)
    path = group(tmp_path / "a.ome.zarr", array, names, version)
    volume = io.read(path)
    assert np.array_equal(volume.data, array.reshape(expected))
    assert volume.geometry.unit == "um"
    lazy = io.open_lazy(path)
    assert (lazy.shape, lazy.in_memory, lazy.chunks[-2:]) == (expected, False, (4, 4))
    assert np.array_equal(lazy[-1, ..., 1:5], volume.data[-1, ..., 1:5])


def test_transformations_of_the_level_come_before_those_of_the_image(tmp_path):
    dataset = [{"type": "scale", "scale": [2, 0.5, 0.25]}, {"type": "translation", "translation": [1, 2, 3]}]
    common = [{"type": "scale", "scale": [10, 10, 10]}, {"type": "translation", "translation": [0.5, 0, 0]}]
    geometry = io.read(group(tmp_path / "a.zarr", VALUES, dataset=dataset, common=common)).geometry
    assert geometry.spacing == pytest.approx((20, 5, 2.5))
    assert geometry.to_world((1, 1, 1)) == pytest.approx((20 + 10.5, 5 + 20, 2.5 + 30))


@pytest.mark.parametrize(
    ("unit", "ours", "step"),
    [
        ("nanometer", "nm", 1),
        ("centimeter", "mm", 10),
        ("angstrom", "nm", 0.1),
        ("", "pixel", 1),
        ("parsec", "pixel", 1),
    ],
)
def test_units(unit, ours, step, tmp_path):
    geometry = io.read(group(tmp_path / "a.zarr", VALUES, unit=unit)).geometry
    assert geometry.unit == ours
    assert geometry.spacing == pytest.approx((step,) * 3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_mask_goes_out_in_the_version_of_its_image(version, tmp_path):
    scan = io.read(group(tmp_path / "a.ome.zarr", VALUES, version=version))
    path = io.write(tmp_path / "mask.ome.zarr", LabelVolume(VALUES % 3), like=scan)
    root = zarr.open_group(path, mode="r")
    assert root.metadata.zarr_format == (3 if version == "0.5" else 2)
    meta = root.attrs["ome"] if version == "0.5" else dict(root.attrs)
    assert "image-label" in meta
    assert [axis["unit"] for axis in meta["multiscales"][0]["axes"]] == ["micrometer"] * 3
    assert (meta["version"] if version == "0.5" else meta["multiscales"][0]["version"]) == version
    assert (path / "0" / ("zarr.json" if version == "0.5" else ".zarray")).exists()
    assert np.array_equal(root["0"][...], VALUES % 3)


def test_labels_inside_an_image(tmp_path):
    path = group(tmp_path / "a.ome.zarr", VALUES)
    inside = zarr.open_group(path, mode="a").create_group("labels")
    inside.attrs["labels"] = ["cells"]
    group(path / "labels" / "cells", VALUES % 4, **{"image-label": {}})
    assert np.array_equal(io.read_labels(path).data, VALUES % 4)
    assert np.array_equal(io.read_labels(path / "labels" / "cells").data, VALUES % 4)
    assert io.stem(path / "labels" / "cells") == "cells"
    assert np.array_equal(io.read(path).data[0], VALUES)
    inside.attrs["labels"] = ["cells", "nuclei"]
    with pytest.raises(ReadError, match="2 sets of labels: cells, nuclei") as caught:
        io.read_labels(path)
    assert "labels/cells" in caught.value.hint


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_written_into_an_image_are_listed_there(version, tmp_path):
    path = group(tmp_path / "a.ome.zarr", VALUES, version=version)
    scan = io.read(path)
    io.write(path / "labels" / "cells", LabelVolume(VALUES % 4), like=scan)
    with io.create_lazy(path / "labels" / "nuclei", scan) as file:
        file[0] = 1
    io.write(path / "labels" / "cells", LabelVolume(VALUES % 5), like=scan)
    inside = dict(zarr.open_group(path / "labels", mode="r").attrs)
    assert inside.get("ome", inside)["labels"] == ["nuclei", "cells"]
    assert np.array_equal(io.read_labels(path / "labels" / "cells").data, VALUES % 5)
    assert io.read_labels(path / "labels" / "nuclei").data.sum() == 42
    assert np.array_equal(io.read(path).data[0], VALUES)


def test_metadata_changed_by_others_count_more_than_ours(tmp_path):
    turned = Geometry((2, 1, 1), "mm", np.diag((2.0, -1.0, 1.0, 1.0)), "RAS+")
    path = io.write(tmp_path / "a.ome.zarr", Volume(VALUES[None], turned))
    assert io.read(path).geometry.matches(turned)
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 8, 4, 4]
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert io.read(path).geometry.spacing == (8, 4, 4)


def test_the_first_of_several_images(tmp_path, caplog):
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for name in "01":
        group(tmp_path / "a.zarr" / name, VALUES + int(name))
    assert np.array_equal(io.read(tmp_path / "a.zarr").data[0], VALUES)
    assert "several images" in caplog.text


def test_an_array_without_metadata(tmp_path):
    zarr.save_array(tmp_path / "a.zarr", VALUES)
    assert np.array_equal(io.read(tmp_path / "a.zarr").data[0], VALUES)
    assert io.read(tmp_path / "a.zarr").geometry.unit == "pixel"


def broken(path, what):
    if what == "time":
        return group(path, np.stack([VALUES] * 2), "tzyx")
    if what == "complex":
        return group(path, VALUES.astype(np.complex64))
    if what == "empty":
        zarr.create_group(path)
        return path
    if what == "plate":
        zarr.create_group(path).attrs["ome"] = {"version": "0.5", "plate": {}}
        return path
    group(path, VALUES)
    attributes = json.loads((path / ".zattrs").read_text())
    level = attributes["multiscales"][0]["datasets"][0]
    if what == "affine":
        level["coordinateTransformations"] = [{"type": "affine", "affine": []}]
    elif what == "zero":
        level["coordinateTransformations"] = [{"type": "scale", "scale": [0, 1, 1]}]
    elif what == "axes":
        attributes["multiscales"][0]["axes"].pop()
    elif what == "huge":
        array = json.loads((path / "s0" / ".zarray").read_text())
        (path / "s0" / ".zarray").write_text(json.dumps({**array, "shape": [10**6, 10**6, 10**6]}))
    elif what == "huge chunks":
        array = json.loads((path / "s0" / ".zarray").read_text())
        (path / "s0" / ".zarray").write_text(json.dumps({**array, "chunks": [10**6, 10**6, 10**6]}))
    else:
        level["path"] = {"outside": "../other", "missing": "s7"}[what]
    (path / ".zattrs").write_text(json.dumps(attributes))
    return path


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("time", "2 time points"),
        ("complex", "complex64"),
        ("empty", "says nothing about its axes"),
        ("plate", "plate of many images"),
        ("affine", "not supported"),
        ("zero", "not two or three positive numbers"),
        ("axes", "names 2 axes"),
        ("huge", "of memory, this machine has"),
        ("huge chunks", "chunks of"),
        ("outside", "outside its folder"),
        ("missing", "lacks its part s7"),
    ],
)
def test_what_cannot_be_read_is_said(what, message, tmp_path):
    path = broken(tmp_path / "a.zarr", what)
    with pytest.raises(ReadError, match=message) as caught:
        io.read(path)
    assert "a.zarr" in caught.value.message
    assert caught.value.hint


def test_an_older_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.ome.zarr"
    io.write(path, LabelVolume(VALUES))
    io.write(path, LabelVolume(VALUES[:2]))
    assert io.read_labels(path).shape == (2, 6, 7)
    with pytest.raises(WriteError):
        io.write(path, replace(Volume(VALUES[None]), data=VALUES[None].astype(np.complex64)))
    assert io.read_labels(path).shape == (2, 6, 7)
    assert [one.name for one in tmp_path.iterdir()] == ["a.ome.zarr"]
    (tmp_path / "file.zarr").write_text("x")
    with pytest.raises(WriteError, match="it is a file"):
        io.write(tmp_path / "file.zarr", LabelVolume(VALUES))
