"""Revisions that are made while the user goes on painting."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from napari_unetseg.errors import ProjectError
from napari_unetseg.project import Project
from napari_unetseg.volume import Geometry, Volume

BOX, LATER = (slice(0, 2), slice(0, 3)), (slice(5, 7), slice(4, 8))


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "cells.unetseg", ["background", "cell"]) as made:
        made.add_array("a", Volume(np.zeros((1, 10, 12), np.uint8), Geometry((1.0, 1.0), "um")))
        made.add_array("b", Volume(np.zeros((1, 10, 12), np.uint8), Geometry((1.0, 1.0), "um")))
        yield made


def paint(project, box, label, case="a"):
    project.journal(case, box, np.full([part.stop - part.start for part in box], label, np.uint8))


class PaintingMeanwhile(contextlib.AbstractContextManager):
    """A lock whose owner was kept waiting by one more stroke."""

    def __init__(self, project, stroke):
        self.project, self.stroke, self.entered = project, stroke, 0

    def __enter__(self):
        self.entered += 1
        if self.entered == 2:
            paint(self.project, *self.stroke)

    def __exit__(self, *_):
        pass


def test_a_snapshot_keeps_all_strokes_and_names_their_revisions(project):
    paint(project, BOX, 1)
    assert project.snapshot() == {"a": 1}
    assert project.journalled() == []
    assert project.snapshot() == {"a": 1}, "nothing new, no new revision"
    paint(project, LATER, 2)
    paint(project, BOX, 2, "b")
    assert project.snapshot() == {"a": 2, "b": 1}
    assert (project.annotation_at("a", 2).data[BOX] == 1).all()
    assert (project.annotation_at("a", 2).data[LATER] == 2).all()


def test_a_stroke_painted_while_the_revision_is_written_is_not_lost(project):
    paint(project, BOX, 1)
    number = project._annotation("a").seal(project.classes, PaintingMeanwhile(project, (LATER, 2)))
    assert not project.annotation_at("a", number).data[LATER].any(), "it belongs to the next revision"
    assert (project.annotation("a").data[LATER] == 2).all()
    assert project.journalled() == ["a"]
    assert (Project.open(project.path, read_only=True).annotation("a").data[LATER] == 2).all()
    paint(project, (slice(9, 10), slice(0, 1)), 1)
    assert project.snapshot() == {"a": number + 1}
    assert (project.annotation_at("a", number + 1).data[LATER] == 2).all()


def test_a_journal_left_by_a_kill_just_before_the_revision_is_void(project):
    paint(project, BOX, 1)
    folder = project.path / "annotations" / "a"
    (folder / "strokes-0001.journal").write_bytes((folder / "strokes-0000.journal").read_bytes())
    project.annotate("a", np.full((10, 12), 2, np.uint8))
    assert (project.annotation("a").data == 2).all()


def test_a_frozen_reader_speaks_of_its_revisions_whatever_is_painted(project):
    paint(project, BOX, 1)
    revisions = project.snapshot()
    paint(project, LATER, 2)
    paint(project, BOX, 2, "b")
    project.snapshot()
    reader = Project.open(project.path, read_only=True)
    reader.freeze(revisions)
    assert reader.annotated() == ["a"]
    assert reader.counts("a") == [114, 6]
    assert not reader.annotation("a").data[LATER].any()
    assert not reader.annotation("b").data.any()
    with pytest.raises(ProjectError, match="open for reading"):
        project.freeze(revisions)
