"""The project that was open last on this computer, offered when the workbench opens again; after a crash above all."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from napari_unetseg.errors import UnetSegError
from napari_unetseg.io import atomic_write
from napari_unetseg.project.lock import left_open

__all__ = ["keep", "last", "left_open"]

logger = logging.getLogger(__name__)


def _file() -> Path:
    from platformdirs import user_state_path

    return user_state_path("napari-unetseg", appauthor=False) / "recent.json"


def keep(project: Path) -> None:
    """Remember `project` as the last one; where that cannot be written, it is not offered again."""
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"project": str(project)})
        atomic_write(_file(), lambda beside: beside.write_text(text, encoding="utf-8"))
    except (OSError, UnetSegError) as error:
        logger.info("The last project is not remembered: %s", error)


def last() -> Path | None:
    """Folder of the last project, if it is there still."""
    try:
        path = Path(json.loads(_file().read_text(encoding="utf-8"))["project"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if (path / "project.json").is_file() else None
