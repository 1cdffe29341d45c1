"""Pictures for reports: overlays of masks and strokes, panels side by side, curves of a training.

Drawn without a screen and without pyplot, whose global state would meddle with a user's own figures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_unetseg.io import atomic_write
from napari_unetseg.palette import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves", "overlay", "panels", "reliability_diagram", "save_png", "strips"]

_FILL = 0.35
_DPI = 110
_TILE = 320  # least height of a panel, in pixels


def overlay(
    image: np.ndarray,
    mask: np.ndarray | None = None,
    annotation: np.ndarray | None = None,
    colours: Sequence[str] | None = None,
    truth: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a mask over its image: half-transparent classes with sharp outlines, strokes opaque on top.

    Parameters
    ----------
    image : (C, Y, X) ndarray
        Any dtype. Three channels are red, green and blue, two magenta and green; of others the first is shown grey.
        Intensities are stretched between their 1st and 99th percentile, 8-bit colour images are shown as they are.
    mask : (Y, X) ndarray of integers, optional
        0 background, 1.. classes.
    annotation : (Y, X) ndarray of integers, optional
        Strokes: 0 unlabelled, 1 background, 2.. classes.
    colours : sequence of "#rrggbb", optional
        One a class, background first.
    truth : (Y, X) ndarray of integers, optional
        Outlined in white, under the outlines of the mask: white is seen where they differ.

    Returns
    -------
    (Y, X, 3) uint8 ndarray
    """
    rgb = _shown(np.asarray(image))
    palette = np.array([_rgb(colour) for colour in colours or PALETTE])
    mask = np.zeros(rgb.shape[:2], np.uint8) if mask is None else np.asarray(mask)
    inside, edge = mask > 0, _outline(mask)
    rgb[inside] = (1 - _FILL) * rgb[inside] + _FILL * palette[mask[inside] % len(palette)]
    if truth is not None:
        rgb[_outline(np.asarray(truth))] = 1.0
    rgb[edge] = palette[mask[edge] % len(palette)]
    if annotation is not None:
        strokes = np.asarray(annotation).astype(int)
        # a stroke of value v is of class v - 1, background included
        rgb[strokes > 0] = palette[(strokes[strokes > 0] - 1) % len(palette)]
    return (rgb * 255 + 0.5).astype(np.uint8)


