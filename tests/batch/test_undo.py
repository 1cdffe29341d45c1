"""A run taken back: the folder is as it was, somebody's work in it stays, and nothing outside it is touched."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

import napari_unetseg as nus
from napari_unetseg.batch import Outputs, segment_folder, undo_run
from napari_unetseg.batch.run import SHEET
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.nets import Model


def contents(folder):
    """Hash of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_first_run_goes_and_leaves_what_was_there(model, many, tmp_path):
    folder, out = many(4, broken=(3,)), tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    (out / "mine" / "notes.txt").write_text("keep")
    (out / "contact-sheet.png").write_bytes(b"a picture of the user's own")
    before = contents(out)
    segment_folder(folder, model, out, Outputs(uncertainty=True))
    assert len(list(out.rglob("*_uncertainty.tif"))) == 3
    undone = undo_run(out)
    assert (undone.removed, undone.restored, undone.kept) == (3, 0, ())
    assert contents(out) == before
    assert sorted(path.name for path in out.iterdir()) == ["contact-sheet.png", "mine"]
    with pytest.raises(ReadError, match="Nothing was segmented"):
        undo_run(out)


def test_what_a_second_run_replaced_comes_back(model, many, tmp_path):
    folder, out = many(5) / "series-0", tmp_path / "out"
    files = sorted(folder.rglob("*.tif"))
    segment_folder(files[:2], model, out)
    before = contents(out)
    plan = model.plan.change(post={"steps": [["minimum-size", {"size": 3}]]})
    other = Model(model.net, plan, model.classes)
    for _ in range(2):  # the second time all is done already: it is the first that is taken back
        segment_folder(files, other, out)
    assert contents(out)["ledger.jsonl"] != before["ledger.jsonl"]
    undone = undo_run(out)
    assert (undone.removed, undone.restored, undone.kept) == (1, 2, ())
    assert contents(out) == before
    segment_folder(files[:2], model, out)  # which are done already
    with pytest.raises(ReadError, match="not known"):  # nothing is left of what the first run may have replaced
        undo_run(out)
    assert len(list(out.rglob("*.tif"))) == 2


def test_what_is_not_made_again_is_not_kept_twice(model, many, tmp_path):
    folder, out = many(5) / "series-0", tmp_path / "out"
    files = sorted(folder.rglob("*.tif"))
    segment_folder(files[:2], model, out)
    before = contents(out)
    segment_folder(files, model, out)
    assert [path.name for path in (out / ".before").rglob("*") if path.suffix in (".tif", ".png")] == [SHEET]
    assert undo_run(out).removed == len(files) - 2
    assert contents(out) == before


def test_a_run_that_finds_no_room_to_begin_leaves_the_last_one_to_be_taken_back(model, many, tmp_path, monkeypatch):
    folder, out = many(4) / "series-0", tmp_path / "out"
    files = sorted(folder.rglob("*.tif"))
    segment_folder(files[:1], model, out)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copy2", full)
        with pytest.raises(WriteError, match="No space"):
            segment_folder(files, model, out)
    assert undo_run(out).removed == 1


def test_what_an_undo_could_not_remove_takes_nothing_back_a_second_time(model, many, tmp_path, monkeypatch):
    folder, out = many(4) / "series-0", tmp_path / "out"
    files = sorted(folder.rglob("*.tif"))
    segment_folder(files[:1], model, out)
    segment_folder(files, model, out)
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: (path / "ledger.jsonl").unlink(missing_ok=True))
    assert undo_run(out).removed == 1
    with pytest.raises(ReadError, match="nothing is taken back"):
        undo_run(out)
    assert (out / files[0].name).is_file()


def test_where_nothing_replaced_could_be_kept_it_stays(model, many, tmp_path, monkeypatch):
    folder, out = many(3) / "series-0", tmp_path / "out"
    segment_folder(sorted(folder.rglob("*.tif"))[:1], model, out)

    def refused(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    plan = model.plan.change(post={"steps": [["minimum-size", {"size": 3}]]})
    rows = segment_folder(folder, Model(model.net, plan, model.classes), out)
    undone = undo_run(out)
    assert undone.removed + len(undone.kept) == len(rows)
    assert [Path(path).is_file() for path in undone.kept] == [True]


def test_a_mask_that_was_open_elsewhere_is_taken_back_at_the_next_try(model, many, tmp_path, monkeypatch):
    folder, out = many(5) / "series-0", tmp_path / "out"
    segment_folder(folder, model, out)
    before = contents(out)
    plan = model.plan.change(post={"steps": [["minimum-size", {"size": 3}]]})
    rows = segment_folder(folder, Model(model.net, plan, model.classes), out)
    real, masks = os.replace, []

    def once(source, target):
        if ".before" in Path(source).parts and Path(target).suffix == ".tif":
            masks.append(target)
            if len(masks) == 2:
                raise PermissionError(13, "open elsewhere")
        real(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(WriteError, match="open elsewhere"):
        undo_run(out)
    undone = undo_run(out)
    assert (undone.removed, undone.restored, undone.kept) == (0, len(rows) - 1, ())
    assert contents(out) == before


def test_a_mask_corrected_since_stays_and_is_not_written_over(model, many, tmp_path):
    folder, out = many(3), tmp_path / "out"
    rows = segment_folder(folder, model, out)
    mask = out / rows[0]["mask"]
    work = nus.read_labels(mask)
    nus.write(mask, type(work)(1 - work.data.clip(0, 1), work.geometry), like=work)
    mine = mask.read_bytes()
    undone = undo_run(out)
    assert undone.kept == (str(mask),)
    assert mask.read_bytes() == mine
    assert sorted(path.name for path in out.rglob("*.tif")) == [mask.name]
    again = segment_folder(folder, model, out)
    assert mask.read_bytes() == mine
    assert {row["status"] for row in again} == {"kept", "done"}


def test_a_ledger_that_names_files_elsewhere_removes_none(model, many, tmp_path):
    folder, out = many(2), tmp_path / "out"
    segment_folder(folder, model, out)
    outside = tmp_path / "outside.tif"
    outside.write_bytes(b"mine")
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    for name in (str(outside), str(out / ".." / "outside.tif")):
        lines.append({**lines[0], "file": name, "mask": name, "mask_hash": hashlib.sha256(b"mine").hexdigest()[:16]})
    (out / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    undo_run(out)
    assert outside.read_bytes() == b"mine"
