"""Nothing is ever half-written."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import napari_unetseg.io as io
from napari_unetseg.errors import WriteError
from napari_unetseg.volume import Geometry, LabelVolume

LABELS = LabelVolume(np.random.default_rng(0).integers(0, 60000, (40, 60, 70)).astype(np.int64))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_the_old_file_stays_when_writing_fails(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def half(path):
        path.write_text("ne")
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(WriteError, match=r"a\.txt could not be written: Input/output error"):
        io.atomic_write(tmp_path / "a.txt", half)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_other_errors_pass_and_leave_nothing(tmp_path):
    def wrong(path):
        path.write_text("ne")
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        io.atomic_write(tmp_path / "a.txt", wrong)
    assert names(tmp_path) == []


def test_folders_are_made_and_the_suffix_is_kept(tmp_path):
    seen = []
    path = tmp_path / "new" / "folder" / ("x" * 200 + ".nii.gz")
    io.atomic_write(path, lambda p: (seen.append(p), p.write_text("new")))
    assert path.read_text() == "new"
    assert seen[0].name.endswith(".nii.gz")
    assert seen[0].name.startswith(".")
    assert seen[0].parent == path.parent
    assert names(path.parent) == [path.name]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    io.atomic_write(tmp_path / "link.txt", lambda p: p.write_text("new"))
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(WriteError, match="it is a folder"):
        io.write(tmp_path / "a.tif", LABELS)
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="its folder is a file"):
        io.write(tmp_path / "file" / "a.tif", LABELS)


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".nii", ".png"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_at_the_last_moment(number, suffix, tmp_path, monkeypatch):
    labels = LabelVolume(LABELS.data[0]) if suffix == ".png" else LABELS
    (tmp_path / f"a{suffix}").write_text("old")

    def full(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="disk") as caught:
        io.write(tmp_path / f"a{suffix}", labels)
    assert "Free some space" in caught.value.hint
    assert (tmp_path / f"a{suffix}").read_text() == "old"
    assert names(tmp_path) == [f"a{suffix}"]


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 KiB; needs Linux and root."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz", ".nii", ".png"])
def test_a_disk_that_is_full(suffix, tiny_disk):
    small, large = LabelVolume(LABELS.data[0, :9, :9] % 3), LABELS
    if suffix == ".png":
        large = LabelVolume(LABELS.data.reshape(400, 420))
    path = io.write(tiny_disk / f"a{suffix}", small)
    with pytest.raises(WriteError, match="the disk is full"):
        io.write(path, large)
    assert np.array_equal(io.read_labels(path).data.squeeze(), small.data)
    assert names(tiny_disk) == [path.name]


# root may write anywhere, so the attempt is made by a process that gives up its rights once all is imported
ATTEMPT = """
import os, sys
import numpy as np, napari_unetseg.io as io
from napari_unetseg.errors import UnetSegError
from napari_unetseg.volume import LabelVolume
for suffix in (".tif", ".png"):
    io.read(io.write(sys.argv[3] + suffix, LabelVolume(np.ones((6, 7), np.uint8))))
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
for action in (lambda: io.write(sys.argv[1], LabelVolume(np.ones((6, 7), np.uint8))), lambda: io.read(sys.argv[2])):
    try:
        action()
        print("done")
    except UnetSegError as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def shared_folder():
    """A folder that every user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("rights", [0o555, 0o000])
def test_without_permission(rights, shared_folder):
    folder, secret = shared_folder / "closed", shared_folder / "secret.png"
    io.write(secret, LabelVolume(np.ones((6, 7), np.uint8)))
    secret.chmod(0)
    folder.mkdir()
    folder.chmod(rights)
    first = Path(tempfile.mkdtemp(dir=shared_folder)) / "first"
    run = [sys.executable, "-c", ATTEMPT, str(folder / "a.tif"), str(secret), str(first)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    folder.chmod(0o755)
    assert said[0].startswith("WriteError")
    assert "this folder may not be written to" in said[0]
    assert said[1].startswith("ReadError You are not allowed to read")
    assert names(folder) == []


def test_what_was_written_is_compared(tmp_path, monkeypatch):
    """A library that writes something else is caught before the file takes its name."""
    import tifffile

    write = tifffile.imwrite
    monkeypatch.setattr(tifffile, "imwrite", lambda path, array, **how: write(path, array + 1, **how))
    with pytest.raises(WriteError, match="what was read back differs"):
        io.write(tmp_path / "a.tif", LabelVolume(np.ones((6, 7), np.uint8)))
    assert names(tmp_path) == []


def test_where_it_was_written_is_compared(tmp_path):
    """32 bits cannot tell voxels of 1 nm apart at 1 m from the origin."""
    affine = np.diag((1e-6, 1e-6, 1e-6, 1.0))
    affine[:3, 3] = 1000.0000005
    mask = LabelVolume(np.ones((5, 6, 7), np.uint8), Geometry((1e-6,) * 3, "mm", affine, "RAS+"))
    with pytest.raises(WriteError, match=r"a\.nii\.gz could not be written: \.gz would move it"):
        io.write(tmp_path / "a.nii.gz", mask)
    assert names(tmp_path) == []
    assert io.read_labels(io.write(tmp_path / "a.tif", mask)).geometry.matches(mask.geometry)
