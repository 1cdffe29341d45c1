"""Choosing a net: the picker by mouse and keys, the Advanced drawer, and a wrong wish that is said before training."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_unetseg.events import finish
from napari_unetseg.nets import BLOCKS, NETS, SKIPS
from napari_unetseg.worker.verbs import VERBS, Bench

pytestmark = pytest.mark.window


class Facts:
    """Answers what a workbench asks about nets by the worker's own verbs."""

    def __init__(self, bench, jobs, folder):
        self.bench, self.jobs, self.worker, self.told = bench, jobs, Bench(folder), 0

    def tell(self):
        """Answer everything that was asked since."""
        while self.told < len(self.jobs.submitted):
            (verb, args), listener = self.jobs.submitted[self.told], self.jobs.listeners[self.told]
            self.told += 1
            if verb in ("nets", "check_net"):
                listener({"id": self.told, "event": "Done", "result": _end(VERBS[verb](args, None, self.worker))})


def _end(run):
    """Result of a verb that may be a generator."""
    return run if isinstance(run, dict) else finish(run)


@pytest.fixture
def facts(bench, jobs, tmp_path):
    bench.workspace.ask_nets()
    made = Facts(bench, jobs, tmp_path)
    made.tell()
    return made


def strokes(bench):
    layer = bench.context.bridge.annotation
    layer.paint((10, 10), 1)
    layer.paint((30, 40), 2)
    bench.context.bridge.flush()
    bench.refresh()


def click(widget):
    QTest.mouseClick(widget, Qt.MouseButton.LeftButton)


def key(widget, name):
    QTest.keyClick(widget, getattr(Qt.Key, f"Key_{name}"))


def choose(box, value):
    """What Qt does when the user takes an entry of a box."""
    index = box._values.index(value)
    box.setCurrentIndex(index)
    box.activated.emit(index)


def shown(picker):
    return [item.data(Qt.ItemDataRole.UserRole) for item in picker._items() if not item.isHidden()]


# -- the picker ---------------------------------------------------------------------------------------------------


def test_every_net_is_listed_with_its_facts(bench, facts):
    picker = bench.train.picker
    assert shown(picker) == list(NETS)
    text = {item.data(Qt.ItemDataRole.UserRole): item.text() for item in picker._items()}
    assert "2D, 3D · 7.2 M weights · 2.4 × U-Net’s time" in text["multiresunet"]
    assert "ImageNet, 2D · 23.7 M weights" in text["ternausnet16"]
    assert "ImageNet" not in text["unet"]
    for name, words in text.items():
        assert NETS.facts(name)["sentence"] in words
    assert all(NETS.facts(item.data(Qt.ItemDataRole.UserRole))["paper"] in item.toolTip() for item in picker._items())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("wide-sharp", ["wide-sharp-unet"]),  # name
        ("MILDNet with plain", ["mildnet-plain-skips"]),  # title
        ("nas u-nets", ["nas-unet", "nas-reduction-unet"]),  # family
        ("vague boundaries", ["multiresunet"]),  # sentence
        ("drozdzal quick", ["fcn-preprocessor"]),  # paper and sentence
        ("imagenet sharp", ["sharp-ternausnet16", "sharp-resnet50-unet"]),  # mark
        ("pretrained 3d", []),
    ],
)
def test_search(bench, facts, words, found):
    picker = bench.train.picker
    click(picker.button)
    QTest.keyClicks(picker.search, words)
    assert shown(picker) == found
    assert picker._none.isHidden() == bool(found)


def test_keys_alone_choose_a_net(bench, facts):
    picker = bench.train.picker
    picker.button.setFocus()
    key(picker.button, "Down")
    assert picker.button.isChecked()
    assert picker.list.currentItem().data(Qt.ItemDataRole.UserRole) == "unet"
    QTest.keyClicks(picker.search, "sharp")
    key(picker.search, "Down")
    key(picker.search, "Down")
    key(picker.search, "Up")
    key(picker.search, "Return")
    assert bench.workspace.plan.net.name == "wide-sharp-unet"
    assert not picker.button.isChecked()
    assert "Wide Sharp" in picker.button.text()
    key(picker.button, "Return")
    assert picker.search.text() == ""
    key(picker.search, "Escape")
    assert not picker.button.isChecked()
    assert bench.workspace.plan.net.name == "wide-sharp-unet"


