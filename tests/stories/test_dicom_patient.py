"""A patient's scan goes all the way, and the patient's name nowhere but into the DICOM-SEG, which has to have it."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import dicoms
import numpy as np
import pydicom
import pytest

import napari_unetseg as nus
from napari_unetseg.batch import Outputs, segment_folder
from napari_unetseg.errors import UnetSegError
from napari_unetseg.nets import Model, build


@pytest.fixture(scope="module")
def model() -> Model:
    plan = nus.Plan(
        net={"name": "unet", "width": 0.1},
        data={"normalisation": {"kind": "zscore"}},
        training={"patch": (16, 16), "device": "cpu", "precision": "float32"},
    )
    return Model(build(plan.net).eval(), plan, ("background", "liver"))


@pytest.fixture
def study(tmp_path):
    values = dicoms.values((4, 20, 24))
    dicoms.series(tmp_path / "study" / "a", values, tilt=0.3, PixelPaddingValue=0)
    dicoms.series(tmp_path / "study" / "b", values, heights=[0, 2, 4, 8])
    broken = dicoms.series(tmp_path / "study" / "c", values)
    broken[2].write_bytes(broken[2].read_bytes()[:-100])
    return tmp_path / "study"


def traces(folder) -> dict[str, list[str]]:
    """What can be found of the patient in the names and bytes of files, unpacked where they are packed."""
    found = {}
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".gz":
            content += gzip.decompress(content)
        text = (path.relative_to(folder).as_posix().encode() + content).lower()
        # as 8-bit text and as 16-bit text
        plain = text + text.replace(b"\0", b"")
        if here := [trace for trace in dicoms.TRACES if trace.encode() in plain]:
            found[path.name] = here
    return found


@pytest.fixture
def said(caplog):
    """Everything that is logged or printed, down to the last detail."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    with caplog.at_level(logging.DEBUG), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        logging.getLogger().addHandler(handler)
        yield text
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("copy", [False, True])
def test_a_project_never_learns_the_name(copy, study, tmp_path, said):
    project = nus.Project.create(tmp_path / "p.unetseg", classes=["background", "liver"])
    cases = [project.add(study / name, copy=copy) for name in "ab"]
    assert cases == ["a", "b"]
    with pytest.raises(UnetSegError, match="cut short") as caught:
        project.add(study / "c", copy=copy)
    for case in cases:
        strokes = np.zeros(project.shape(case), np.uint8)
        strokes[1, 2:5], strokes[2, 8:12] = 1, 2
        project.annotate(case, strokes)
        project.journal(case, (slice(0, 1), slice(0, 4), slice(0, 4)), np.ones((1, 4, 4), np.uint8))
        path = project.save_mask(case, strokes.clip(1) - 1)
        assert path.name == f"{case}.nii.gz"
        project.accept(case, strokes.clip(1) - 1)
        assert np.array_equal(project.mask(case).data, strokes.clip(1) - 1)
        assert project.mask(case).geometry.matches(nus.read(study / case).geometry, 1e-3)
    project.log("looked at", case=cases[0])
    project.close()
    again = nus.Project.open(project.path)
    assert np.array_equal(again.image("b").data, nus.read(study / "b").data)
    again.close()
    assert traces(tmp_path / "p.unetseg") == {}
    spoken = (said.getvalue() + str(caught.value)).lower()
    assert "gantry tilt" in spoken, "the readers' words are in what was searched"
    assert not [trace for trace in dicoms.TRACES if trace in spoken]


def test_a_run_over_a_study_names_nobody_but_in_dicom_seg(study, model, tmp_path, said):
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    model.save(tmp_path / "model")
    rows = segment_folder(study, tmp_path / "model", out, Outputs(probabilities=True, uncertainty=True))
    status = {row["file"].split("/")[-1]: row["status"] for row in rows}
    assert status == {"a": "done", "b": "done", "c": "failed"}
    assert "cut short" in next(row["error"] for row in rows if row["status"] == "failed")
    assert (out / "a_prob.nii.gz").is_file()
    for name in "ab":
        mask = nus.read_labels(out / f"{name}.dcm")
        assert mask.geometry.matches(nus.read(study / name).geometry, 1e-3)
    found = traces(out)
    assert set(found) == {"a.dcm", "b.dcm"}
    asked_for = {"quasimodo", "zebulon", "77-xyzzy", dicoms.BIRTH, "frollo"}
    assert all(set(here) <= asked_for for here in found.values())
    assert not traces(tmp_path / "model")
    assert not [trace for trace in dicoms.TRACES if trace in said.getvalue().lower()]
    assert not [trace for trace in dicoms.TRACES if trace in json.dumps(rows, default=str).lower()]
    # a second run has nothing to do
    again = segment_folder(study, tmp_path / "model", out, Outputs(probabilities=True, uncertainty=True))
    assert {row["mask"] for row in again} == {row["mask"] for row in rows}
    segment_folder(study, tmp_path / "model", tmp_path / "nameless", Outputs(nameless=True))
    assert (tmp_path / "nameless" / "a.nii.gz").is_file()
    assert not traces(tmp_path / "nameless")


def test_the_command_leaves_no_name_anywhere_on_the_disk(study, model, tmp_path):
    """Temporary files, state and settings of the program too, and what it says when headers are damaged."""
    place = tmp_path / "places"
    homes = {
        name: str(place / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")
    }
    for home in homes.values():
        Path(home).mkdir(parents=True)
    for file in sorted((study / "b").iterdir())[:2]:  # the name where a number should be
        header = pydicom.dcmread(file)
        raw = file.read_bytes()
        spacing = raw.index(b"PixelSpacing" if b"PixelSpacing" in raw else b"\x28\x00\x30\x00") + 8
        length = int.from_bytes(raw[spacing - 2 : spacing], "little")
        assert length >= len("Zebulon"), header.PixelSpacing
        file.write_bytes(raw[:spacing] + b"Zebulon".ljust(length) + raw[spacing + length :])
    model.save(tmp_path / "model")
    words = [sys.executable, "-X", "dev", "-m", "napari_unetseg.cli", "segment", study, "-m", tmp_path / "model"]
    words += ["-o", tmp_path / "out", "--probabilities", "--nifti"]
    env = {**os.environ, **homes, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([*map(str, words)], capture_output=True, env=env, cwd=place, text=True, errors="replace")
    assert run.returncode == 1, run.stderr
    assert "3 of 4 files segmented" in run.stdout  # slices without a pixel size are an image of their own
    assert not [trace for trace in dicoms.TRACES if trace in (run.stdout + run.stderr).lower()]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"table.csv", "report.html", "contact-sheet.png"}
    assert not traces(tmp_path / "out")
    assert not traces(place)
