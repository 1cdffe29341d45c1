"""The steps on runs against what scipy and scikit-image make of the whole image."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops

from napari_unetseg.errors import PlanError
from napari_unetseg.postprocess import (
    STEPS,
    apply_steps,
    check_steps,
    features,
    measure,
    measure_volume,
    number_objects,
)
from napari_unetseg.volume import Geometry, LabelVolume, Volume


def blotches(shape, seed, classes=3, noise=0.04):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    mask = np.digitize(field, np.quantile(field, np.linspace(0.4, 0.9, classes))).astype(np.uint8)
    mask[rng.random(shape) < noise] = rng.integers(0, classes + 1)
    return mask


SHAPES = [(37, 50), (1, 40), (40, 1), (9, 21, 30), (1, 30, 31), (17, 1, 29), (12, 13, 1)]
CASES = list(zip(SHAPES, range(len(SHAPES)), strict=True))


@pytest.mark.parametrize(("shape", "seed"), CASES)
def test_objects_and_their_sizes_are_exact(shape, seed):
    mask, full = blotches(shape, seed), np.ones((3,) * len(shape))
    small, largest = mask.copy(), mask.copy()
    for own in np.unique(mask[mask > 0]):
        parts, _ = ndimage.label(mask == own, full)
        sizes = np.bincount(parts.ravel())[1:]
        small[np.isin(parts, 1 + np.flatnonzero(sizes < 5))] = 0
        largest[(parts > 0) & (parts != 1 + sizes.argmax())] = 0
    voxel = 0.5 ** len(shape)
    np.testing.assert_array_equal(STEPS["minimum-size"](mask, (0.5,) * len(shape), size=5 * voxel), small)
    np.testing.assert_array_equal(STEPS["largest-component"](mask, (0.5,) * len(shape)), largest)


@pytest.mark.parametrize(("shape", "seed"), CASES)
@pytest.mark.parametrize("size", [None, 3.0])
def test_holes_are_exact(shape, seed, size):
    for noise in (0.04, 0.3):
        mask = blotches(shape, seed, noise=noise)
        found, out = [], mask.copy()
        for own in np.unique(mask[mask > 0]):
            filled = ndimage.binary_fill_holes(mask == own)
            holes, _ = ndimage.label(filled & (mask != own))
            if size is not None:
                holes[np.isin(holes, np.flatnonzero(np.bincount(holes.ravel()) > size))] = 0
            found.append((filled.sum(), own, holes > 0))
        for _, own, hole in sorted(found, key=lambda each: each[:2]):
            out[hole & (out == 0)] = own
        np.testing.assert_array_equal(STEPS["fill-holes"](mask, (1,) * len(shape), size=size), out)


def test_smoothing_block_by_block_is_smoothing_at_once(monkeypatch):
    from napari_unetseg.postprocess import steps

    for shape in ((70, 90), (20, 24, 26)):
        mask = blotches(shape, 7)
        whole = STEPS["smooth"](mask, (1,) * len(shape), radius=0.9)
        monkeypatch.setattr(steps, "_BLOCK", {2: 16, 3: 11})
        np.testing.assert_array_equal(STEPS["smooth"](mask, (1,) * len(shape), radius=0.9), whole)
        monkeypatch.undo()


def test_objects_are_split_the_same_alone_and_among_others(monkeypatch):
    from napari_unetseg.postprocess import split

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:150, :150]
    mask = np.zeros((150, 150), np.uint8)
    for _ in range(40):
        cy, cx, r = rng.integers(0, 150), rng.integers(0, 150), rng.integers(5, 14)
        mask[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = rng.integers(1, 3)
    together = STEPS["split-touching"](mask, (1, 1))
    monkeypatch.setattr(split, "_STRIP", 1)
    np.testing.assert_array_equal(STEPS["split-touching"](mask, (1, 1)), together)
    numbers = np.unique(together[together > 0])
    np.testing.assert_array_equal(numbers, np.arange(1, len(numbers) + 1))
    of = [mask[together == number].max() for number in numbers]
    assert of == sorted(of)
    for own in (1, 2):  # an object more than connected parts, and none that lies in two of them
        parts, n = ndimage.label(mask == own, np.ones((3, 3)))
        pairs = np.unique(np.stack([together[mask == own], parts[mask == own]]), axis=1)
        assert pairs.shape[1] == len(np.unique(pairs[0])) > n


@pytest.mark.parametrize("name", STEPS)
def test_only_some_classes(name):
    mask = blotches((40, 50), 8)
    options = {"size": 6.0} if name == "minimum-size" else {}
    some = apply_steps(mask, [(name, {**options, "classes": [2]})])
    every = apply_steps(mask, [(name, options)])
    if STEPS.facts(name)["instances"]:
        assert len(np.unique(some[mask == 1])) == ndimage.label(mask == 1, np.ones((3, 3)))[1]
        assert len(np.unique(some[mask == 2])) == len(np.unique(every[mask == 2]))
        return
    for other in (1, 3):
        np.testing.assert_array_equal(some == other, mask == other)
    assert (some != mask).any()


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([("minimum-size", {"size": True})], "size of 'minimum-size' is True"),
        ([("minimum-size", {"size": float("nan")})], "is nan"),
        ([("minimum-size", {"size": None})], "needs the option size"),
        ([("smooth", {"classes": []})], "list of class numbers"),
        ([("smooth", {"classes": "12"})], "list of class numbers"),
        ([("smooth", {"classes": [0]})], "from 1"),
        ([("smooth", {"classes": [1.5]})], "list of class numbers"),
        ([("smooth", 3)], "is no step"),
        ([7], "is no step"),
        (["split-touching", "split-touching"], "Take one of the two away"),
        (["split-touching", ("smooth", {"classes": [1]})], "Put 'smooth' before 'split-touching'"),
    ],
)
def test_hostile_steps_are_refused_before_there_is_a_mask(steps, says):
    with pytest.raises(PlanError, match=says):
        check_steps(steps)


def test_a_radius_wider_than_the_image_is_refused():
    with pytest.raises(PlanError, match="which is 25 wide"):
        apply_steps(blotches((40, 50), 0), [("smooth", {"radius": 1e6})], (0.5, 0.5))


# ---------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize("shape", [(40, 52), (11, 24, 26)])
def test_measures_of_objects_match_scikit_image(shape):
    spacing = (2.0, 0.5, 0.7)[-len(shape) :]
    mask = blotches(shape, 9)
    image = np.random.default_rng(0).normal(50, 9, (2, *shape))
    rows = [row for row in measure(mask, spacing, image=image) if row["object"] and row["label"] == 2]
    theirs = regionprops(label(mask == 2, connectivity=len(shape)), np.moveaxis(image, 0, -1), spacing=spacing)
    assert len(rows) == len(theirs) > 3
    voxel = regionprops(label(mask == 2, connectivity=len(shape)))
    for mine, other, plain in zip(rows, theirs, voxel, strict=True):
        assert [mine["mean_0"], mine["mean_1"]] == pytest.approx(other.intensity_mean)
        values = image[1][tuple(plain.coords.T)]
        assert (mine["min_1"], mine["max_1"], mine["sd_1"]) == pytest.approx((values.min(), values.max(), values.std()))
        moments = np.cov((plain.coords * spacing).T, bias=True)
        lengths, axes = np.linalg.eigh(moments)
        factor = 16 if len(shape) == 2 else 20
        found = [mine[f"axis_{i}"] for i in range(1, len(shape) + 1)]
        assert found == pytest.approx(np.sqrt(factor * lengths[::-1].clip(0)), abs=1e-6)
        if mine["voxels"] > 4 and lengths[-1] > 1.01 * lengths[-2]:
            direction = [mine[f"direction_{axis}"] for axis in "zyx"[-len(shape) :]]
            assert abs(np.dot(direction, axes[:, -1])) == pytest.approx(1)


@pytest.mark.parametrize("angle", [-60, -10, 0, 35, 80])
def test_orientation_of_an_ellipse(angle):
    y, x = np.mgrid[-40:41, -40:41]
    a = np.deg2rad(angle)
    along, across = y * np.cos(a) + x * np.sin(a), x * np.cos(a) - y * np.sin(a)
    mask = ((along / 30) ** 2 + (across / 10) ** 2 <= 1).astype(np.uint8)
    row = measure(mask)[1]
    assert row["orientation"] == pytest.approx(angle, abs=0.5)
    assert np.rad2deg(regionprops(mask)[0].orientation) == pytest.approx(row["orientation"], abs=0.5)
    assert (row["axis_1"], row["axis_2"]) == pytest.approx((60, 20), rel=0.02)


def test_a_measured_volume_knows_where_it_lies():
    affine = np.array([[0, 0, 0.5, 7], [0, 1, 0, -3], [3, 0, 0, 2], [0, 0, 0, 1.0]])
    data = np.zeros((4, 6, 8), np.uint8)
    data[1:3, 2:5, 3] = 1
    mask = LabelVolume(data, Geometry((3, 1, 0.5), "mm", affine, "RAS+"))
    image = Volume(np.stack([data * 5, data + 1]), mask.geometry)
    whole, one = measure_volume(mask, ("background", "tumour"), image)
    assert (whole["class"], one["object"], one["unit"], one["volume"]) == ("tumour", 1, "mm", 6 * 1.5)
    assert [one[f"world_{a}"] for a in "xyz"] == pytest.approx([7 + 3 * 0.5, -3 + 3, 2 + 1.5 * 3])
    assert (one["mean_0"], one["sd_0"], one["max_1"]) == (5, 0, 2)
    empty = measure_volume(LabelVolume(0 * data, mask.geometry), ("background", "tumour"))
    assert empty[0]["world_x"] is None


def test_objects_are_numbered_as_they_are_measured():
    mask = blotches((40, 50), 10)
    numbers, rows = number_objects(mask), [row for row in measure(mask) if row["object"]]
    assert measure(mask, instances=numbers) == measure(mask)
    assert numbers.max() == len(rows)
    assert number_objects(np.zeros((3, 4), np.uint8)).max() == 0


def test_features_name_the_labels_of_the_layer():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:3, 1:3], mask[5:8, 5:8] = 2, 2
    numbers = apply_steps(mask, ["split-touching"])
    rows = measure(mask, classes=("background", "a", "b"), instances=numbers)
    assert features(rows, objects=True)["index"] == [0, 1, 2]
    assert features(rows, objects=True)["area"] == [None, 4, 9]
    classes = features(rows, objects=False)
    assert (classes["index"], classes["objects"], classes["voxels"]) == ([0, 1, 2], [None, 0, 2], [None, 0, 13])
