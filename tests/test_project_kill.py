"""SIGKILL at random moments of painting, saving and accepting: every finished stroke is found.

Ten kills by default; the environment variable ``NUS_KILLS`` sets another number.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_unetseg.io import write
from napari_unetseg.project import Project
from napari_unetseg.volume import Volume

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

SHAPE = (60, 70)
CLASSES = ["background", "a", "b", "c"]


def stroke(number):
    """The n-th stroke: where, and with what."""
    rng = np.random.default_rng(number)
    corner = [int(rng.integers(0, size - 6)) for size in SHAPE]
    return tuple(slice(c, c + 6) for c in corner), int(rng.integers(0, 5))


def painted(count):
    labels = np.zeros(SHAPE, np.uint8)
    for number in range(count):
        region, value = stroke(number)
        labels[region] = value
    return labels


def work(path, strokes):
    """Paint from stroke number `strokes` on, saving and accepting in between, and tell what begins and what is done."""
    project = Project.open(path)
    case, names = project.cases[0], list(project.classes)
    for number in range(strokes, strokes + 100_000):
        region, value = stroke(number)
        tell("stroke begins")
        project.journal(case, region, np.full((6, 6), value))
        tell(f"stroke {number + 1}")
        if number % 3 == 0:
            tell("revision begins")
            project.annotate(case, project.annotation(case))
        if number % 7 == 0:
            tell("accept begins")
            tell(f"accepting {number % 4}")
            project.accept(case, np.full(SHAPE, number % 4))
            tell(f"accept {number % 4}")
        if number % 5 == 0:
            names[1] = f"a{number}"
            tell("class begins")
            project.set_classes(names)
            tell(f"class {names[1]}")
            project.state = {"slice": number, "memory": ["x"] * 200}


def tell(text):
    os.write(1, f"{text}\n".encode())


def killed_at_random(path, strokes, rng):
    """What the worker had finished when it was killed in the middle of something: stroke, accepted value, class."""
    command = [sys.executable, __file__, str(path), str(strokes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # runs from a checkout, too
    during = rng.choice(["stroke", "revision", "revision", "accept", "class"])
    lines, patience = [], rng.randrange(60)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as worker:
        for line in worker.stdout:
            lines.append(line)
            if len(lines) > patience and line.decode().split() == [during, "begins"]:
                break
        time.sleep(rng.uniform(0, 0.006 if during != "accept" else 0.03))
        worker.kill()
        lines.extend(worker.stdout)
    return dict(line.decode().split() for line in lines if b"begins" not in line)


def test_every_finished_stroke_is_found(tmp_path):
    rng, kills = random.Random(0), int(os.environ.get("NUS_KILLS", "10"))
    write(tmp_path / "image.tif", Volume(np.zeros((1, *SHAPE), np.uint8)))
    with Project.create(tmp_path / "p", CLASSES) as project:
        case = project.add(tmp_path / "image.tif", copy=True)
    strokes, accepted = 0, None
    for _ in range(kills):
        finished = killed_at_random(tmp_path / "p", strokes, rng)
        told = int(finished.get("stroke", strokes))
        with Project.open(tmp_path / "p") as project:  # the lock of the dead is no obstacle
            found = project.annotation(case).data
            # the stroke under the mouse may be there or not
            strokes = next((n for n in (told, told + 1) if np.array_equal(found, painted(n))), None)
            assert strokes is not None, f"strokes were lost: {told} had been finished"
            accepted = finished.get("accept", accepted)
            mask = project.mask(case)
            values = [None] if mask is None else [str(value) for value in np.unique(mask.data)]
            # an acceptance that was not finished may have got as far as the file, whole
            assert len(values) == 1
            assert values[0] in (accepted, finished.get("accepting"))
            accepted = values[0]
            if "class" in finished and (told - 1) % 5:  # else the next change may have been under way
                assert project.classes[1] == finished["class"]
            assert isinstance(project.state, dict)
            assert project.image(case).shape == SHAPE
            hidden = [path for path in project.path.rglob(".*") if path.is_file()]
            assert hidden == []
            assert sorted(path.name for path in project.path.glob("project.lock*")) == ["project.lock"]
    assert strokes > kills


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
