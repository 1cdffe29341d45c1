"""Folders of files to masks, a table and a report: `segment_folder`, on this machine or on a Dask cluster."""

from __future__ import annotations

from napari_unetseg.batch.outputs import Cluster, Outputs
from napari_unetseg.batch.run import segment_folder
from napari_unetseg.batch.undo import Undone, undo_run

__all__ = ["Cluster", "Outputs", "Undone", "segment_folder", "undo_run"]
