"""Where the public data sets lie, if they do."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def public():
    """Function from the name of a public data set to its folder; skips the test where it is absent."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("NAPARI_UNETSEG_DATA", beside))

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"the public data set {name} is not here")
        return root / name

    return folder
