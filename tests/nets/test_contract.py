"""The contract of every registered net, in 2D and in 3D, at a small width and small sizes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unetseg.errors import PlanError
from napari_unetseg.nets import NETS, build, describe_net
from napari_unetseg.plan import NetSpec

CASES = [(name, dims) for name in NETS for dims in NETS.facts(name).get("dims", (2, 3))]
ONLY_2D = [name for name in NETS if 3 not in NETS.facts(name).get("dims", (2, 3))]
SIZES = {2: [(37, 50), (3, 20)], 3: [(9, 18, 20)]}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def small(name, dims, **spec):
    return build(NetSpec(name=name, dims=dims, **{"width": 0.125, **spec}))


def without_dropout(net):
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_any_size_any_channels_any_classes(name, dims):
    net = small(name, dims, in_channels=2, outputs=3)
    for size in SIZES[dims]:
        logits = net(torch.randn(1, 2, *size))
        assert logits.shape == (1, 3, *size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_every_parameter_gets_a_gradient(name, dims):
    net = small(name, dims)
    net(torch.randn(2, 1, *SIZES[dims][0])).square().mean().backward()
    dead = [key for key, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not dead


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize("batch", [1, 2])
def test_evaluation_agrees_with_training(name, dims, batch):
    net = without_dropout(small(name, dims))
    x = torch.randn(batch, 1, *SIZES[dims][0])
    with torch.no_grad():
        for _ in range(2):
            trained = net(x + torch.randn_like(x))  # other batches come before
        trained = net(x)
        net.eval()
        evaluated = net(x)
        assert torch.equal(evaluated, net(x))
    torch.testing.assert_close(evaluated, trained, rtol=0, atol=2e-3 * trained.abs().max().item())


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_saved_and_loaded_nets_are_equal(name, dims):
    net = small(name, dims)
    x = torch.randn(1, 1, *SIZES[dims][0])
    net(x)  # so that running statistics are not those of a new net
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    other = small(name, dims)
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    with torch.no_grad():
        assert torch.equal(net.eval()(x), other.eval()(x))


def disc(dims, n):
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) - n / 2 + 0.5] * dims, indexing="ij"))
    inside = (grid.square().sum(0).sqrt() < 0.3 * n).float()[None, None]
    return inside + 0.5 * torch.randn_like(inside), inside


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_over_fits_one_tiny_image(name, dims):
    narrow = name.startswith("fc")  # these start from half the features
    net = small(name, dims, width=0.25 if dims == 2 or narrow else 0.125)
    x, inside = disc(dims, max(32, 2 * net.divisor) if dims == 2 else 16)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range({2: 14, 3: 8}[dims] + 10 * narrow):
        loss = functional.binary_cross_entropy_with_logits(net(x), inside)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-4:]) < {2: 0.8, 3: 0.9}[dims] * losses[0]


@pytest.mark.filterwarnings("ignore")  # torch's older exporter warns that it is the older one
@pytest.mark.parametrize(
    ("name", "dims"), [*((name, 2) for name in NETS), *((name, 3) for name in ("unet3d", "sharp-unet", "nas-unet"))]
)
def test_exports_to_onnx(name, dims):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = small(name, dims, in_channels=2, outputs=2)
    x = torch.randn(1, 2, *SIZES[dims][0])
    with torch.no_grad():
        net(x)
        expected = net.eval()(x).numpy()
    file = io.BytesIO()
    torch.onnx.export(net, (x,), file, dynamo=False, opset_version=17)
    session = runtime.InferenceSession(file.getvalue())
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("name", ["unet", "multiresunet", "resnet50-unet", "nas-reduction-unet", "fcresnet"])
def test_any_normalisation(name, norm):
    net = small(name, 2, norm=norm)
    x = torch.randn(1, 1, 40, 24)
    with torch.no_grad():
        trained = net(x)
        evaluated = net.eval()(x)
    torch.testing.assert_close(evaluated, trained, rtol=0, atol=2e-3 * trained.abs().max().item())


@pytest.mark.parametrize("name", ONLY_2D)
def test_three_dimensions_are_refused_by_name(name):
    with pytest.raises(PlanError) as error:
        small(name, 3)
    assert "3D" in error.value.message
    for other in NETS:
        assert (f" {other}," in f"{error.value.hint},".replace(".", ",")) == (other not in ONLY_2D)
    assert describe_net(name)["dims"] == [2]


def test_the_sheets_list_of_2d_nets():
    assert set(ONLY_2D) == {"ternausnet16", "sharp-ternausnet16", "resnet50-unet", "sharp-resnet50-unet", "fcn8"}
