"""Rules of the house that a machine can hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import napari_unetseg

PACKAGE = Path(napari_unetseg.__file__).parent
ROOMS = ["workspace", "io", "metrics", "engine", "postprocess", "samples", "project", "figures"]
LIGHT = ["napari_unetseg", *(f"napari_unetseg.{room}" for room in ROOMS)]


@pytest.mark.parametrize("module", LIGHT)
def test_loads_without_torch_or_a_window(module):
    heavy = "{'torch', 'napari', 'qtpy', 'magicgui'}"
    code = f"import {module}, sys; bad = {heavy} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    for name in napari_unetseg.__all__:
        assert getattr(napari_unetseg, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        napari_unetseg.nonsense  # noqa: B018


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_small(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
