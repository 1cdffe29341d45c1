"""Geometry follows the array through crop, pad and resample, and back."""

import numpy as np
import pytest

from napari_unetseg.errors import GeometryError
from napari_unetseg.volume import Geometry, LabelVolume, Volume


def oblique(spacing=(2.5, 0.8, 0.7), angles=(12, -7, 20), origin=(-30.0, 12.5, 99.0)) -> Geometry:
    a, b, c = np.deg2rad(angles)
    turn = (
        np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        @ np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        @ np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    )
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * spacing
    affine[:3, 3] = origin
    return Geometry(spacing, "mm", affine, "RAS+")


def image(shape=(2, 5, 6, 7), geometry=None) -> Volume:
    rng = np.random.default_rng(0)
    return Volume(rng.normal(size=shape).astype(np.float32), geometry or oblique())


@pytest.mark.parametrize("spacing", [(1.0,), (1, 1, 1, 1), (1, 0), (1, -1), (1, np.nan), (np.inf, 1)])
def test_a_spacing_that_cannot_be_is_refused(spacing):
    with pytest.raises(GeometryError, match="spacing"):
        Geometry(spacing)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.ones((4, 4))])
def test_an_affine_that_cannot_be_is_refused(affine):
    with pytest.raises(GeometryError, match="affine"):
        Geometry((1, 1, 1), affine=affine)


def test_an_affine_may_be_small():
    geometry = Geometry((5e-5, 4e-6, 4e-6), "mm")
    assert geometry.to_world((1, 2, 3)) == pytest.approx((5e-5, 8e-6, 1.2e-5))


def test_the_affine_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        oblique().affine[0, 0] = 3


def test_a_plane_lies_at_z_zero():
    geometry = Geometry((0.5, 0.25), "um")
    assert geometry.axes == "YX"
    assert geometry.to_world((2, 4)) == pytest.approx((0, 1, 1))
    assert not geometry.oblique
    assert oblique().oblique


def test_grids_are_compared_in_one_unit():
    assert Geometry((2, 0.5, 0.5), "um").matches(Geometry((0.002, 0.0005, 0.0005), "mm"))
    assert not Geometry((2, 0.5, 0.5), "um").matches(Geometry((2, 0.5, 0.5), "mm"))
    assert Geometry((1, 1)).matches(Geometry((1, 1), "mm"))
    assert not Geometry((1, 1)).matches(Geometry((1, 1, 1)))
    assert not oblique().matches(oblique(origin=(-30.0, 12.5, 98.0)))
    with pytest.raises(GeometryError, match="pixel"):
        Geometry((1, 1)).to_unit("mm")


def test_geometry_survives_json():
    import json

    geometry = oblique()
    back = Geometry.from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert np.array_equal(back.affine, geometry.affine)
    assert (back.spacing, back.unit, back.world) == (geometry.spacing, geometry.unit, geometry.world)


def test_crop_keeps_each_voxel_where_it_was():
    whole = image()
    region = (slice(1, 4), slice(2, None), slice(-3, -1))
    part = whole.crop(region)
    assert part.shape == (3, 4, 2)
    assert np.shares_memory(part.data, whole.data)
    assert part.data[1, 0, 1, 1] == whole.data[1, 1, 3, 5]
    assert part.geometry.to_world((0, 1, 1)) == pytest.approx(whole.geometry.to_world((1, 3, 5)))


def test_uncrop_undoes_crop():
    whole = image()
    region = (slice(1, 4), slice(2, None), slice(-3, -1))
    back = whole.crop(region).uncrop(region, whole.shape, value=-7)
    inside = np.zeros(whole.shape, bool)
    inside[region] = True
    assert back.geometry.matches(whole.geometry, 1e-9)
    assert np.array_equal(back.data[:, inside], whole.data[:, inside])
    assert (back.data[:, ~inside] == -7).all()


def test_crop_does_not_skip():
    with pytest.raises(GeometryError, match="skip"):
        image().crop((slice(None), slice(0, 6, 2), slice(None)))


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (1, 6, 7)])
def test_unpad_undoes_pad(shape):
    ndim = len(shape) - 1
    whole = image(shape, oblique() if ndim == 3 else Geometry((0.5, 0.25), "um"))
    widths = [(1, 2), (0, 3), (4, 0)][-ndim:]
    wide = whole.pad(widths, value=5)
    inside = [before for before, _ in widths]
    assert wide.geometry.to_world(inside) == pytest.approx(whole.geometry.to_world([0] * ndim))
    back = wide.unpad(widths)
    assert np.array_equal(back.data, whole.data)
    assert back.geometry.matches(whole.geometry, 1e-9)
    assert (wide.data == 5).sum() >= wide.data.size - whole.data.size


