"""Flags, the worst first, the report and the contact sheet."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.batch import segment_folder
from napari_unetseg.batch.quality import Doubts, look_at, undecided, worst_first
from napari_unetseg.batch.report import write_report
from napari_unetseg.batch.run import SHEET
from napari_unetseg.batch.thumbnails import contact_sheet
from napari_unetseg.nets import Model
from napari_unetseg.palette import PALETTE


def probability(p):
    return np.stack([1 - p, p]).astype(np.float32)


def test_sure_undecided_and_empty(model):
    image = nus.Volume(np.zeros((1, 20, 20), np.uint8))
    disc = np.zeros((20, 20))
    disc[5:15, 5:15] = 1
    for p, flags in ((0.99 * disc, []), (0.55 * disc, []), (0.02 + 0 * disc, ["empty"])):
        found = look_at(probability(p), (p > 0.5).astype(np.uint8), image, model)
        assert found["flags"] == flags, found
    assert look_at(probability(0.55 * disc), disc, image, model)["doubt"] > 0.9


def test_an_image_unlike_those_learned_from_is_flagged(tmp_path):
    from tiny import folder_of_blobs

    folder = folder_of_blobs(tmp_path / "data", 3, (48, 48))
    plan = nus.Plan(net={"name": "unet", "width": 0.1}, training={"patch": (32, 32), "epochs": 1, "steps_per_epoch": 2})
    nus.fine_tune(folder, plan).save(tmp_path / "m")
    model = Model.load(tmp_path / "m")
    assert model.facts["seen"]["images"] >= 2
    noise = np.random.default_rng(0).integers(0, 4000, (1, 48, 48)).astype(np.uint16)
    nus.write(tmp_path / "in" / "noise.tif", nus.Volume(noise, nus.Geometry((0.5, 0.5), "um")))
    alike = (1000 * blobs((48, 48), 9)[0] + 2000).clip(0).astype(np.uint16)
    nus.write(tmp_path / "in" / "alike.tif", nus.Volume(alike[None], nus.Geometry((0.5, 0.5), "um")))
    nus.write(tmp_path / "in" / "coarse.tif", nus.Volume(alike[None], nus.Geometry((5.0, 5.0), "um")))
    rows = segment_folder(tmp_path / "in", model, tmp_path / "out")
    flags = {row["file"].rsplit("/", 1)[-1]: row["flags"] for row in rows}
    assert {name: "unlike" in flag for name, flag in flags.items()} == {
        "alike.tif": False, "coarse.tif": True, "noise.tif": True,
    }  # fmt: skip


def test_a_file_is_uncertain_among_others_of_its_run():
    def flagged(*doubts):
        known, rows = Doubts(), [{"doubt": doubt, "flags": ["unlike"]} for doubt in doubts]
        live = [known.flagged(row) for row in rows]
        return [
            [i for i, row in enumerate(rows) if "uncertain" in row["flags"]] for rows in (live, known.settled(rows))
        ]

    few = flagged(0.7, 0.4, 0.6)
    assert few == [[], [0, 2]]  # while it runs more may come; of three files none stands out: each by itself
    short = (0.7, 0.72, 0.69, 0.71, 0.9, 0.7, 0.68, 0.71)
    assert flagged(*short)[1] == [4]
    assert 4 in flagged(*short)[0]
    assert flagged(*(0.1 * doubt for doubt in short))[1] == []  # a model that is sure is sure of all
    assert flagged(*[0.8] * 20)[1] == []
    assert flagged(0.6, None, 0.6, 0.6, 0.6, None, 0.95)[1] == [6]
    old = {"doubt": 0.1, "flags": ["empty", "uncertain"]}  # of a ledger that flagged otherwise
    assert Doubts().flagged(old)["flags"] == ["empty"]


def test_a_model_that_is_undecided_over_most_files_is_said_to_be():
    assert undecided([0.1, None, 0.2, 0.9]) == ""
    assert undecided([]) == ""
    assert "median doubt 0.80 of 1" in undecided([0.7, 0.8, None, 0.9])


def test_worst_first():
    entries = [
        {"status": "done", "flags": [], "doubt": 0.1},
        {"status": "done", "flags": ["unlike"], "doubt": 0.0},
        {"status": "failed"},
        {"status": "done", "flags": [], "doubt": 0.4},
        {"status": "done", "flags": ["uncertain", "unlike"], "doubt": 0.6},
    ]
    assert [entries.index(one) for one in worst_first(entries)] == [2, 4, 1, 3, 0]


def test_the_report_stands_alone_and_shows_the_worst_first(model, many, tmp_path):
    folder, out = many(3, broken=(2,)), tmp_path / "out"
    (folder / "series-1" / "<i>odd & name.tif").write_bytes((folder / "series-0" / "000.tif").read_bytes())
    segment_folder(folder, model, out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/jpeg;base64,") == 3
    assert "&lt;i&gt;odd &amp; name.tif" in page
    assert "<i>" not in page
    assert page.index("002.tif") < page.index("000.tif")
    assert nus.read(out / SHEET).data.shape[0] == 3
    assert json.loads((out / "run.json").read_text())["failed"] == 1
    before = (out / "report.html").stat().st_mtime_ns
    again = segment_folder(folder, model, out)
    assert (out / "report.html").stat().st_mtime_ns > before
    assert (out / "report.html").read_text(encoding="utf-8").count("data:image/jpeg") == 3
    assert len(again) == 4


def test_classes_are_named_in_the_colours_of_the_pictures(tmp_path):
    classes = ["background", "cell <wall>", *(f"part {n} of many" for n in range(20))]
    run = {"models": [], "failed": 0, "classes": classes, "device": "cpu", "written": ""}
    page = write_report(tmp_path, [], run).read_text()
    assert f'color:{PALETTE[1]}">■ </i>cell &lt;wall&gt;<' in page
    assert [page.count(f'"color:{colour}"') for colour in PALETTE] == [3] * 7
    assert "background<" not in page
    assert "files a second" not in page  # nothing was computed
    sheet = nus.read(contact_sheet(tmp_path / SHEET, [], tmp_path, classes)).data
    for colour in PALETTE:
        rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
        assert (sheet == rgb[:, None, None]).all(axis=0).sum() == 3 * 11**2


def test_a_report_of_very_many_files_lists_the_worst_and_says_where_the_others_are(tmp_path):
    row = {"mask": "", "status": "failed", "error": "Damaged.", "seconds": 0.0, "classes": []}
    run = {"models": [], "failed": 5100, "classes": ["background"], "device": "cpu", "written": ""}
    page = write_report(tmp_path, [{**row, "file": f"/scans/{n}.tif"} for n in range(5100)], run).read_text()
    assert page.count("<tr><td>") == 5000
    assert "The worst 5000 of 5100 files; all are in table.csv" in page
    assert "5100 files segmented" in page


def test_an_image_with_the_name_of_the_contact_sheet_is_never_written_over(model, many):
    folder = many(1)
    pixels = np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)
    nus.write(folder / SHEET, nus.Volume(pixels))
    for _ in range(2):
        assert len({row["file"] for row in segment_folder(folder, model, folder)}) == 2
        np.testing.assert_array_equal(nus.read(folder / SHEET).data, pixels)


def test_our_contact_sheet_is_no_input_of_the_next_run(model, many):
    folder = many(2)
    for _ in range(2):
        assert len(segment_folder(folder, model, folder)) == 2
    assert (folder / SHEET).exists()


@pytest.mark.parametrize("shape", [(6, 30, 40), (30, 40), (400, 20)])
def test_thumbnails_of_planes_and_volumes(shape, tmp_path):
    from PIL import Image

    from napari_unetseg.batch.thumbnails import SIDE, save_thumbnail

    image, mask = blobs(shape)
    save_thumbnail(tmp_path / "deep" / "t.jpg", image[None], mask)
    with Image.open(tmp_path / "deep" / "t.jpg") as picture:
        assert SIDE / 2 < max(picture.size) <= SIDE  # a small one is drawn larger
