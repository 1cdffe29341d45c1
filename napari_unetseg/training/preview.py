"""What the user looks at, segmented by whoever leads."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from napari_unetseg.errors import OutOfMemory, Stopped
from napari_unetseg.events import Control, Event, Note, PreviewReady
from napari_unetseg.training.ladder import smaller_tile

if TYPE_CHECKING:
    from napari_unetseg.training.job import Job

__all__ = ["preview"]


def preview(job: Job, control: Control) -> Generator[Event, None, None]:
    """Mask of what the user looks at; of a volume only the plane, with the slab a 3D net needs around it."""
    begin, view = time.monotonic(), control.view
    image = job.image(view.case) if view is not None else None
    if view is None or image is None:
        return
    predictor, index = job.leader, None
    if image.ndim == 4 and view.index is not None:
        index = min(max(view.index, 0), image.shape[1] - 1)
        half = 0 if predictor.plan.net.dims == 2 else (job.plan.training.patch or (32,))[0] // 2
        half = max(half, predictor.plan.data.neighbours)
        first = max(0, index - half)
        image, index = image[:, first : index + half + 1], index - first
    try:
        mask = predictor.mask(predictor.probabilities(image, control))
    except Stopped:
        return
    except OutOfMemory:
        if job.lead.by_instant:
            return job.lead.hand_over()
        return (yield Note(smaller_tile(job), "warning"))
    job.clock.previewed(time.monotonic() - begin)
    yield PreviewReady(job.progress.step, view, mask if index is None else mask[index])
