"""Parameter counts: those of the papers to the unit, the others as regression constants (architectures, section 1)."""

from __future__ import annotations

import pytest
import torch

from napari_unetseg.nets import NETS, build, count_parameters, describe_net
from napari_unetseg.nets.assembly import Parts, UShape
from napari_unetseg.nets.blocks import Layers
from napari_unetseg.nets.multires import MultiResBlock, ResPaths, _normalised_head
from napari_unetseg.plan import NetSpec


def counts(name, dims=2, in_channels=1, outputs=1, **parts):
    with torch.device("meta"):
        return count_parameters(
            build(NetSpec(name=name, dims=dims, in_channels=in_channels, outputs=outputs, parts=parts))
        )


# name, dims, channels in, outputs, parts, which count, the count
PUBLISHED = [  # EXACT and MATCH rows
    ("unet", 2, 1, 1, {}, "trainable", 7_759_521),
    ("unet", 2, 3, 1, {}, "trainable", 7_760_097),
    ("unet", 2, 4, 1, {}, "trainable", 7_760_385),
    ("wide-unet", 2, 1, 1, {}, "trainable", 9_282_246),
    ("wide-unet", 2, 3, 1, {}, "trainable", 9_282_876),
    ("wide-unet", 2, 1, 1, {"reading": "hybrid"}, "trainable", 9_130_476),
    ("unet3d", 3, 4, 1, {}, "total", 19_078_593),
    ("unet3d", 3, 4, 1, {}, "trainable", 19_073_921),
    ("unet3d", 3, 4, 4, {}, "total", 19_078_788),
    ("multiresunet", 2, 3, 1, {}, "total", 7_262_750),
    ("multiresunet", 2, 3, 1, {}, "trainable", 7_238_228),
    ("multiresunet", 2, 3, 4, {}, "total", 7_262_912),
    ("multiresunet", 3, 4, 1, {}, "total", 18_657_689),
    ("multiresunet", 3, 4, 1, {}, "trainable", 18_633_167),
    ("multiresunet", 3, 1, 1, {}, "total", 18_656_888),
    ("sharp-unet", 2, 3, 1, {}, "total", 7_764_417),
    ("sharp-unet", 2, 3, 1, {}, "trainable", 7_760_097),
    ("sharp-unet", 2, 3, 1, {}, "frozen", 4_320),
    ("sharp-unet", 2, 3, 1, {"trainable": True}, "trainable", 7_764_417),
    ("wide-sharp-unet", 2, 3, 1, {}, "trainable", 9_282_876),
    ("wide-sharp-unet", 2, 3, 1, {}, "frozen", 4_725),
    ("ternausnet16", 2, 3, 1, {}, "trainable", 23_748_241),
    ("ternausnet16", 2, 3, 1, {}, "total", 23_752_273),
    ("ternausnet16", 2, 3, 1, {"reading": "original-linear"}, "trainable", 29_306_465),
    ("ternausnet16", 2, 3, 1, {"reading": "original-deconv"}, "trainable", 32_202_337),
    ("sharp-ternausnet16", 2, 3, 1, {}, "total", 23_764_945),
    ("sharp-ternausnet16", 2, 3, 1, {}, "frozen", 12_672),
    ("resnet50-unet", 2, 3, 1, {}, "trainable", 32_521_105),
    ("resnet50-unet", 2, 3, 1, {}, "total", 32_576_209),
    ("sharp-resnet50-unet", 2, 3, 1, {}, "total", 32_592_913),
    ("sharp-resnet50-unet", 2, 3, 1, {}, "frozen", 16_704),
    ("unet++", 2, 1, 1, {}, "trainable", 9_041_601),
    ("unet++", 2, 3, 1, {}, "trainable", 9_042_177),
    ("unet++", 2, 1, 1, {"deep_supervision": True}, "trainable", 9_041_700),
    ("fcn8", 2, 3, 1, {}, "trainable", 134_265_699),
    ("fcn8", 2, 1, 1, {}, "trainable", 134_264_547),
    ("fcn8", 2, 3, 21, {}, "trainable", 134_489_759),
    ("fcn-preprocessor", 2, 1, 1, {}, "trainable", 1_832_145),
    ("fcn-preprocessor", 2, 1, 1, {"output": 1}, "trainable", 1_832_017),
    ("fcn-preprocessor", 2, 3, 3, {}, "trainable", 1_832_723),
    ("fcn-preprocessor", 3, 1, 1, {}, "trainable", 5_231_889),
    ("fcresnet", 2, 1, 1, {}, "trainable", 11_042_273),
    ("fcresnet", 2, 1, 1, {}, "total", 11_093_665),
    ("fcresnet", 2, 1, 4, {}, "trainable", 11_042_372),
    ("fcresnet", 2, 3, 1, {}, "trainable", 11_042_849),
    ("fcresnet", 3, 1, 1, {}, "trainable", 21_825_569),
    ("fcn-fcresnet", 2, 1, 1, {}, "trainable", 12_874_418),
    ("fcn-fcresnet", 2, 1, 1, {"output": 1}, "trainable", 12_874_290),
    ("fcn-fcresnet", 2, 1, 4, {}, "trainable", 12_874_517),
    ("fcn-fcresnet", 2, 3, 1, {}, "trainable", 12_875_572),
    ("fcn-fcresnet", 2, 3, 1, {"between": "one"}, "trainable", 12_874_706),
    ("fcn-fcresnet", 3, 1, 1, {}, "trainable", 27_057_458),
]
TUNED = [  # widths chosen to come near the published 8.5 million
    ("unet", 2, 4, 1, {"reading": "modular"}, "trainable", 8_512_586),
    ("attention-unet", 2, 4, 1, {}, "trainable", 8_500_644),
    ("nas-unet", 2, 4, 1, {}, "trainable", 8_534_593),
    ("nas-reduction-unet", 2, 4, 1, {}, "trainable", 8_526_427),
    ("efficient-unet", 2, 4, 1, {}, "trainable", 8_507_322),
]
DERIVED = [  # nothing published; what the readings give
    ("unet", 3, 1, 1, {}, "trainable", 22_575_329),
    ("unet", 2, 1, 1, {"reading": "ronneberger"}, "trainable", 31_030_593),
    ("residual-unet", 2, 3, 1, {}, "trainable", 8_109_825),
    ("residual-unet", 2, 1, 1, {}, "trainable", 8_109_185),
    ("residual-unet", 2, 3, 1, {"block": "double"}, "trainable", 7_760_097),
    ("resdunet", 2, 3, 1, {}, "trainable", 5_582_071),
    ("mildnet", 2, 3, 1, {}, "trainable", 25_379_463),
    ("mildnet", 2, 3, 1, {"merge": "concat"}, "trainable", 11_252_935),
    ("mildnet", 2, 3, 1, {"merge": "project"}, "trainable", 27_999_751),
    ("mildnet", 3, 1, 1, {}, "trainable", 74_699_331),
    ("mildnet-plain-skips", 2, 3, 1, {}, "trainable", 22_242_183),
    ("mildnet-plain-skips", 2, 3, 1, {"merge": "concat"}, "trainable", 8_115_655),
    ("unet-mlr", 2, 3, 1, {}, "trainable", 10_897_377),
]


