"""How seconds and memory grow with the size of an image, the number of files and the number of strokes.

    python benchmarks/growth.py [--what predict,predict_file,folder,instant,project,prepare] [--largest 4096]
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/growth.py --what start [-o RESULTS]

Each kind runs in a process of its own, the smallest size first, and counts processor seconds of one thread, which do
not depend on what else the machine does, and the bytes the process held at its peak beyond what it held before. Rows
are added to growth.csv (a later run of the same thing replaces them); growth.md and growth.png are made from it.
`growth` in the table is the exponent between the two largest sizes: 1 is linear, below it better.

predict        an image in memory, `side` squared, U-Net at a quarter of its width
predict_file   the same from file to file, under a ceiling of 1 GiB
folder         `segment_folder` over so many files of 128 x 128
instant        the first answer: fit of the instant model to so many strokes on four images of 1024 x 1024
project        a project opened, its annotation read, after so many strokes in its journal
prepare        everything before the first step of a training, for so many strokes on four images of 1024 x 1024
start          start-up: imports, window, first stroke to first mask, first step and first preview of a training
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

SIZES = {
    "predict": ("pixels", [1024**2, 2048**2, 4096**2]),
    "predict_file": ("pixels", [1024**2, 2048**2, 4096**2]),
    "folder": ("files", [10, 40, 160]),
    "instant": ("strokes", [8, 64, 512]),
    "project": ("strokes", [100, 1000, 4000]),
    "prepare": ("strokes", [8, 64, 512]),
}
COLUMNS = ["what", "of", "size", "seconds", "peak_mib", "clock", "machine", "versions", "date"]
STARTS = (
    "the library is imported",
    "the modules of the window are imported",
    "the first step of a net, four images of 1024 x 1024",
    "the first preview (instant model), the same images",
    "the window is open",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", default=",".join(SIZES))
    parser.add_argument("--largest", type=int, default=4096, help="side of the largest image")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # what and sizes, in the process that measures
    given = parser.parse_args()
    if given.one:
        for size in map(int, given.one[1].split(",")):
            print(json.dumps(measure(given.one[0], size)), flush=True)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "growth.csv"
    rows = list(csv.DictReader(table.open(newline=""))) if table.exists() else []
    for what in given.what.split(","):
        sizes = sizes_of(what, given.largest)
        parts = [[size] for size in sizes] if what == "start" else [sizes]
        fresh = [row for part in parts for row in rows_of(what, part)]
        rows = [r for r in rows if r["what"] != what] + fresh
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    report(given.out, list(csv.DictReader(table.open(newline=""))))


def sizes_of(what: str, largest: int) -> list[int]:
    if what == "start":
        return list(range(len(STARTS)))
    of, sizes = SIZES[what]
    return [size for size in sizes if of != "pixels" or size <= largest**2]


def rows_of(what: str, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """Measurements of some sizes, in a process of their own."""
    words = [sys.executable, __file__, "--one", what, ",".join(map(str, sizes))]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    for size, one in zip(sizes, found, strict=True):
        print(what, size, one, flush=True)
        yield {
            "what": what, "of": STARTS[size] if what == "start" else SIZES[what][0], "size": size, **one,
            "clock": "processor", "machine": platform.machine(), "date": datetime.date.today().isoformat(),
        }  # fmt: skip


def measure(what: str, size: int) -> dict[str, Any]:
    """Processor seconds and peak memory of one thing; what it needs is made before."""
    if what == "start":
        return {"seconds": round(start_up(size), 2), "peak_mib": "", "versions": ""}
    import torch
    from clocks import count_processor, processor_seconds

    import napari_unetseg
    from napari_unetseg.inference.memory import release, used_memory, watched

    count_processor()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        work = WORK[what](size, Path(place))
        release()
        before, begin = used_memory() or 0, processor_seconds()
        with watched() as peak:
            work()
        seconds = processor_seconds() - begin
    versions = f"napari-unetseg {napari_unetseg.__version__}, torch {torch.__version__}"
    return {"seconds": round(seconds, 3), "peak_mib": round(((peak.bytes or 0) - before) / 2**20), "versions": versions}


# --------------------------------------------------------------------------------------------------- what is measured


def quarter_unet() -> Any:
    from napari_unetseg.nets import Model, build
    from napari_unetseg.plan import Plan

    plan = Plan(net={"width": 0.25, "norm": "instance"}, data={"normalisation": {"kind": "none"}},
                training={"patch": (256, 256)}, inference={"tile": (256, 256)})  # fmt: skip
    return Model(build(plan.net).eval(), plan, ("background", "cell"))


def predict_image(pixels: int, place: Path) -> Callable[[], Any]:
    import numpy as np

    from napari_unetseg import predict
    from napari_unetseg.volume import Volume

    side, model = math.isqrt(pixels), quarter_unet()
    image = Volume(np.random.default_rng(0).integers(0, 255, (1, side, side), np.uint8))
    predict(model, Volume(image.data[:, :256, :256]))  # what is done once a process
    return lambda: predict(model, image)


def predict_path(pixels: int, place: Path) -> Callable[[], Any]:
    import numpy as np
    import tifffile

    from napari_unetseg.inference.disk import predict_file
    from napari_unetseg.inference.memory import used_memory

    side, model, rng = math.isqrt(pixels), quarter_unet(), np.random.default_rng(0)
    for name, n in (("small.tif", 256), ("image.tif", side)):
        tifffile.imwrite(place / name, rng.integers(0, 255, (n, n), np.uint8))
    most = (used_memory() or 0) + 2**30
    predict_file(model, place / "small.tif", place / "small-mask.tif", memory=most)
    return lambda: predict_file(model, place / "image.tif", place / "mask.tif", memory=most)


def folder_of(files: int, place: Path) -> Callable[[], Any]:
    import numpy as np
    import tifffile

    from napari_unetseg import segment_folder

    model, rng = quarter_unet(), np.random.default_rng(0)
    for folder, number in (("warm", 2), ("images", files)):
        (place / folder).mkdir()
        for index in range(number):
            tifffile.imwrite(place / folder / f"{index}.tif", rng.integers(0, 255, (128, 128), np.uint8))
    segment_folder(place / "warm", model, place / "warm-out")
    return lambda: segment_folder(place / "images", model, place / "out")


def painted(strokes: int) -> Any:
    """Four images with so many strokes in all, half of them background, each about 40 x 5 pixels."""
    import numpy as np
    from tiny import blobs

    from napari_unetseg.data import Dataset
    from napari_unetseg.data.annotation import from_mask, to_mask
    from napari_unetseg.data.dataset import Case, Sample
    from napari_unetseg.volume import Volume

    rng, side = np.random.default_rng(0), 1024
    cases = []
    for index in range(4):
        image, truth = blobs((side, side), index)
        known = np.zeros(truth.shape, bool)
        for number in range(strokes // 4):
            inside = np.flatnonzero(truth == number % 2)
            y, x = divmod(int(inside[rng.integers(inside.size)]), side)
            known[y : y + 5, x : x + 40] = True
        mask, known = to_mask(from_mask(truth, known))
        sample = Sample(f"image{index}", Volume(image[None]), mask, known)
        cases.append(Case(sample.name, sample.name, None, None, Kept(sample)))
    return Dataset(tuple(cases), ("background", "blob"), "annotation", (), 1, 2)


class Kept:
    """Reader of a case that is in memory."""

    def __init__(self, sample: Any) -> None:
        self._sample = sample

    def target(self) -> Any:
        return self._sample.target, self._sample.known

    def sample(self) -> Any:
        return self._sample


def instant_fit(strokes: int, place: Path) -> Callable[[], Any]:
    from napari_unetseg.instant import fit_instant

    dataset = painted(strokes)
    fit_instant(painted(8))
    return lambda: fit_instant(dataset)


def prepare_training(strokes: int, place: Path) -> Callable[[], Any]:
    from napari_unetseg.devices import choose_compute
    from napari_unetseg.events import Control
    from napari_unetseg.plan import Plan
    from napari_unetseg.training.job import prepare_job

    dataset = painted(strokes)
    choose_compute("cpu")
    return lambda: prepare_job(dataset, Plan(), 1.0, None, Control())


def project_of(strokes: int, place: Path) -> Callable[[], Any]:
    import numpy as np

    from napari_unetseg.project import Project
    from napari_unetseg.volume import Volume

    rng = np.random.default_rng(0)
    project = Project.create(place / "p.unetseg", ["background", "blob"])
    case = project.add_array("image", Volume(np.zeros((1, 2048, 2048), np.uint8)))
    for _ in range(strokes):
        y, x = rng.integers(0, 2000, 2)
        label = np.uint8(rng.integers(1, 3))
        project.journal(case, (slice(y, y + 5), slice(x, x + 40)), np.full((5, 40), label))
    project.close()

    def opened() -> None:
        with Project.open(project.path) as again:
            again.annotation(case)

    return opened


WORK = {
    "predict": predict_image,
    "predict_file": predict_path,
    "folder": folder_of,
    "instant": instant_fit,
    "project": project_of,
    "prepare": prepare_training,
}


def start_up(number: int) -> float:
    """Processor seconds until something is so, from the start of the process on; see STARTS."""
    if number == 0:
        import napari_unetseg
    elif number == 1:
        import napari_unetseg.widgets.workbench  # noqa: F401
    elif number in (2, 3):
        first_of_training(("StepDone", "PreviewReady")[number - 2])
    else:
        from qtpy.QtWidgets import QApplication

        from napari_unetseg.widgets.workbench import open_workbench

        viewer, bench = open_workbench(None)
        QApplication.processEvents()
        seconds = time.process_time()
        bench.shutdown()
        viewer.close()
        return seconds
    return time.process_time()


def first_of_training(kind: str) -> None:
    """Train on four images with strokes until an event of that kind comes."""
    import torch

    from napari_unetseg import fine_tune
    from napari_unetseg.events import Control, View

    torch.set_num_threads(1)
    control, dataset = Control(), painted(64)
    control.view = View("image0")
    for event in fine_tune.events(dataset, minutes=1, control=control):
        if type(event).__name__ == kind:
            return


# ------------------------------------------------------------------------------------------------------ table and plot


def report(out: Path, rows: list[dict[str, str]]) -> None:
    from matplotlib.figure import Figure

    kinds = [what for what in SIZES if any(r["what"] == what for r in rows)]
    said = ", ".join(dict.fromkeys(r["versions"] for r in rows if r["versions"]))
    dates = sorted({r["date"] for r in rows})
    by = f"Made by `benchmarks/growth.py`: processor seconds of one thread, {rows[0]['machine']}; {said};"
    head = ["| what | size | seconds | growth | peak MiB | growth |", "|---|---|---|---|---|---|"]
    text = ["# Growth\n", f"{by} {dates[0]} to {dates[-1]}.\n", *head]
    figure = Figure(figsize=(11, 3.1 * -(-max(1, len(kinds)) // 3)), layout="constrained")
    for number, what in enumerate(kinds):
        some = sorted((r for r in rows if r["what"] == what), key=lambda r: int(r["size"]))
        text += lines_of(what, some)
        axis = figure.add_subplot(-(-len(kinds) // 3), 3, number + 1)
        x = [int(r["size"]) for r in some]
        for key, mark in (("seconds", "o-"), ("peak_mib", "s--")):
            y = [max(float(r[key]), 1e-3) for r in some]
            axis.plot(x, y, mark, label=key.replace("_mib", " MiB"))
        axis.plot(x, [max(float(some[-1]["seconds"]), 1e-3) * n / x[-1] for n in x], ":", color="grey", label="linear")
        axis.set(title=what, xlabel=some[0]["of"], xscale="log", yscale="log")
        axis.legend(fontsize=7)
    starts = [r for r in rows if r["what"] == "start"]
    if starts:
        text += ["\n## Start-up\n", "| until | processor seconds |", "|---|---|"]
        text += [f"| {r['of']} | {r['seconds']} |" for r in starts]
    if kinds:
        figure.savefig(out / "growth.png", dpi=110)
    (out / "growth.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def lines_of(what: str, some: list[dict[str, str]]) -> Iterator[str]:
    for index, one in enumerate(some):
        slopes = [""] * 2
        if index == len(some) - 1 and index:
            slopes = [slope(some[-2], one, key) for key in ("seconds", "peak_mib")]
        size = f"{int(one['size']):,} {one['of']}"
        yield f"| {what} | {size} | {one['seconds']} | {slopes[0]} | {one['peak_mib']} | {slopes[1]} |"


def slope(before: dict[str, str], after: dict[str, str], key: str) -> str:
    least = 0.01 if key == "seconds" else 1.0  # below what can be told from nothing
    low, high = (max(float(r[key]), least) for r in (before, after))
    return f"{math.log(high / low) / math.log(int(after['size']) / int(before['size'])):.2f}"


if __name__ == "__main__":
    main()
