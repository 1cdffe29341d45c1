"""Make the animated picture of the loop: strokes, training, correction, a second round, in a real window.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_loop.py [--minutes 0.7]

Takes about twice the minutes of a round, and one more; writes ``docs/images/loop.gif`` (less than 3 MB).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_unetseg.data.annotator import correct, scribble
from napari_unetseg.io import read_labels
from napari_unetseg.samples import demo_project, sample
from napari_unetseg.widgets.workbench import open_workbench

PICTURE = Path(__file__).parent / "images" / "loop.gif"
SIZE, SHOWN, DOCK = (1280, 800), (896, 560), 630
COLOURS, LARGEST = 96, 3_000_000
PAINTED = ("slide-a_1", "slide-a_2", "slide-b_1")  # images that the simulated hand paints on
HELD_OUT = ("slide-c_1", "slide-c_2")  # painted as a whole, so that scores are those of images


class Film:
    """Frames of a window, and how long each is shown."""

    def __init__(self, viewer) -> None:
        self.viewer = viewer
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []

    def take(self, milliseconds: int = 250) -> None:
        """Take a frame; one like the last makes that one longer."""
        pixels = self.viewer.screenshot(canvas_only=False, flash=False)[..., :3]
        frame = Image.fromarray(np.ascontiguousarray(pixels)).resize(SHOWN, Image.Resampling.LANCZOS)
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.milliseconds[-1] += milliseconds
        else:
            self.frames.append(frame)
            self.milliseconds.append(milliseconds)

    def write(self, path: Path) -> None:
        """Write the GIF, with as many colours as fit into its size; one palette for all, so that nothing flickers."""
        for colours in (COLOURS, COLOURS // 2, COLOURS // 4):
            some = self.frames[:: max(1, len(self.frames) // 6)]
            strip = Image.new("RGB", (SHOWN[0], SHOWN[1] * len(some)))
            for index, frame in enumerate(some):
                strip.paste(frame, (0, index * SHOWN[1]))
            dock = strip.crop((DOCK, 0, *strip.size))  # its few coloured spots would be lost among the pixels of images
            few = dock.quantize(colours // 2, Image.Quantize.MAXCOVERAGE).getpalette()[: 3 * (colours // 2)]
            few += strip.quantize(colours // 2).getpalette()[: 3 * (colours // 2)]
            palette = Image.new("P", (1, 1))
            palette.putpalette(few)
            made = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
            made[0].save(path, save_all=True, append_images=made[1:], duration=self.milliseconds, loop=0, optimize=True)
            if path.stat().st_size < LARGEST:
                return
        raise SystemExit(f"{path} has {path.stat().st_size:,} bytes: train for less, or show it smaller.")


class Hand:
    """A simulated annotator at one workbench."""

    def __init__(self, viewer, bench, film: Film) -> None:
        self.viewer, self.bench, self.film = viewer, bench, film
        self.truths = {image.stem: read_labels(mask).data for image, mask in sample("nuclei-2d").pairs}
        self.rng = np.random.default_rng(0)

    def wait(self, until, seconds: float = 200.0) -> None:
        """Let the window live until something is so."""
        end = time.monotonic() + seconds
        while not until() and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)

    def rest(self, seconds: float) -> None:
        """Let the window live for some seconds."""
        self.wait(lambda: False, seconds)

    def go_to(self, case: str) -> None:
        """Take an image in hand, as a click into the list does."""
        self.bench.images.go_to(case)
        self.wait(lambda: self.bench.workspace.stage == "idle", 30)
        self.rest(0.6)

    def paint(self, wanted: np.ndarray, *, filmed: bool) -> None:
        """Put new strokes into the annotation layer, one after the other."""
        layer = self.bench.context.bridge.annotation
        new = (wanted != np.asarray(layer.data)) & (wanted > 0)
        for value in np.unique(wanted[new]):
            strokes, count = ndimage.label(new & (wanted == value), np.ones((3, 3)))
            self.bench.context.bridge.select_class(int(value))
            for number in range(1, count + 1):
                layer.data_setitem(np.nonzero(strokes == number), int(value))
                if filmed and (count < 9 or number % (count // 8) == 0):
                    self.rest(0.05)
                    self.film.take(180)
        self.rest(1.2)  # until it is journalled

    def train(self, minutes: float) -> None:
        """Press Train, and film until it is over."""
        workspace = self.bench.workspace
        workspace.change_plan(training={"minutes": minutes})
        self.wait(lambda: not workspace.why_not("train"), 30)
        self.bench.show_step(self.bench.train)
        self.rest(0.5)
        self.bench.train.train.click()
        end = time.monotonic() + 60 * minutes + 90
        while workspace.stage != "idle" and time.monotonic() < end:
            self.rest(60 * minutes / 12)
            self.film.take(350)
        self.wait(lambda: workspace.prediction is not None, 30)
        self.bench.show_step(self.bench.review)
        self.rest(0.8)
        self.film.take(1800)


def main() -> None:
    """Play the loop and write the film."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.7, help="training time a round")
    minutes = parser.parse_args().minutes
    home = Path(tempfile.mkdtemp(prefix="film-", dir=Path.home()))  # so that its path is short
    place = home / "nuclei.unetseg"
    demo_project(place).close()
    viewer, bench = open_workbench(place)
    viewer.window.resize(*SIZE)
    film = Film(viewer)
    hand = Hand(viewer, bench, film)
    hand.wait(lambda: bool(bench.workspace.nets), 90)
    bench.show_step(bench.annotate)
    hand.rest(1.0)
    film.take(1200)
    for case in HELD_OUT:
        hand.go_to(case)
        hand.paint((hand.truths[case] + 1).astype(np.uint8), filmed=False)
    for case in (*PAINTED[1:], PAINTED[0]):  # the one that is looked at comes last
        hand.go_to(case)
        hand.paint(scribble(hand.truths[case], 2, hand.rng, fraction=0.02), filmed=case == PAINTED[0])
    hand.train(minutes)
    for case in (*PAINTED[1:], PAINTED[0]):
        hand.go_to(case)
        hand.wait(lambda: bench.workspace.prediction is not None, 20)
        mask = bench.workspace.prediction.mask.data if bench.workspace.prediction else np.zeros_like(hand.truths[case])
        annotation = np.asarray(bench.context.bridge.annotation.data)
        bench.show_step(bench.annotate)
        hand.paint(correct(annotation, mask, hand.truths[case], 2, hand.rng), filmed=case == PAINTED[0])
    hand.train(minutes)
    bench.review.accept.click()
    hand.wait(lambda: not bench.workspace.saving, 20)
    hand.rest(0.5)
    film.take(2500)
    film.write(PICTURE)
    bench.shutdown()
    viewer.close()
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
