"""Stopping within a second, also in the middle of a long step: nets that look at the `Control` themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from napari_unetseg.events import Control

__all__ = ["interruptible"]


@contextlib.contextmanager
def interruptible(control: Control, *nets: nn.Module) -> Iterator[None]:
    """Inside this, the layers of `nets` raise `Stopped`, forward and backward, once `control` says so.

    A step interrupted in this way has changed no weight.
    """

    def look(*_: Any) -> None:
        control.poll()

    def watch(layer: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(look)

    with contextlib.ExitStack() as stack:
        for net in nets:
            for layer in (module for module in net.modules() if not any(module.children())):
                for handle in (layer.register_forward_pre_hook(look), layer.register_forward_hook(watch)):
                    stack.callback(handle.remove)
        yield
