import numpy as np
import pytest
from scipy import ndimage

from napari_unetseg.errors import GeometryError, PlanError, UnknownName
from napari_unetseg.postprocess import STEPS, apply_steps, measure

NEEDED = {"minimum-size": {"size": 4.0}}


def random_mask(dims, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(13, 30, 28)[-dims:]), 1.5)
    mask = np.digitize(noise, np.quantile(noise, [0.6, 0.8])).astype(dtype)
    mask[rng.random(mask.shape) < 0.03] = 0
    return mask


def disc(shape, centre, radius, spacing=None):
    spacing = spacing or (1,) * len(shape)
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g * s - c) / radius) ** 2 for g, s, c in zip(grid, spacing, centre, strict=True)) <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", STEPS)
def test_contract_of_steps(name, dims, dtype):
    facts, step, options = STEPS.facts(name), STEPS[name], NEEDED.get(name, {})
    spacing = (2.0, 0.5, 0.5)[-dims:]
    mask = random_mask(dims, dtype)
    before = mask.copy()
    out = step(mask, spacing, **options)
    np.testing.assert_array_equal(mask, before)
    assert out.shape == mask.shape
    assert out.dtype == (np.int32 if facts["instances"] else dtype)
    assert (out != mask).any()
    if facts["instances"]:
        np.testing.assert_array_equal(out > 0, mask > 0)
        for number in range(1, out.max() + 1):
            assert len(np.unique(mask[out == number])) == 1
    else:
        assert set(np.unique(out)) <= set(np.unique(mask))
    if facts["idempotent"]:
        np.testing.assert_array_equal(step(out, spacing, **options), out)
    for value in (0, 1):
        flat = np.full(mask.shape, value, dtype)
        np.testing.assert_array_equal(step(flat, spacing, **options), flat)
    assert step(np.zeros((0, 4, 4)[:dims], dtype), spacing, **options).size == 0
    np.testing.assert_array_equal(apply_steps(mask, [(name, options)], spacing), out)
    assert STEPS.describe(name)


