"""Folders: one bad file never stops the run, nothing is done twice, nothing is overwritten."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.batch import Outputs, segment_folder
from napari_unetseg.batch.work import measure_classes
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.events import Control, FileDone, Started
from napari_unetseg.nets import Model, build
from napari_unetseg.postprocess import after_net, measure
from napari_unetseg.volume import Geometry, LabelVolume, Volume


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    (folder / "deep").mkdir(parents=True)
    for place in ("a.tif", "b.png", "deep/a.tif", "v.nii.gz"):
        shape = (5, 24, 24) if place.startswith("v") else (40, 31)
        image = (100 + 50 * blobs(shape)[0]).clip(0, 255).astype(np.uint8)
        unit = "mm" if place.startswith("v") else "um"
        nus.write(folder / place, Volume(image[None], Geometry((0.5,) * len(shape), unit)))
    return folder


def table(out):
    with (out / "table.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_one_mask_a_file_on_the_files_grid_and_a_table(scans, model, tmp_path):
    rows = segment_folder(scans, model, tmp_path / "out")
    masks = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert [m for m in masks if not m.startswith(".")] == [
        "a.tif", "b.png", "contact-sheet.png", "deep/a.tif", "ledger.jsonl", "report.html", "run.json", "table.csv",
        "v.nii.gz",
    ]  # fmt: skip
    assert len(rows) == 4 == len(table(tmp_path / "out"))
    mask = nus.read_labels(tmp_path / "out" / "v.nii.gz")
    assert mask.geometry.matches(nus.read(scans / "v.nii.gz").geometry)
    row = next(row for row in rows if row["file"].endswith("v.nii.gz"))
    assert row["voxels"] == int((mask.data == 1).sum())
    assert row["size"] == pytest.approx(row["voxels"] * 0.125)
    assert row["unit"] == "mm3"
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["models"][0]["id"] == model.id
    assert run["files"] == 4


def test_a_bad_file_is_a_row_and_the_run_goes_on(scans, model, tmp_path):
    (scans / "broken.tif").write_bytes(b"not an image")
    nus.write(scans / "colour.png", Volume(np.zeros((3, 9, 9), np.uint8)))
    rows = segment_folder(scans, model, tmp_path / "out")
    failed = {os.path.basename(row["file"]): row["error"] for row in rows if row["status"] == "failed"}
    assert set(failed) == {"broken.tif", "colour.png"}
    assert "3 channels" in failed["colour.png"]
    assert sum(row["status"] == "done" for row in rows) == 4


def test_a_second_run_does_only_what_changed(scans, model, tmp_path):
    out = tmp_path / "out"
    segment_folder(scans, model, out)
    first = table(out)
    changed = Volume(np.arange(40 * 31).reshape(1, 40, 31).astype(np.uint8))
    nus.write(scans / "a.tif", changed)
    (out / "b.png").unlink()
    statuses = {
        os.path.basename(e.file): e.status
        for e in segment_folder.events(scans, model, out)
        if isinstance(e, FileDone) and "deep" not in e.file
    }
    assert statuses == {"a.tif": "done", "b.png": "done", "v.nii.gz": "done before"}
    assert len(table(out)) == len(first)
    again = [e.status for e in segment_folder.events(scans, model, out) if isinstance(e, FileDone)]
    assert again == ["done before"] * 4


def test_another_model_redoes_everything(scans, model, tmp_path):
    segment_folder(scans, model, tmp_path / "out")
    other = Model(build(model.plan.net).eval(), model.plan, model.classes)
    events = segment_folder.events(scans, other, tmp_path / "out")
    assert all(e.status == "done" for e in events if isinstance(e, FileDone))


def test_a_ledger_cut_short_by_a_kill_is_no_error(scans, model, tmp_path):
    segment_folder(scans, model, tmp_path / "out")
    ledger = tmp_path / "out" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-30])
    statuses = [e.status for e in segment_folder.events(scans, model, tmp_path / "out") if isinstance(e, FileDone)]
    assert statuses.count("done") == 1


@pytest.mark.parametrize(
    ("field", "nonsense"),
    [
        *(("classes", 5), ("classes", [5]), ("seconds", "long"), ("mask_state", 7), ("mask_hash", 7)),
        *(("flags", "odd"), ("flags", [1]), ("doubt", "much"), ("error", None), ("status", "gone")),
    ],
)
def test_a_line_of_the_ledger_that_is_nonsense_is_as_if_it_were_not_there(scans, model, tmp_path, field, nonsense):
    segment_folder(scans, model, tmp_path / "out")
    ledger = tmp_path / "out" / "ledger.jsonl"
    first, *rest = ledger.read_text().splitlines()
    ledger.write_text(
        "\n".join([json.dumps({**json.loads(first), field: nonsense}), *rest, "[1, 2]", "7", '{"file": 1}'])
    )
    statuses = [e.status for e in segment_folder.events(scans, model, tmp_path / "out") if isinstance(e, FileDone)]
    assert sorted(statuses) == ["done", *["done before"] * 3]


def test_the_mask_of_a_line_that_is_nonsense_is_neither_segmented_nor_written_over(scans, model):
    segment_folder(scans, model, scans)
    ledger = scans / "ledger.jsonl"
    first, *rest = ledger.read_text().splitlines()
    ledger.write_text("\n".join([json.dumps({**json.loads(first), "classes": 5}), *rest]))
    mask = Path(json.loads(first)["mask"])
    mask.write_bytes(b"corrected by hand")
    again = [event for event in segment_folder.events(scans, model, scans) if isinstance(event, FileDone)]
    assert sorted(event.status for event in again) == ["done", *["done before"] * 3]
    assert mask.read_bytes() == b"corrected by hand"


def test_never_writes_over_an_input(scans, model):
    before = {p: p.read_bytes() for p in scans.rglob("*") if p.is_file()}
    segment_folder(scans, model, scans)
    assert {p: p.read_bytes() for p in before} == before
    assert nus.read_labels(scans / "a_tif_mask.tif").shape == (40, 31)


def test_masks_among_the_images_are_not_segmented_the_next_time(scans, model):
    outputs = Outputs(probabilities=True)
    first = segment_folder(scans, model, scans, outputs)
    again = [e for e in segment_folder.events(scans, model, scans, outputs) if isinstance(e, FileDone)]
    assert [e.status for e in again] == ["done before"] * 4
    assert len(table(scans)) == len(first)


def test_never_writes_over_a_file_it_did_not_write(scans, model, tmp_path):
    out = tmp_path / "labels"
    (out / "deep").mkdir(parents=True)
    for name in ("a.tif", "deep/a.tif"):
        (out / name).write_bytes(b"painted by hand")
    (out / "v.nii.gz").symlink_to(scans / "v.nii.gz")
    scan = (scans / "v.nii.gz").read_bytes()
    for _ in range(2):
        rows = segment_folder(scans, model, out)
        assert {row["mask"] for row in rows} == {
            "a_tif_mask.tif",
            "deep/a_tif_mask.tif",
            "b.png",
            "v_nii_gz_mask.nii.gz",
        }
    assert (out / "a.tif").read_bytes() == (out / "deep/a.tif").read_bytes() == b"painted by hand"
    assert (scans / "v.nii.gz").read_bytes() == scan


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_name_that_is_no_text_still_gets_its_row(scans, model, tmp_path):
    shutil.copy(scans / "a.tif", os.fsencode(scans) + b"/caf\xe9.tif")
    rows = segment_folder(scans, model, tmp_path / "out")
    assert len(rows) == len(table(tmp_path / "out")) == 5
    assert {row["status"] for row in rows} == {"done"}


def test_two_inputs_never_share_a_mask(scans, model, tmp_path):
    shutil.copy(scans / "b.png", scans / "b.jpg.png")
    shutil.copy(scans / "a.tif", scans / "a.ome.tif")
    rows = segment_folder(scans, model, tmp_path / "out")
    assert len({row["mask"] for row in rows}) == len(rows) == 6


def test_components_hold_together_over_corners_as_in_post_processing():
    mask = LabelVolume(np.eye(4, dtype=np.uint8), Geometry((0.5, 0.5), "um"))
    (row,) = measure_classes(mask.data, mask, ("background", "cell"))
    assert (row["voxels"], row["size"], row["unit"], row["components"]) == (4, 1.0, "um2", 1)
    assert measure(mask.data)[0]["objects"] == 1


def test_stop_keeps_what_is_done(scans, model, tmp_path):
    control = Control()
    for event in segment_folder.events(scans, model, tmp_path / "out", control=control):
        if isinstance(event, FileDone):
            control.stop()
    assert 1 <= len(table(tmp_path / "out")) <= 2  # what is being written while the next one is computed is kept too
    again = [e.status for e in segment_folder.events(scans, model, tmp_path / "out") if isinstance(e, FileDone)]
    assert again.count("done") + again.count("done before") == 4


def test_probabilities_and_doubt_beside_the_masks(scans, model, tmp_path):
    segment_folder(scans / "b.png", model, tmp_path / "out", Outputs(probabilities=True, uncertainty=True, tta=True))
    chance = nus.read(tmp_path / "out" / "b_prob.tif").data
    doubt = nus.read(tmp_path / "out" / "b_uncertainty.tif").data
    np.testing.assert_allclose(chance.sum(axis=0), 1, atol=1e-4)
    assert 0 <= doubt.min() <= doubt.max() <= 1


def test_several_models_are_averaged(scans, model, tmp_path):
    other = Model(build(model.plan.net).eval(), model.plan, model.classes)
    probability = []
    for name, models in (("1", [model]), ("2", [other]), ("both", [model, other])):
        segment_folder(scans / "b.png", models, tmp_path / name, Outputs(probabilities=True))
        probability.append(nus.read(tmp_path / name / "b_prob.tif").data)
    np.testing.assert_allclose(probability[2], (probability[0] + probability[1]) / 2, atol=1e-4)


def test_models_of_other_classes_cannot_be_averaged(scans, model, tmp_path):
    other = Model(model.net, model.plan, ("background", "vessel"))
    with pytest.raises(nus.UnetSegError, match="averaged"):
        segment_folder(scans, [model, other], tmp_path / "out")


def test_no_images_is_an_error(model, tmp_path):
    (tmp_path / "empty").mkdir()
    for inputs in (tmp_path / "empty", tmp_path / "nowhere", str(tmp_path / "*.tif")):
        with pytest.raises(ReadError):
            segment_folder(inputs, model, tmp_path / "out")


def test_an_output_folder_that_cannot_be_is_an_error_before_any_work(scans, model, tmp_path):
    (tmp_path / "file").write_text("x")
    events = segment_folder.events(scans, model, tmp_path / "file" / "out")
    with pytest.raises(WriteError):
        next(event for event in events if not isinstance(event, Started))


def test_a_mask_corrected_by_hand_is_kept_and_measured(scans, model, tmp_path):
    out = tmp_path / "out"
    segment_folder(scans, model, out)
    corrected = nus.read_labels(out / "b.png")
    mine = np.zeros_like(corrected.data)
    mine[3:5, 3:5] = 1
    nus.write(out / "b.png", nus.LabelVolume(mine, corrected.geometry))
    for again in (model, Model(build(model.plan.net).eval(), model.plan, model.classes)):
        rows = segment_folder(scans, again, out)
        row = next(row for row in rows if row["file"].endswith("b.png"))
        assert (row["status"], row["voxels"]) == ("kept", 4)
        np.testing.assert_array_equal(nus.read_labels(out / "b.png").data, mine)


def test_touching_objects_are_counted_one_by_one_and_measured_whole():
    y, x = np.ogrid[:40, :60]
    two = (((y - 20) ** 2 + (x - 20) ** 2 < 150) | ((y - 20) ** 2 + (x - 40) ** 2 < 150)).astype(np.uint8)
    classes, objects = after_net(two, ["split-touching"])
    (row,) = measure_classes(classes, nus.LabelVolume(objects, Geometry((1, 1))), ("background", "cell"))
    assert (row["voxels"], row["components"]) == (int(two.sum()), 2)


def test_numbered_objects_are_rows_of_a_table_and_labels_of_the_masks(scans, model, tmp_path):
    out = tmp_path / "out"
    steps = [("minimum-size", {"size": 1.5}), ("split-touching", {})]
    split = Model(model.net, model.plan.change(post={"steps": steps}), model.classes)
    segment_folder(scans, split, out)

    def objects():
        with (out / "objects.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    rows = objects()
    assert rows
    for row in table(out):
        labels, own = nus.read_labels(out / row["mask"]), [r for r in rows if r["mask"] == row["mask"]]
        assert int(row["components"]) == labels.data.max() == len(own)
        sizes = np.bincount(labels.data.ravel(), minlength=1)[1:]
        assert [int(r["voxels"]) for r in own] == sizes.tolist()
        assert {r["file"] for r in own} <= {row["file"]}
    segment_folder(scans, split, out)  # nothing is done again, and nothing is lost
    assert objects() == rows
    (scans / "a.tif").unlink()
    segment_folder(scans, split, out)
    assert objects() == [r for r in rows if not r["file"].endswith("scans/a.tif")]
    segment_folder(scans, model, out)
    assert not (out / "objects.csv").exists()


def test_a_dicom_series_is_one_row_and_its_mask_a_dicom_seg(model, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from dicoms import series

    files = series(tmp_path / "scans" / "study", np.arange(4 * 20 * 24).reshape(4, 20, 24).astype(np.int16))
    for inputs in (tmp_path / "scans", files):
        rows = segment_folder(inputs, model, tmp_path / "out", Outputs(probabilities=True))
        assert len(rows) == 1, rows
        assert rows[0]["file"] == str(tmp_path / "scans" / "study")
        assert rows[0]["status"] == "done", rows
    seg = pydicom.dcmread(tmp_path / "out" / rows[0]["mask"])
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["cell"]
    assert nus.read(tmp_path / "out" / "study_prob.nii.gz").data.shape == (2, 4, 20, 24)
