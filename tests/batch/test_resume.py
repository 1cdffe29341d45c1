"""Killed and run again: one row a file, nothing lost, nothing done twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import napari_unetseg as nus
from napari_unetseg.batch import Outputs, segment_folder, undo_run, work
from napari_unetseg.batch import ledger as ledgers
from napari_unetseg.batch.ledger import Ledger, file_state, hash_file
from napari_unetseg.batch.local import run_here
from napari_unetseg.batch.outputs import Job
from napari_unetseg.batch.work import Segmenter
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.events import Control, FileDone
from napari_unetseg.inference import Ensemble


def lines(out):
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]


def statuses(events):
    return [event.status for event in events if isinstance(event, FileDone)]


def test_killed_and_run_again_there_is_one_row_a_file(model, many, tmp_path):
    folder, out = many(30, broken=(7, 19)), tmp_path / "out"
    model.save(tmp_path / "m")
    words = [sys.executable, "-m", "napari_unetseg.cli", "segment", folder, "-m", tmp_path / "m", "-o", out]
    run = subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while not (out / "ledger.jsonl").exists() or len((out / "ledger.jsonl").read_bytes().splitlines()) < 4:
        assert run.poll() is None, run.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    before = len(lines(out))
    assert 4 <= before < 30, "it was to be killed midway"
    rows = segment_folder(folder, model, out)
    for found in (rows, lines(out)):
        assert max(Counter(row["file"] for row in found).values()) == 1
        assert len(found) == 30
        assert sorted(row["file"][-7:-4] for row in found if row["status"] == "failed") == ["007", "019"]
    assert len({row["mask"] for row in rows if row["mask"]}) == 28
    good = [path.name for path in folder.rglob("*.tif") if path.name not in ("007.tif", "019.tif")]
    assert sorted(path.name for path in out.rglob("*.tif") if ".before" not in path.parts) == sorted(good)
    assert not (out / ".started.jsonl").exists()


def test_a_run_that_is_broken_off_leaves_a_table_of_what_it_did(model, many, tmp_path):
    folder, out = many(6), tmp_path / "out"
    segment_folder(folder / "series-0", model, out)
    done = 0
    run = segment_folder.events(folder, model, out)
    for event in run:  # each row is there as soon as its file is said to be over
        done += isinstance(event, FileDone)
        if done == 5:
            break
    with (out / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["file"] for row in rows}) == 5
    assert {row["status"] for row in rows} == {"done"}
    run.close()
    segment_folder(folder, model, out)
    with (out / "table.csv").open(newline="") as stream:
        assert [Path(row["file"]).name for row in csv.DictReader(stream)] == [
            "000.tif", "002.tif", "004.tif", "001.tif", "003.tif", "005.tif",
        ]  # fmt: skip


def test_a_mask_written_just_before_a_kill_is_written_again_under_its_name(model, many, tmp_path):
    folder, out = many(2), tmp_path / "out"
    out.mkdir()
    ledger = Ledger(out, "recipe")
    target = out / "series-0" / "000.tif"
    ledger.start(folder / "series-0" / "000.tif", target)
    target.parent.mkdir()
    target.write_bytes(b"half of a run")
    segment_folder(folder, model, out)
    assert nus.read_labels(target).shape == (32, 32)
    assert len(list(out.rglob("*.tif"))) == 2


def test_the_ledger_says_who_made_what_of_what(model, many, tmp_path):
    segment_folder(many(2, broken=(1,)), model, tmp_path / "out")
    done, failed = sorted(lines(tmp_path / "out"), key=lambda row: row["status"])
    assert done["model"] == failed["model"] == model.id
    assert len(done["image_hash"]) == len(done["mask_hash"]) == len(failed["image_hash"]) == 16
    assert done["image_hash"] != failed["image_hash"]
    assert (done["status"], done["error"], failed["status"], failed["mask"]) == ("done", "", "failed", "")
    assert done["seconds"] > 0


def other_bytes(path):
    """Change a file, but neither its size nor its time of change."""
    times, raw = path.stat(), path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def hashed(monkeypatch):
    """Files whose bytes the ledger reads from now on."""
    read = []
    monkeypatch.setattr(ledgers, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    return read


def test_finished_files_are_known_without_reading_them(model, many, tmp_path, monkeypatch):
    folder, out = many(3), tmp_path / "out"
    segment_folder(folder, model, out)
    read = hashed(monkeypatch)
    assert statuses(segment_folder.events(folder, model, out)) == ["done before"] * 3
    assert read == []
    image, mask = folder / "series-0" / "000.tif", out / "series-1" / "001.tif"
    other_bytes(image)
    other_bytes(mask)
    assert statuses(segment_folder.events(folder, model, out)) == ["done before"] * 3
    verified = segment_folder.events(folder, model, out, Outputs(verify=True))
    assert sorted(statuses(verified)) == ["done", "done before", "kept"]
    assert sorted(set(read)) == ["000.tif", "001.tif", "002.tif"]


def test_files_that_were_copied_or_touched_are_read_once_and_not_done_again(model, many, tmp_path, monkeypatch):
    folder, out = many(2), tmp_path / "out"
    segment_folder(folder, model, out)
    for path in (folder / "series-0" / "000.tif", out / "series-1" / "001.tif"):
        os.utime(path, (1e9, 1e9))
    read = hashed(monkeypatch)
    for names in (["000.tif", "001.tif"], []):
        assert statuses(segment_folder.events(folder, model, out)) == ["done before"] * 2
        assert sorted(read) == names
        read.clear()
    (folder / "series-0" / "000.tif").write_bytes(b"another size")
    assert sorted(statuses(segment_folder.events(folder, model, out))) == ["done before", "failed"]
    assert read == []


def test_a_finished_file_that_cannot_be_read_any_more_does_not_end_the_run(model, many, tmp_path, monkeypatch):
    folder, out = many(3), tmp_path / "out"
    segment_folder(folder, model, out)
    touched = folder / "series-0" / "000.tif"
    os.utime(touched, ns=(5, 5))

    def refused(path):
        if path == touched:
            raise PermissionError(13, "Permission denied")
        return hash_file(path)

    for module in (ledgers, work):
        monkeypatch.setattr(module, "hash_file", refused)
    assert sorted(statuses(segment_folder.events(folder, model, out))) == ["done before", "done before", "failed"]


def test_a_run_of_an_earlier_version_is_gone_on_with_and_still_taken_back_as_a_whole(model, many, tmp_path):
    folder, out = many(3) / "series-0", tmp_path / "out"
    segment_folder(sorted(folder.iterdir())[:1], model, out)
    earlier = [{key: value for key, value in one.items() if "state" not in key} for one in lines(out)]
    earlier[0]["recipe"] = Segmenter(Ensemble.of([model]), Outputs()).earlier_recipe
    (out / "ledger.jsonl").write_text("".join(json.dumps(one) + "\n" for one in earlier))
    assert statuses(segment_folder.events(folder, model, out)) == ["done before", "done"]
    assert all({"image_state", "mask_state"} <= set(one) for one in lines(out))
    undone = undo_run(out)
    assert (undone.removed, undone.kept) == (1, ())  # the first, which this run only looked at, is none of its masks
    assert [path.name for path in out.rglob("*.tif")] == ["000.tif"]


def test_an_image_that_is_changed_while_it_is_segmented_is_done_again(model, many, tmp_path, monkeypatch):
    folder, out, real = many(2), tmp_path / "out", work.opened

    def opened(file, *more):
        image = real(file, *more)
        if file.name == "001.tif":  # somebody writes it when it has just been read
            nus.write(file, nus.Volume(image.data[:, ::-1].copy(), image.geometry))
        return image

    monkeypatch.setattr(work, "opened", opened)
    segment_folder(folder, model, out)
    monkeypatch.undo()
    assert [bool(one["image_hash"]) for one in lines(out)] == [True, False]  # of what was read nobody knows
    for again in ("done", "done before"):
        assert statuses(segment_folder.events(folder, model, out)) == ["done before", again]


def test_a_folder_that_is_an_image_has_the_state_of_all_that_is_in_it(tmp_path):
    chunk = tmp_path / "scan.zarr" / "0" / "c"
    chunk.mkdir(parents=True)
    (chunk / "0").write_bytes(b"voxels")
    (chunk / "1").write_bytes(b"voxels")
    before = file_state(tmp_path / "scan.zarr")
    assert file_state(tmp_path / "scan.zarr") == before
    os.utime(chunk / "0", (1e9, 1e9))  # older than the other, which is the newest as before
    touched = file_state(tmp_path / "scan.zarr")
    (chunk / "0").rename(chunk / "2")
    assert len({before, touched, file_state(tmp_path / "scan.zarr"), file_state(tmp_path / "none")}) == 4
    assert file_state(tmp_path / "none") == ""


def test_failed_only_leaves_all_else_as_it_is(model, many, tmp_path):
    folder, out = many(4, broken=(1, 2)), tmp_path / "out"
    first = segment_folder(folder, model, out)
    nus.write(folder / "series-1" / "001.tif", nus.Volume(np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)))
    nus.write(folder / "series-0" / "000.tif", nus.Volume(np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)))
    nus.write(folder / "series-1" / "new.tif", nus.Volume(np.arange(1024, dtype=np.uint8).reshape(1, 32, 32)))
    run = segment_folder.events(folder, model, out, failed_only=True)
    assert sorted(statuses(run)) == ["done", "done before", "done before", "failed"]  # 000 is none of its business
    assert [row["file"] for row in segment_folder(folder, model, out, failed_only=True)] == [r["file"] for r in first]
    assert statuses(segment_folder.events(folder, model, out)).count("done") == 2  # 000 and new


def test_failed_only_needs_an_earlier_run(model, many, tmp_path):
    with pytest.raises(ReadError, match="no earlier run"):
        segment_folder(many(1), model, tmp_path / "out", failed_only=True)


def test_a_second_run_in_the_folder_is_refused_and_told_who_is_at_work(model, many, tmp_path):
    folder = many(3)
    first = segment_folder.events(folder, model, tmp_path / "out")
    next(event for event in first if isinstance(event, FileDone))
    with pytest.raises(WriteError, match=f"process {os.getpid()} of .* on this computer"):
        segment_folder(folder, model, tmp_path / "out")
    first.close()
    assert len(segment_folder(folder, model, tmp_path / "out")) == 3


def test_a_full_disk_stops_the_run_and_says_so(model, many, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".started.jsonl").symlink_to("/dev/full")
    with pytest.raises(WriteError, match="No space left"):
        segment_folder(many(3), model, out)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_mask_without_space_is_no_failed_file(model, many, tmp_path, monkeypatch):
    out, folder = tmp_path / "out", many(5)
    calls = []

    def full(path, *args, **kwargs):
        calls.append(path)
        if len(calls) > 2:
            with open("/dev/full", "wb", buffering=0) as stream:
                try:
                    stream.write(b"x")
                except OSError as error:
                    raise WriteError(f"{path.name} could not be written: the disk is full.") from error
        return nus.write(path, *args, **kwargs)

    monkeypatch.setattr("napari_unetseg.batch.work.write", full)
    with pytest.raises(WriteError, match=r"disk is full.* after 2 of 5 files"):
        segment_folder(folder, model, out)
    monkeypatch.undo()
    assert [row["status"] for row in lines(out)] == ["done"] * 2
    assert statuses(segment_folder.events(folder, model, out)) == ["done before"] * 2 + ["done"] * 3


def test_a_file_at_which_the_program_ended_comes_last_and_is_given_up_in_the_end(model, many, tmp_path):
    folder = many(3)
    files = sorted(folder.rglob("*.tif"))
    segmenter = Segmenter(Ensemble.of([model]), Outputs())
    begun = []
    for starts, order, given_up in ((1, [1, 2, 0], 0), (3, [1, 2, 0], 1)):
        out = tmp_path / f"out-{starts}"
        jobs = [Job(f, out / f.name, out, starts if i == 0 else 0) for i, f in enumerate(files)]
        steps = list(run_here(jobs, segmenter, begun.append, Control()))
        assert [files.index(job.file) for job, _ in steps] == order
        assert sum("ended 3 times" in entry["error"] for _, entry in steps) == given_up
    ledger = Ledger(tmp_path, "recipe")
    for _ in range(2):
        ledger.start(files[0], tmp_path / "a.tif")
    assert Ledger(tmp_path, "recipe").starts(files[0]) == 2
    ledger.add(files[0], {"status": "failed", "error": "", "mask": "", "classes": [], "seconds": 0.0})
    assert Ledger(tmp_path, "recipe").starts(files[0]) == 0


def test_reading_and_writing_go_on_while_the_net_works(model, many, tmp_path, monkeypatch):
    from napari_unetseg.batch import work

    busy, together = Counter(), set()

    def slow(name, real):
        def do(*args, **kwargs):
            busy[name] += 1
            together.add(tuple(sorted(key for key, n in busy.items() if n)))
            time.sleep(0.03)
            try:
                return real(*args, **kwargs)
            finally:
                busy[name] -= 1

        return do

    monkeypatch.setattr(work, "opened", slow("read", work.opened))
    monkeypatch.setattr(work, "write", slow("write", nus.write))
    forward = model.net.forward
    monkeypatch.setattr(model.net, "forward", slow("net", forward))
    segment_folder(many(6), model, tmp_path / "out")
    assert ("net", "read", "write") in together
    assert max(busy.values()) == 0
