"""``napari-unetseg segment``: lists, failed files again, exit codes, and what the terminal shows."""

from __future__ import annotations

import json

import pytest

from napari_unetseg.cli import terminal
from napari_unetseg.cli.segment import _said, read_size
from napari_unetseg.events import Control, FileDone, Started


def test_a_list_with_a_missing_file_is_exit_code_1_and_may_be_tried_again(cli, model, many, tmp_path):
    folder, out = many(2), tmp_path / "out"
    model.save(tmp_path / "m")
    listed = tmp_path / "list.txt"
    listed.write_text("many/series-0\nmany/series-1/001.tif\nmany/late.tif\n")
    words = ("segment", listed, "-m", tmp_path / "m", "-o", out)
    code, said, err = cli(*words)
    assert (code, said.splitlines()[0]) == (1, f"2 of 3 files segmented; masks and table.csv are in {out}")
    assert "late.tif: failed - " in err
    assert "does not exist" in err
    (folder / "late.tif").write_bytes((folder / "series-0" / "000.tif").read_bytes())
    code, said, err = cli(*words, "--failed-only")
    assert (code, said.splitlines()[0]) == (
        0,
        f"1 of 3 files segmented now, 2 before; masks and table.csv are in {out}",
    )
    assert err.count("done before") == 2
    found = json.loads(cli(*words, "--failed-only", "--json")[1])
    assert (found["files"], found["before"], found["failed"]) == (3, 3, 0)


def test_workers_without_a_cluster_are_refused(cli, tmp_path):
    code, _, err = cli("segment", tmp_path, "-m", tmp_path, "-o", tmp_path, "--workers", 2)
    assert (code, "--dask" in err) == (2, True)


def test_files_without_any_doubt_count_too(tmp_path):
    files = {str(i): {"doubt": doubt, "flags": ""} for i, doubt in enumerate((0.0, 0.0, 0.0, 0.6, 0.7, ""))}
    assert not any("undecided" in line for line in _said(files, 0, 0, tmp_path))


@pytest.mark.parametrize(("text", "size"), [("2GB", 2**31), ("512 MiB", 2**29), (".5t", 2**39), ("3", 3 * 2**30)])
def test_sizes_in_words(text, size):
    assert read_size(text) == size


def test_what_is_no_amount_of_memory_is_refused_before_the_work(cli, tmp_path):
    code, _, err = cli("segment", tmp_path, "-m", tmp_path, "-o", tmp_path, "--memory", "plenty")
    assert (code, "plenty is no amount of memory" in err) == (2, True)


def test_the_ceiling_of_the_command_line_is_kept_to(cli, model, many, tmp_path):
    model.save(tmp_path / "m")
    words = ("segment", many(1), "-m", tmp_path / "m", "-o", tmp_path / "out", "--json", "--memory")
    _, said, _ = cli(*words, "1MB")  # less than Python itself, so that every image is too large
    assert "MiB short" in json.loads(said)["rows"][0]["error"]
    code, said, _ = cli(*words, "64GB")
    assert (code, json.loads(said)["rows"][0]["status"]) == (0, "done")


def test_of_many_files_only_those_are_named_that_need_a_look(capsys, monkeypatch):
    monkeypatch.setattr(terminal.errors, "_width", 200)

    def run():
        yield Started("segmenting 100 files", "cpu", 100)
        for index in range(100):
            status, error = ("failed", "It is cut.") if index == 7 else ("done", "")
            flags = ("empty",) if index == 9 else ()
            yield FileDone(index, 100, f"/x/{index}.tif", status, error, 0.1, 9.0, 4.0, flags)

    with terminal.Progress(console=terminal.errors, disable=True) as progress:
        line = terminal._Line(progress, progress.add_task("", total=1.0, left=""))
        for event in run():
            line.show(event)
        shown = progress.tasks[0]
    said = capsys.readouterr().err.splitlines()
    assert said == ["segmenting 100 files on cpu", "  8/100 7.tif: failed - It is cut.", "  10/100 9.tif: done (empty)"]
    assert (shown.description, shown.fields["left"]) == ("file 100/100, 4 files/s", "0:09 left")


def test_what_is_wrong_with_many_files_is_said_once(capsys, monkeypatch):
    monkeypatch.setattr(terminal.errors, "_width", 200)

    def run():
        for index in range(9):
            name = f"{index}.tif"
            error = f"{name} has 1 channel." if index != 3 else f"{name} is cut."
            yield FileDone(index, 9, f"/x/{name}", "failed" if index else "done before", error if index else "")

    terminal.run(run(), Control())
    assert [line for line in capsys.readouterr().err.splitlines() if line.strip()] == [
        "  1/9 0.tif: done before",
        "  2/9 1.tif: failed - 1.tif has 1 channel.",
        "  4/9 3.tif: failed - 3.tif is cut.",
        "  6 more failed as 1.tif did: 2.tif, 4.tif, 5.tif, 6.tif, 7.tif, ...",
    ]