@pytest.mark.parametrize(("name", "dims", "cin", "outputs", "parts", "which", "expected"), PUBLISHED + TUNED + DERIVED)
def test_count(name, dims, cin, outputs, parts, which, expected):
    assert counts(name, dims, cin, outputs, **parts)[which] == expected


@pytest.mark.parametrize(("name", "dims", "cin", "outputs", "parts", "which", "expected"), TUNED)
def test_tuned_nets_lie_within_one_percent_of_their_paper(name, dims, cin, outputs, parts, which, expected):
    assert abs(counts(name, dims, cin, outputs, **parts)[which] / 8.5e6 - 1) < 0.01


def test_every_net_has_a_count():
    assert {row[0] for row in PUBLISHED + TUNED + DERIVED} == set(NETS)


def own(*modules):
    return [count_parameters(module)["trainable"] for module in modules]


def net(name, **spec):
    with torch.device("meta"):
        return build(NetSpec(name=name, **spec)).net


def test_parts_of_unet():
    unet = net("unet")
    assert own(*unet.encoder.blocks) == [9568, 55424, 221440, 885248, 3539968]
    assert own(*unet.ups) == [524544, 131200, 32832, 8224]
    assert own(*unet.blocks) == [1769984, 442624, 110720, 27712]
    assert own(unet.head) == [33]