def test_largest_component_is_kept_per_class_and_over_corners():
    mask = np.array([[1, 0, 0, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [1, 0, 2, 0, 0]])
    kept = np.array([[1, 0, 0, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(STEPS["largest-component"](mask, (1, 1)), kept)


def test_largest_component_belongs_to_the_volume_not_to_the_plane():
    mask = np.zeros((2, 5, 9), int)
    mask[0, 1:4, 0:3] = mask[1, 1:4, 0:2] = 1
    mask[1, 0:4, 6:9] = 1  # the largest of its plane only
    out = STEPS["largest-component"](mask, (1, 1, 1))
    assert out[:, :, 6:].max() == 0
    assert out.sum() == 15


def test_holes_of_nested_classes():
    mask = np.zeros((15, 15), np.uint8)
    mask[1:14, 1:14] = 1
    mask[2, 2] = 0
    mask[4:12, 4:12] = 0  # a ring of background, in it class 2 with a hole of its own
    mask[5:11, 5:11] = 2
    mask[7:9, 7:9] = 0
    out = STEPS["fill-holes"](mask, (1, 1))
    assert (out[4, 4], out[2, 2], out[7, 7], out[5, 5], out[0, 0]) == (1, 1, 2, 2, 0)
    small = STEPS["fill-holes"](mask, (0.5, 0.5), size=1.0)
    assert (small[4, 4], small[2, 2], small[7, 7]) == (0, 1, 2)
    assert STEPS["fill-holes"](mask, (0.5, 0.5), size=0.9)[7, 7] == 0


def test_a_tunnel_is_no_hole_in_3d():
    mask = np.zeros((5, 7, 7), np.uint8)
    mask[:, 1:6, 1:6] = 1
    mask[:, 3, 3] = 0
    np.testing.assert_array_equal(STEPS["fill-holes"](mask, (1, 1, 1)), mask)
    mask[0, 3, 3] = mask[4, 3, 3] = 1
    assert STEPS["fill-holes"](mask, (1, 1, 1))[2, 3, 3] == 1


def test_minimum_size_is_physical():
    mask = np.zeros((6, 8, 8), np.uint8)
    mask[0, :2, :2], mask[4:, 4:6, 4:6] = 1, 1  # 4 and 8 voxels of 0.75 each: 3 and 6 cubic units
    spacing = (3.0, 0.5, 0.5)
    for size, left in [(3, 12), (3.1, 8), (6, 8), (6.1, 0)]:
        assert STEPS["minimum-size"](mask, spacing, size=size).sum() == left


def test_smoothing_takes_off_what_is_thin_and_keeps_the_rest():
    shape = disc((60, 60), (30, 30), 15)
    rough = shape.copy()
    rough[30, :] = True
    rough[20, 25] = False
    out = STEPS["smooth"](rough.astype(np.uint8), (0.5, 0.5), radius=1.0).astype(bool)
    assert not out[30, 5]
    assert out[20, 25]
    assert (out & shape).sum() / (out | shape).sum() > 0.97
    # a line two fine pixels wide but a coarse one high goes with the fine radius only along the fine axis
    mask = np.zeros((20, 40), np.uint8)
    mask[10:12, :], mask[:, 20:22] = 1, 1
    out = STEPS["smooth"](mask, (4.0, 1.0), radius=1.5)
    assert out[11, 5] == 1
    assert out[3, 20] == 0


def test_smoothing_matches_the_full_vote():
    mask = random_mask(2)
    mask[3:9, 3:9] = 5
    votes = np.stack([ndimage.gaussian_filter((mask == k).astype(float), (1, 2), mode="nearest") for k in range(6)])
    out = STEPS["smooth"](mask, (2.0, 1.0), radius=2.0)
    assert (out == votes.argmax(0)).mean() > 0.999


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_touching_objects_are_split_at_the_neck(dims, scale):
    spacing = tuple(scale * s for s in ((2.0, 1.0, 1.0) if dims == 3 else (1.0, 0.5)))
    shape = (22, 40, 64) if dims == 3 else (40, 120)
    middle = [n * s / 2 for n, s in zip(shape[:-1], spacing, strict=False)]
    left, right = (disc(shape, (*middle, x * scale), 11 * scale, spacing) for x in (20, 39))
    mask = (left | right).astype(np.uint8)
    out = STEPS["split-touching"](mask, spacing)
    assert out.max() == 2
    for own, other in ((left, right), (right, left)):
        numbers = out[own & ~other]
        assert (numbers == np.bincount(numbers).argmax()).mean() > 0.97
    near = disc(shape, (*middle, 20 * scale), 11 * scale, spacing) | disc(
        shape, (*middle, 26 * scale), 11 * scale, spacing
    )
    assert STEPS["split-touching"](near.astype(np.uint8), spacing).max() == 1


def test_necks_are_measured_in_physical_units():
    # touching along the coarse axis: in voxels the neck is wider than the discs are high
    spacing = (4.0, 1.0)
    upper, lower = (disc((15, 50), (y, 25), 11, spacing) for y in (18, 38))
    assert STEPS["split-touching"]((upper | lower).astype(np.uint8), spacing).max() == 2


def test_one_convex_object_stays_one():
    for angle in range(0, 90, 15):
        a = np.deg2rad(angle)
        y, x = np.mgrid[-30:31, -30:31]
        u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
        for long, short in [(25, 6), (15, 14), (5, 4), (28, 3)]:
            mask = ((u / long) ** 2 + (v / short) ** 2 <= 1).astype(np.uint8)
            assert STEPS["split-touching"](mask, (1, 1)).max() == 1, (angle, long, short)


def test_more_objects_than_the_dtype_holds():
    mask = np.zeros((64, 64), np.uint8)
    mask[::3, ::3] = 1
    assert STEPS["split-touching"](mask, (1, 1)).max() == 22 * 22


def test_steps_run_in_order():
    mask = random_mask(2)
    one = apply_steps(mask, ["largest-component", ("minimum-size", {"size": 10})], (0.5, 0.5))
    two = STEPS["minimum-size"](STEPS["largest-component"](mask, (0.5, 0.5)), (0.5, 0.5), size=10)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(apply_steps(mask, []), mask)


@pytest.mark.parametrize(
    ("steps", "error", "says"),
    [
        (["fill-hole"], UnknownName, "fill-holes"),
        ([("minimum-size", {"volume": 3})], PlanError, "no option 'volume'. It takes size"),
        (["minimum-size"], PlanError, "needs the option size"),
        ([("largest-component", {"n": 3})], PlanError, "It takes classes"),
        ([("minimum-size", {"size": -1})], PlanError, "size of 'minimum-size' is -1"),
        ([("smooth", {"radius": "big"})], PlanError, "radius"),
        ([("split-touching", {"neck": 1.5})], PlanError, "between 0 and 1"),
    ],
)
def test_bad_steps_are_named(steps, error, says):
    with pytest.raises(error, match=says):
        apply_steps(random_mask(2), steps)


def test_spacing_must_fit():
    with pytest.raises(GeometryError, match="2 axes"):
        apply_steps(random_mask(2), [], (1, 1, 1))
    with pytest.raises(GeometryError, match="image is 2 x 2"):
        measure(random_mask(2), image=np.zeros((1, 2, 2)))


# ---------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize("dims", [2, 3])
def test_measures_match_scikit_image(dims):
    from skimage.measure import label, regionprops

    spacing = (2.0, 0.5, 0.7)[-dims:]
    mask = random_mask(dims, seed=3)
    image = np.random.default_rng(0).integers(0, 1000, (1, *mask.shape)).astype(np.uint16)
    rows = measure(mask, spacing, "um", ["background", "a", "b"], image)
    axes = "zyx"[-dims:]
    for value, name in ((1, "a"), (2, "b")):
        objects = [r for r in rows if r["class"] == name and r["object"]]
        theirs = regionprops(label(mask == value, connectivity=dims), image[0], spacing=spacing)
        assert len(objects) == len(theirs)
        for mine, other in zip(objects, theirs, strict=True):
            assert mine["voxels"] == other.num_pixels
            assert mine["area" if dims == 2 else "volume"] == pytest.approx(other.area)
            assert [mine[f"centroid_{a}"] for a in axes] == pytest.approx(other.centroid)
            box = [mine[f"{end}_{a}"] for end in ("start", "stop") for a in axes]
            assert box == list(other.bbox)
            assert (mine["mean"], mine["min"], mine["max"]) == pytest.approx(
                (other.intensity_mean, other.intensity_min, other.intensity_max)
            )
            if other.num_pixels > 10:
                assert mine["axis_1"] == pytest.approx(other.axis_major_length, rel=1e-6)
        whole = next(r for r in rows if r["class"] == name and not r["object"])
        assert whole["voxels"] == sum(r["voxels"] for r in objects) == (mask == value).sum()
        assert whole["objects"] == len(objects)
        assert whole["unit"] == "um"
    assert [r["object"] for r in rows if r["object"]] == list(range(1, len(rows) - 1))


def test_axes_of_a_ball_are_physical():
    spacing = (2.0, 0.5, 0.5)
    (whole, only) = measure(disc((16, 60, 60), (15, 15, 15), 12, spacing), spacing, "mm")
    assert whole["volume"] == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)
    assert [only[f"axis_{i}"] for i in (1, 2, 3)] == pytest.approx([24] * 3, rel=0.04)
    assert [only[f"centroid_{a}"] for a in "zyx"] == pytest.approx([15] * 3, abs=1)


def test_empty_classes_keep_their_row():
    rows = measure(np.zeros((4, 4), np.uint8), classes=["background", "x"], image=np.zeros((2, 4, 4)))
    assert len(rows) == 1
    assert (rows[0]["class"], rows[0]["objects"], rows[0]["voxels"], rows[0]["area"]) == ("x", 0, 0, 0)
    assert rows[0]["centroid_y"] is None
    full = measure(np.ones((4, 4), np.uint8), classes=["background", "x"], image=np.zeros((2, 4, 4)))
    assert list(full[0]) == list(full[1]) == list(rows[0])
    assert {"mean_0", "max_1"} <= set(full[0])
    assert measure(np.zeros((4, 4), np.uint8)) == []


def test_instances_are_measured_by_their_numbers():
    mask = (disc((40, 80), (20, 20), 11) | disc((40, 80), (20, 39), 11)).astype(np.uint8)
    parts = STEPS["split-touching"](mask, (1, 1)) * 10
    rows = measure(mask, instances=parts)
    assert [(r["object"], r["objects"]) for r in rows] == [(0, 2), (10, 1), (20, 1)]
    assert rows[0]["voxels"] == rows[1]["voxels"] + rows[2]["voxels"]
