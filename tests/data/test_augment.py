"""Augmentation replays, never blurs a label, and what is unknown stays unknown."""

import pytest
import torch

from napari_unetseg.data.augment import Draw, Recipe, apply, augment, draw, roughen
from napari_unetseg.data.patches import Batch

SHAPES = [(4, 1, 32, 32), (3, 3, 24, 40), (2, 2, 10, 24, 20)]
STILL = Recipe(flip=0, quarter=False, moved=0, warped=0, toned=0, noised=0, blurred=0)


def make(shape, known=0.3, seed=0):
    torch.manual_seed(seed)
    space = (shape[0], *shape[2:])
    where = torch.rand(space) < known
    return Batch(torch.randn(shape), torch.randint(0, 3, space) * where, where)


def same(a, b):
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("image", "target", "known"))


@pytest.mark.parametrize("shape", SHAPES)
def test_same_seed_same_batch_and_the_input_is_untouched(shape):
    batch = make(shape)
    copy = Batch(batch.image.clone(), batch.target.clone(), batch.known.clone())
    drawn = draw(shape, 1.0, 7)
    assert same(apply(batch, drawn), augment(batch, 1.0, 7))
    assert same(batch, copy)
    assert not same(augment(batch, 1.0, 8), augment(batch, 1.0, 7))


@pytest.mark.parametrize("shape", SHAPES)
def test_strength_zero_and_an_empty_recipe_change_nothing(shape):
    batch = make(shape)
    assert augment(batch, 0, 1) is batch
    out = augment(batch, 1, 1, recipe=STILL)
    assert torch.allclose(out.image, batch.image, atol=1e-5)
    assert torch.equal(out.target, batch.target)
    assert torch.equal(out.known, batch.known)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [0.5, 1, 2])
def test_result_has_the_form_of_a_batch(shape, strength):
    batch = make(shape)
    for seed in range(8):
        out = augment(batch, strength, seed, 2.0)
        assert out.image.shape == batch.image.shape
        assert (out.image.dtype, out.target.dtype, out.known.dtype) == (torch.float32, torch.int64, torch.bool)
        assert torch.isfinite(out.image).all()
        assert set(out.target.unique().tolist()) <= {0, 1, 2}
        assert not out.target[~out.known].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_and_quarter_turns_are_exact(shape):
    batch = make(shape)
    recipe = Recipe(moved=0, warped=0, toned=0, noised=0, blurred=0)
    changed = 0
    for seed in range(6):
        out = augment(batch, 1, seed, recipe=recipe)
        assert out.known.sum() == batch.known.sum()
        assert torch.equal(out.target.flatten(1).sort().values, batch.target.flatten(1).sort().values)
        assert torch.allclose(out.image.flatten(1).sort().values, batch.image.flatten(1).sort().values, atol=1e-4)
        changed += not torch.equal(out.known, batch.known)
    assert changed >= 5


@pytest.mark.parametrize("shape", SHAPES)
def test_image_and_labels_move_together(shape):
    batch = make(shape)
    # a smooth blob whose label is where it is bright
    axes = torch.meshgrid(*(torch.linspace(-1, 1, s) for s in shape[2:]), indexing="ij")
    blob = torch.exp(-sum((a - 0.2 * i) ** 2 for i, a in enumerate(axes)) / 0.2)
    image = blob.expand(shape).contiguous()
    target = (blob > 0.5).long().expand(shape[0], *shape[2:]).contiguous()
    batch = Batch(image, target, torch.ones_like(target, dtype=torch.bool))
    for seed in range(10):
        out = augment(batch, 1, seed, recipe=Recipe(toned=0, noised=0, blurred=0, moved=1, warped=1))
        wrong = ((out.image[:, 0] > 0.5) != (out.target > 0)) & out.known
        assert wrong.float().mean() < 0.05


def test_what_comes_from_outside_is_unknown():
    batch = make((4, 1, 64, 64), known=2)
    out = augment(batch, 2, 3, recipe=Recipe(flip=0, quarter=False, moved=1, warped=0, toned=0))
    assert not out.known.all()
    assert out.known.float().mean() > 0.6


def test_the_last_known_voxel_is_never_lost():
    image, target = torch.randn(64, 1, 16, 16), torch.zeros(64, 16, 16, dtype=torch.long)
    known = torch.zeros(64, 16, 16, dtype=torch.bool)
    known[:, 0, 0], target[:, 0, 0] = True, 1
    out = augment(Batch(image, target, known), 2, 0)
    assert out.known.flatten(1).any(1).all()
    assert (out.target.flatten(1).max(1).values == 1).all()


def test_rows_that_are_unknown_throughout_stay_so():
    batch = make((2, 1, 16, 16), known=0)
    assert not augment(batch, 1, 0).known.any()


def test_anisotropic_planes_do_not_mix():
    batch = make((3, 1, 6, 20, 20))
    for z in range(6):
        batch.image[:, :, z] = z
    recipe = Recipe(flip=0, moved=1, warped=1, toned=0, noised=0, blurred=0)
    apart = augment(batch, 1, 5, 8.0, recipe).image
    assert torch.allclose(apart, batch.image, atol=1e-4)
    assert not torch.allclose(augment(batch, 1, 5, 1.0, recipe).image, batch.image, atol=0.1)


def test_rotation_is_by_the_angle_drawn():
    image = torch.zeros(1, 1, 65, 65)
    image[0, 0, 32, 52] = 1  # 20 voxels to the right of the centre
    still = draw((1, 1, 65, 65), 1, 0, recipe=STILL)
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])  # output (y, x) comes from input (-x, y)
    moved = apply(
        Batch(image, torch.zeros(1, 65, 65, dtype=torch.long), image[:, 0] > 0),
        Draw(turn, None, still.gain, still.offset, still.gamma, still.noise, still.blur, 0),
    )
    assert moved.known.nonzero().tolist() == [[0, 52, 32]]
    assert moved.image[0, 0, 52, 32].item() == pytest.approx(1, abs=1e-4)


def test_noise_blur_and_tone_do_what_they_say():
    batch = make((16, 2, 48, 48))
    noisy = augment(batch, 1, 0, recipe=Recipe(**{**vars(STILL), "noised": 1, "noise": 0.5})).image
    blurred = augment(batch, 1, 0, recipe=Recipe(**{**vars(STILL), "blurred": 1, "blur": 1.0})).image
    toned = augment(batch, 1, 0, recipe=Recipe(**{**vars(STILL), "toned": 1})).image
    assert noisy.std() > batch.image.std() * 1.01
    assert blurred.std() < batch.image.std() * 0.95
    assert torch.allclose(blurred.mean((2, 3)), batch.image.mean((2, 3)), atol=0.02)
    assert 0.1 < (toned.mean((2, 3)) - batch.image.mean((2, 3))).abs().max() < 1
    order = batch.image.flatten(2).argsort(dim=2)
    assert toned.flatten(2).gather(2, order).diff(dim=2).min() > -1e-5


def test_a_patch_of_one_value_is_given_a_little_noise_and_no_other():
    """Black beside a section: layers that normalise each patch by itself would divide by nothing."""
    image = torch.rand(3, 2, 16, 16)
    image[1] = 0.5
    image[2, 0] = 0.5  # one channel of two
    rough = roughen(image)
    assert torch.equal(rough[[0, 2]], image[[0, 2]])
    assert 0.005 < rough[1].std() < 0.02
    assert roughen(rough) is rough
