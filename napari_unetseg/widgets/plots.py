"""Learning curves, drawn with pyqtgraph at most four times a second, each with its content in words."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QButtonGroup, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_unetseg.metrics.forecast import Correction, Forecast
from napari_unetseg.scores import Scores
from napari_unetseg.widgets.parts import Choice, label, row, set_role
from napari_unetseg.widgets.theme import SERIES, Look, seen_on
from napari_unetseg.workspace import Curves, Round

__all__ = ["CurvesView", "Plots", "RoundsView", "WorthView"]

POINTS = 2000  # more cannot be told apart in a dock, and cost time at every redraw
INTERVAL_MS = 250
_NAMED = 3
METRICS = (("Dice", "dice"), ("Jaccard", "jaccard"))


class _View(QWidget):
    """Plots that follow the theme and the colours of the classes, drawn soon after they were told something new."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._colours: dict[str, str] = {}
        self.plots: list[pg.PlotWidget] = []
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(2)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self.draw)

    def set_look(self, look: Look) -> None:
        """Follow the theme."""
        self._look = look
        for plot in self.plots:
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

    def draw_soon(self) -> None:
        """Draw at the next tick, if anybody can see it."""
        if not self._timer.isActive():
            self._timer.start()

    def showEvent(self, event: Any) -> None:
        """Draw what was told while it was hidden."""
        super().showEvent(event)
        self.draw_soon()

    def draw(self) -> None:
        """Draw what was told last."""
        raise NotImplementedError

    def _colour(self, name: str, index: int) -> str:
        colour = self._colours.get(name, SERIES[index % len(SERIES)])
        return seen_on(colour, self._look.foreground)

    def _dots(self, plot: pg.PlotWidget, x: Sequence[float], y: Sequence[float], colour: Any, **options: Any) -> None:
        pen = pg.mkPen(colour, width=2.5)
        options = {"pen": pen, "symbol": "o", "symbolSize": 6, "symbolBrush": colour, "symbolPen": None, **options}
        plot.plot(np.asarray(x, float), np.asarray(y, float), **options)


