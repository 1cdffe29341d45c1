"""``napari-unetseg measure``."""

import csv
import json
import sys

import numpy as np
import pytest

from napari_unetseg import cli
from napari_unetseg.io import write
from napari_unetseg.volume import Geometry, LabelVolume, Volume


@pytest.fixture
def files(tmp_path):
    mask = np.zeros((30, 60), np.uint8)
    y, x = np.mgrid[:30, :60]
    mask[((y - 15) ** 2 + (x - 20) ** 2 < 120) | ((y - 15) ** 2 + (x - 40) ** 2 < 120)] = 1
    mask[1:4, 1:5] = 2
    image = np.arange(mask.size, dtype=np.uint16).reshape(1, *mask.shape)
    geometry = Geometry((0.5, 0.5), "um")
    write(tmp_path / "mask.tif", LabelVolume(mask, geometry))
    write(tmp_path / "bare.png", LabelVolume(mask))
    write(tmp_path / "image.tif", Volume(image, geometry))
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["napari-unetseg", "measure", *map(str, words)])
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_row_a_class_and_object_in_physical_units(files, command):
    table = files / "deep" / "table.csv"
    code, out, _ = command(
        files / "mask.tif", "--image", files / "image.tif", "-o", table, "--split", "--classes", "cell,debris"
    )
    assert code == 0
    assert "um^2" in out
    assert "5 rows" in out
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["class"], row["object"]) for row in rows] == [
        ("cell", "0"), ("cell", "1"), ("cell", "2"), ("debris", "0"), ("debris", "3"),
    ]  # fmt: skip
    assert float(rows[4]["area"]) == 12 * 0.25
    assert all(
        len(text.lstrip("-").replace(".", "").lstrip("0")) <= 6 for row in rows for text in row.values() if "." in text
    )
    assert (float(rows[4]["centroid_y"]), float(rows[4]["centroid_x"])) == (1.0, 1.25)
    assert float(rows[4]["mean"]) == np.mean([60 * y + x for y in range(1, 4) for x in range(1, 5)])


def test_json_and_spacing(files, command):
    code, out, _ = command(files / "bare.png", "--spacing", "2,3", "--unit", "nm", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["area"] for row in rows if row["label"] == 2] == [72, 72]
    assert rows[0]["unit"] == "nm"
    _, out, _ = command(files / "bare.png", "--image", files / "image.tif", "--json")  # the image knows its pixels
    assert json.loads(out)[-1]["area"] == 3
    _, out, _ = command(files / "mask.tif", "--unit", "mm", "--json")
    assert json.loads(out)[-1]["area"] == pytest.approx(3e-6)


def test_a_mask_of_numbers(files, command):
    numbers = np.zeros((30, 60), np.uint16)
    numbers[2:4, 2:4], numbers[2:4, 4:6] = 7, 300
    write(files / "numbers.tif", LabelVolume(numbers))
    _, out, _ = command(files / "numbers.tif", "--numbered", "--json")
    found = [(row["object"], row["objects"], row["area"]) for row in json.loads(out)]
    assert found == [(0, 2, 8), (7, 1, 4), (300, 1, 4)]
    write(files / "one.tif", LabelVolume((numbers > 0).astype(np.uint8)))
    _, again, _ = command(files / "one.tif", "--objects", files / "numbers.tif", "--json")
    assert json.loads(again) == json.loads(out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--split", "--numbered"], "in one way only"),
        (["-o", "table.txt"], "no table"),
        (["--spacing", "1,2,3"], "does not fit a mask with 2 axes"),
        (["--spacing", "0,1"], "does not fit"),
        (["--spacing", "wide"], "not a list of numbers"),
    ],
)
def test_mistakes_are_two_lines(files, command, words, says):
    code, out, err = command(files / "mask.tif", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.strip().splitlines()) == 2
