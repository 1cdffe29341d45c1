"""What holds for every control and both themes: a tooltip, a name, colours that can be read, one thing to press."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSlider,
)

from napari_unetseg.scores import Scores
from napari_unetseg.widgets.keys import HELP
from napari_unetseg.widgets.theme import SERIES, contrast, look, readable_on, seen_on
from napari_unetseg.widgets.workbench import WIDTH
from napari_unetseg.workspace import Curves

CONTROLS = (QAbstractButton, QAbstractItemView, QAbstractSpinBox, QComboBox, QLineEdit, QProgressBar, QSlider)
DOCS = Path(__file__).parents[2] / "docs"


def controls(bench):
    """Every control of the workbench, seen just now or not, without the parts that Qt makes such a control of."""
    for widget in bench.findChildren(CONTROLS):
        around = widget.parentWidget()
        while around is not bench and not isinstance(around, CONTROLS):
            around = around.parentWidget()
        if around is bench:
            yield widget


def place(widget):
    words = getattr(widget, "text", lambda: "")()
    return f"{type(widget.parentWidget()).__name__}: {type(widget).__name__} {words!r}"


def test_every_control_says_what_it_is_for(bench):
    found = list(controls(bench))
    assert len(found) > 90
    assert not [place(one) for one in found if len(one.toolTip()) < 8]


def test_every_control_has_a_name_for_a_screen_reader(bench):
    bench.images.go_on.setText("Go on")  # named once there is a project to go on with
    words = {one: one.text() for one in controls(bench) if isinstance(one, QAbstractButton)}
    assert not [place(one) for one in controls(bench) if not (one.accessibleName() or words.get(one))]


def test_numbers_have_units_and_usual_values(bench):
    for box in (one for one in controls(bench) if isinstance(one, QAbstractSpinBox)):
        assert re.search(r"\d|usual|[Oo]ne or two|[Hh]alf|empty", box.toolTip()), place(box)


def test_one_thing_at_most_is_to_be_pressed_first_in_each_step(bench):
    for panel in bench.panels:
        bench.show_step(panel)
        primary = [b for b in panel.findChildren(QPushButton) if b.property("role") == "primary" and b.isVisible()]
        assert len(primary) <= 1, [place(one) for one in primary]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_can_be_read(theme):
    """WCAG AA: 4.5 for text, 3 for curves, edges and what tells a state."""
    c = look(theme)
    for ink in (c.text, c.muted, c.error, c.warning, c.good):
        for ground in (c.background, c.foreground):
            assert contrast(ink, ground) >= 4.5, (ink, ground)
    for ground in (c.accent, c.good, c.warning):
        assert contrast(readable_on(ground), ground) >= 4.5
    assert contrast(c.text, c.primary) >= 4.5
    assert contrast(c.edge, c.foreground) >= 3
    for colour in SERIES:
        assert contrast(seen_on(colour, c.foreground), c.foreground) >= 3
    assert seen_on("#ff0000", "#000000") == "#ff0000"


def seen_by(colour: str, kind: str) -> tuple[float, ...]:
    """A colour as a person sees it without red or without green cones (Viénot, Brettel and Mollon 1999), as Lab."""
    import numpy as np
    from skimage.color import rgb2lab

    linear = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]) ** 2.2
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    cones = to_lms @ linear
    if kind == "no red":
        cones[0] = 2.02344 * cones[1] - 2.52581 * cones[2]
    elif kind == "no green":
        cones[1] = 0.494207 * cones[0] + 1.24827 * cones[2]
    seen = np.clip(np.linalg.solve(to_lms, cones), 0, 1) ** (1 / 2.2)
    return tuple(rgb2lab(seen[None, None])[0, 0])


@pytest.mark.parametrize("kind", ["all cones", "no red", "no green"])
def test_the_first_classes_are_told_apart_by_everybody(kind):
    import numpy as np

    seen = [np.array(seen_by(colour, kind)) for colour in SERIES[:6]]
    apart = min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])
    assert apart > 12  # 2.3 is just noticed side by side; red and green of equal lightness come to less than 10


def test_the_keys_listed_are_the_keys_bound(bench):
    """In the window's list and in docs/workbench.md, nothing is missing and nothing is too much."""
    annotation = bench.context.bridge.annotation
    bound = {str(key).replace("Control", "Ctrl").replace("+", "-") for key in annotation.keymap}
    listed = {key for keys, _ in HELP for key in keys.split()}
    ours = {"Right": "→", "Left": "←"}
    plain = {ours.get(key, key) for key in bound if not key.startswith(("Shift-", "Ctrl-Shift"))}
    digits = {str(number) for number in range(1, 10)}
    assert plain - digits <= listed
    napari = {"P", "E", "F", "[", "]", "Space", "…", "1", "9"}
    assert listed - plain <= napari
    shifted = {key.removeprefix("Shift-") for key in bound if key.startswith("Shift-")}
    assert shifted == {keys for keys, words in HELP if "(Shift:" in words and not keys.startswith("Ctrl")}
    text = (DOCS / "workbench.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^|]+)` \| ([^|]+) \|$", text, re.M))
    assert {keys.replace("`", "").replace(" ", ""): words for keys, words in rows.items()} == {
        keys.replace(" ", ""): words for keys, words in HELP
    }


def test_the_dock_stays_narrow(bench):
    """With a volume in hand, everything open and scores of several classes, on a screen of 1280 pixels."""
    bench.images.go_to("volume")
    found = {"background of it": 0.5, "object": 0.25, "class 2": 0.75}
    scores = Scores(found, found, "strokes of 2 held-out volumes", ("volume",), 900, "m")
    for section in bench.sections:
        section.set_open(True)
    bench.train.advanced.button.click()
    bench.truth.button.click()
    bench.why.button.click()
    curves = bench.train.curves.training
    bench.train.curves.show()
    curves.show_curves(Curves(1, [1, 2], [0.9, 0.5], [(2, scores)], kept=2))
    curves.draw()
    QApplication.processEvents()
    bar = bench.column.verticalScrollBar().sizeHint().width()
    wide = {one.content.title: one.minimumSizeHint().width() for one in bench.sections}
    assert bench.column.widget().minimumSizeHint().width() + bar <= WIDTH, wide


def test_tab_goes_from_top_to_bottom(bench):
    """Also to what is made late: the fields and buttons of the classes."""
    bench.classes.append()
    for section in bench.sections:
        section.set_open(True)
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # those of before
    QApplication.processEvents()
    page, one, found = bench.column.widget(), bench.sections[0], []
    while (one := one.nextInFocusChain()) is not bench.sections[0]:
        if page.isAncestorOf(one) and one.isVisible() and one.focusPolicy() & Qt.FocusPolicy.TabFocus:
            found.append(one)
    assert {*bench.annotate.classes, *(edit for _, edit in bench.classes.rows)} <= set(found)
    tops = [one.mapTo(page, QPoint(0, one.height() // 2)).y() for one in found]
    back = [(a, b) for a, b, y, z in zip(found, found[1:], tops, tops[1:], strict=False) if z < y - 8]
    assert not back, [(type(a).__name__, a.accessibleName(), b.accessibleName()) for a, b in back]
