"""A plan decides what is left open, says why, keeps what was given, and tells its cost before it begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import blobs, folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.data import Sample, load_dataset, split
from napari_unetseg.data.annotator import scribble
from napari_unetseg.planning import complete_plan, decide, plan_for
from napari_unetseg.planning.cost import net_cost, step_memory
from napari_unetseg.planning.mirrored import mirrored_pair
from napari_unetseg.planning.objects import object_size
from napari_unetseg.volume import Geometry, Volume

CPU = torch.device("cpu")


def disc(shape, centre, radius):
    grid = np.meshgrid(*(np.arange(s) for s in shape), indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def sample(image, target, known=None, spacing=None):
    geometry = Geometry(spacing or (1.0,) * target.ndim, "mm" if spacing else "px")
    known = np.ones(target.shape, bool) if known is None else known
    return Sample("a", Volume(image[None].astype(np.float32), geometry), target, known)


def discs(radius, shape=(256, 256), seed=0):
    rng, target = np.random.default_rng(seed), np.zeros(shape, np.uint8)
    for y in range(radius + 4, shape[0] - radius, 2 * radius + 8):
        for x in range(radius + 4, shape[1] - radius, 2 * radius + 8):
            target[disc(shape, (y, x), radius)] = 1
    return (target + rng.normal(0, 0.2, shape)), target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of_blobs(tmp_path_factory.mktemp("blobs"), number=4)


def completed(folder, plan, free=None):
    dataset = load_dataset(folder, plan.data)
    samples = [part.load() for part in split(dataset, plan.data).train]
    return complete_plan(plan, dataset, samples, CPU, free)


@pytest.mark.parametrize("radius", [6, 14, 40])
def test_object_size_from_masks_and_from_strokes(radius):
    image, target = discs(radius)
    dense = object_size([sample(image, target)])
    assert dense.seen_in == "masks"
    assert dense.width == pytest.approx(2 * radius, rel=0.2)
    strokes = scribble(target, 2, np.random.default_rng(0), fraction=0.02)
    sparse = object_size([sample(image, np.where(strokes > 0, target, 0), strokes > 0)])
    assert sparse.seen_in == "strokes"
    assert sparse.width == pytest.approx(2 * radius, rel=0.35)


def test_no_size_is_told_where_intensities_do_not_tell():
    rng = np.random.default_rng(0)
    known = rng.random((64, 64)) < 0.05
    target = (rng.random((64, 64)) < 0.5) & known
    assert object_size([sample(rng.normal(size=(64, 64)), target.astype(np.uint8), known)]) is None


def test_large_objects_get_larger_patches(tmp_path):
    sides = []
    for radius in (8, 60):
        project = nus.Project.create(tmp_path / f"{radius}.unetseg", classes=["background", "cell"])
        image, target = discs(radius, (400, 400))
        case = project.add_array("one", Volume(image[None].astype(np.float32)))
        project.annotate(case, scribble(target, 2, np.random.default_rng(0), fraction=0.03))
        plan, notes = completed(project, nus.Plan())
        sides.append(plan.patch[0])
        assert any("pixels wide, as strokes show" in note for note in notes)
        project.close()
    assert sides == [128, 256]


def test_thick_slices_give_flat_patches():
    image, target = blobs((24, 64, 64))
    dataset = type("D", (), {"ndim": 3, "in_channels": 1, "classes": ("b", "c"), "labels": "mask"})()
    for ratio, flat in ((1.0, 32), (2.0, 32), (5.0, 16)):
        given = nus.Plan(net={"dims": 3})
        plan, _ = complete_plan(given, dataset, [sample(image, target, None, (ratio, 1.0, 1.0))], CPU)
        assert plan.patch[0] <= flat
    assert plan.patch == (16, 48, 48)


@pytest.mark.parametrize(
    ("net", "ratio", "device", "dims", "why"),
    [
        ("unet", 1.0, "cpu", 2, "plane by plane, which a processor learns far sooner"),
        ("unet", 1.0, "cuda", 3, "as volumes"),
        ("unet", 9.0, "cuda", 2, "plane by plane."),
        ("unet3d", 1.0, "cpu", 3, "as volumes"),
    ],
)
def test_volumes_are_learned_as_planes_where_that_is_sooner(net, ratio, device, dims, why):
    image, target = blobs((24, 64, 64))
    dataset = type("D", (), {"ndim": 3, "in_channels": 1, "classes": ("b", "c"), "labels": "mask"})()
    samples, notes = [sample(image, target, None, (ratio, 1.0, 1.0))], []
    assert decide._net(nus.Plan(net=net), dataset, samples, torch.device(device), notes).net.dims == dims
    assert any(why in note for note in notes)


def test_what_was_given_stays(folder):
    given = nus.Plan(
        net={"width": 0.3, "depth": 4, "norm": "group"},
        training={
            "patch": (32, 48),
            "batch_size": 3,
            "augment": 0.2,
            "epochs": 2,
            "precision": "float32",
            "learning_rate": 0.01,
            "teacher": 0.5,
        },
        data={"normalisation": {"kind": "percentile"}},
    )
    plan, notes = completed(folder, given, free=2**20)  # far too little memory
    assert (plan.net.width, plan.net.depth, plan.net.norm) == (0.3, 4, "group")
    assert (plan.training.patch, plan.training.batch_size, plan.training.augment) == ((32, 48), 3, 0.2)
    assert plan.normalisation.kind == "percentile"
    assert not notes


def test_every_decision_has_a_sentence(folder):
    plan, notes = completed(folder, nus.Plan())
    told = " ".join(notes)
    words = ("width", "normalisation", "Patches of 64 x 64", "patches a step", "Learning rate 0.003", "is labelled")
    for word in (*words, "Augmentation", "5 minutes", "Intensities"):
        assert word in told, word
    assert all(note.endswith(".") for note in notes)
    assert plan.net.depth is None
    plan, notes = completed(folder, nus.Plan(training={"patch": (32, 32)}))
    assert plan.net.depth == 4
    assert "4 levels in place of 5: the next would see a patch in less than 4 voxels." in notes


def test_little_memory_means_less_of_everything_in_order(folder):
    plan = nus.Plan(net={"depth": 3})
    usual, _ = completed(folder, plan)
    needs = step_memory(usual.net, usual.patch, usual.training.batch_size)
    some, notes = completed(folder, plan, free=int(0.7 * needs))
    assert some.training.batch_size < usual.training.batch_size
    assert (some.patch, some.net.width) == (usual.patch, usual.net.width)
    assert any("memory" in note for note in notes)
    least, _ = completed(folder, plan, free=2**20)
    assert least.training.batch_size == 1
    assert least.net.width < usual.net.width


def test_memory_counted_grows_as_nets_do():
    small, large = (net_cost(nus.plan.NetSpec(width=width), (64, 64)) for width in (0.25, 0.5))
    assert large.kept == pytest.approx(2 * small.kept, rel=0.1)
    assert large.weights == pytest.approx(4 * small.weights, rel=0.1)
    spec = nus.plan.NetSpec(width=0.25)
    assert step_memory(spec, (64, 64), 2, "bfloat16") < step_memory(spec, (64, 64), 2)


def test_memory_counted_is_about_what_is_held(folder):
    """The tensors kept for the way back, against those that a real step keeps."""
    from napari_unetseg.nets import build

    spec = nus.plan.NetSpec(name="multiresunet", width=0.25)
    net, kept = build(spec).train(), {}
    own = {p.data_ptr() for p in (*net.parameters(), *net.buffers())}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(torch.zeros(1, 1, 64, 64))
    assert out.requires_grad
    assert net_cost(spec, (64, 64)).kept == pytest.approx(sum(kept.values()), rel=0.2)


def test_plan_for_tells_time_and_memory_and_trains_nothing(folder):
    plan, notes, estimate = plan_for(folder, nus.Plan(net={"width": 0.1}), minutes=2)
    assert plan.training.minutes == 2
    assert notes
    assert estimate.seconds == 120
    assert 0 < estimate.first_mask < 120
    assert estimate.steps == round(0.85 * 120 / estimate.step_seconds)
    assert estimate.sentence().startswith("A first mask in about ")
    by_epochs = plan_for(folder, nus.Plan(net={"width": 0.1}, training={"epochs": 3, "steps_per_epoch": 7}))[2]
    assert by_epochs.steps == 21


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (["b", "left kidney", "right kidney"], ("left kidney", "right kidney")),
        (["b", "LungLeft", "heart", "LungRight"], ("LungLeft", "LungRight")),
        (["b", "niere_links", "niere_rechts"], ("niere_links", "niere_rechts")),
        (["b", "left kidney", "right lung"], None),
        (["b", "copyright", "leftover"], None),
        (["b", "nucleus"], None),
    ],
)
def test_left_and_right_are_noticed_by_name(names, pair):
    assert mirrored_pair(names, []) == pair


def test_left_and_right_are_noticed_by_place():
    def bilateral(seed, swap=False):
        rng, target = np.random.default_rng(seed), np.zeros((40, 64), np.uint8)
        y = rng.integers(12, 28)
        target[disc((40, 64), (y, 16), 5)] = 1 + swap
        target[disc((40, 64), (y, 48), 5)] = 2 - swap
        return sample(np.zeros((40, 64)), target)

    names = ("b", "one", "other")
    assert mirrored_pair(names, [bilateral(seed) for seed in range(4)]) == ("one", "other")
    assert mirrored_pair(names, [bilateral(0), bilateral(1)]) is None  # too few to tell
    assert mirrored_pair(names, [bilateral(seed, swap=seed % 2 == 1) for seed in range(4)]) is None


def test_flips_are_off_for_mirrored_classes_unless_asked_for(tmp_path):
    project = nus.Project.create(tmp_path / "p.unetseg", classes=["background", "left eye", "right eye"])
    image, target = blobs((64, 64), classes=3)
    project.annotate(project.add_array("one", Volume(image[None])), target + 1)
    plan, notes = completed(project, nus.Plan())
    assert dict(plan.training.recipe) == {"flip": 0.0, "quarter": 0.0}
    assert "Patches are never mirrored: left eye would become right eye." in notes
    plan, _ = completed(project, nus.Plan(training={"recipe": {"flip": 0.5, "quarter": 1.0}}))
    assert plan.training.recipe["flip"] == 0.5
    project.close()
