"""A net with the instant model beside it: one model whose answer is their mean."""

import json

import pytest
import torch

from napari_unetseg.errors import PlanError
from napari_unetseg.losses import probabilities
from napari_unetseg.nets import Model, build
from napari_unetseg.plan import NetSpec, Plan


@pytest.mark.parametrize(("dims", "outputs", "channels"), [(2, 1, 1), (2, 3, 3), (3, 1, 1), (3, 2, 2)])
def test_it_answers_the_mean_of_both(dims, outputs, channels):
    torch.manual_seed(0)
    spec = NetSpec(dims=dims, in_channels=channels, outputs=outputs, width=0.1, parts={"instant": (1, channels)})
    both = build(spec).eval()
    # of a size that needs no padding, which each alone would do in its own way
    x = torch.randn(1, channels, *(both.divisor,) * dims)
    with torch.no_grad():
        mean = (probabilities(both.net.net(x)) + probabilities(both.net.instant(x))) / 2
        torch.testing.assert_close(probabilities(both(x)), mean, atol=1e-5, rtol=0)
        assert both(x[..., :-3]).shape[2:] == x[..., :-3].shape[2:]


def test_neighbouring_planes_are_for_the_net_alone():
    both = build(NetSpec(in_channels=5, width=0.1, parts={"instant": (1, 1)})).eval()
    x = torch.randn(1, 5, 32, 32)
    other = x.clone()
    other[:, 2] += 1
    with torch.no_grad():
        around = torch.cat([other[:, :2], x[:, 2:3], other[:, 3:]], dim=1)
        torch.testing.assert_close(both.net.instant(around[:, 2:3]), both.net.instant(x[:, 2:3]))
        assert not torch.equal(both(other), both(x))


def test_it_is_saved_and_read_like_any_model(tmp_path):
    spec = NetSpec(width=0.1, parts={"instant": (1.5, 1)})
    plan = Plan(net=spec, data={"normalisation": {}}, training={"patch": (32, 32)})
    model = Model(build(spec).eval(), plan, ("background", "cell"), None, [], (), {})
    model.save(tmp_path / "m")
    again = Model.load(tmp_path / "m")
    x = torch.randn(1, 1, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(again.net(x), model.net(x))
    assert json.loads((tmp_path / "m" / "model.json").read_text())["plan"]["net"]["parts"] == {"instant": [1.5, 1]}


@pytest.mark.parametrize(
    "part", ["yes", "ab", 1, (1,), (1, 2, 3), ("x", "y"), (1, -1), (1, 10**12), (1, 2), ([1], 1), {}]
)
def test_a_part_that_is_none_is_a_sentence(part):
    with pytest.raises(PlanError, match=r"(?i)instant"):
        build(NetSpec(parts={"instant": part}))


def test_models_of_the_time_when_the_share_was_a_weight_are_read():
    both = build(NetSpec(width=0.1, parts={"instant": (1, 1)}))
    both.load_state_dict({**both.state_dict(), "net.share": torch.tensor(0.5)})
    assert not any("share" in name for name in both.state_dict())


def test_the_offset_is_of_the_net_alone_and_models_without_one_are_read():
    torch.manual_seed(0)
    both = build(NetSpec(width=0.1, parts={"instant": (1, 1)})).eval()
    state = both.state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("offset")}
    both.net.offset.fill_(-1.5)
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        mean = (torch.sigmoid(both.net.net(x) - 1.5) + torch.sigmoid(both.net.instant(x))) / 2
        torch.testing.assert_close(torch.sigmoid(both(x)), mean, atol=1e-5, rtol=0)
    both.load_state_dict(old)
    assert both.net.offset.item() == 0
