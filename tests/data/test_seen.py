"""What a model was trained on, in a few numbers: alike passes, unlike is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import blobs

from napari_unetseg.data.normalise import normalise
from napari_unetseg.data.seen import describe_seen, unlike
from napari_unetseg.plan import Normalisation
from napari_unetseg.volume import Geometry, Volume

MICRO = Geometry((0.5, 0.5), "um")


def volume(seed, change=lambda x: x, geometry=MICRO, shape=(64, 64)):
    return Volume(change(1000 * blobs(shape, seed)[0] + 2000)[None], geometry)


@pytest.fixture(scope="module", params=["zscore", "percentile", "ct"])
def learned(request):
    how = Normalisation(kind=request.param, low=1000, high=4000)
    images = [volume(seed) for seed in range(3)]
    seen = describe_seen((normalise(v.data, how), v.geometry) for v in images)
    return json.loads(json.dumps(seen)), how


def test_images_of_the_same_kind_are_alike(learned):
    seen, how = learned
    assert [unlike(seen, volume(seed), how) for seed in range(3, 9)] == [""] * 6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: np.random.default_rng(0).permuted(x), "texture"),
        (lambda x: 1000 + np.exp((x - 1000) / 250), "intensities"),
    ],
)
def test_what_is_unlike_is_named(learned, change, reason):
    seen, how = learned
    assert reason in unlike(seen, volume(5, change), how)


def test_only_absolute_intensities_mind_another_gain(learned):
    seen, how = learned
    found = unlike(seen, volume(5, lambda x: 0.2 * x), how)
    assert bool(found) is (how.kind == "ct")


def test_voxel_size_counts_where_its_unit_is_known(learned):
    seen, how = learned
    for spacing, unit, expected in ((0.6, "um", ""), (600, "nm", ""), (5.0, "um", "voxel size"), (5.0, "pixel", "")):
        found = unlike(seen, volume(5, geometry=Geometry((spacing,) * 2, unit)), how)
        assert expected in found, (spacing, unit, found)
        assert bool(found) is bool(expected)


def test_other_channels_and_nothing_known(learned):
    seen, how = learned
    two = Volume(np.concatenate([volume(1).data, volume(2).data]), MICRO)
    assert unlike(seen, two, how) == "other channels"
    assert unlike({}, two, how) == ""
    assert describe_seen([]) == {}


def test_volumes():
    how = Normalisation(kind="zscore")
    image = volume(0, shape=(4, 20, 20), geometry=Geometry((2.0, 1.0, 1.0), "mm"))
    seen = describe_seen([(normalise(image.data, how), image.geometry)])
    assert unlike(seen, image, how) == ""
