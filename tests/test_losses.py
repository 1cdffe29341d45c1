import itertools
import math

import pytest
import torch

from napari_unetseg.errors import UnknownName
from napari_unetseg.losses import LOSSES, class_logits, probabilities

P = torch.tensor([0.9, 0.8, 0.3, 0.1])
Y = torch.tensor([1, 1, 1, 0])
KNOWN = torch.ones(1, 2, 2, dtype=torch.bool)


def one(p, y):
    """One or more images of four pixels as (B, 1, 2, 2) logits and (B, 2, 2) targets."""
    return torch.logit(p).reshape(-1, 1, 2, 2), y.reshape(-1, 2, 2)


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("bce", {}, 0.409459),
        ("bce", {"reduction": "sum"}, 1.637837),
        ("ce", {}, 0.409459),
        ("dice", {"smooth": 0}, 0.215686),
        ("dice", {"smooth": 1}, 0.180328),
        ("dice-squared", {"smooth": 0}, 0.120879),
        ("focal-tversky", {"smooth": 0}, 0.371852),
        ("focal-tversky", {"smooth": 1}, 0.294246),
        ("batch-dice", {"smooth": 0}, -0.784314),
        ("batch-dice", {"smooth": 1}, -0.819672),
    ],
)
def test_published_values(name, options, value):
    logits, target = one(P, Y)
    assert LOSSES[name](logits, target, KNOWN, **options).item() == pytest.approx(value, abs=1e-5)


def test_batch_dice_is_not_the_mean_of_images():
    # the second image has a probability of exactly 0, which no finite logit gives
    p2 = torch.tensor([0.2, 0.1, 0.6, 0.0]).clamp_min(1e-9)
    logits, target = one(torch.stack([P, p2]), torch.stack([Y, torch.tensor([0, 0, 1, 0])]))
    known = torch.ones(2, 2, 2, dtype=torch.bool)
    assert LOSSES["batch-dice"](logits, target, known, smooth=0).item() == pytest.approx(-0.742857, abs=1e-5)
    assert LOSSES["dice"](logits, target, known, smooth=0).item() == pytest.approx(1 - 0.707946, abs=1e-5)


