"""What more annotation is worth: a curve through the scores on new strokes, carried on with its uncertainty.

Every new stroke is scored against the model that never saw it (`Correction`). Errors of learners fall with the amount
of annotation about as a power of it towards a floor (Cortes 1993, Hestness 2017):
``floor + (start - floor) (n0 / n)^c``. All such curves on a grid are weighed by how well they explain the scores
(Bayes' rule, with flat priors on start and floor); the interval is that of the curves, at 90 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unetseg.scores import Scores

__all__ = ["FEWEST", "Correction", "Forecast", "forecast", "forecast_corrections"]

FEWEST = 3  # scored rounds; fewer points fit any curve
LEVEL = 0.9
_MORE = 20  # strokes: what one paints in some minutes
_FLAT = 0.01  # gain that nobody sees

_STARTS = np.linspace(0.01, 0.99, 50)
_FLOORS = np.linspace(0.0, 1.0, 26)  # as a share of the start
_POWERS = np.geomspace(0.15, 2.5, 12)
_NOISES = np.geomspace(0.08, 1.2, 12)  # deviation of a round's score on one stroke
_WOBBLE = 0.02  # deviation between two trainings on the same strokes


@dataclass(frozen=True)
class Correction:
    """Score of a model on strokes that were painted after it was trained, before any model learns them.

    Attributes
    ----------
    scores : Scores
        On the new strokes only.
    round : int
        Of the model that was scored; 0 where it was not kept.
    seen : int
        Strokes it had been trained on.
    strokes : mapping of str to int
        New strokes of each class, background included: what the scores were measured on.
    """

    scores: Scores
    round: int = 0
    seen: int = 0
    strokes: Mapping[str, int] | None = None

    @property
    def new(self) -> int:
        """How many new strokes there were."""
        return sum((self.strokes or {}).values())

    def dice(self, name: str | None = None) -> float:
        """Dice of a class, or mean over the classes; not a number where no new stroke has the class."""
        painted = [c for c in self.scores.dice if self.strokes is None or self.strokes.get(c)]
        wanted = painted if name is None else [c for c in painted if c == name]
        return float(np.mean([self.scores.dice[c] for c in wanted])) if wanted else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        strokes = dict(self.strokes) if self.strokes is not None else None
        return {"scores": self.scores.to_dict(), "round": self.round, "seen": self.seen, "strokes": strokes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Undo `to_dict`; bare scores, as older projects have them, are taken too."""
        if "scores" not in values:
            return cls(Scores.from_dict(values))
        return cls(**{**values, "scores": Scores.from_dict(values["scores"])})


@dataclass(frozen=True, eq=False)
class Forecast:
    """What more strokes are worth.

    Attributes
    ----------
    rounds : int
        Scored rounds it rests on; with fewer than `FEWEST` there is no curve.
    more : int
        Strokes that `value` is ahead of `now`.
    now : float
        Dice that the curve says the model has that learned all strokes so far.
    value, low, high : float
        Dice after `more` strokes, and its 90 % interval.
    strokes : ndarray
        Numbers of strokes at which the band is given, from the first score to some way ahead.
    middle, lower, upper : ndarray
        The band at `strokes`: median and 90 % interval.
    """

    rounds: int
    more: int = 0
    now: float = float("nan")
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    strokes: np.ndarray | None = None
    middle: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None

    @property
    def early(self) -> bool:
        """Whether there are too few scored rounds."""
        return self.strokes is None

    def sentence(self) -> str:
        """What more annotation is worth, in plain words."""
        if self.early:
            have = f"there {'is' if self.rounds == 1 else 'are'} {self.rounds or 'none'} so far"
            return f"Too early to say what more strokes are worth: it takes {FEWEST} rounds of corrections; {have}."
        told = f"{self.now:.2f} → about {self.value:.2f} ({self.low:.2f}–{self.high:.2f})"
        said = f"Another {self.more} strokes: Dice on new strokes {told}."
        if self.value - self.now < _FLAT and self.high - self.now < 3 * _FLAT:
            return f"{said} More strokes of the same kind would hardly change it."
        return said


def forecast_corrections(corrections: Sequence[Correction], name: str | None = None, more: int = _MORE) -> Forecast:
    """Forecast for one class, or for the mean over the classes, from what was scored round by round."""
    usable = [(c.seen, c.dice(name), c.new) for c in corrections if c.seen and c.new and np.isfinite(c.dice(name))]
    if not usable:
        return Forecast(0)
    seen, dice, new = (list(column) for column in zip(*usable, strict=True))
    total = max(c.seen + c.new for c in corrections if c.seen)
    return forecast(seen, dice, new, total=total, more=more)


def forecast(
    seen: Sequence[float], dice: Sequence[float], new: Sequence[float], *, total: float, more: int = _MORE
) -> Forecast:
    """Carry a learning curve on.

    Parameters
    ----------
    seen : sequence of float
        Strokes that the model of each round was trained on; positive.
    dice : sequence of float
        Its score on the strokes that came then.
    new : sequence of float
        How many came: a score on few strokes counts little.
    total : float
        Strokes painted by now.
    more : int
        Strokes to look ahead.

    Returns
    -------
    Forecast
        Without a curve when there are fewer than `FEWEST` rounds, or all are of the same number of strokes.
    """
    x, y, n = (np.asarray(values, float) for values in (seen, dice, new))
    if len(x) < FEWEST or np.ptp(x) == 0:
        return Forecast(len(x))
    first = float(x.min())
    start, floor, power = (axis.ravel() for axis in np.meshgrid(_STARTS, _FLOORS, _POWERS, indexing="ij"))
    floor = floor * start

    def dice_at(strokes: float) -> np.ndarray:
        return 1 - floor - (start - floor) * (first / strokes) ** power

    squares = [(y_i - dice_at(x_i)) ** 2 for x_i, y_i in zip(x, y, strict=True)]
    weight = np.zeros_like(start)
    # medium noise and square-root laws are commonest, but not by much
    doubt = np.exp(-0.5 * ((np.log(power) - np.log(0.6)) / 0.8) ** 2)
    logs = []
    for noise in _NOISES:
        variance = noise**2 / np.maximum(n, 1) + _WOBBLE**2
        fit = -0.5 * sum(s / v for s, v in zip(squares, variance, strict=True)) - 0.5 * np.log(variance).sum()
        logs.append(fit - 0.5 * ((np.log(noise) - np.log(0.35)) / 0.6) ** 2)
    top = max(float(log.max()) for log in logs)
    for log in logs:
        weight += np.exp(log - top)
    weight *= doubt
    strokes = np.unique(np.linspace(first, total + 2 * more, 14).round())
    band = np.array([_quantiles(dice_at(at), weight) for at in strokes])
    low, value, high = _quantiles(dice_at(total + more), weight)
    now = _quantiles(dice_at(total), weight)[1]
    return Forecast(len(x), more, now, value, low, high, strokes, band[:, 1], band[:, 0], band[:, 2])


def _quantiles(values: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Lower end of the interval, median, upper end."""
    order = np.argsort(values)
    shares = np.cumsum(weight[order])
    wanted = np.array([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]) * shares[-1]
    low, middle, high = values[order][np.searchsorted(shares, wanted).clip(max=len(values) - 1)]
    return float(low), float(middle), float(high)
