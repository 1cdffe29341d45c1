"""Colours of classes, the same in the window, in pictures and in files that can say them."""

from __future__ import annotations

__all__ = ["PALETTE"]

# Okabe and Ito's, told apart by colour-blind eyes and in print; the background first, in the coldest of them
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
