"""From strokes to a model.

`loop` is the training itself, on one screen; `job` gathers what it works with and makes the `Model` at its end; `clock`
keeps the budget; `resume` is what survives a kill.
"""

from __future__ import annotations

from napari_unetseg.training.loop import fine_tune

__all__ = ["fine_tune"]