class CurvesView(_View):
    """One training: above the score of each class on what was held out, below the loss of the steps."""

    def __init__(self, look: Look) -> None:
        super().__init__(look)
        self._curves = Curves()
        self.kept: pg.InfiniteLine | None = None
        self.loss = _plot("Loss of each training step; lower is better")
        self.score = _plot("Score per class where the net was not trained; 1 is perfect")
        _from_0_to_1(self.score)
        self.plots = [self.loss, self.score]
        self.loss.getViewBox().setLimits(minXRange=8)  # or steps would have decimals at first
        self.score.setXLink(self.loss)
        self.shown = Choice(METRICS, "Dice: 2 · overlap / (mask + truth). Jaccard: overlap / union. Both 0 to 1.")
        self.shown.setMinimumContentsLength(6)
        self.shown.setAccessibleName("Score shown in the curves")
        self._loss_title = label("Loss", "muted", wrap=False)
        self._score_title = label("held out", "muted", wrap=False)
        self._loss_now = label("", "muted", wrap=False)
        self._loss_now.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._score_now = label("", "muted")  # may be wide: many classes, long names
        self._score_now.setTextFormat(Qt.TextFormat.RichText)  # each name with a dot in the colour of its curve
        self.column.addLayout(row(self.shown, self._score_title, stretch=(0, 1)))
        self.column.addWidget(self._score_now)
        self.column.addWidget(self.score)
        self.column.addLayout(row(self._loss_title, self._loss_now, stretch=(0, 1)))
        self.column.addWidget(self.loss)
        self._loss_lines = [self.loss.plot(), self.loss.plot()]
        self.shown.chosen.connect(lambda _: self.draw())
        self.set_look(look)

    def show_curves(self, curves: Curves) -> None:
        """Take new points; they are drawn at the next tick."""
        self._curves = curves
        self.draw_soon()

    def draw(self) -> None:
        """Draw what was told last."""
        curves = self._curves
        self._loss_title.setText(f"Loss, round {curves.number}" if curves.number else "Loss")
        steps, losses = _thinned(curves.steps), _thinned(curves.losses)
        smooth = _smooth(losses) if len(losses) else losses
        for line, values, colour, width in zip(
            self._loss_lines, (losses, smooth), (self._look.muted, self._look.edge), (1, 2), strict=True
        ):
            line.setData(steps, values, pen=pg.mkPen(colour, width=width))
        now = f"{smooth[-1]:.3f} after {curves.steps[-1]:,} steps" if len(smooth) else ""
        self._loss_now.setText(now)
        _describe(self.loss, f"Loss, smoothed: {now}." if now else "No loss yet.")
        self._draw_scores(curves)

    def _legend(self, latest: Mapping[str, float]) -> list[str]:
        named = list(latest.items())[:_NAMED]
        colours = [self._colour(name, index) for index, name in enumerate(latest)]
        return [
            f'<span style="color: {colour}">●</span> {html.escape(name)} {value:.2f}'
            for colour, (name, value) in zip(colours, named, strict=False)
        ]

    def _draw_scores(self, curves: Curves) -> None:
        self.score.clear()
        self._score_now.setText("")
        _describe(self.score, "No score yet.")
        if not curves.validations:
            return
        steps = [step for step, _ in curves.validations]
        last, metric = curves.validations[-1][1], str(self.shown.value)
        latest = getattr(last, metric)
        for index, name in enumerate(latest):
            values = [getattr(scores, metric).get(name, np.nan) for _, scores in curves.validations]
            self._dots(self.score, steps, values, self._colour(name, index))
        if curves.kept is not None:
            pen = pg.mkPen(self._look.muted, width=1.5, style=Qt.PenStyle.DashLine)
            self.kept = pg.InfiniteLine(curves.kept, pen=pen, label="kept", labelOpts={"color": self._look.text})
            self.kept.label.setPosition(0.15)
            self.score.addItem(self.kept)
        self._score_title.setText("held out" if last.rule else "on the training strokes")
        told = "   ".join(f"{name} {value:.2f}" for name, value in list(latest.items())[:_NAMED])
        self._score_now.setText("&nbsp; ".join(self._legend(latest)))
        kept = f" The weights of step {curves.kept:,} are kept." if curves.kept is not None else ""
        where = f"{self.shown.currentText()} {self._score_title.text()}"
        _describe(self.score, f"{where}, at step {steps[-1]:,}: {told}.{kept}")


class RoundsView(_View):
    """Every round's score on what was held out, per class."""

    def __init__(self, look: Look) -> None:
        super().__init__(look)
        self._rounds: tuple[Round, ...] = ()
        self.score = _plot("Score of each round per class where the net was not trained; 1 is perfect", height=132)
        _from_0_to_1(self.score)
        self.score.getAxis("bottom").setTickSpacing(1, 1)
        self.plots = [self.score]
        self.shown = Choice(METRICS, "Dice: 2 · overlap / (mask + truth). Jaccard: overlap / union. Both 0 to 1.")
        self.shown.setMinimumContentsLength(6)
        self.shown.setAccessibleName("Score shown for the rounds")
        self.shown.chosen.connect(lambda _: self.draw())
        self.sentence = label("", "muted")
        self.column.addLayout(row(self.shown, label("of each round, held out", "muted", wrap=False), stretch=(0, 1)))
        self.column.addWidget(self.score)
        self.column.addWidget(self.sentence)
        self.set_look(look)

    def show_rounds(self, rounds: tuple[Round, ...]) -> None:
        """Take the rounds of a project."""
        self._rounds = rounds
        self.draw_soon()

    def draw(self) -> None:
        """Draw what was told last."""
        self.score.clear()
        metric = str(self.shown.value)
        scored = [(r.number, r.scores) for r in self._rounds if r.scores is not None and r.scores.voxels]
        names = dict.fromkeys(name for _, scores in scored for name in scores.dice)
        said = []
        for index, name in enumerate(names):
            points = [(n, getattr(s, metric)[name]) for n, s in scored if name in getattr(s, metric)]
            numbers, values = zip(*points, strict=True)
            self._dots(self.score, numbers, values, self._colour(name, index))
            said.append(f"{name} " + " → ".join(f"{value:.2f}" for value in values[-5:]))
        if current := next((r.number for r in self._rounds if r.current), None):
            pen = pg.mkPen(self._look.muted, width=1.5, style=Qt.PenStyle.DashLine)
            line = pg.InfiniteLine(current, pen=pen, label="in use", labelOpts={"color": self._look.text})
            line.label.setPosition(0.15)
            self.score.addItem(line)
        if scored:
            self.score.setXRange(scored[0][0] - 0.5, scored[-1][0] + 0.5, padding=0)
        text = f"{self.shown.currentText()} {_of_rounds(scored)}: {'; '.join(said)}." if scored else "No score yet."
        changed = len({(s.rule, s.voxels) for _, s in scored}) > 1
        note = " The rounds were scored on different voxels: compare with care." if changed else ""
        self.sentence.setText(text + note)
        _describe(self.score, text + note)


