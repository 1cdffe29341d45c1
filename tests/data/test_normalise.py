"""Any real image becomes finite numbers near zero."""

from types import SimpleNamespace

import numpy as np
import pytest

import napari_unetseg.data.normalise as normalise_module
from napari_unetseg.data.normalise import fit_normalisation, measure, measure_slabs, normalise
from napari_unetseg.errors import ReadError
from napari_unetseg.plan import Normalisation
from napari_unetseg.volume import Volume

ZSCORE = Normalisation(kind="zscore")


def sample(image, target=None, known=None):
    image = np.asarray(image)
    target = np.zeros(image.shape[1:], np.uint8) if target is None else target
    known = np.ones(image.shape[1:], bool) if known is None else known
    return SimpleNamespace(name="a", image=Volume(image), target=target, known=known)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "float16", "float32", "bool"])
@pytest.mark.parametrize("kind", ["zscore", "percentile", "rgb", "colour", "ct", "none"])
def test_every_dtype_and_kind_is_finite(dtype, kind):
    image = (np.random.default_rng(0).random((3, 12, 13)) * 100).astype(dtype)
    out = normalise(image, Normalisation(kind=kind, low=0, high=50))
    assert out.dtype == np.float32
    assert out.shape == image.shape
    assert np.isfinite(out).all()


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1.7e6])
def test_zscore_does_not_care_about_the_scale(factor):
    image = np.random.default_rng(0).normal(size=(2, 40, 50))
    out = normalise(image * factor + 3 * factor, ZSCORE)
    assert np.abs(out.mean(axis=(1, 2))).max() < 1e-3
    assert np.abs(out.std(axis=(1, 2)) - 1).max() < 1e-3
    assert np.allclose(out, normalise(image, ZSCORE), atol=1e-4)


def test_one_hot_voxel_does_not_flatten_the_rest():
    image = np.random.default_rng(0).normal(size=(1, 100, 100))
    image[0, 5, 5] = 1e9
    assert normalise(image, ZSCORE).std() > 0.9


def test_nan_is_the_minimum_and_infinity_the_maximum():
    image = np.linspace(0, 1, 10_000).reshape(1, 100, 100).astype(np.float32)
    image[0, 50, :3] = np.nan, np.inf, -np.inf
    out = normalise(image, ZSCORE)
    assert out[0, 50, 0] == out[0, 50, 2] == out.min()
    assert out[0, 50, 1] == out.max()


def test_sparse_numbers_among_nan_are_found():
    image = np.full((1, 2000, 2000), np.nan, np.float32)
    image[0, 7, 7:9] = 3, 4
    assert np.isfinite(normalise(image, ZSCORE)).all()


def test_all_nan_is_refused_and_constants_are_zero():
    with pytest.raises(ReadError, match="NaN"):
        normalise(np.full((1, 4, 4), np.nan), ZSCORE)
    with pytest.raises(ReadError, match="a: The image"):
        fit_normalisation([sample(np.full((1, 4, 4), np.nan))])
    for value in (0, 7, 0.1, 1.7e6):
        assert not normalise(np.full((1, 5, 5), value), ZSCORE).any()
        assert not normalise(np.full((1, 5, 5), value), Normalisation(kind="percentile")).any()


def test_a_tile_gets_the_numbers_of_the_whole():
    image = np.random.default_rng(0).integers(0, 4000, (1, 4, 60, 70)).astype(np.uint16)
    whole = normalise(image, ZSCORE)
    assert np.array_equal(measure(image, ZSCORE).apply(image[:, 1:3, 10:40, 5:25]), whole[:, 1:3, 10:40, 5:25])


def test_rgb_is_divided_by_the_top_of_its_dtype():
    assert normalise(np.full((3, 2, 2), 255, np.uint8), Normalisation(kind="rgb")).max() == 1
    assert normalise(np.full((3, 2, 2), 65535, np.uint16), Normalisation(kind="rgb")).max() == 1


def test_kind_is_chosen_by_looking():
    rng = np.random.default_rng(0)
    assert fit_normalisation([sample(rng.integers(0, 255, (3, 9, 9)).astype(np.uint8))]).kind == "colour"
    assert fit_normalisation([sample(rng.integers(0, 255, (1, 9, 9)).astype(np.uint8))]).kind == "zscore"
    assert fit_normalisation([sample(rng.normal(0, 2000, (1, 9, 9)))]).kind == "zscore"
    hounsfield = rng.integers(-1024, 1500, (1, 5, 40, 40)).astype(np.int16)
    assert fit_normalisation([sample(hounsfield)]).kind == "ct"
    assert fit_normalisation([sample(hounsfield)], "percentile").kind == "percentile"


