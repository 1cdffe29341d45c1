"""Colours, icons and style sheet of the workbench, all taken from napari's theme, so that dark and light both fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari.resources import get_colorized_svg, get_icon_path
from napari.utils.theme import get_theme
from qtpy.QtCore import QByteArray
from qtpy.QtGui import QColor, QIcon, QPixmap

__all__ = ["SERIES", "Look", "contrast", "icon", "look", "readable_on", "seen_on", "stylesheet"]

# Okabe and Ito's palette, which colour-blind people can tell apart; for curves, in the order of the classes
SERIES = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442", "#999999")


@dataclass(frozen=True)
class Look:
    """Colours of the current theme, as ``#rrggbb``; `edge` is `accent` where it is a line and not an area."""

    background: str
    foreground: str
    primary: str
    highlight: str
    text: str
    muted: str
    icon: str
    accent: str
    edge: str
    good: str
    warning: str
    error: str


def look(theme_name: str) -> Look:
    """Colours for napari's theme `theme_name` (``viewer.theme``)."""
    theme = get_theme(theme_name)
    names = ("background", "foreground", "primary", "highlight", "text", "icon", "warning", "error")
    colours = {name: _hex(getattr(theme, name)) for name in names}
    dark = QColor(colours["background"]).lightnessF() < 0.5
    if dark:  # napari's own red and yellow are made for backgrounds; as text they need more light
        colours |= {"error": "#ff8a7a", "warning": "#f0c24b"}
    else:
        colours |= {"error": "#b3261e", "warning": "#7d5100"}
    accent = "#4a6bd6" if dark else "#2f62c9"
    return Look(
        **colours,
        muted=_mix(colours["text"], colours["background"], 0.72),
        accent=accent,
        edge=seen_on(accent, colours["foreground"]),
        good="#5fc48f" if dark else "#176b41",
    )


def contrast(first: str, second: str) -> float:
    """Contrast of two colours as WCAG 2 has it, 1 to 21: 4.5 is asked for text, 3 for curves and borders."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def readable_on(colour: str) -> str:
    """Black or white, whichever can be read better on `colour`."""
    return max("#ffffff", "#000000", key=lambda ink: contrast(ink, colour))


def seen_on(colour: str, background: str) -> str:
    """`colour`, or as dark or light a shade of it as a line needs to be seen on `background`."""
    ink = readable_on(background)
    shades = (_mix(colour, ink, share / 20) for share in range(20, 0, -1))
    return next((shade for shade in shades if contrast(shade, background) >= 3), ink)


def icon(name: str, colour: str, chosen: str = "") -> QIcon:
    """One of napari's own icons in `colour`, and in the colour `chosen` on a button that is pressed in."""
    made = QIcon()
    for state, ink in ((QIcon.State.Off, colour), (QIcon.State.On, chosen or colour)):
        pixmap = QPixmap()
        pixmap.loadFromData(QByteArray(get_colorized_svg(get_icon_path(name), color=ink).encode()), "SVG")
        made.addPixmap(pixmap, QIcon.Mode.Normal, state)
    return made