def test_a_net_that_cannot_do_the_dims_is_shown_says_why_and_cannot_be_picked(bench, facts):
    picker = bench.train.picker
    bench.images.go_to("volume")
    facts.tell()
    items = {item.data(Qt.ItemDataRole.UserRole): item for item in picker._items()}
    assert items["fcn8"].flags() & Qt.ItemFlag.ItemIsEnabled, "volumes can be learned plane by plane"
    bench.workspace.change_plan(net={"dims": 3})
    facts.tell()
    items = {item.data(Qt.ItemDataRole.UserRole): item for item in picker._items()}
    for name, item in items.items():
        able = 3 in NETS.facts(name).get("dims", (2, 3))
        assert bool(item.flags() & Qt.ItemFlag.ItemIsEnabled) == able
        assert ("Cannot do 3D, only 2D" in item.text()) != able
    click(picker.button)
    QTest.keyClicks(picker.search, "ternaus")
    key(picker.search, "Return")
    place = picker.list.visualItemRect(items["ternausnet16"]).center()
    QTest.mouseClick(picker.list.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
    assert bench.workspace.plan.net.name == "unet"
    assert "22.6 M weights" in items["unet"].text(), "counted in 3D"


def test_weights_are_those_of_the_images_and_classes_in_hand(bench, facts, jobs):
    counted = {net["name"]: net for net in bench.workspace.nets}
    assert counted["unet"]["outputs"] == 3, "the bench has three classes"
    asked = len(jobs.submitted)
    click(bench.classes.add_class)
    facts.tell()
    assert next(iter(bench.workspace.nets))["outputs"] == 4
    assert [verb for verb, _ in jobs.submitted[asked:]] == ["nets", "check_net"]
    asked = len(jobs.submitted)
    bench.images.go_to("plane-b")
    facts.tell()
    assert len(jobs.submitted) == asked, "as many channels and dims: nothing new to ask"


def test_the_row_paints_in_both_themes(bench, facts):
    picker = bench.train.picker
    click(picker.button)
    seen = []
    for theme in ("dark", "light"):
        bench.context.viewer.theme = theme
        image = picker.list.grab().toImage()
        seen.append(np.array([image.pixelColor(x, 40).lightness() for x in range(0, image.width(), 2)]))
        assert np.ptp(seen[-1]) > 60, "text on its background"
    assert seen[0].mean() + 60 < seen[1].mean()


# -- the Advanced drawer ------------------------------------------------------------------------------------------


def test_the_drawer_is_closed_and_everything_is_decided(bench, facts):
    drawer = bench.train.advanced
    assert drawer.inside.isHidden()
    assert drawer.button.text().endswith("all decided for me")
    click(drawer.button)
    assert not drawer.inside.isHidden()
    boxes = [*drawer.fields.values(), *drawer.parts.values()]
    assert all(box.value is None for box in boxes)
    assert all(box.toolTip() for box in boxes)
    assert not drawer.reset.isEnabled()
    given = bench.workspace.plan.net.model_fields_set
    assert not given & {"width", "depth", "norm", "dropout", "parts", "pretrained"}


def test_choices_go_into_the_plan_and_back(bench, facts):
    drawer, work = bench.train.advanced, bench.workspace
    for name, value in {"width": 0.25, "depth": 4, "norm": "group", "dropout": 0.2}.items():
        choose(drawer.fields[name], value)
    choose(drawer.parts["block"], "multires")
    choose(drawer.parts["skip"], "sharp")
    net = work.plan.net
    assert (net.width, net.depth, net.norm, net.dropout) == (0.25, 4, "group", 0.2)
    assert dict(net.parts) == {"block": "multires", "skip": "sharp"}
    facts.tell()
    assert not work.net_check["problem"]
    click(drawer.button)
    assert "width 0.25, group normalisation" in drawer.check.text()
    choose(drawer.parts["block"], None)
    assert dict(work.plan.net.parts) == {"skip": "sharp"}
    click(drawer.button)
    assert "depth 4" in drawer.button.text()
    assert "sharp skips" in drawer.button.text()
    click(drawer.reset)
    assert not work.plan.net.model_fields_set & {"width", "depth", "norm", "dropout", "parts"}
    assert drawer.parts["skip"].value is None


def test_every_block_and_skip_is_offered(bench, facts):
    parts = bench.train.advanced.parts
    assert parts["block"]._values == [None, *BLOCKS]
    assert parts["skip"]._values == [None, *SKIPS]


@pytest.mark.parametrize(
    ("net", "field", "value", "sentence"),
    [
        ("fcresnet", "depth", 4, "FC-ResNet always has 6 resolution levels, not 4."),
        ("fcresnet", "skip", "sharp", "FC-ResNet is not made of parts: skip cannot be chosen."),
        ("ternausnet16", "pretrained", "imagenet", "The start weights vgg16-397923af.pth are not on this computer."),
    ],
)
def test_what_cannot_be_is_said_before_training(bench, facts, tmp_path, monkeypatch, net, field, value, sentence):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    drawer, train = bench.train.advanced, bench.train
    strokes(bench)
    facts.tell()
    assert train.train.isEnabled()
    click(drawer.button)
    bench.workspace.change_plan(net={"name": net})
    choose({**drawer.fields, **drawer.parts}[field], value)
    facts.tell()
    assert drawer.check.text().startswith(sentence)
    assert drawer.check.property("role") == "error"
    assert not train.train.isEnabled()
    assert train.train.why == sentence
    choose({**drawer.fields, **drawer.parts}[field], None)
    facts.tell()
    assert train.train.isEnabled()
    assert drawer.check.text().startswith("This net will have")


def test_an_answer_about_a_net_no_longer_wanted_is_ignored(bench, facts, jobs):
    bench.workspace.change_plan(net={"name": "fcresnet", "depth": 4})
    late = len(jobs.listeners) - 1
    bench.workspace.decide_for_me("net", "depth")
    facts.tell()
    jobs.listeners[late]({"id": late, "event": "Done", "result": {"problem": "Late.", "hint": ""}})
    assert not bench.workspace.net_check["problem"]


def test_start_weights_are_offered_where_there_are_some(bench, facts):
    drawer = bench.train.advanced
    assert drawer.fields["pretrained"].isHidden()
    bench.workspace.change_plan(net={"name": "resnet50-unet"})
    assert not drawer.fields["pretrained"].isHidden()


def test_a_value_that_is_on_no_list_is_shown_as_it_is(bench, facts):
    drawer = bench.train.advanced
    bench.workspace.change_plan(net={"width": 0.75})
    assert drawer.fields["width"].currentText() == "0.75 (from the plan)"
    bench.workspace.change_plan(net={"width": 0.5})
    assert drawer.fields["width"].value == 0.5
    assert drawer.fields["width"].count() == 6


def test_nothing_can_be_changed_while_training(bench, facts, jobs):
    strokes(bench)
    facts.tell()
    click(bench.train.train)
    assert jobs.submitted[-1][0] == "train"
    assert not bench.train.advanced.isEnabled()
    assert not bench.train.picker.isEnabled()
