"""Windows are drawn where the strokes are, every class and every case is seen."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_unetseg.data.patches import PatchSampler, Prepared, prepare
from napari_unetseg.errors import AnnotationError, PlanError
from napari_unetseg.plan import Normalisation
from napari_unetseg.volume import Volume


def strokes(name, shape, seed=0, n_classes=3, voxels=5, channels=1):
    """Image whose value is its own flat index, with a few known voxels of each class."""
    rng = np.random.default_rng(seed)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape).repeat(channels, 0)
    target, known = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    places = rng.choice(target.size, n_classes * voxels, replace=False)
    target.flat[places] = np.repeat(np.arange(n_classes), voxels)
    known.flat[places] = True
    return Prepared(name, image, target, known)


@pytest.mark.parametrize(
    ("shape", "patch"), [((60, 70), (32, 16)), ((9, 60, 70), (32, 32)), ((9, 40, 50), (4, 16, 16)), ((5, 9), (16, 16))]
)
def test_window_is_a_true_piece_around_a_known_voxel(shape, patch):
    case = strokes("a", shape, channels=2)
    batch = PatchSampler([case], patch, 3, seed=1).draw(24)
    assert batch.image.shape == (24, 2, *patch)
    assert batch.target.shape == batch.known.shape == (24, *patch)
    assert (batch.image.dtype, batch.target.dtype, batch.known.dtype) == (torch.float32, torch.int64, torch.bool)
    assert batch.image.is_contiguous()
    assert batch.known.flatten(1).any(1).all()
    # the value tells where each voxel came from
    at = batch.image[:, 0].long().numpy()
    known = batch.known.numpy()
    assert np.array_equal(case.known.flat[at] & known, known)
    assert np.array_equal(case.target.flat[at][known], batch.target.numpy()[known])
    assert not batch.target.numpy()[~known].any()


def test_border_is_mirrored_and_unknown():
    case = Prepared(
        "a", np.arange(25, dtype=np.float32).reshape(1, 5, 5), np.ones((5, 5), np.uint8), np.ones((5, 5), bool)
    )
    batch = PatchSampler([case], (12, 4), 2, seed=0).draw(8)
    assert (batch.known.sum((1, 2)) == 5 * 4).all()
    assert set(batch.image.unique().tolist()) <= set(range(25))


def test_one_voxel_image():
    case = Prepared("a", np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.uint8), np.ones((1, 1), bool))
    batch = PatchSampler([case], (8, 8), 2).draw(2)
    assert batch.known.sum((1, 2)).tolist() == [1, 1]


def test_large_images_are_never_padded():
    case = Prepared("a", np.zeros((1, 64, 64), np.float32), np.zeros((64, 64), np.uint8), np.ones((64, 64), bool))
    assert PatchSampler([case], (32, 32), 2).draw(50).known.all()


def test_same_seed_same_batches_and_state_goes_on():
    cases = [strokes("a", (50, 50)), strokes("b", (50, 50), seed=1)]
    one, two = (PatchSampler(cases, (16, 16), 3, seed=5) for _ in range(2))
    for _ in range(3):
        assert torch.equal(one.draw(4).image, two.draw(4).image)
    three = PatchSampler(cases, (16, 16), 3, seed=99)
    three.state = json.loads(json.dumps(one.state))
    a, b = one.draw(9), three.draw(9)
    assert torch.equal(a.image, b.image)
    assert not torch.equal(
        PatchSampler(cases, (16, 16), 3, seed=6).draw(9).image, PatchSampler(cases, (16, 16), 3, seed=5).draw(9).image
    )


def test_every_class_within_each_round_though_one_is_rare():
    target = np.zeros((200, 200), np.uint8)
    target[3, 4], target[100:, :50] = 2, 1
    case = Prepared("a", np.zeros((1, 200, 200), np.float32), target, np.ones((200, 200), bool))
    sampler = PatchSampler([case], (9, 9), 3, seed=0, jitter=0)
    for _ in range(5):
        centres = [int(t[4, 4]) for t in sampler.draw(3).target]
        assert 2 in {int(t) for t in sampler.draw(3).target.flatten()}
        assert len(set(centres)) >= 2
    rare = PatchSampler([case], (9, 9), 3, seed=0, jitter=0, balance=0)
    seen = Counter((t == 2).any().item() for t in rare.draw(200).target)
    assert seen[True] <= 3


def test_every_case_is_drawn_from():
    cases = [strokes(str(i), (40, 40), seed=i) for i in range(7)]
    for i, case in enumerate(cases):
        case.image[:] = i
    batch = PatchSampler(cases, (8, 8), 3, seed=0).draw(21)
    assert set(batch.image.unique().tolist()) == set(range(7))


def test_class_in_one_case_only_is_seen():
    cases = [strokes(str(i), (40, 40), seed=i, n_classes=2) for i in range(4)] + [strokes("x", (40, 40), n_classes=3)]
    batch = PatchSampler(cases, (8, 8), 3, seed=0).draw(6)
    assert {0, 1, 2} <= set(batch.target[batch.known].tolist())


def test_dense_labels_keep_a_small_index():
    target = np.zeros((40, 400, 400), np.uint8)
    target[20:] = 1
    case = Prepared("a", np.zeros((1, *target.shape), np.float32), target, np.ones(target.shape, bool))
    sampler = PatchSampler([case], (16, 16), 2)
    kept = [len(voxels) for voxels in sampler._index[0]]
    assert all(190_000 < n < 210_000 for n in kept)
    assert {int(i) // 160_000 for i in sampler._index[0][1]} == set(range(20, 40))


class Counted(np.ndarray):
    """Counts the voxels that are asked of it; those of parts of it are not counted again."""

    looks = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        Counted.looks += part.size
        return np.asarray(part)


@pytest.mark.parametrize(
    ("patch", "shapes"), [((32, 32), ((64, 64), (900, 700))), ((8, 16, 16), ((9, 20, 20), (40, 300, 90)))]
)
def test_a_draw_costs_the_patch_not_the_image(patch, shapes):
    for shape in shapes:
        case = strokes("a", shape)
        counted = (array.view(Counted) for array in (case.image, case.target, case.known))
        sampler = PatchSampler([Prepared("a", *counted)], patch, 3)
        Counted.looks = 0
        sampler.draw(50)
        assert Counted.looks == 50 * 3 * np.prod(patch)  # of image, target and known


def test_refusals():
    blank = Prepared("a", np.zeros((1, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool))
    with pytest.raises(AnnotationError, match="Nothing is annotated"):
        PatchSampler([blank], (4, 4), 2)
    with pytest.raises(AnnotationError, match="Nothing is annotated"):
        PatchSampler([], (4, 4), 2)
    with pytest.raises(PlanError, match="2D images"):
        PatchSampler([strokes("a", (9, 9))], (4, 4, 4), 3)


def test_prepare_normalises_and_shrinks():
    image = np.random.default_rng(0).integers(0, 60_000, (1, 20, 20)).astype(np.uint16)
    sample = SimpleNamespace(
        name="a", image=Volume(image), target=np.ones((20, 20), np.int64), known=np.ones((20, 20), bool)
    )
    ready = prepare(sample, Normalisation())
    assert (ready.image.dtype, ready.target.dtype, ready.known.dtype) == (np.float32, np.uint8, bool)
    assert abs(ready.image.mean()) < 1e-3