def stylesheet(c: Look) -> str:
    """Style of everything inside the workbench; napari's own style stays in force for the rest."""
    on_accent = readable_on(c.accent)
    return f"""
QWidget#unetsegBench, QWidget#unetsegBench QScrollArea, QWidget#unetsegPage {{ background: {c.background}; }}
QLabel {{ background: transparent; }}
QLabel[role="muted"] {{ color: {c.muted}; }}
QLabel[role="why"] {{ color: {c.muted}; font-style: italic; }}
QLabel[role="error"] {{ color: {c.error}; }}
QLabel[role="warning"] {{ color: {c.warning}; }}
QLabel[role="good"] {{ color: {c.good}; }}
QLabel[role="title"] {{ font-weight: 600; }}
QLabel[role="next"] {{ color: {on_accent}; background: {c.accent}; padding: 6px 10px; border-radius: 4px; }}
QLabel[role="number"] {{ background: {c.primary}; color: {c.text}; border-radius: 10px; font-weight: 600; }}
QLabel[role="number"][kind="next"] {{ background: {c.accent}; color: {on_accent}; }}
QLabel[role="number"][kind="done"] {{ background: {c.good}; color: {readable_on(c.good)}; }}
QLabel[role="badge"] {{ background: {c.primary}; color: {c.text}; border-radius: 8px; padding: 1px 8px; }}
QLabel[role="badge"][kind="instant"] {{ background: {c.warning}; color: {readable_on(c.warning)}; }}
QLabel[role="badge"][kind="net"] {{ background: {c.accent}; color: {on_accent}; }}
QLabel[role="badge"][kind="saved"] {{ background: {c.good}; color: {readable_on(c.good)}; }}
QPushButton[role="switch"] {{ padding: 2px 8px; border-radius: 8px; background: {c.foreground}; color: {c.muted}; }}
QPushButton[role="switch"]:hover {{ background: {c.primary}; }}
QPushButton[role="switch"]:checked {{ background: {c.primary}; color: {c.text}; border: 1px solid {c.edge}; }}
QFrame[role="header"] {{ background: {c.foreground}; border-radius: 4px; border-left: 3px solid {c.foreground}; }}
QFrame[role="header"][kind="next"] {{ border-left: 3px solid {c.edge}; }}
QLabel[role="title"][kind="blocked"], QLabel[role="number"][kind="blocked"] {{ color: {c.muted}; }}
QFrame[role="header"]:hover {{ background: {c.primary}; }}
QPushButton {{ padding: 5px 10px; border-radius: 4px; }}
QPushButton[role="primary"] {{ background: {c.accent}; color: {on_accent}; font-weight: 600; padding: 7px 12px; }}
QPushButton[role="primary"]:hover {{ background: {_mix(c.accent, c.text, 0.85)}; }}
QPushButton[role="primary"]:disabled, QPushButton:disabled {{
    background: {c.foreground}; color: {c.muted}; border: none; }}
QPushButton[role="class"] {{ text-align: left; padding: 5px 8px; background: {c.foreground};
    border: 2px solid {c.foreground}; }}
QPushButton[role="class"]:hover {{ background: {c.primary}; }}
QPushButton[role="class"]:checked {{ border: 2px solid {c.edge}; background: {c.primary}; }}
QPushButton[role="tool"] {{ padding: 4px; min-width: 22px; min-height: 22px; }}
QPushButton[role="tool"]:checked {{ background: {c.accent}; color: {on_accent}; }}
QPushButton[role="drawer"] {{ background: transparent; text-align: left; padding: 4px 2px; }}
QPushButton[role="drawer"]:hover {{ background: {c.foreground}; }}
QPushButton[role="drawer"]:focus {{ border: 1px solid {c.edge}; }}
QPushButton[role="tab"] {{ background: transparent; color: {c.muted}; padding: 3px 6px; border-radius: 0px;
    border-bottom: 2px solid {c.primary}; }}
QPushButton[role="tab"]:hover {{ background: {c.foreground}; }}
QPushButton[role="tab"]:checked {{ color: {c.text}; border-bottom: 2px solid {c.edge}; }}
QPushButton[role="tab"]:focus {{ background: {c.foreground}; }}
QPushButton[role="flat"] {{ background: transparent; }}
QPushButton[role="flat"]:hover {{ background: {c.primary}; }}
QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox {{ min-height: 20px; border-radius: 3px; }}
QLineEdit {{ background: {c.foreground}; padding: 2px 6px; }}
QLineEdit:focus {{ border: 1px solid {c.edge}; }}
QListWidget, QTableWidget, QTreeWidget {{ background: {c.foreground}; border-radius: 4px; padding: 2px; }}
QTreeWidget::item {{ padding: 2px 2px; min-height: 18px; }}
QTreeWidget::item:selected {{ background: {c.primary}; color: {c.text}; }}
QListWidget::item {{ padding: 4px 6px; border-radius: 3px; }}
QListWidget::item:selected, QTableWidget::item:selected {{ background: {c.accent}; color: {on_accent}; }}
QTableWidget {{ gridline-color: {c.primary}; }}
QHeaderView {{ background: {c.foreground}; border: none; }}
QHeaderView::section {{ background: {c.foreground}; color: {c.muted}; border: none; padding: 3px 6px; }}
QProgressBar {{ background: {c.foreground}; border-radius: 4px; min-height: 16px; max-height: 16px;
    text-align: center; color: {c.text}; }}
QProgressBar::chunk {{ background: {_mix(c.accent, c.foreground, 0.6)}; border-radius: 4px; }}
"""


def _hex(colour: Any) -> str:
    return QColor(*colour.as_rgb_tuple(alpha=False)).name()


def _luminance(colour: str) -> float:
    parts = (part / 255 for part in QColor(colour).getRgb()[:3])
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mix(first: str, second: str, share: float) -> str:
    a, b = QColor(first), QColor(second)
    parts = zip(a.getRgb()[:3], b.getRgb()[:3], strict=True)
    return QColor(*(round(share * x + (1 - share) * y) for x, y in parts)).name()
