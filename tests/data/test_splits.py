"""Nothing that is held out was ever near training, and training keeps every class."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from napari_unetseg.data.annotation import count_known
from napari_unetseg.data.dataset import Case, Dataset, Sample
from napari_unetseg.data.splits import describe_heldout, split, was_learned
from napari_unetseg.errors import AnnotationError, PlanError
from napari_unetseg.plan import DataPlan
from napari_unetseg.volume import Volume


def case(name, target, known=None, group=None, fold=None):
    target = np.asarray(target, np.uint8)
    known = np.ones(target.shape, bool) if known is None else known
    # the value of a voxel is its own place, so that a crop tells where it came from
    places = np.arange(target.size).reshape(1, *target.shape)
    sample = Sample(name, Volume(places), target, known)
    reader = SimpleNamespace(sample=lambda: sample, target=lambda: (target, known))
    return Case(name, group or name, fold, None, reader)


def dataset(*cases, n_classes=2):
    ndim = cases[0].target()[0].ndim
    classes = ("background", "one", "two", "three")[:n_classes]
    return Dataset(tuple(cases), classes, "mask", (), 1, ndim)


def checker(*shape, step=4, n_classes=2):
    return (np.indices(shape).sum(0) // step) % n_classes


def places(parts):
    return {
        name: np.concatenate([p.load().image.data.ravel() for p in parts if p.name == name])
        for name in {p.name for p in parts}
    }


def names(parts):
    return [part.name for part in parts]


def known_of(parts, n_classes):
    return sum(count_known(s.target, s.known, n_classes) for s in (p.load() for p in parts))


def test_whole_images_are_held_out():
    data = dataset(*(case(str(i), checker(20, 20)) for i in range(10)))
    done = split(data)
    assert len(done.heldout) == 2
    assert not set(names(done.train)) & set(names(done.heldout))
    assert len(done.train) + len(done.heldout) == 10
    assert all(part.region is None for part in (*done.train, *done.heldout))
    assert done.rule == "2 held-out images"
    assert names(split(data).heldout) == names(done.heldout)
    assert len({tuple(sorted(names(split(data, seed=s).heldout))) for s in range(9)}) > 3


def test_groups_stay_together():
    data = dataset(*(case(str(i), checker(20, 20), group=f"g{i // 3}") for i in range(15)))
    for seed in range(5):
        done = split(data, seed=seed)
        held = {part.case.group for part in done.heldout}
        assert len(held) == 1
        assert not held & {part.case.group for part in done.train}
    assert done.rule == "3 held-out images of 1 group"


def test_the_only_example_of_a_class_stays_in_training():
    cases = [case(str(i), checker(20, 20)) for i in range(5)]
    rare = checker(20, 20)
    rare[:3] = 2
    data = dataset(*cases, case("rare", rare), n_classes=3)
    for seed in range(20):
        assert "rare" in names(split(data, seed=seed).train)


def test_cases_without_strokes_count_for_nothing():
    blank = np.zeros((20, 20), bool)
    cases = [case(str(i), checker(20, 20)) for i in range(5)] + [
        case(f"b{i}", checker(20, 20), blank) for i in range(9)
    ]
    done = split(dataset(*cases))
    assert len(done.heldout) == 1
    assert not any(name.startswith("b") for name in names(done.train + done.heldout))
    with pytest.raises(AnnotationError, match="Nothing"):
        split(dataset(*cases[5:]))


def test_a_group_named_held_out_is():
    cases = [case(str(i), checker(20, 20), group="held-out" if i > 5 else None) for i in range(8)]
    done = split(dataset(*cases))
    assert names(done.heldout) == ["6", "7"]
    assert done.rule == "2 held-out images"


@pytest.mark.parametrize("shape", [(100, 160), (160, 100)])
def test_one_image_gives_a_strip_with_a_margin(shape):
    done = split(dataset(case("a", checker(*shape))))
    kept, held = places(done.train)["a"], places(done.heldout)["a"]
    assert not set(kept) & set(held)
    assert "strip of a" in done.rule
    assert 0.1 < held.size / (kept.size + held.size) < 0.35
    at = [np.stack(np.unravel_index(v, shape), 1) for v in (kept, held)]
    gap = max(max(at[0][:, i].min() - at[1][:, i].max(), at[1][:, i].min() - at[0][:, i].max()) for i in (0, 1))
    assert gap > 4


def test_one_stack_gives_contiguous_planes_with_a_margin():
    done = split(dataset(case("s", checker(23, 30, 30))))
    held = {int(v) // 900 for v in places(done.heldout)["s"]}
    kept = {int(v) // 900 for v in places(done.train)["s"]}
    assert sorted(held) == list(range(min(held), max(held) + 1))
    assert len(held) == 5
    assert min(abs(a - b) for a in held for b in kept) == 2
    assert done.rule == "5 held-out planes of s"


def test_strokes_on_three_planes_leave_one_plane_held_out():
    known = np.zeros((30, 40, 40), bool)
    known[[4, 15, 26], 10:30, 10:30] = True
    done = split(dataset(case("s", checker(30, 40, 40), known)))
    assert known_of(done.heldout, 2).sum() == 400
    assert known_of(done.train, 2).sum() == 800


def test_two_images_give_a_block_each():
    done = split(dataset(case("a", checker(90, 90)), case("b", checker(90, 90))))
    assert set(names(done.train)) == set(names(done.heldout)) == {"a", "b"}
    assert "each of 2 images" in done.rule


def test_nothing_is_held_out_where_a_class_would_be_lost():
    target = np.zeros((60, 60), np.uint8)
    target[0, 0] = 1
    known = np.zeros_like(target, bool)
    known[0, :4] = True
    done = split(dataset(case("a", target, known)))
    assert (len(done.train), done.heldout, done.rule) == (1, (), "")
    assert split(dataset(case("a", checker(90, 90))), DataPlan(heldout=0)).rule == ""


def test_folds_of_the_data():
    data = dataset(*(case(str(i), checker(20, 20), fold=i % 3) for i in range(9)))
    done = split(data, DataPlan(fold=1))
    assert names(done.heldout) == ["1", "4", "7"]
    assert done.rule == "fold 1 of 3 (3 images)"
    with pytest.raises(PlanError, match="no fold 3"):
        split(data, DataPlan(fold=3))


def test_folds_made_by_group_cover_everything_once():
    data = dataset(*(case(str(i), checker(20, 20), group=f"g{i // 2}") for i in range(20)))
    held = [names(split(data, DataPlan(fold=k, folds=4), seed=3).heldout) for k in range(4)]
    assert sorted(name for fold in held for name in fold) == sorted(c.name for c in data.cases)
    with pytest.raises(PlanError, match="no fold 4 of 4"):
        split(data, DataPlan(fold=4, folds=4))
    with pytest.raises(PlanError, match="10 groups cannot make 20"):
        split(data, DataPlan(fold=0, folds=20))


@pytest.mark.parametrize("shape", [(20, 30, 30), (60, 90)])
def test_folds_of_one_image_are_blocks_that_cover_it_once(shape):
    data = dataset(case("a", checker(*shape)))
    held = []
    for fold in range(5):
        done = split(data, DataPlan(fold=fold))
        inside, outside = places(done.heldout)["a"], places(done.train)["a"]
        assert not set(inside) & set(outside)
        assert inside.size + outside.size < np.prod(shape)
        held.append(inside)
    assert sorted(np.concatenate(held)) == list(range(int(np.prod(shape))))


def test_a_fold_that_takes_a_class_away_is_refused():
    rare = checker(20, 20)
    rare[0] = 2
    data = dataset(*(case(str(i), checker(20, 20), fold=0) for i in range(3)), case("r", rare, fold=1), n_classes=3)
    with pytest.raises(PlanError, match="'two' lies in the held-out fold"):
        split(data, DataPlan(fold=1))
    with pytest.raises(PlanError, match="Every image"):
        split(dataset(case("x", checker(9, 9), fold=0)), DataPlan(fold=0))


def facts(parts, earlier=()):
    """What a model trained on a split says of it, as it comes back from a file."""
    said = {"held_out": describe_heldout(parts), "images": [*earlier, *names(parts.train)]}
    return json.loads(json.dumps(said))


def test_what_was_held_out_stays_so_when_a_model_is_gone_on_from():
    cases, before, learned = [case(str(i), checker(20, 20)) for i in range(3)], None, set()
    for number in range(3, 16):
        done = split(dataset(*cases[:number]), before=before)
        assert not learned & set(names(done.heldout))
        assert "seen" not in done.rule
        learned |= set(names(done.train))
        before = facts(done, learned)
        cases.append(case(str(number), checker(20, 20)))
    assert 2 <= len(done.heldout) <= 3  # a fifth of the images, as ever, the later ones from what was new


def test_a_new_image_that_alone_shows_a_class_takes_nothing_from_what_was_held_out():
    cases = [case(str(i), checker(20, 20)) for i in range(4)]
    first = split(dataset(*cases))
    rare = np.where(np.eye(20, dtype=int), 2, checker(20, 20))
    data = dataset(*cases, case("rare", rare), *(case(f"new {i}", checker(20, 20)) for i in range(3)), n_classes=3)
    for seed in range(12):  # of which some would hold it out
        again = split(data, seed=seed, before=facts(first))
        assert set(names(first.heldout)) <= set(names(again.heldout))
        assert "rare" in names(again.train)


def test_what_a_model_has_learned_is_known_by_image_and_strip():
    cases = [case(str(i), checker(20, 20)) for i in range(4)]
    data, strip = dataset(*cases), dataset(case("a", checker(60, 200)))
    whole, part = split(data), split(strip)
    assert not was_learned(whole, data, facts(whole))
    assert not was_learned(part, strip, facts(part))
    other = {"images": ["0", "1", "2", "3"], "held_out": {}}
    assert was_learned(whole, data, other)
    assert was_learned(part, strip, {"images": ["a"], "held_out": {"a": [[None, None], [0, 3]]}})


def test_the_strip_of_an_image_stays_held_out_when_strokes_are_added():
    target, few = checker(60, 200, step=10), np.zeros((60, 200), bool)
    few[:, ::40] = True
    more = few | (np.arange(200) < 80)[None]
    first = split(dataset(case("a", target, few)))
    alone, again = (split(dataset(case("a", target, more)), before=b) for b in (None, facts(first)))
    learned = places(first.train)["a"]
    assert np.isin(places(alone.heldout)["a"], learned).any()  # or this shows nothing
    assert not np.isin(places(again.heldout)["a"], learned).any()
    assert names(again.train) == names(again.heldout) == ["a"]
    assert not np.isin(places(again.heldout)["a"], places(again.train)["a"]).any()
    other = split(dataset(case("a", target, more), case("b", target)), before=facts(first))
    assert names(other.heldout) == ["a"]
    assert names(other.train) == ["a", "b"]


def test_what_was_seen_is_said_where_it_cannot_be_otherwise():
    cases = [case(str(i), checker(20, 20)) for i in range(4)]
    learned = {"images": ["0", "1", "2", "3"], "held_out": {}}
    assert split(dataset(*cases), before=learned).rule == "1 held-out image, seen in an earlier round"
    rare = np.zeros((20, 20), int)
    rare[4, 4] = 1
    cases = [case("0", np.where(rare, 2, checker(20, 20))), *cases[1:]]
    done = split(dataset(*cases, n_classes=3), before={"held_out": {"0": None}, "images": ["1", "2", "3"]})
    assert names(done.heldout) != ["0"]  # the only example of a class has to be learned from
    assert done.rule.endswith("seen in an earlier round")


@pytest.mark.parametrize("said", [None, 3, ["a"], {"a": 3}, {"a": [[0, 5]]}, {"a": [["x", 2], [0, 1]]}, {"a": [1, 2]}])
def test_facts_of_a_stranger_are_not_believed(said):
    data = dataset(case("a", checker(60, 60)))
    assert split(data, before={"held_out": said}).rule == split(data).rule
