"""Steps a second of training, beside the bare loop of the same net on tensors that are already there.

    python benchmarks/steps.py [--device cpu|cuda] [--threads N] [--steps N] [--nets unet,multiresunet] [--dims 2 3]

The bare loop is forward, loss, backward and optimiser on one batch that never changes. Ours draws patches around
strokes, augments, clips gradients, averages weights and keeps count as well; ours / bare is what is left for the net.
Both run in turn, so that a busy moment hits both. With one CPU thread the time is processor time, so that other
programs do not disturb. Shares are of our step; "rest" is schedule, events and clock. Writes ``results/steps.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from napari_unetseg.data import load_dataset
from napari_unetseg.data.augment import augment
from napari_unetseg.events import Control
from napari_unetseg.io import write
from napari_unetseg.losses import LOSSES
from napari_unetseg.optim import make_optimiser
from napari_unetseg.plan import Plan
from napari_unetseg.training import loop
from napari_unetseg.training.job import Job, prepare_job
from napari_unetseg.volume import Geometry, LabelVolume, Volume

RESULTS = Path(__file__).parent / "results" / "steps.md"
SHAPES = {2: (512, 512), 3: (48, 128, 128)}
PARTS = ("draw", "augment", "net and loss", "optimiser", "average", "rest")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="cpu")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--nets", default="unet,multiresunet,sharp-unet,residual-unet")
    options.add_argument("--dims", type=int, nargs="+", default=[2, 3])
    options.add_argument("--precision", default="auto")
    options.add_argument("--patch", type=int, help="side of the patches, for a quick look")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    name = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    lines = [
        "# Steps a second, and the bare loop",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {given.device} ({name}), {given.threads} threads.",
        "",
        *heading(),
    ]
    print("\n".join(lines), flush=True)
    for dims in given.dims:
        with tempfile.TemporaryDirectory() as place:
            data = strokes(Path(place), dims)
            for net in given.nets.split(","):
                lines.append(row(data, net, dims, given))
                print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def heading() -> list[str]:
    return [
        "| net | batch | how | bare, steps/s | ours, steps/s | ours / bare | " + " | ".join(PARTS) + " |",
        "|---|---|---|---:|---:|---:|" + "---:|" * len(PARTS),
    ]


def row(data: Path, net: str, dims: int, given: argparse.Namespace) -> str:
    training = {"device": given.device, "precision": given.precision, "epochs": 10**6}
    if given.patch:
        training["patch"] = (given.patch,) * dims
    plan = Plan(net={"name": net, "dims": dims}, data={"labels": "annotation"}, training=training)
    job = prepare_job(load_dataset(data, plan.data), plan, None, None, Control())
    bare, ours, parts = measure(job, given)
    shares = " | ".join(f"{100 * parts[part]:.1f} %" for part in PARTS)
    size = "x".join(map(str, (job.batch_size, *job.plan.patch)))
    how = job.compute.precision + (", channels-last" if job.compute.channels_last else "")
    return f"| {net} {dims}D | {size} | {how} | {1 / bare:.2f} | {1 / ours:.2f} | {bare / ours:.2f} | {shares} |"


def measure(job: Job, given: argparse.Namespace) -> tuple[float, float, dict[str, float]]:
    """Seconds of a bare step and of ours, and the shares of ours."""
    clock = time.process_time if given.device == "cpu" and given.threads == 1 else time.perf_counter
    bare_step = bare_loop(job)
    bare, ours = [], []
    for _ in range(given.steps + 2):
        bare.append(timed(bare_step, clock, given.device))
        ours.append(timed(lambda: drain(loop._step(job)), clock, given.device))
    spent = dict.fromkeys(PARTS, 0.0)
    with watching(job, spent, clock, given.device):
        total = sum(timed(lambda: drain(loop._step(job)), clock, given.device) for _ in range(given.steps))
    spent["rest"] = total - sum(spent.values())
    # the median for the two loops; the shares are of the sum, where the watching itself costs a little
    return float(np.median(bare[2:])), float(np.median(ours[2:])), {k: v / total for k, v in spent.items()}


def timed(work: Callable[[], object], clock: Callable[[], float], device: str) -> float:
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def drain(events) -> None:
    for _ in events:
        pass


def bare_loop(job: Job) -> Callable[[], object]:
    net = copy.deepcopy(job.net)
    optimiser, compute = make_optimiser(net, job.plan.training), job.compute
    batch = job.feed.take(job.batch_size)
    image, loss_of = compute.place(batch.image), LOSSES[job.plan.training.loss]

    def step() -> None:
        with compute.autocast():
            logits = net(image)
        loss = loss_of(logits.float(), batch.target, batch.known)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


@contextlib.contextmanager
def watching(job: Job, spent: dict[str, float], clock: Callable[[], float], device: str) -> Iterator[None]:
    """Time the parts of the loop."""

    def around(part: str, work: Callable) -> Callable:
        def watched(*args, **more):
            start = clock()
            result = work(*args, **more)
            if device == "cuda":
                torch.cuda.synchronize()
            spent[part] += clock() - start
            return result

        return watched

    job.feed.take = around("draw", job.feed.take)
    loop.augment = around("augment", augment)
    job.average.update = around("average", job.average.update)
    job.optimiser.step = around("optimiser", job.optimiser.step)
    backward = torch.Tensor.backward

    def forward_begins(*_):
        job.began = clock()

    def backward_ends(tensor, *args, **more):
        backward(tensor, *args, **more)
        if device == "cuda":
            torch.cuda.synchronize()
        spent["net and loss"] += clock() - job.began

    handle = job.net.register_forward_pre_hook(forward_begins)
    torch.Tensor.backward = backward_ends
    try:
        yield
    finally:
        torch.Tensor.backward, loop.augment = backward, augment
        handle.remove()


def strokes(folder: Path, dims: int) -> Path:
    """Four noisy images with about 1 % strokes."""
    rng, geometry = np.random.default_rng(0), Geometry((1.0,) * dims, "um")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number in range(4):
        image = rng.normal(1000, 100, SHAPES[dims]).astype(np.uint16)
        labels = np.zeros(SHAPES[dims], np.uint8)
        for label in (1, 2):
            for centre in rng.integers(20, 100, (12, dims)):
                labels[tuple(slice(c % s, c % s + 16) for c, s in zip(centre * 3, SHAPES[dims], strict=True))] = label
        write(folder / "images" / f"{number}.tif", Volume(image[None], geometry))
        write(folder / "labels" / f"{number}.tif", LabelVolume(labels, geometry))
    return folder


if __name__ == "__main__":
    main()