def test_grey_images_saved_as_colours_are_stretched_and_coloured_ones_are_not():
    colour = Normalisation(kind="colour")
    grey = np.repeat(np.random.default_rng(0).integers(3, 40, (1, 50, 50)), 3, axis=0).astype(np.uint8)
    np.testing.assert_array_equal(normalise(grey, colour), normalise(grey, Normalisation(kind="percentile")))
    labelled = grey.copy()
    labelled[0, 0, :2] = 255  # a red dot
    np.testing.assert_array_equal(normalise(labelled, colour), normalise(labelled, Normalisation(kind="percentile")))
    stained = grey * np.array([1, 2, 3], np.uint8)[:, None, None]
    np.testing.assert_array_equal(normalise(stained, colour), normalise(stained, Normalisation(kind="rgb")))


def test_of_a_colour_image_no_more_is_read_than_shows_its_colour():
    image, taken = np.zeros((3, 40, 50), np.uint8), []
    image[0] = 200

    def slabs():
        for start in range(0, 40, 10):
            taken.append(start)
            yield image[:, start : start + 10]

    assert measure_slabs(slabs, image.shape, image.dtype, Normalisation(kind="colour")).scale == (1 / 255,) * 3
    assert taken == [0]


def scene(share, brightness, offset, rng):
    """Bright things that fill a share of an image, with strokes of both classes."""
    target = np.zeros((80, 80), np.uint8)
    target[: round(80 * share)] = 1
    image = offset + brightness * (0.2 + target + rng.normal(0, 0.05, target.shape))
    return sample(image[None].astype(np.float32), target)


@pytest.mark.parametrize("looked_at", [1_000_000, 900])  # all that is known, or every seventh of it
def test_images_with_few_and_many_things_are_stretched_rather_than_centred(looked_at, monkeypatch):
    monkeypatch.setattr(normalise_module, "_LOOKED_AT", looked_at)
    rng = np.random.default_rng(0)
    fluorescence = [scene(share, brightness, 0, rng) for share, brightness in ((0.05, 900), (0.6, 90), (0.3, 4000))]
    assert fit_normalisation(fluorescence).kind == "percentile"
    assert fit_normalisation(fluorescence[:1]).kind == "zscore"  # one image says nothing of others
    alike = [scene(0.3, brightness, offset, rng) for brightness, offset in ((900, 50), (90, 7), (4000, 100))]
    assert fit_normalisation(alike).kind == "zscore"


def test_ct_window_is_that_of_the_known_classes():
    image = np.full((1, 20, 20), -1000, np.int16)
    image[0, :10] = np.random.default_rng(0).integers(40, 160, (10, 20))
    target = (image[0] > 0).astype(np.uint8)
    target[0] = 0
    known = np.ones((20, 20), bool)
    window = fit_normalisation([sample(image, target, known)])
    assert (window.kind, 35 < window.low < 45, 155 < window.high < 165) == ("ct", True, True)
    out = normalise(image, window)
    assert (out.min(), out[0, 0].max() <= 2) == (-2, True)


def test_rounding_errors_are_no_contrast():
    image = np.full((1, 9, 9), 1e6) + np.random.default_rng(0).random((1, 9, 9)) * 1e-9
    assert not normalise(image, ZSCORE).any()


@pytest.mark.parametrize("kind", ["zscore", "percentile", "rgb", "colour", "none", "ct"])
@pytest.mark.parametrize("case", ["uint8", "uint16", "float64", "some NaN", "mostly NaN", "bool"])
def test_slab_by_slab_measures_what_the_whole_image_does(kind, case, monkeypatch):
    monkeypatch.setattr(normalise_module, "_LOOKED_AT", 5000)
    monkeypatch.setattr(normalise_module, "_FEWEST", 500)
    rng = np.random.default_rng(0)
    image = rng.gamma(2, 50, (2, 23, 37, 41))
    image = image.astype({"uint8": np.uint8, "uint16": np.uint16, "bool": bool}.get(case, np.float64))
    if "NaN" in case:
        image[rng.random(image.shape) < (0.1 if case == "some NaN" else 0.97)] = np.nan
    slabs = lambda: (image[:, start : start + 4] for start in range(0, 23, 4))  # noqa: E731
    how = Normalisation(kind=kind, low=-10, high=200)
    assert measure_slabs(slabs, image.shape, image.dtype, how) == measure(image, how)


def test_slabs_without_a_number_are_refused():
    image = np.full((1, 4, 5), np.nan)
    with pytest.raises(ReadError, match="no number"):
        measure_slabs(lambda: [image], image.shape, image.dtype, Normalisation(kind="zscore"))
