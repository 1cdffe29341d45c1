"""Folders, patterns and lists; links by their own names; what was written is never read."""

from __future__ import annotations

import os

import pytest

from napari_unetseg.batch.listing import list_files, place_masks, without
from napari_unetseg.errors import ReadError


@pytest.fixture
def tree(tmp_path):
    for name in ("in/a2.tif", "in/a10.tif", "in/deep/a2.tif", "in/deep/note.pdf", "other/b.nii.gz"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(files, root):
    return [os.path.relpath(file, root) for file in files]


def test_folders_patterns_and_single_files(tree):
    out = tree / "out"
    assert names(list_files(tree / "in", out), tree) == ["in/a2.tif", "in/a10.tif", "in/deep/a2.tif"]
    assert names(list_files(str(tree / "**" / "a2.tif"), out), tree) == ["in/a2.tif", "in/deep/a2.tif"]
    assert names(list_files([tree / "other" / "b.nii.gz", tree / "in" / "deep"], out), tree) == [
        "other/b.nii.gz", "in/deep/a2.tif",
    ]  # fmt: skip


def test_a_list_of_paths_keeps_what_does_not_exist(tree):
    listed = tree / "list.txt"
    listed.write_text("# scans\nin/a10.tif\n\nin/gone.tif\nother\n", encoding="utf-8")
    assert names(list_files(listed, tree / "out"), tree) == ["in/a10.tif", "in/gone.tif", "other/b.nii.gz"]


def test_nothing_in_the_output_folder_is_an_input(tree):
    out = tree / "in" / "out"
    out.mkdir()
    (out / "a2.tif").write_bytes(b"mask")
    link = tree / "link"
    link.symlink_to(tree / "in", target_is_directory=True)
    for inputs in (tree / "in", str(tree / "in" / "**" / "*.tif"), link):
        assert len(list_files(inputs, out)) == 3
    assert len(list_files(tree / "in", link / "out")) == 3


def test_links_are_called_by_their_own_names(tree):
    series = tree / "series"
    series.mkdir()
    for name in ("patient-1.tif", "patient-2.tif"):
        (series / name).symlink_to(tree / "in" / "a2.tif")
    files = list_files(series, tree / "out")
    assert names(files, series) == ["patient-1.tif", "patient-2.tif"]
    assert names(place_masks(files, tree / "out", ()), tree) == ["out/patient-1.tif", "out/patient-2.tif"]


def test_names_that_meet_keep_their_folders(tree):
    files = list_files(tree / "in", tree / "out")
    assert names(place_masks(files, tree / "out", ()), tree / "out") == ["a2.tif", "a10.tif", "deep/a2.tif"]


def test_what_was_written_is_left_out_but_when_alone(tree):
    files = list_files(tree / "in", tree / "in")
    assert names(without(files, [str(tree / "in" / "a2.tif")]), tree / "in") == ["a10.tif", "deep/a2.tif"]
    assert without(files, map(str, files)) == files


def test_what_is_not_there_is_said(tree):
    for inputs in (tree / "nowhere", str(tree / "*.png"), []):
        with pytest.raises(ReadError):
            list_files(inputs, tree / "out")
