"""Hints: a class and how sure the teacher is, in one number that is cut and resampled like a label."""

import numpy as np
import pytest
import torch

from napari_unetseg.data import PatchSampler, Prepared
from napari_unetseg.data.augment import Draw, apply
from napari_unetseg.data.hints import encode_hints, read_hints


@pytest.mark.parametrize("classes", [2, 3, 200])
def test_a_class_and_its_probability_come_back(classes):
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.full(classes, 0.2), size=(5, 6)).astype(np.float32).transpose(2, 0, 1)
    hints = encode_hints(said)
    assert hints.dtype == np.uint16
    assert hints.min() > 0
    read, where = read_hints(torch.from_numpy(hints.astype(np.int64))[None], classes)
    assert where.all()
    np.testing.assert_array_equal(read[0].argmax(0), said.argmax(0))
    np.testing.assert_allclose(read[0].amax(0), said.max(0), atol=1 / 126 + 1e-6)
    np.testing.assert_allclose(read[0].sum(0), 1, atol=1e-5)


def test_nothing_said_is_no_hint():
    assert not read_hints(torch.zeros(1, 3, dtype=torch.int64), 2)[1].any()


@pytest.mark.parametrize("patch", [(16, 16), (64, 64)])  # inside the image, and reaching over its edge
def test_hints_are_cut_and_moved_with_the_image(patch):
    rng = np.random.default_rng(1)
    number = np.arange(40 * 40).reshape(40, 40)
    target = (number % 3).astype(np.uint8)
    known = rng.random((40, 40)) < 0.1
    image = Prepared("a", number[None].astype(np.float32), target, known, (number + 1).astype(np.uint16))
    bare = Prepared("b", image.image, target, known)
    sampler = PatchSampler([image, bare], patch, 3)
    batch = sampler.draw(8)
    said = batch.hints > 0
    torch.testing.assert_close(batch.hints[said], batch.image[:, 0].long()[said] + 1)
    assert 0 < int((batch.hints.flatten(1) > 0).any(1).sum()) < 8  # the other image has none
    if patch == (16, 16):  # inside the image all of a patch has hints, or none
        assert set(said.flatten(1).float().mean(1).tolist()) == {0.0, 1.0}
    flat = torch.zeros(8)
    turned = Draw(
        torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).repeat(8, 1, 1), None, torch.ones(8, 1), torch.zeros(8, 1), flat + 1,
        flat, flat, 0,
    )  # fmt: skip
    moved = apply(batch, turned)
    back = moved.hints > 0
    assert back.any()
    torch.testing.assert_close(moved.hints[back].float(), moved.image[:, 0][back] + 1, atol=0.02, rtol=0)


def test_without_a_teacher_batches_carry_none():
    image = Prepared("a", np.zeros((1, 8, 8), np.float32), np.eye(8, dtype=np.uint8), np.ones((8, 8), bool))
    assert PatchSampler([image], (8, 8), 2).draw(2).hints is None