def test_categorical_cross_entropy():
    logits = torch.tensor([2.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
    nothing = torch.zeros(1, 1, 1, dtype=torch.long)
    assert LOSSES["ce"](logits, nothing, torch.ones(1, 1, 1, dtype=torch.bool)).item() == pytest.approx(
        0.169846, abs=1e-5
    )


def test_class_weights_match_torch():
    logits, target, known = problem(3, 2, share=1.0)
    weights = [0.2, 1.0, 3.0]
    ours = LOSSES["ce"](logits, target, known, weights=weights)
    theirs = torch.nn.functional.cross_entropy(logits, target, weight=torch.tensor(weights))
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    with pytest.raises(ValueError, match="2 class weights for 3"):
        LOSSES["ce"](logits, target, known, weights=[1, 2])


@pytest.mark.parametrize("name", ["dice", "dice-squared", "batch-dice"])
def test_dice_of_several_classes_matches_monai(name):
    from monai.losses import DiceLoss

    logits, target, known = problem(3, 2, share=1.0)
    wanted = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    theirs = DiceLoss(
        softmax=True, smooth_nr=1, smooth_dr=1, batch=name == "batch-dice", squared_pred=name == "dice-squared"
    )(logits, wanted)
    ours = LOSSES[name](logits, target, known) + (name == "batch-dice")
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


def problem(outputs, dims, share=0.3, batch=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (batch, *(6, 7, 5)[:dims])
    logits = torch.randn(batch, outputs, *shape[1:], generator=g) * 2
    target = torch.randint(0, max(outputs, 2), shape, generator=g)
    known = torch.rand(shape, generator=g) < share
    for value in range(max(outputs, 2)):  # every class known at least once in every image
        target[:, value, 0], known[:, value, 0] = value, True
    return logits, target, known


cases = pytest.mark.parametrize(("name", "outputs", "dims"), list(itertools.product(LOSSES, (1, 2, 4), (2, 3))))


def value_and_gradient(name, logits, target, known, **options):
    logits = logits.clone().requires_grad_()
    loss = LOSSES[name](logits, target, known, **options)
    loss.backward()
    return loss.detach(), logits.grad


@cases
def test_blind_outside_known(name, outputs, dims):
    logits, target, known = problem(outputs, dims)
    value, grad = value_and_gradient(name, logits, target, known)
    assert value.dtype == torch.float32
    assert value.ndim == 0
    where = known[:, None].expand_as(logits)
    assert (grad[~where] == 0).all()
    assert (grad[where] != 0).any()
    other, outside = torch.where(where, logits, torch.nan), torch.where(known, target, 255)
    again, same = value_and_gradient(name, other, outside, known)
    assert again == value
    assert torch.equal(same, grad)


@cases
def test_lowest_at_perfection(name, outputs, dims):
    _, target, known = problem(outputs, dims)
    lowest = LOSSES.facts(name)["lowest"]
    classes = torch.arange(outputs).reshape(1, -1, *(1,) * dims) + (outputs == 1)
    perfect = (2.0 * (target[:, None] == classes) - 1) * 30
    value, grad = value_and_gradient(name, perfect, target, known)
    assert value.item() == pytest.approx(lowest, abs=2e-5)
    assert value.item() >= lowest
    assert grad.isfinite().all()
    worst, _ = value_and_gradient(name, -perfect, target, known)
    assert worst > value + 0.3


@cases
def test_one_step_down_the_gradient_helps(name, outputs, dims):
    logits, target, known = problem(outputs, dims)
    value, grad = value_and_gradient(name, logits, target, known)
    assert LOSSES[name](logits - 0.1 * grad / grad.norm(), target, known) < value


@cases
def test_nothing_known_costs_nothing(name, outputs, dims):
    logits, target, known = problem(outputs, dims)
    value, grad = value_and_gradient(name, logits, target, torch.zeros_like(known))
    assert value == 0
    assert (grad == 0).all()


@cases
def test_absent_classes_and_extreme_logits_are_finite(name, outputs, dims):
    logits, target, known = problem(outputs, dims)
    for labels, scale, options in [
        (target * 0, 1, {}),
        (target, 3e4, {}),
        (target * 0, 3e4, {}),
        (target * 0, 1, {"smooth": 0}),
    ]:
        if "smooth" in options and name in ("bce", "ce"):
            continue
        value, grad = value_and_gradient(name, logits * scale, labels, known, **options)
        assert value.isfinite()
        assert grad.isfinite().all()


@cases
def test_wrong_classes_are_pushed_down_when_only_background_is_known(name, outputs, dims):
    logits, target, known = problem(outputs, dims)
    wrong = torch.zeros_like(logits)
    wrong[:, -1] = 2
    value, _ = value_and_gradient(name, wrong, target * 0, known)
    better, _ = value_and_gradient(name, -wrong, target * 0, known)
    assert better < value


@cases
def test_padding_with_unknown_voxels_or_images_changes_nothing(name, outputs, dims):
    logits, target, known = problem(outputs, dims)
    value = LOSSES[name](logits, target, known)
    sides = (1, 3) * dims
    padded = [torch.nn.functional.pad(a, sides, value=v) for a, v in ((logits, 9.0), (target, 1), (known, False))]
    assert LOSSES[name](*padded).item() == pytest.approx(value.item(), abs=1e-6)
    extra = [torch.cat([a, torch.full_like(a[:1], v)]) for a, v in ((logits, 9.0), (target, 1), (known, False))]
    assert LOSSES[name](*extra).item() == pytest.approx(value.item(), abs=1e-6)


@cases
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_summed_in_float32(name, outputs, dims, dtype):
    logits, target, known = problem(outputs, dims)
    rounded = logits.to(dtype)
    exact, _ = value_and_gradient(name, rounded.float(), target, known)
    with torch.autocast("cpu", dtype=dtype):
        value, grad = value_and_gradient(name, rounded, target, known)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    assert grad.isfinite().all()
    assert value.item() == pytest.approx(exact.item(), abs=1e-6)


@pytest.mark.parametrize("name", ["ce", "ce+dice"])
def test_one_output_is_two_with_a_zero(name):
    logits, target, known = problem(1, 2)
    assert torch.equal(LOSSES[name](logits, target, known), LOSSES[name](class_logits(logits), target, known))


@pytest.mark.parametrize("name", ["dice", "dice-squared", "batch-dice"])
def test_classes_that_no_known_voxel_has_are_skipped(name):
    logits, target, known = problem(3, 2)
    target = target % 2
    # outputs 0 and 1 weigh the same, output 2 has no voxel and no weight
    weighed = LOSSES[name](logits, target, known, weights=[1, 1, 0])
    assert LOSSES[name](logits, target, known).item() == pytest.approx(weighed.item(), abs=1e-6)


def test_tversky_of_two_outputs_is_that_of_the_one_class():
    logits, target, known = problem(1, 2)
    one, two = (LOSSES["focal-tversky"](z, target, known).item() for z in (logits, class_logits(logits)))
    assert two == pytest.approx(one, abs=1e-6)


def test_perfect_strokes_on_one_percent_of_an_image_are_perfect():
    # masking the logits instead of the probabilities gives 0.98 here
    known = torch.zeros(1, 100, 100, dtype=torch.bool)
    known[0, 50] = True
    target = torch.zeros(1, 100, 100, dtype=torch.long)
    target[0, 50, :40] = 1
    logits = torch.where(target[:, None] == 1, 20.0, -20.0)
    assert LOSSES["dice"](logits, target, known) < 1e-6


def test_wrong_shapes_are_refused():
    logits, target, known = problem(1, 2)
    with pytest.raises(ValueError, match="want target"):
        LOSSES["ce"](logits, target[:, None], known)
    with pytest.raises(ValueError, match="reduction"):
        LOSSES["ce"](logits, target, known, reduction="max")
    with pytest.raises(UnknownName, match="dice"):
        LOSSES["dise"]


def test_probabilities_sum_to_one():
    logits, _, _ = problem(1, 3)
    p = probabilities(logits.half())
    assert p.shape[1] == 2
    assert p.dtype == torch.float32
    assert torch.allclose(p[:, 1], logits.half().float()[:, 0].sigmoid(), atol=1e-6)
    assert torch.allclose(p.sum(1), torch.ones(()), atol=1e-6)
    assert math.isclose(probabilities(torch.zeros(1, 4, 2, 2))[0, 0, 0, 0].item(), 0.25)