def corners(thing) -> np.ndarray:
    """World positions of the outer corners of the field of view."""
    sizes = np.array(thing.shape)
    return np.array([thing.geometry.to_world(np.array(bits) * sizes - 0.5) for bits in np.ndindex(*(2,) * thing.ndim)])


@pytest.mark.parametrize("shape", [(5, 12, 14), (10, 6, 7), (3, 4, 5), (1, 1, 1), (7, 13, 3)])
def test_resample_keeps_the_field_of_view_and_comes_back(shape):
    whole = image()
    new = whole.resample(shape)
    assert new.shape == shape
    assert corners(new) == pytest.approx(corners(whole))
    assert new.geometry.spacing == pytest.approx(np.linalg.norm(new.geometry.affine[:3, :3], axis=0))
    back = new.resample(whole.shape)
    assert back.geometry.matches(whole.geometry, 1e-9)
    assert back.geometry.spacing == pytest.approx(whole.geometry.spacing)


def test_resample_is_exact_on_a_ramp():
    y, x = np.mgrid[:8, :10].astype(np.float64)
    whole = Volume(np.stack([y, x]), Geometry((1, 1)))
    fine = whole.resample((16, 20))
    inner = (slice(2, -2), slice(2, -2))
    ys, xs = np.mgrid[:16, :20] * 0.5 - 0.25
    assert fine.data[0][inner] == pytest.approx(ys[inner])
    assert fine.data[1][inner] == pytest.approx(xs[inner])
    assert fine.resample(whole.shape).data[0][1:-1] == pytest.approx(y[1:-1])


def test_labels_are_never_blurred_and_come_back_whole():
    labels = LabelVolume(np.random.default_rng(1).choice([0, 7, 200], (5, 6, 7)).astype(np.uint8), oblique())
    fine = labels.resample((15, 12, 21))
    assert fine.data.dtype == np.uint8
    assert set(np.unique(fine.data)) == {0, 7, 200}
    assert np.array_equal(fine.resample(labels.shape).data, labels.data)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float32, np.float64])
def test_resample_keeps_the_dtype(dtype):
    whole = Volume(np.full((1, 4, 4), 9, dtype))
    new = whole.resample((7, 3))
    assert new.data.dtype == dtype
    assert new.data == pytest.approx(np.full((1, 7, 3), 9, dtype))


def test_channels_do_not_mix():
    data = np.zeros((3, 4, 4), np.float32)
    data[1] = 100
    new = Volume(data).resample((9, 9))
    assert [float(channel.max()) for channel in new.data] == [0, 100, 0]


def test_labels_drawn_on_another_grid_lie_at_the_same_place():
    labels = LabelVolume(np.zeros((6, 8, 9), np.uint8), oblique())
    labels.data[2:4, 3:6, 4:8] = 3
    there = labels.pad([(1, 2), (3, 0), (2, 2)]).geometry
    moved = labels.on(there, (9, 11, 13))
    assert np.array_equal(moved.data[1:7, 3:, 2:11], labels.data)
    assert moved.data.sum() == labels.data.sum()


def test_labels_reach_the_border_of_a_finer_grid():
    labels = LabelVolume(np.ones((3, 4, 5), np.uint8), oblique())
    fine = labels.on(labels.geometry.scaled((2, 2, 2)), (6, 8, 10))
    assert (fine.data == 1).all()


def test_labels_find_a_grid_in_another_unit():
    labels = LabelVolume(np.arange(12, dtype=np.uint8).reshape(3, 4), Geometry((2, 1), "um"))
    fine = labels.on(Geometry((0.001, 0.001), "mm"), (5, 4))
    assert np.array_equal(fine.data[::2], labels.data)


def test_labels_on_their_own_grid_are_themselves():
    labels = LabelVolume(np.ones((3, 4), np.int32))
    assert labels.on(labels.geometry, labels.shape) is labels


def test_labels_are_whole_numbers_and_images_have_channels():
    with pytest.raises(GeometryError, match="whole numbers"):
        LabelVolume(np.zeros((3, 4), np.float32))
    with pytest.raises(GeometryError, match="axes YX"):
        Volume(np.zeros((3, 4), np.float32), Geometry((1, 1)))


def test_the_repr_tells_what_it_is():
    text = repr(image())
    assert "2 channels" in text
    assert "5 x 6 x 7 ZYX" in text
    assert "oblique" in text