def panels(images: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Pictures ``(Y, X, 3)`` uint8 in a row, each under its title, as one picture; small ones are enlarged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tallest = max(_TILE, *(image.shape[0] for image in images))
    scales = [tallest // image.shape[0] for image in images]
    heights, widths = zip(*((k * i.shape[0], k * i.shape[1]) for k, i in zip(scales, images, strict=True)), strict=True)
    gap, line = 8, 17
    texts = [textwrap.wrap(title, max(8, width // 8)) for title, width in zip(titles, widths, strict=True)]
    head = gap + line * max(map(len, texts))
    full = sum(widths) + gap * (len(images) + 1), head + max(heights) + gap
    figure = Figure(figsize=(full[0] / _DPI, full[1] / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left = gap
    for text, width in zip(texts, widths, strict=True):
        figure.text(
            (left + width / 2) / full[0], 1 - gap / 2 / full[1], "\n".join(text), ha="center", va="top", size=8.5
        )
        left += width + gap
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    left = gap
    # pasted, not drawn: pixel for pixel
    for image, scale, height, width in zip(images, scales, heights, widths, strict=True):
        page[head : head + height, left : left + width] = image.repeat(scale, 0).repeat(scale, 1)
        left += width + gap
    return page


def save_png(path: str | Path, rgb: np.ndarray) -> Path:
    """Write a picture ``(Y, X, 3)`` uint8 as PNG, whole or not at all.

    Raises
    ------
    WriteError
        The folder cannot be written to, or the disk is full.
    """
    from PIL import Image

    path = Path(path)
    atomic_write(path, lambda beside: Image.fromarray(rgb).save(beside, "PNG"))
    return path


def curves(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw a training as PNG: loss per step on the left, Dice and Jaccard of each class on the right.

    Parameters
    ----------
    history : sequence of mapping
        Rows with ``step`` and ``loss``, or ``step`` and ``dice <class>``, ``jaccard <class>``, as a model keeps them.
        What is missing or not a number is left out.
    path : path
        The PNG file.

    Raises
    ------
    WriteError
        The folder cannot be written to, or the disk is full.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.8), dpi=_DPI, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_loss(left, history)
    _draw_scores(right, history)
    canvas.draw()
    return save_png(path, np.asarray(canvas.buffer_rgba())[..., :3])


def strips(values: Mapping[str, Sequence[float]], title: str) -> np.ndarray:
    """Every value as a dot in the row of its name, with mean and standard deviation; ``(Y, X, 3)`` uint8.

    Parameters
    ----------
    values : mapping of str to sequence of float
        Scores between 0 and 1; a name without any keeps its empty row.
    title : str
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.1 + 0.45 * len(values)), dpi=_DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    jitter = np.random.default_rng(0)
    for place, found in enumerate(values.values()):
        if not len(found):
            continue
        colour = PALETTE[place % (len(PALETTE) - 1)]
        heights = place + jitter.uniform(-0.18, 0.18, len(found))
        axes.scatter(found, heights, s=14, color=colour, alpha=0.5, linewidths=0)
        axes.errorbar(np.mean(found), place, xerr=np.std(found, ddof=1) if len(found) > 1 else None, color="0.15",
                      marker="D", markersize=4, capsize=4, linewidth=1.4)  # fmt: skip
    axes.set_yticks(range(len(values)), list(values), fontsize=9)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_title(f"{title}: each case, mean and standard deviation", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def reliability_diagram(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> np.ndarray:
    """How often a class was there, against how probable a model called it; ``(Y, X, 3)`` uint8.

    Parameters
    ----------
    before, after : sequence of (probability, frequency, count)
        Tenths of the voxels by probability, without and with the fitted temperature, as in `Scores.calibration`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.6), dpi=_DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="honest")
    for rows, name, colour, style in (
        (before, "as trained", PALETTE[1], "--"),
        (after, "calibrated", PALETTE[0], "-"),
    ):
        said, was, count = np.array(rows, float).reshape(-1, 3).T
        error = float((np.abs(said - was) * count).sum() / max(count.sum(), 1))
        axes.plot(said, was, style, color=colour, marker="o", markersize=4, label=f"{name}, ECE {error:.3f}")
    _, _, count = np.array(after, float).reshape(-1, 3).T
    centres = (np.floor(np.array(after, float).reshape(-1, 3)[:, 0].clip(0, 0.999) * 10) + 0.5) / 10
    below.bar(centres, count / max(count.sum(), 1), width=0.085, color=PALETTE[5])
    below.set_yscale("log")
    below.set_ylabel("share", fontsize=8)
    below.set_xlabel("probability of a class", fontsize=9)
    axes.set_ylabel("how often it was there", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    for one in (axes, below):
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_loss(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    steps, loss = _series(history, "loss")
    _frame(axes, "loss", empty=not len(steps))
    if not len(steps):
        return
    window = max(1, len(loss) // 25)
    smooth = ndimage.uniform_filter1d(loss, window, mode="nearest")
    many = window > 1
    axes.plot(steps, loss, color=PALETTE[5], linewidth=0.7 if many else 1.6, label="each step" if many else None)
    if many:
        axes.plot(steps, smooth, color=PALETTE[0], linewidth=1.8, label=f"mean of {window} values")
        axes.legend(frameon=False, fontsize=8)
    # a few wild steps at the start must not flatten the rest
    low, high = loss.min(), max(np.percentile(loss, 99), smooth.max())
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))


def _draw_scores(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    keys = dict.fromkeys(key for row in history for key in row)
    classes = dict.fromkeys(key.split(" ", 1)[1] for key in keys if key.startswith(("dice ", "jaccard ")))
    _frame(axes, "score", empty=not classes)
    axes.set_ylim(-0.02, 1.02)
    for place, name in enumerate(classes):
        colour = PALETTE[1:-1][place % (len(PALETTE) - 2)]
        for metric, style in (("Dice", "-"), ("Jaccard", "--")):
            steps, values = _series(history, f"{metric.lower()} {name}")
            if len(steps):
                label = f"{metric} {name} {values[-1]:.2f}"
                axes.plot(steps, values, style, color=colour, marker="o", markersize=3, linewidth=1.6, label=label)
    if axes.lines:
        beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1.02)} if len(classes) > 2 else {}
        axes.legend(frameon=False, fontsize=8, **beside)


def _frame(axes: Axes, what: str, empty: bool) -> None:
    axes.set_xlabel("step")
    axes.set_title(what, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    if empty:
        axes.text(0.5, 0.5, f"no {what} yet", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have the key."""
    pairs = np.array([(row["step"], row[key]) for row in history if row.get(key) is not None], float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pairs[:, 0], pairs[:, 1]


def _shown(image: np.ndarray) -> np.ndarray:
    """Image as ``(Y, X, 3)`` float in [0, 1]."""
    if image.dtype == np.uint8 and len(image) == 3:
        return np.moveaxis(image, 0, -1) / 255.0
    chosen = [_stretched(channel) for channel in (image if len(image) in (2, 3) else image[:1])]
    red, green, blue = {1: (0, 0, 0), 2: (0, 1, 0), 3: (0, 1, 2)}[len(chosen)]
    return np.stack([chosen[red], chosen[green], chosen[blue]], axis=-1)


def _stretched(channel: np.ndarray) -> np.ndarray:
    channel = channel.astype(float)
    finite = np.isfinite(channel)
    known = channel if finite.all() else channel[finite]
    if not known.size:
        return np.zeros(channel.shape)
    low, high = np.percentile(known, (1, 99))
    if high <= low:
        low, high = known.min(), known.max()
    scaled = (channel - low) / (high - low) if high > low else np.zeros(channel.shape)
    return np.clip(scaled if known is channel else np.where(finite, scaled, 0), 0, 1)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a class that touch another one, or the background, with an edge."""
    padded = np.pad(mask, 1, mode="edge")
    same = [padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1]]
    return (mask > 0) & ~np.logical_and.reduce([side == mask for side in same])


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
