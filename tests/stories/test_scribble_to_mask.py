"""One stroke becomes a corrected mask: the main job, told from Python. Read this first."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import blobs

import napari_unetseg as nus
from napari_unetseg.data.annotation import overrule
from napari_unetseg.data.annotator import correct, scribble
from napari_unetseg.events import Note, Running
from napari_unetseg.metrics import dice

SMALL = nus.Plan(
    net={"width": 0.15},
    training={
        "epochs": 6,
        "steps_per_epoch": 10,
        "patch": (32, 32),
        "batch_size": 4,
        "device": "cpu",
        "learning_rate": 3e-3,
    },
)


def test_a_scan_is_scribbled_on_learned_corrected_and_segmented(tmp_path):
    # a biologist has four images, and knows what is on them
    truths = {}
    project = nus.Project.create(tmp_path / "cells.unetseg", classes=["background", "cell"])
    for number in range(4):
        image, mask = blobs((64, 64), seed=number)
        path = nus.write(tmp_path / f"slide{number}.tif", nus.Volume(image[None], nus.Geometry((0.3, 0.3), "um")))
        truths[project.add(path)] = mask

    # scribbles a little on three of them
    rng = np.random.default_rng(0)
    *painted, untouched = project.cases
    for case in painted:
        project.annotate(case, scribble(truths[case], 2, rng, fraction=0.03))
        assert (project.annotation(case).data > 0).mean() < 0.15

    # trains, and is told how well it went and on what
    first = nus.fine_tune(project, SMALL, folder=project.new_model_folder())
    assert first.scores.voxels > 0
    assert first.scores.sentence().startswith("Dice")

    # sees the mask, corrects where it is wrong, trains again
    for case in painted:
        mask = nus.predict(first, project.image(case)).data
        project.annotate(case, correct(project.annotation(case).data, mask, truths[case], 2, rng))
    second = nus.fine_tune(project, SMALL, start=first, folder=project.new_model_folder())
    assert second.parents == (first.id,)

    # the image nobody touched comes out right, and lies where its image lies
    image = project.image(untouched)
    mask = nus.predict(second, image)
    assert dice(mask.data == 1, truths[untouched] == 1) > 0.6
    assert mask.geometry.matches(image.geometry)

    # the strokes of the user overrule the net in what is accepted
    case = painted[0]
    strokes = project.annotation(case).data
    accepted = nus.LabelVolume(
        overrule(nus.predict(second, project.image(case)).data, strokes), project.image(case).geometry
    )
    project.accept(case, accepted)
    assert (project.mask(case).data[strokes == 2] == 1).all()
    assert (project.mask(case).data[strokes == 1] == 0).all()

    # everything is there the next day
    project.close()
    with nus.Project.open(tmp_path / "cells.unetseg") as again:
        assert len(again.models) == 2
        np.testing.assert_array_equal(again.annotation(case).data, strokes)
        assert nus.Model.load(again.models[-1]).id == second.id


def test_an_oblique_volume_with_two_organs_keeps_its_place_in_the_patient(tmp_path):
    turn = np.array([[0.9, -0.1, 0.2, -30], [0.1, 0.95, 0.05, 12], [-0.15, 0.02, 2.4, 7], [0, 0, 0, 1.0]])
    affine = turn[:, [2, 1, 0, 3]]
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    image, truth = blobs((10, 32, 32), seed=3, classes=3)
    scan = nus.write(tmp_path / "scan.nii.gz", nus.Volume(image[None], nus.Geometry(spacing, "mm", affine, "RAS+")))
    project = nus.Project.create(tmp_path / "organs.unetseg", classes=["background", "liver", "tumour"])
    case = project.add(scan)
    project.annotate(case, scribble(truth, 3, np.random.default_rng(0), fraction=0.2))
    plan = SMALL.change(training={"epochs": 1, "steps_per_epoch": 2}, net={"dims": 2})
    model = nus.fine_tune(project, plan)
    project.close()

    nus.write(tmp_path / "mask.nii.gz", nus.predict(model, nus.read(scan)))
    import nibabel

    image_file, mask_file = nibabel.load(scan), nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask_file.affine, image_file.affine, atol=1e-5)
    assert mask_file.shape == image_file.shape
    assert mask_file.get_data_dtype() == np.uint8


@pytest.mark.parametrize("sample", ["nuclei-2d", "organ-3d"])
def test_the_demo_runs_by_itself(tmp_path, sample):
    from napari_unetseg.demo import RoundDone, run_demo

    run = Running(run_demo.events(tmp_path / "demo", sample=sample, minutes=0.03))
    events = list(run)
    result = run.result
    rounds = [event for event in events if isinstance(event, RoundDone)]
    assert [done.number for done in rounds] == [1, 2]
    assert all("untouched image" in done.scores.rule for done in rounds)
    assert all(done.painted > 0 for done in rounds)
    assert any(isinstance(event, Note) for event in events)
    assert (tmp_path / "demo" / "round-2.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "masks" / "table.csv").exists()
    assert len(result["lines"]) == 2
