"""How an architecture looks in the list of the picker: title, facts, what it is good for, paper."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QModelIndex, QRect, QSize, Qt
from qtpy.QtGui import QColor, QFont, QFontMetrics, QPainter
from qtpy.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from napari_unetseg.widgets.theme import Look

__all__ = ["NET", "REASON", "NetRow", "facts_line", "marks", "weights"]

NET = Qt.ItemDataRole.UserRole + 1
REASON = Qt.ItemDataRole.UserRole + 2

_MARGIN = 7
_LINES = 2  # of the sentence


class NetRow(QStyledItemDelegate):
    """Paints a row; needs the facts of the net under `NET`, and under `REASON` why it cannot be chosen, if so."""

    def __init__(self, parent: Any, look: Look) -> None:
        super().__init__(parent)
        self.look = look

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        """Title and marks, facts, sentence on two lines, paper."""
        height = QFontMetrics(option.font).lineSpacing()
        return QSize(100, (3 + _LINES) * height + 2 * _MARGIN)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint the row of `index`."""
        net, reason, look = index.data(NET), index.data(REASON), self.look
        current = bool(option.state & QStyle.StateFlag.State_Selected)
        painter.save()
        if current or (option.state & QStyle.StateFlag.State_MouseOver and not reason):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(look.primary if current else look.background))
            painter.drawRoundedRect(option.rect.adjusted(1, 1, -1, -1), 3, 3)
            if current:
                painter.fillRect(QRect(option.rect.left(), option.rect.top() + 2, 3, option.rect.height() - 4),
                                 QColor(look.accent))  # fmt: skip
        box = option.rect.adjusted(_MARGIN + 2, _MARGIN, -_MARGIN, -_MARGIN)
        title = QFont(option.font)
        title.setBold(True)
        text = look.muted if reason else look.text
        room = self._paint_marks(painter, option.font, box, marks(net))
        _write(painter, title, text, box.adjusted(0, 0, -room, 0), net["title"])
        box = box.adjusted(0, QFontMetrics(title).lineSpacing(), 0, 0)
        box = _write(painter, option.font, look.muted, box, facts_line(net))
        box = _write(painter, option.font, look.warning if reason else text, box, reason or net["sentence"], _LINES)
        _write(painter, option.font, look.muted, box, net["paper"])
        painter.restore()

    def _paint_marks(self, painter: QPainter, font: QFont, box: QRect, words: list[str]) -> int:
        """Paint the marks at the right end of the first line; return the room that they take."""
        metrics = QFontMetrics(font)
        painter.setFont(font)
        right = box.right()
        for word in reversed(words):
            pill = QRect(0, box.top() - 3, metrics.horizontalAdvance(word) + 10, metrics.lineSpacing())
            pill.moveRight(right)
            painter.setPen(QColor(self.look.muted))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(pill, 3, 3)
            painter.drawText(pill, Qt.AlignmentFlag.AlignCenter, word)
            right = pill.left() - 5
        return box.right() - right


def marks(net: dict[str, Any]) -> list[str]:
    """What it can do, in a word each: dims, and whether it can start from ImageNet's weights."""
    return [*(["ImageNet"] if net.get("pretrained") else []), *(f"{d}D" for d in net["dims"])]


def facts_line(net: dict[str, Any]) -> str:
    """Size and relative speed in one line."""
    words = [weights(net["parameters"]["trainable"])]
    if net.get("step_time"):
        words.append(f"{net['step_time']:.1f} × U-Net’s time")
    return " · ".join(words)


def weights(count: int) -> str:
    """Number of weights in words."""
    return f"{count / 1e6:.1f} M weights" if count >= 1e5 else f"{count / 1e3:.0f} k weights"


def _write(painter: QPainter, font: QFont, colour: str, box: QRect, text: str, lines: int = 1) -> QRect:
    """Write `text` at the top of `box`, cut where it is too long; return what is left of the box."""
    metrics = QFontMetrics(font)
    height = metrics.lineSpacing()
    painter.setFont(font)
    painter.setPen(QColor(colour))
    for line in range(lines):
        words = text.split()
        count = len(words)
        while line < lines - 1 and count > 1 and metrics.horizontalAdvance(" ".join(words[:count])) > box.width():
            count -= 1
        here, text = " ".join(words[:count]), " ".join(words[count:])
        here = metrics.elidedText(here, Qt.TextElideMode.ElideRight, box.width())
        painter.drawText(QRect(box.left(), box.top() + line * height, box.width(), height), 0, here)
    return box.adjusted(0, lines * height, 0, 0)
