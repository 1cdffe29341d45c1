"""What a training would cost, asked from the command line and from the window's worker."""

from __future__ import annotations

import json

import numpy as np
from tiny import blobs, folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.events import Control
from napari_unetseg.worker import loop
from napari_unetseg.worker.verbs import VERBS, Bench


def test_plan_says_what_why_and_how_long(tmp_path, cli):
    folder, file = folder_of_blobs(tmp_path / "data", 3), tmp_path / "plan.json"
    file.write_text('{"net": {"width": 0.1}}')
    code, out, _ = cli("plan", folder, "--minutes", 3, "--plan", file, "-o", file, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["estimate"]["seconds"] == 180
    assert told["estimate"]["sentence"].startswith("A first mask in about")
    assert any("Patches" in note for note in told["notes"])
    written = nus.Plan.read(file)
    assert written.patch == (64, 64)
    assert not list(tmp_path.glob("model*"))
    code, out, _ = cli("plan", folder, "--plan", file)  # what it wrote leaves nothing to decide
    assert code == 0
    assert len(out.splitlines()) == 3  # what the labels mean, the device, and the cost
    assert cli("plan", tmp_path / "nothing")[0] == 2


def test_the_worker_answers_before_train_is_pressed(tmp_path):
    assert loop.VERBS is VERBS
    project = nus.Project.create(tmp_path / "p.unetseg", ["background", "cell"])
    image, mask = blobs((64, 64))
    project.annotate(project.add_array("one", nus.Volume(image[None])), np.where(mask % 2 == 0, mask + 1, 2))
    args = {"project": str(project.path), "plan": {"net": {"width": 0.1}}, "minutes": 1}
    told = VERBS["plan"](args, Control(), Bench(tmp_path))
    project.close()
    json.dumps(told)
    assert told["estimate_seconds"] == 60
    assert told["steps"] > 0
    assert told["memory"] > 0
    assert told["plan"]["net"]["width"] == 0.1
    assert told["notes"]


def test_a_misspelt_field_is_answered_with_what_was_meant(tmp_path, cli):
    file = tmp_path / "plan.json"
    for text, meant in [
        ('{"nett": "unet"}', "mean net?"),
        ('{"data": {"fould": 1}}', "mean fold or folds?"),
        ('{"post": {"q": 1}}', "There is: steps"),
        ('{"net": {"width": 9}}', "(given 9)"),
    ]:
        file.write_text(text)
        code, _, err = cli("plan", tmp_path, "--plan", file)
        assert (code, meant in err) == (2, True), err
    assert "No such file or directory" in cli("plan", tmp_path, "--plan", tmp_path / "none.json")[2]