def test_parts_of_multiresunet():
    multires = net("multiresunet", in_channels=3)
    assert own(*multires.encoder.blocks) == [5877, 35838, 146706, 591288, 2367288]
    assert own(*multires.skip.paths) == [47552, 149888, 436224, 1091584]
    assert own(*multires.ups) == [873728, 218240, 54336, 13472]
    assert own(*multires.blocks) == [910788, 226283, 55704, 13380]
    assert own(multires.head) == [52]


def test_parts_of_fcresnet():
    fcresnet = net("fcresnet")
    assert own(fcresnet.first, *fcresnet.downs, fcresnet.across) == [320, 9312, 54912, 590848, 2906624, 3749376]
    assert own(*fcresnet.skips) == [196864, 49280, 12352, 4128]
    assert own(*fcresnet.ups) == [2824448, 570240, 54912, 9312 + 9248]
    assert own(fcresnet.last) == [64 + 33]


def test_fcresnet_has_140_main_convolutions():
    kernels = [m for m in net("fcresnet").modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(kernels) == 140 + 7 + 7  # and the 1x1 of 7 shortcuts and of 7 sides of long skips


def test_parts_of_the_preprocessor():
    pre = net("fcn-preprocessor")
    assert own(*pre.encoder.blocks) == [2480, 13888, 55424, 221440, 885248]
    assert own(*(block.even for block in pre.blocks)) == [196736, 49216, 12320, 3088]
    assert own(*(block.pair for block in pre.blocks)) == [295168, 73856, 18496, 4640]
    assert own(pre.head) == [145]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in pre.modules()) == 23


def test_parts_of_unet_plus_plus():
    nested = net("unet++")
    expected = {"0-1": 27712, "1-1": 110720, "2-1": 442624, "0-2": 36928, "1-2": 147584, "0-3": 46144}
    assert {node: own(block)[0] for node, block in nested.skip.blocks.items()} == expected
    assert own(*nested.blocks) == [1769984, 590080, 184448, 55360]
    assert {own(up)[0] for node, up in nested.skip.ups.items() if node[0] == "0"} == {8224}


def test_cells_of_nasnet():
    from napari_unetseg.nets.nas import NasCell, ReductionCell

    assert own(NasCell(Layers(), 96, 16), ReductionCell(Layers(), 96, 16)) == [8480, 11040]


def test_res_paths_the_wrong_way_round_miss_the_count():
    def reversed_paths(layers, channels, parts):
        return ResPaths(layers, channels, parts, lengths=(1, 2, 3, 4))

    parts = Parts((32, 64, 128, 256, 512), block=MultiResBlock, skip=reversed_paths, head=_normalised_head)
    assert count_parameters(UShape(parts, Layers(), 3, 1))["total"] == 9_328_350


def test_describe_allocates_nothing_and_counts_as_build_does():
    described = describe_net("sharp-unet", 2, 3, 1)
    assert list(described) == [
        "name", "title", "family", "dims", "in_channels", "outputs", "parameters", "divisor", "pretrained", "paper",
        "sentence", "step_time",
    ]  # fmt: skip
    assert described["parameters"] == {"trainable": 7_760_097, "total": 7_764_417, "frozen": 4_320}
    assert described["dims"] == [2, 3]
    assert described["divisor"] == 16
    assert describe_net("ternausnet16")["pretrained"] == "vgg16"


def test_every_net_says_what_it_is_good_for():
    for name in NETS:
        described = describe_net(name)
        assert described["sentence"].endswith("."), name
        assert described["title"]
        assert described["paper"]
        assert len(described["sentence"]) < 110, name