class WorthView(_View):
    """Scores on new strokes before they were learned, and what more strokes are worth."""

    def __init__(self, look: Look) -> None:
        super().__init__(look)
        self._corrections: tuple[Correction, ...] = ()
        self._forecast = Forecast(0)
        self._each: Callable[[str], Forecast] | None = None
        self.score = _plot(
            "Dice on new strokes, before any model learned them, by the number of strokes learned so far.\n"
            "The band is where the curve probably runs on (90 %).\n"
            "Most new strokes are painted where the mask was wrong: the mask as a whole is better than this.",
            height=132,
        )
        _from_0_to_1(self.score)
        self.plots = [self.score]
        self.sentence = label("")
        self.details = label("", "muted")
        self.column.addWidget(self.sentence)
        self.column.addWidget(head := label("Dice on new strokes, by the number of strokes learned", "muted"))
        self._curve = (head, self.score)
        self.column.addWidget(self.score)
        self.column.addWidget(self.details)
        self.set_look(look)

    def show_worth(
        self, corrections: tuple[Correction, ...], forecast: Forecast, each: Callable[[str], Forecast] | None = None
    ) -> None:
        """Take the scores on new strokes, the forecast for their mean and, to be asked, that of a class."""
        self._corrections, self._forecast, self._each = corrections, forecast, each
        self.draw_soon()

    def draw(self) -> None:
        """Draw what was told last."""
        self.score.clear()
        told, counted = self._forecast, [c for c in self._corrections if c.seen]
        places = [c.seen for c in counted] if counted else list(range(1, len(self._corrections) + 1))
        shown = counted or list(self._corrections)
        names = dict.fromkeys(name for c in shown for name in c.scores.dice)
        for index, name in enumerate(names):
            faint = QColor(self._colour(name, index))
            faint.setAlphaF(0.9 if len(names) == 1 else 0.55)
            values = [c.dice(name) for c in shown]
            self._dots(self.score, places, values, faint, pen=pg.mkPen(faint, width=1, style=Qt.PenStyle.DotLine))
        if told.strokes is not None and told.lower is not None and told.upper is not None and told.middle is not None:
            clear = pg.mkPen(None)
            band = QColor(self._look.accent)
            band.setAlphaF(0.25)
            ends = [pg.PlotDataItem(told.strokes, values, pen=clear) for values in (told.lower, told.upper)]
            for item in (*ends, pg.FillBetweenItem(*ends, brush=band)):
                self.score.addItem(item)
            self.score.plot(told.strokes, told.middle, pen=pg.mkPen(self._look.edge, width=2.5))
        scored = any(np.isfinite(c.dice(name)) for c in shown for name in names)
        for part in self._curve:
            part.setVisible(scored)
        self.sentence.setText(told.sentence())
        self.details.setText(self._by_class(list(names)))
        _describe(self.score, f"{told.sentence()} {self.details.text()}")

    def _by_class(self, names: list[str]) -> str:
        lines = []
        if self._corrections:
            last = self._corrections[-1]
            strokes = f"{last.new} new strokes" if last.new else "the new strokes"
            each = ", ".join(
                f"{name} {last.dice(name):.2f}" if np.isfinite(last.dice(name)) else f"{name} –" for name in names
            )
            lines.append(f"Last round, on {strokes} ({last.scores.voxels:,} voxels): {each}.")
            lines.append("New strokes lie where the mask was wrong: the whole mask is better than this.")
        if len(names) > 1 and self._each is not None:
            ahead = {name: self._each(name) for name in names[:_NAMED]}
            known = [f"{n} {f.value:.2f} ({f.low:.2f}–{f.high:.2f})" for n, f in ahead.items() if not f.early]
            if known:
                lines.append(f"After {self._forecast.more} more strokes: {', '.join(known)}.")
        return "\n".join(lines)


