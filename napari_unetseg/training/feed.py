"""`Feed`: batches for the loop, the next one drawn while a graphics card still works on the last."""

from __future__ import annotations

from typing import Any

import torch

from napari_unetseg.data import Batch, PatchSampler

__all__ = ["Feed"]


class Feed:
    """Draws batches from a sampler and puts them on a device.

    Parameters
    ----------
    sampler : PatchSampler
    device : torch.device
        Where batches go. On the CPU nothing is drawn ahead: there it would only take time from the net.
    """

    def __init__(self, sampler: PatchSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device
        self._taken_at = sampler.state
        self._ahead: tuple[dict[str, Any], Batch] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Where the drawing stands, in plain values: before the batch that waits, if one does."""
        return self._ahead[0] if self._ahead else self.sampler.state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.sampler.state, self._ahead = state, None

    def take(self, rows: int) -> Batch:
        """Give the next batch of `rows` patches, on the device."""
        if self._ahead is None:
            self._taken_at = self.sampler.state
            return self.sampler.draw(rows).to(self.device)
        (self._taken_at, batch), self._ahead = self._ahead, None
        return batch

    def look_ahead(self, rows: int) -> None:
        """Draw the next batch already, where the device works on its own meanwhile."""
        if self.device.type == "cuda":
            state = self.sampler.state
            pinned = self.sampler.draw(rows).each(torch.Tensor.pin_memory)
            self._ahead = state, pinned.to(self.device)

    def rewind(self) -> None:
        """Go back to before the last batch taken: the step it was for did not happen."""
        self.state = self._taken_at
