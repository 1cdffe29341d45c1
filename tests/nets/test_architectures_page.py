"""docs/architectures.md: its tables are those of the nets as they are, its example trains."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from tiny import folder_of_blobs

from napari_unetseg.nets import NETS
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.nets.multires import MultiResBlock
from napari_unetseg.nets.skips import SharpSkip

SCRIPT = Path(__file__).parents[2] / "docs" / "make_architectures.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the documentation is not part of this copy")


@pytest.fixture(scope="module")
def made():
    spec = importlib.util.spec_from_file_location("make_architectures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(made):
    text = made.PAGE.read_text(encoding="utf-8")
    assert made.page(text) == text, "run python docs/make_architectures.py"


def test_every_net_has_a_row_and_exact_ones_have_the_published_integer(made):
    assert set(made.READINGS) == set(NETS)
    for line in made.table()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        counted, published, status = cells[5:8], cells[9], cells[10]
        if integer := re.match(r"\d[\d,]+\d{3}", published if status == "EXACT" else status[-9:]):
            assert integer.group() in counted, cells[0]


def test_the_example_of_a_composed_net_trains_as_it_stands(made, cli, tmp_path):
    text = made.PAGE.read_text(encoding="utf-8")
    example = re.search(r"<!-- example: plan -->\n```json\n(.*?)\n```", text, re.S).group(1)
    plan = json.loads(example)
    plan["net"]["width"] = 0.1  # and small patches: quick
    plan["training"] = {"patch": [32, 32], "batch_size": 2, "steps_per_epoch": 2, "device": "cpu"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    folder = folder_of_blobs(tmp_path / "blobs", number=3)
    code, _, err = cli("train", folder, "-o", tmp_path / "m", "--plan", tmp_path / "plan.json", "--epochs", 2)
    assert code == 0, err
    model = Model.load(tmp_path / "m")
    assert model.plan.net.parts == {"block": "multires", "skip": "sharp"}
    assert isinstance(model.net.net.skip, SharpSkip)
    assert all(isinstance(block, MultiResBlock) for block in model.net.net.blocks)
