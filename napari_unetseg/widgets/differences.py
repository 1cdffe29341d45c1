"""The layer that shows where two rounds disagree."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.viewer import Viewer

from napari_unetseg.widgets.layers import ROLE, placement
from napari_unetseg.workspace import Difference, Workspace

__all__ = ["DifferenceLayer"]

# of Okabe and Ito's palette, told apart by everybody, and none that the first classes have
GAINED, LOST, OTHER = "#F0E442", "#CC79A7", "#D55E00"


class DifferenceLayer:
    """Adds the layer when the workspace has a difference to show, and takes it away again.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    workspace : Workspace
        Has the difference.
    """

    def __init__(self, viewer: Viewer, workspace: Workspace) -> None:
        self._viewer, self._workspace = viewer, workspace
        self.layer: Labels | None = None
        workspace.difference_changed.connect(self.show)

    def show(self, difference: Difference | None) -> None:
        """Show `difference`, or nothing."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        if difference is None or not difference.voxels:
            return
        colours: dict[int | None, Any] = {0: "transparent", None: "transparent", 1: GAINED, 2: LOST, 3: OTHER}
        made = Labels(
            difference.data,
            name=f"{difference.case} · {difference.names[1].lower()} against {difference.names[0].lower()}",
            metadata={ROLE: {"role": "difference", "case": difference.case}},
            colormap=DirectLabelColormap(color_dict=colours),
            opacity=0.8,
            **placement(difference.geometry),
        )
        made.editable = False
        active = self._viewer.layers.selection.active
        self.layer = self._viewer.add_layer(made)
        if active in self._viewer.layers:
            self._viewer.layers.selection.active = active

    def close(self) -> None:
        """Let go of the workspace."""
        self._workspace.difference_changed.disconnect(self.show, missing_ok=True)
