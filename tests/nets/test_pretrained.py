"""Start weights: torchvision's state dictionaries by name, shape and hash, without torchvision."""

from __future__ import annotations

import hashlib

import pytest
import torch

from napari_unetseg.errors import ModelError, PlanError
from napari_unetseg.nets import build, count_parameters, pretrained
from napari_unetseg.plan import NetSpec

VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
VGG |= {17: (256, 512), **dict.fromkeys((19, 21, 24, 26, 28), (512, 512))}


def vgg16_state():
    """The 32 entries of vgg16-397923af.pth; the values are drawn, but for the classifier, which is cheap zeros."""
    state = {}
    for index, (cin, cout) in VGG.items():
        state[f"features.{index}.weight"] = 0.05 * torch.randn(cout, cin, 3, 3)
        state[f"features.{index}.bias"] = torch.randn(cout)
    for index, shape in ((0, (4096, 25088)), (3, (4096, 4096)), (6, (1000, 4096))):
        state[f"classifier.{index}.weight"] = torch.zeros(1).expand(shape)
        state[f"classifier.{index}.bias"] = torch.zeros(shape[0])
    return state


def resnet50_state(counters=False):
    """The entries of resnet50-0676ba61.pth, which has no ``num_batches_tracked``."""
    state = {"conv1.weight": 0.05 * torch.randn(64, 3, 7, 7)}

    def norm(name, channels):
        state.update({f"{name}.weight": torch.rand(channels), f"{name}.bias": torch.randn(channels)})
        state.update({f"{name}.running_mean": torch.randn(channels), f"{name}.running_var": torch.rand(channels)})
        if counters:
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    norm("bn1", 64)
    cin = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for conv, (a, b, k) in enumerate(((cin, width, 1), (width, width, 3), (width, 4 * width, 1)), start=1):
                state[f"{name}.conv{conv}.weight"] = 0.05 * torch.randn(b, a, k, k)
                norm(f"{name}.bn{conv}", b)
            if not block:
                state[f"{name}.downsample.0.weight"] = 0.05 * torch.randn(4 * width, cin, 1, 1)
                norm(f"{name}.downsample.1", 4 * width)
            cin = 4 * width
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    return state


def saved(state, folder, stem):
    """Save under a name that carries the hash of the file, as torchvision's files do."""
    path = folder / "weights.pth"
    torch.save(state, path)
    return path.rename(folder / f"{stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth")


def test_the_sheets_entry_counts():
    assert len(vgg16_state()) == 32
    assert len(resnet50_state()) == 267
    assert len(resnet50_state(counters=True)) == 320
    assert sum(value.numel() for key, value in resnet50_state().items() if "running" not in key) == 25_557_032


@pytest.mark.parametrize("name", ["ternausnet16", "sharp-ternausnet16"])
def test_vgg16_weights_arrive(name, tmp_path):
    state = vgg16_state()
    path = saved(state, tmp_path, "vgg16")
    net = build(NetSpec(name=name, in_channels=3, pretrained=str(path)))
    own = net.net.encoder.state_dict()
    for key, value in state.items():
        if key.startswith("features."):
            assert torch.equal(own[key], value), key


@pytest.mark.parametrize("counters", [False, True])
def test_resnet50_weights_arrive(counters, tmp_path):
    state = resnet50_state(counters)
    net = build(NetSpec(name="resnet50-unet", in_channels=3, pretrained=str(saved(state, tmp_path, "resnet50"))))
    own = net.net.encoder.state_dict()
    assert {key for key in own if "num_batches" not in key} == {
        key for key in state if not key.startswith("fc.") and "num_batches" not in key
    }
    for key in own:
        if "num_batches" not in key:
            assert torch.equal(own[key], state[key]), key
    assert count_parameters(net.net.encoder)["trainable"] == 23_508_032


def test_the_first_batch_does_not_overwrite_loaded_statistics(tmp_path):
    state = resnet50_state()
    net = build(NetSpec(name="resnet50-unet", in_channels=3, pretrained=str(saved(state, tmp_path, "resnet50"))))
    net(100 + torch.randn(1, 3, 32, 32))
    moved = (net.net.encoder.bn1.running_mean - state["bn1.running_mean"]).abs().max()
    whole = (100 * state["conv1.weight"].sum(dim=(1, 2, 3))).abs().max()
    assert moved < 0.2 * whole


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_first_kernel_is_adapted(channels, tmp_path):
    state = vgg16_state()
    path = saved(state, tmp_path, "vgg16")
    net = build(NetSpec(name="ternausnet16", in_channels=channels, pretrained=str(path)))
    kernel = net.net.encoder.features[0].weight
    grey = torch.randn(1, 1, 9, 9)
    shown = torch.nn.functional.conv2d(grey.expand(1, 3, 9, 9), state["features.0.weight"])
    if channels == 1:  # as if the grey image were shown in red, green and blue
        torch.testing.assert_close(torch.nn.functional.conv2d(grey, kernel), shown, rtol=1e-4, atol=1e-4)
    else:
        expected = state["features.0.weight"][:, [c % 3 for c in range(channels)]] * 3 / channels
        torch.testing.assert_close(kernel, expected)


def test_fcn8_takes_the_classifier_as_convolutions(monkeypatch):
    state = vgg16_state()
    state["classifier.3.bias"] = torch.randn(4096)
    monkeypatch.setattr("napari_unetseg.nets.making.read_weights", lambda *_: state)
    with torch.device("meta"):  # half a gigabyte otherwise
        net = build(NetSpec(name="fcn8", in_channels=3), start=False).net
    net = net.to_empty(device="cpu")
    net.load_imagenet(state)
    assert torch.equal(net.fc7.bias, state["classifier.3.bias"])
    assert net.fc6.weight.shape == (4096, 512, 7, 7)
    assert torch.equal(net.features[28].bias, state["features.28.bias"])


def test_weights_come_from_the_hub_cache(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = saved(vgg16_state(), folder, "vgg16")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(pretrained.WEIGHTS, "vgg16", path.name)
    build(NetSpec(name="ternausnet16", pretrained="vgg16"))
    build(NetSpec(name="ternausnet16", pretrained="imagenet"))


def test_missing_weights_say_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(PlanError, match=r"vgg16-397923af\.pth are not on this computer") as error:
        build(NetSpec(name="ternausnet16", pretrained="vgg16"))
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in error.value.hint


def test_a_model_needs_no_start_weights_to_be_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    build(NetSpec(name="ternausnet16", pretrained="vgg16"), start=False)


def test_damaged_weights_are_refused(tmp_path):
    path = tmp_path / "vgg16-397923af.pth"
    torch.save(vgg16_state(), path)
    with pytest.raises(ModelError, match="hash"):
        build(NetSpec(name="ternausnet16", pretrained=str(path)))


def test_what_is_no_state_dictionary_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(ModelError, match="could not be read"):
        build(NetSpec(name="ternausnet16", pretrained=str(path)))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_weights_never_run_code(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save({"features.0.weight": Evil()}, path)
    with pytest.raises(ModelError):
        build(NetSpec(name="ternausnet16", pretrained=str(path)))
    assert "run" not in capsys.readouterr().out


def test_weights_of_another_net_are_refused(tmp_path):
    path = saved(vgg16_state(), tmp_path, "vgg16")
    with pytest.raises(ModelError, match="not those of resnet50"):
        build(NetSpec(name="resnet50-unet", pretrained=str(path)))
