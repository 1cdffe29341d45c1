"""What a folder run of very many files does besides segmenting, with rows that are made up.

    python benchmarks/million.py [--rows 10000,100000,1000000] [--files 100000] [-o RESULTS]

Rows: a ledger of so many lines is written as a run leaves it, opened as the next run does, and tidied; table, report
and contact sheet are written from its rows. Files: so many empty files in folders of a thousand are listed, and their
masks given places. Besides: rows appended one by one as a run does, the hash of a file of 256 MiB, and 2000 finished
files of 256 KiB, each with a mask of 64 KiB, found to be unchanged by size and time of change, and by their hashes.
Processor seconds of one thread, bytes held beyond what was held before, size of what is written or read.
Nothing is segmented, no image is read.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clocks import count_processor, processor_seconds

from napari_unetseg.batch.ledger import Ledger, file_state, hash_file
from napari_unetseg.batch.listing import list_files, place_masks
from napari_unetseg.batch.quality import worst_first
from napari_unetseg.batch.report import write_report
from napari_unetseg.batch.tables import rows_of, write_table
from napari_unetseg.batch.thumbnails import contact_sheet
from napari_unetseg.inference.memory import release, used_memory, watched

RUN = {"models": [{"id": "a" * 16, "plan": {"net": {"name": "unet"}}}], "failed": 0, "classes": ["background", "cell"],
       "device": "cpu", "written": "2026-01-01T00:00:00+0000"}  # fmt: skip


class Sheet:
    """Rows of the table: seconds, memory and bytes of each thing."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def measure(self, what: str, number: int, work: Callable[[], Any], made: Path | int | None = None) -> Any:
        release()
        before, begin, clock = used_memory() or 0, processor_seconds(), time.time()
        with watched() as peak:
            result = work()
        took, by_clock = processor_seconds() - begin, time.time() - clock
        held = ((peak.bytes or 0) - before) / 2**20
        nbytes = made.stat().st_size if isinstance(made, Path) else made
        size = "" if nbytes is None else f"{nbytes / 2**20:,.1f}"
        self.lines.append(f"| {what} | {number:,} | {took:.2f} | {by_clock:.1f} | {held:,.0f} | {size} |")
        print(self.lines[-1], flush=True)
        return result


def entry(folder: Path, number: int) -> dict[str, Any]:
    name, bad = f"site{number // 1000:04d}/slide{number:07d}", number % 1000 == 7
    return {
        "file": str(folder / "in" / f"{name}.tif"), "mask": str(folder / f"{name}.tif"),
        "mask_hash": "0" * 16, "image_hash": "1" * 16, "model": "a" * 16, "recipe": "r" * 16, "start": "",
        "status": "failed" if bad else "done", "error": "It could not be read." if bad else "", "seconds": 1.25,
        "flags": ["uncertain"] if number % 50 == 0 else [], "doubt": number % 97 / 97, "written": RUN["written"],
        "classes": [{"class": "cell", "voxels": number, "size": 1.5 * number, "unit": "um2", "components": 3}],
    }  # fmt: skip


def rows(sheet: Sheet, number: int, folder: Path) -> None:
    path = folder / "ledger.jsonl"
    with path.open("w") as stream:
        stream.writelines(json.dumps(entry(folder, n)) + "\n" for n in range(number))
    ledger = sheet.measure("ledger opened", number, lambda: Ledger(folder, "r" * 16), path)
    sheet.measure("ledger tidied", number, ledger.tidy, path)
    entries = list(ledger.entries.values())
    made = sheet.measure("rows made", number, lambda: [row for one in entries for row in rows_of(one, folder)])
    sheet.measure("table.csv", number, lambda rows=made: write_table(folder, rows), folder / "table.csv")
    del made
    worst = sheet.measure("put in order", number, lambda: worst_first(entries))
    sheet.measure("report.html", number, lambda: write_report(folder, worst, RUN), folder / "report.html")
    sheet.measure("contact sheet", number, lambda: contact_sheet(folder / "s.png", worst, folder), folder / "s.png")


def files(sheet: Sheet, number: int, folder: Path) -> None:
    for first in range(0, number, 1000):
        place = folder / "in" / f"site{first // 1000:04d}"
        place.mkdir(parents=True)
        for n in range(first, min(number, first + 1000)):
            (place / f"slide{n:07d}.tif").touch()
    found = sheet.measure("files listed", number, lambda: list_files(folder / "in", folder / "out"))
    sheet.measure("masks placed", number, lambda: place_masks(found, folder / "out", set()))


def appended(sheet: Sheet, number: int, folder: Path) -> None:
    def add() -> None:
        ledger = Ledger(folder, "r" * 16)
        for n in range(number):
            one = entry(folder, n)
            ledger.start(Path(one["file"]), Path(one["mask"]))
            ledger.add(Path(one["file"]), one)

    sheet.measure("rows appended", number, add, folder / "ledger.jsonl")


def hashed(sheet: Sheet, size: int, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * size)
    sheet.measure("bytes hashed", size, lambda: hash_file(folder / "large"), folder / "large")


def gone_on_with(sheet: Sheet, number: int, folder: Path) -> None:
    image, mask = b"i" * 2**18, b"m" * 2**16
    ledger = Ledger(folder, "r" * 16)
    names = [(folder / "in" / f"{n}.tif", folder / f"{n}.tif") for n in range(number)]
    (folder / "in").mkdir()
    for source, target in names:
        source.write_bytes(image)
        target.write_bytes(mask)
        known = {"image_hash": hash_file(source), "image_state": file_state(source),
                 "mask_hash": hash_file(target), "mask_state": file_state(target)}  # fmt: skip
        ledger.add(source, {**entry(folder, 1), "file": str(source), "mask": str(target), **known})
    for how, read in (("size and time", 0), ("hash", number * (len(image) + len(mask)))):
        again = Ledger(folder, "r" * 16, verify=bool(read))
        found = sheet.measure(f"unchanged by {how}", number, lambda a=again: [a.finished(*two) for two in names], read)
        assert all(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).with_name("results"))
    given = parser.parse_args()
    count_processor()
    sheet = Sheet()
    for number in map(int, given.rows.split(",")):
        with tempfile.TemporaryDirectory() as place:
            rows(sheet, number, Path(place))
    if given.files:
        with tempfile.TemporaryDirectory() as place:
            files(sheet, given.files, Path(place))
    for work, number in ((appended, 2000), (hashed, 2**28), (gone_on_with, 2000)):
        with tempfile.TemporaryDirectory() as place:
            work(sheet, number, Path(place))
    head = "| what | number | processor s | s by the clock | MiB beyond before | MiB written or read |"
    said = f"Made by `benchmarks/million.py`, {platform.machine()}, {datetime.date.today().isoformat()}.\n"
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "million.md").write_text(
        "\n".join(["# Very many files\n", said, head, "|---" * 6 + "|", *sheet.lines, ""])
    )


if __name__ == "__main__":
    main()
