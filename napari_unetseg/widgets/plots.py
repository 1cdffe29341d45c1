"""Live learning curves, drawn with pyqtgraph at most four times a second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_unetseg.widgets.parts import label, row
from napari_unetseg.widgets.theme import SERIES, Look
from napari_unetseg.workspace import Curves

__all__ = ["CurvesView"]

POINTS = 2000  # more cannot be told apart in a dock, and cost time at every redraw
INTERVAL_MS = 250


class CurvesView(QWidget):
    """Loss of the steps above, Dice of each class on what was held out below."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._curves = Curves()
        self.kept: pg.InfiniteLine | None = None
        self._colours: dict[str, str] = {}
        self.loss = _plot("Loss of each training step; lower is better")
        self.score = _plot("Dice per class where the net was not trained; 1 is perfect")
        self.score.setYRange(0, 1, padding=0.03)
        self.score.setMouseEnabled(x=False, y=False)
        self._loss_title = label("Loss", "muted", wrap=False)
        self._score_title = label("Dice", "muted", wrap=False)
        self._loss_now = label("", "muted", wrap=False)
        self._score_now = label("", "muted", wrap=False)
        for now in (self._loss_now, self._score_now):
            now.setAlignment(Qt.AlignmentFlag.AlignRight)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(row(self._loss_title, self._loss_now, stretch=(0, 1)))
        layout.addWidget(self.loss)
        layout.addLayout(row(self._score_title, self._score_now, stretch=(0, 1)))
        layout.addWidget(self.score)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self.draw)
        self.set_look(look)

    def set_look(self, look: Look) -> None:
        """Follow the theme."""
        self._look = look
        for plot in (self.loss, self.score):
            plot.setBackground(look.foreground)
            for side in ("left", "bottom"):
                axis = plot.getAxis(side)
                axis.setPen(pg.mkPen(look.muted))
                axis.setTextPen(pg.mkPen(look.muted))
        self.draw()

    def set_colours(self, colours: dict[str, str]) -> None:
        """Draw the curve of each class in the colour it has everywhere else."""
        self._colours = dict(colours)
        self.draw()

    def show_curves(self, curves: Curves) -> None:
        """Take new points; they are drawn at the next tick."""
        self._curves = curves
        if not self._timer.isActive():
            self._timer.start()

    def draw(self) -> None:
        """Draw what was taken last."""
        curves = self._curves
        self.loss.clear()
        self.score.clear()
        self._loss_title.setText(f"Loss, round {curves.number}" if curves.number else "Loss")
        if curves.steps:
            steps, losses = _thinned(curves.steps), _thinned(curves.losses)
            self.loss.plot(steps, losses, pen=pg.mkPen(self._look.muted, width=1))
            self.loss.plot(steps, _smooth(losses), pen=pg.mkPen(self._look.accent, width=2.5))
            self._loss_now.setText(f"{_smooth(losses)[-1]:.3f} after {curves.steps[-1]:,} steps")
        else:
            self._loss_now.setText("")
        self._draw_scores(curves)

    def _draw_scores(self, curves: Curves) -> None:
        self._score_now.setText("")
        if not curves.validations:
            return
        steps = [step for step, _ in curves.validations]
        names = list(curves.validations[-1][1].dice)
        for index, name in enumerate(names):
            values = [scores.dice.get(name, np.nan) for _, scores in curves.validations]
            colour = self._colours.get(name, SERIES[index % len(SERIES)])
            self.score.plot(
                steps, values, pen=pg.mkPen(colour, width=2.5), symbol="o", symbolSize=6, symbolBrush=colour,
                symbolPen=None,
            )  # fmt: skip
        if curves.kept is not None:
            pen = pg.mkPen(self._look.muted, width=1.5, style=Qt.PenStyle.DashLine)
            self.kept = pg.InfiniteLine(curves.kept, pen=pen, label="kept", labelOpts={"color": self._look.text})
            self.kept.label.setPosition(0.15)
            self.score.addItem(self.kept)
        last = curves.validations[-1][1]
        self._score_title.setText("Dice, held out" if last.rule else "Dice, on the training strokes")
        self._score_now.setText("   ".join(f"{name} {last.dice[name]:.2f}" for name in names[:3]))


def _plot(tooltip: str) -> pg.PlotWidget:
    plot = pg.PlotWidget()
    plot.setToolTip(tooltip)
    plot.setFixedHeight(96)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.showGrid(x=False, y=True, alpha=0.15)
    plot.getAxis("left").setWidth(34)
    plot.getPlotItem().setContentsMargins(2, 4, 6, 0)
    # the wheel must scroll the dock, not zoom a curve nobody meant to zoom
    plot.setMouseEnabled(x=False, y=False)
    plot.wheelEvent = lambda event: event.ignore()  # type: ignore[method-assign]
    return plot


def _thinned(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    return array[:: max(1, -(-len(array) // POINTS))]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving mean over the past tenth of the curve, the eye's aid among noisy steps."""
    width = max(1, len(values) // 10)
    sums = np.cumsum(np.insert(np.nan_to_num(values), 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)
