"""A folder of many files: killed and resumed, on a Dask cluster that loses a worker, and against a bare loop.

    python benchmarks/batch.py [--files 1000] [--what kill,dask,speed] [--out batch.json]

Makes small images (1 in 50 broken, of ten kinds), trains a tiny net for a few seconds, and runs the command line on
them.

kill   the command is killed (SIGKILL) at a third and at two thirds, then run to its end
dask   the same files on two worker processes, one of which is killed midway
speed  files a second of `segment_folder`, against read, net and write in a loop in the same process

What is claimed is checked: one row a file in ledger and table, the broken ones failed and no other, masks that read
back.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tiny import blobs, folder_of_blobs  # noqa: E402

import napari_unetseg as nus  # noqa: E402
from napari_unetseg.batch import segment_folder  # noqa: E402
from napari_unetseg.inference import make_predictor  # noqa: E402
from napari_unetseg.inference.sliding import prepared_image  # noqa: E402
from napari_unetseg.nets import Model  # noqa: E402
from napari_unetseg.volume import Geometry, LabelVolume, Volume  # noqa: E402

SIDE = 256


def broken_files(folder: Path) -> dict[str, Path]:
    """One file of each of ten kinds that cannot be segmented."""
    folder.mkdir(parents=True, exist_ok=True)
    good = (1000 * blobs((SIDE, SIDE))[0] + 2000).clip(0).astype(np.uint16)
    nus.write(folder / "whole.tif", Volume(good[None]))
    nus.write(folder / "whole.png", Volume((good // 32).astype(np.uint8)[None]))
    nifti = Volume(np.stack([good] * 4)[None].astype(np.int16), Geometry((1.0,) * 3, "mm"))
    nus.write(folder / "whole.nii.gz", nifti)
    tiff, png, gz = ((folder / f"whole{suffix}").read_bytes() for suffix in (".tif", ".png", ".nii.gz"))
    made: dict[str, Callable[[Path], Any]] = {
        "empty.tif": lambda p: p.write_bytes(b""),
        "noise.tif": lambda p: p.write_bytes(np.random.default_rng(0).bytes(3000)),
        "cut.tif": lambda p: p.write_bytes(tiff[: len(tiff) // 2]),
        "cut.png": lambda p: p.write_bytes(png[: len(png) // 3]),
        "text.png": lambda p: p.write_text("this is a note, not a picture\n"),
        "cut.nii.gz": lambda p: p.write_bytes(gz[: len(gz) // 2]),
        "header.nii.gz": lambda p: p.write_bytes(gzip.compress(b"\x5c\x01\x00\x00" + bytes(400))),
        "constant.tif": lambda p: nus.write(p, Volume(np.full((1, SIDE, SIDE), 7, np.uint16))),
        "colour.png": lambda p: nus.write(p, Volume(np.random.default_rng(1).integers(0, 255, (3, 40, 40), np.uint8))),
        "nan.tif": lambda p: nus.write(p, Volume(np.full((1, SIDE, SIDE), np.nan, np.float32))),
    }
    for name, make in made.items():
        make(folder / name)
    for suffix in (".tif", ".png", ".nii.gz"):
        (folder / f"whole{suffix}").unlink()
    return {name: folder / name for name in made}


def make_files(folder: Path, count: int, scratch: Path) -> set[str]:
    """`count` files in three folders, 1 in 50 of them broken; names of the broken ones."""
    kinds = list(broken_files(scratch).values())
    broken: set[str] = set()
    for index in range(count):
        place = folder / f"series-{index % 3}"
        place.mkdir(parents=True, exist_ok=True)
        if index % 50 == 25:
            kind = kinds[len(broken) % len(kinds)]
            path = place / f"{index:04d}-{kind.name}"
            shutil.copy(kind, path)
            broken.add(str(path))
        else:
            image = (1000 * blobs((SIDE, SIDE), index)[0] + 2000).clip(0).astype(np.uint16)
            nus.write(place / f"{index:04d}.tif", Volume(image[None], Geometry((0.5, 0.5), "um")))
    return broken


def make_model(folder: Path, scratch: Path) -> Path:
    data = folder_of_blobs(scratch, 4, (SIDE, SIDE))
    plan = nus.Plan(
        net={"name": "unet", "width": 0.25}, training={"patch": (96, 96), "seed": 1, "precision": "float32"}
    )
    nus.fine_tune(data, plan, minutes=0.2).save(folder)
    return folder


def command(inputs: Path, model: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [
        sys.executable,
        "-m",
        "napari_unetseg.cli",
        "segment",
        str(inputs),
        "-m",
        str(model),
        "-o",
        str(out),
        *more,
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=env, **quiet)  # type: ignore[call-overload]


def ledger(out: Path) -> list[dict[str, Any]]:
    path = out / "ledger.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def wait_for_rows(run: subprocess.Popen[bytes], out: Path, rows: int) -> None:
    while len(ledger(out)) < rows:
        if run.poll() is not None:
            raise SystemExit(f"The command ended with code {run.returncode} before {rows} rows.")
        time.sleep(0.02)


def check(out: Path, count: int, broken: set[str], code: int) -> dict[str, Any]:
    """Raise unless there is one row a file, and all is as it should be."""
    rows = ledger(out)
    with (out / "table.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    for found in (rows, table):
        twice = [name for name, times in Counter(row["file"] for row in found).items() if times > 1]
        assert len(found) == count, (len(found), count)
        assert not twice, twice
        failed = {row["file"]: row["error"] for row in found if row["status"] == "failed"}
        wrong = {name: failed.get(name, "was not found out") for name in set(failed) ^ broken}
        assert not wrong, (len(wrong), dict(list(wrong.items())[:5]))
    masks = [row["mask"] for row in rows if row["status"] == "done"]
    assert len(set(masks)) == len(masks) == count - len(broken)
    for mask in masks[:: max(1, len(masks) // 100)]:
        assert nus.read_labels(mask).shape == (SIDE, SIDE)
    assert code == 1, code
    return {"files": count, "broken": len(broken), "rows": len(rows), "exit_code": code}


def kill(inputs: Path, model: Path, out: Path, count: int, broken: set[str]) -> dict[str, Any]:
    begin, at = time.monotonic(), []
    for share in (1 / 3, 2 / 3):
        run = command(inputs, model, out)
        wait_for_rows(run, out, int(share * count))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        at.append(len(ledger(out)))
    run = command(inputs, model, out)
    code = run.wait()
    return {**check(out, count, broken, code), "killed_at_rows": at, "seconds": round(time.monotonic() - begin, 1)}


def dask(inputs: Path, model: Path, out: Path, count: int, broken: set[str]) -> dict[str, Any]:
    begin = time.monotonic()
    run = command(inputs, model, out, "--dask", "--workers", "2")
    wait_for_rows(run, out, count // 2)
    victim = int(ledger(out)[-1]["worker"].rpartition(":")[2])  # a process of this run: it has just told us its number
    os.kill(victim, signal.SIGKILL)
    code = run.wait()
    workers = Counter(row["worker"] for row in ledger(out))
    return {
        **check(out, count, broken, code),
        "killed_worker_at_row": count // 2,
        "files_by_worker": sorted(workers.values(), reverse=True),
        "seconds": round(time.monotonic() - begin, 1),
    }


def bare_loop(files: list[Path], model: Model, out: Path, tiles: bool) -> float:
    """Read, net, write and nothing else; with `tiles` the net sees the image as `segment_folder` shows it."""
    predictor = make_predictor(model)
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    for file in files:
        image = nus.read(file)
        x = prepared_image(model, image)
        if tiles:
            mask = predictor.mask(predictor.probabilities(x))
        else:
            with torch.no_grad(), predictor.compute.autocast():
                logits = predictor.net(predictor.compute.place(torch.from_numpy(x[None])))
            mask = (logits.float().cpu().numpy()[0, 0] > 0).astype(np.uint8)
        nus.write(out / file.name, LabelVolume(mask, image.geometry), like=image)
    return len(files) / (time.perf_counter() - begin)


def our_loop(files: list[Path], model: Model, out: Path) -> float:
    begin = time.perf_counter()
    segment_folder(files, model, out)
    return len(files) / (time.perf_counter() - begin)


def speed(inputs: Path, model: Path, out: Path, broken: set[str], rounds: int = 3) -> dict[str, Any]:
    files = [path for path in sorted(inputs.rglob("*.tif")) if str(path) not in broken][:300]
    loaded = Model.load(model)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    our_loop(files[:5], loaded, out / "warm")
    found: dict[str, list[float]] = {"bare_net": [], "bare_tiles": [], "ours": []}
    for number in range(rounds):  # in turn, so that a busy moment hits all alike
        found["bare_net"].append(bare_loop(files, loaded, out / f"net-{number}", tiles=False))
        found["ours"].append(our_loop(files, loaded, out / f"ours-{number}"))
        found["bare_tiles"].append(bare_loop(files, loaded, out / f"tiles-{number}", tiles=True))
    ratio = {
        f"ratio_to_{name}": round(float(np.median(np.divide(found["ours"], found[name]))), 3)
        for name in ("bare_net", "bare_tiles")
    }
    rates = {name: [round(rate, 1) for rate in rates] for name, rates in found.items()}
    return {"files": len(files), "files_per_second": rates, **ratio, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--what", default="kill,dask,speed")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        inputs = place / "images"
        broken = make_files(inputs, args.files, place / "broken")
        model = make_model(place / "model", place / "data")
        found: dict[str, Any] = {"files": args.files, "side": SIDE, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        for what in args.what.split(","):
            if what == "speed":
                found[what] = speed(inputs, model, place / what, broken)
            else:
                run = {"kill": kill, "dask": dask}[what]
                found[what] = run(inputs, model, place / what, args.files, broken)
            print(json.dumps({what: found[what]}), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
