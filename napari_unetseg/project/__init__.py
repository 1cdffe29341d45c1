"""The project folder: atomic writes, annotation revisions, a journal of strokes, recovery, a lock. No torch."""

from napari_unetseg.project.lock import ProjectLocked, ProjectReadOnly
from napari_unetseg.project.project import Project

__all__ = ["Project", "ProjectLocked", "ProjectReadOnly"]
