"""How images will be segmented: chosen in the drawer, kept in the plan, taken back; a choice for volumes only there."""

from __future__ import annotations

import pytest

from napari_unetseg.plan import Plan


@pytest.fixture
def box(bench):
    bench.train.advanced.button.setChecked(True)
    return bench.train.advanced.segmenting


def choose(box, key, value):
    box.fields[key].set_value(value)
    box.fields[key].chosen.emit(value)


def test_every_choice_is_one_of_the_plan_and_has_its_words(box):
    for (section, name), choice in box.fields.items():
        for value in choice._values:
            if value is not None:
                assert getattr(getattr(Plan().change(**{section: {name: value}}), section), name) == value
        assert getattr(Plan(), section).__class__.model_fields[name].description in choice.toolTip()


def test_choices_go_into_the_plan_and_back(box, bench):
    drawer, work = bench.train.advanced, bench.workspace
    chosen = {("inference", "tta"): "flips", ("inference", "dropout_passes"): 10, ("inference", "axes"): "all"}
    for key, value in {**chosen, ("data", "neighbours"): 1}.items():
        choose(box, key, value)
    assert (work.plan.inference.tta, work.plan.inference.dropout_passes) == ("flips", 10)
    assert (work.plan.inference.axes, work.plan.data.neighbours) == ("all", 1)
    drawer.button.setChecked(False)
    assert "mirrored copies" in drawer.button.text()
    drawer.reset.click()
    assert not work.plan.inference.model_fields_set & {"tta", "dropout_passes", "axes"}
    assert not work.plan.data.model_fields_set & {"neighbours"}
    assert box.fields["inference", "tta"].value is None


def test_what_is_for_volumes_is_shown_with_volumes_and_2d_nets(box, bench):
    axes = box.fields["inference", "axes"]
    bench.workspace.select_case("plane-a")
    assert not axes.isVisibleTo(box)
    bench.workspace.select_case("volume")
    assert axes.isVisibleTo(box)
    bench.workspace.change_plan(net={"dims": 3})
    assert not axes.isVisibleTo(box)