class Plots(QWidget):
    """The three views, one at a time, chosen by a button each."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.training, self.rounds, self.worth = CurvesView(look), RoundsView(look), WorthView(look)
        self.views: Mapping[str, _View] = dict(
            zip(("This training", "Rounds", "More strokes?"), (self.training, self.rounds, self.worth), strict=True)
        )
        tips = (
            "Loss and held-out scores while it trains",
            "Held-out scores of every round",
            "What more annotation is worth",
        )
        self.buttons = []
        self._group = QButtonGroup(self)
        for index, name in enumerate(self.views):
            button = QPushButton(name)
            button.setCheckable(True)
            button.setToolTip(tips[index])
            set_role(button, "tab")
            self._group.addButton(button, index)
            self.buttons.append(button)
        self._group.idClicked.connect(self.show_view)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(row(*self.buttons, stretch=(1, 1, 1), spacing=2))
        for view in self.views.values():  # no QStackedWidget: it has no height for a label that wraps
            layout.addWidget(view)
        self.show_view(0)

    def show_view(self, index: int) -> None:
        """Show one of the views; the others take no room."""
        self.buttons[index].setChecked(True)
        for place, view in enumerate(self.views.values()):
            view.setVisible(place == index)

    def offer(self, index: int, offered: bool) -> None:
        """Show or hide the button of a view that has, or has not, something to show."""
        self.buttons[index].setVisible(offered)
        self.buttons[0].setVisible(any(not button.isHidden() for button in self.buttons[1:]))  # one alone is no choice
        if not offered and self.buttons[index].isChecked():
            self.show_view(0)

    def set_look(self, look: Look) -> None:
        """Follow the theme."""
        for view in self.views.values():
            view.set_look(look)

    def set_colours(self, colours: dict[str, str]) -> None:
        """Draw each class in the colour it has everywhere else."""
        for view in self.views.values():
            view.set_colours(colours)


def _of_rounds(scored: Sequence[tuple[int, Scores]]) -> str:
    first, last = scored[max(0, len(scored) - 5)][0], scored[-1][0]
    return f"of round {last}" if first == last else f"of rounds {first} to {last}"


def _describe(plot: pg.PlotWidget, text: str) -> None:
    """Say in words what the plot shows, to screen readers and in the tooltip."""
    plot.setAccessibleDescription(text)
    plot.setToolTip(f"{plot.property('about')}\n{text}")


def _from_0_to_1(plot: pg.PlotWidget) -> None:
    plot.setYRange(0, 1, padding=0.15)  # with room for the labels at both ends
    plot.getAxis("left").setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")], []])


def _plot(tooltip: str, height: int = 96) -> pg.PlotWidget:
    plot = pg.PlotWidget()
    plot.setProperty("about", tooltip)
    plot.setAccessibleName(tooltip.partition("\n")[0])
    plot.setToolTip(tooltip)
    plot.setFixedHeight(height)
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
