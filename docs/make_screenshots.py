"""Make the pictures of the window: every step in both themes, in a real window that a simulated annotator works in.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshots.py [--minutes 1.0]

Takes about twice the minutes of a round, and three more; writes ``docs/images/window-*.png``, 256 colours each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_unetseg.data.annotator import correct, scribble
from napari_unetseg.io import read_labels
from napari_unetseg.samples import demo_project, sample
from napari_unetseg.widgets.workbench import open_workbench

IMAGES = Path(__file__).parent / "images"
SIZE, DOCK = (1280, 720), 380
THEMES = ("light", "dark")
PAINTED = ("slide-a_1", "slide-a_2", "slide-b_1", "slide-c_1")  # the last one is held out by the sample project


class Photographer:
    """A window at work, and its pictures."""

    def __init__(self, minutes: float) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="pictures-", dir=Path.home()))  # so that paths are short
        for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):  # no project of this computer is offered to go on with
            os.environ[name] = str(self.place)
        self.truths = {image.stem: read_labels(mask).data for image, mask in sample("nuclei-2d").pairs}
        self.rng = np.random.default_rng(0)
        self.viewer, self.bench = open_workbench()
        self.viewer.window.resize(*SIZE)
        self.workspace = self.bench.workspace
        self.workspace.change_plan(training={"minutes": minutes})

    def wait(self, until, seconds: float = 240.0) -> None:
        """Let the window live until something is so."""
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def rest(self, seconds: float) -> None:
        """Let the window live for some seconds."""
        self.wait(lambda: False, seconds)

    def idle(self) -> None:
        """Wait for what runs, and for the mask after it."""
        self.wait(lambda: self.workspace.stage == "idle")
        self.rest(2.0)

    def take(self, name: str, panel, *, themes: tuple[str, ...] = THEMES, part=None, at=None) -> None:
        """Take the window with only this step open, scrolled down `at` a widget; or a part of it alone."""
        for section in self.bench.sections:
            section.set_open(section.content is panel)
        self.bench.show_step(panel)
        for theme in themes:
            self.viewer.theme = theme
            self.rest(0.8)
            if at is not None:
                self.bench.column.scroll_to(at)
                self.rest(0.2)
            file = IMAGES / f"window-{name}-{theme}.png"
            if part is not None:
                part.grab().save(str(file))
                pixels = Image.open(file).convert("RGB")
            else:
                pixels = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
            squeezed(pixels).save(file, optimize=True)
        self.viewer.theme = "dark"

    def go_to(self, case: str) -> None:
        """Take an image in hand."""
        self.bench.images.go_to(case)
        self.wait(lambda: self.workspace.stage == "idle", 30)
        self.rest(0.5)

    def paint(self, wanted: np.ndarray) -> None:
        """Put new strokes into the annotation layer, class by class."""
        layer = self.bench.context.bridge.annotation
        new = (wanted != np.asarray(layer.data)) & (wanted > 0)
        for value in np.unique(wanted[new]):
            layer.data_setitem(np.nonzero(new & (wanted == value)), int(value))
        self.rest(1.0)

    def train(self) -> None:
        """Press Train."""
        self.wait(lambda: not self.workspace.why_not("train"), 30)
        self.bench.train.train.click()


def squeezed(picture: Image.Image) -> Image.Image:
    """A picture in 256 colours, half of them for the dock, whose few coloured spots would be lost otherwise."""
    dock = picture.crop((max(0, picture.width - DOCK), 0, picture.width, picture.height))
    few = dock.quantize(128, Image.Quantize.MAXCOVERAGE).getpalette() + picture.quantize(128).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette(few[:768])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def annotate(at: Photographer) -> None:
    """From an empty window to strokes and their instant answer."""
    bench = at.bench
    at.wait(lambda: bool(at.workspace.nets), 90)
    at.take("start", bench.images)
    demo_project(at.place / "nuclei.unetseg").close()
    bench.images.open_project(str(at.place / "nuclei.unetseg"))
    at.rest(1.0)
    at.take("images", bench.images)
    at.take("classes", bench.classes)
    for case in (*PAINTED[1:], PAINTED[0]):
        at.go_to(case)
        at.paint(scribble(at.truths[case], 2, at.rng, fraction=0.03))
    at.wait(lambda: bench.answer.badge.text() == "instant", 120)
    at.rest(3.0)
    at.take("annotate", bench.annotate)


def learn(at: Photographer) -> None:
    """Two rounds, with corrections in between."""
    bench, minutes = at.bench, at.workspace.plan.training.minutes
    bench.train.picker.button.setChecked(True)
    at.take("picker", bench.train, themes=("dark",), part=bench.train.picker)
    bench.train.picker.button.setChecked(False)
    bench.train.advanced.button.setChecked(True)
    at.take("advanced", bench.train, themes=("dark",), part=bench.train.advanced)
    bench.train.advanced.button.setChecked(False)
    at.train()
    at.idle()
    for case in (*PAINTED[1:], PAINTED[0]):
        at.go_to(case)
        at.wait(lambda: at.workspace.prediction is not None, 20)
        mask = at.workspace.prediction.mask.data
        at.paint(correct(np.asarray(bench.context.bridge.annotation.data), mask, at.truths[case], 2, at.rng))
    at.train()
    curves = at.workspace.curves
    at.wait(lambda: at.workspace.curves is not curves, 10)
    at.wait(lambda: at.workspace.progress.fraction > 0.5 and len(at.workspace.curves.validations) > 2, 120 * minutes)
    at.take("train", bench.train)
    at.idle()
    at.wait(lambda: at.workspace.prediction is not None, 30)


def review(at: Photographer) -> None:
    """Scores, errors, doubt, why; then a folder."""
    bench = at.bench
    at.take("review", bench.review)
    bench.truth.button.setChecked(True)
    bench.truth.take_files([str(mask) for _, mask in sample("nuclei-2d").pairs])
    bench.truth.score.click()
    at.wait(lambda: bench.truth.table.rowCount() == len(at.truths), 60)
    at.rest(1.0)
    at.take("errors", bench.review, themes=("dark",), at=bench.truth)
    bench.truth.errors.click()
    bench.truth.button.setChecked(False)
    bench.doubt.button.setChecked(True)
    bench.doubt.show_map.click()
    at.rest(6.0)
    at.take("doubt", bench.review, themes=("light",), at=bench.doubt)
    bench.doubt.hide_map.click()
    bench.doubt.button.setChecked(False)
    bench.folder.inputs.setText(str(Path(sample("nuclei-2d").pairs[0][0]).parent))
    bench.folder.out.setText(str(at.place / "masks"))
    bench.folder.segment.click()
    at.rest(1.0)
    at.idle()
    at.take("folder", bench.folder)
    at.take("compare", bench.compare, themes=("dark",))


def main() -> None:
    """Work through the steps, and take their pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="training time a round")
    at = Photographer(parser.parse_args().minutes)
    annotate(at)
    learn(at)
    review(at)
    at.bench.shutdown()
    at.viewer.close()
    shutil.rmtree(at.place)


if __name__ == "__main__":
    main()
