"""``napari-unetseg segment``: files and folders to masks, here or on a Dask cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from napari_unetseg.cli import terminal
from napari_unetseg.cli.main import Json, app
from napari_unetseg.errors import PlanError
from napari_unetseg.events import Control, Event, FileDone, Running

__all__ = ["read_size", "segment", "spell_out"]

R = TypeVar("R")

HERE = "here"
_ADDRESS = re.compile(r"[a-z]+://.+|[\w.-]+:\d+")
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([kmgt])i?b?)?")
Models = Annotated[list[Path], typer.Option("--model", "-m", help="Model folder; several are averaged.")]


@app.command()
def segment(
    inputs: Annotated[list[str], typer.Argument(help="Images, folders, patterns, or text files with one a line.")],
    model: Models,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks, table and report.")],
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write class probabilities.")] = False,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Also write the doubt, 0 to 1.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirrored copies (4 times slower, 8 in 3D).")] = False,
    turns: Annotated[bool, typer.Option("--turns", help="Over quarter turns too, where pixels are square.")] = False,
    dropout: Annotated[int, typer.Option(help="Passes with dropout kept on, to average.", min=0, max=1000)] = 0,
    nifti: Annotated[
        bool, typer.Option("--nifti", help="Masks of DICOM images as NIfTI, not as DICOM-SEG, which names the patient.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most memory to hold, such as 2GB; larger images go from disk to disk."),
    ] = None,
    failed_only: Annotated[bool, typer.Option("--failed-only", help="Only what failed in an earlier run.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read finished files again to know whether they are unchanged.")
    ] = False,
    dask: Annotated[
        str | None,
        typer.Option(metavar="[ADDRESS]", help="Compute on a Dask cluster; without an address on processes here."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that --dask starts here.", min=1, max=1024)] = None,
    as_json: Json = False,
) -> None:
    """Segment images by a model: one mask an image, a table, and a report with the worst first."""
    if workers is not None and dask != HERE:
        raise PlanError("--workers says how many processes --dask starts here.", hint="Give it with --dask alone.")
    from napari_unetseg.batch import Cluster, Outputs, segment_folder
    from napari_unetseg.devices import limit_threads

    limit_threads()
    control = Control()
    cluster = None if dask is None else Cluster("" if dask == HERE else dask, workers)
    allowed = None if memory is None else read_size(memory)
    wanted = Outputs(probabilities, uncertainty, tta, turns, dropout, nifti, allowed, verify)
    events = segment_folder.events(
        inputs, model, out, wanted, control=control, failed_only=failed_only, cluster=cluster
    )
    before: set[str] = set()
    rows = terminal.run(_left_alone(events, before), control)
    files = {row["file"]: row for row in rows}
    failed = sum(row["status"] == "failed" for row in files.values())
    if as_json:
        flagged = sum(bool(row["flags"]) for row in files.values())
        found = {"out": str(out), "files": len(files), "before": len(before), "failed": failed, "flagged": flagged}
        print(json.dumps({**found, "rows": rows}, indent=1, default=str))
    else:
        for line in _said(files, failed, len(before), out):
            print(line)
    if failed:
        raise typer.Exit(1 if failed < len(files) else 2)


def _left_alone(events: Generator[Event, None, R], files: set[str]) -> Generator[Event, None, R]:
    """The same events; the files that an earlier run, or somebody by hand, had done are added to `files`."""
    run = Running(events)
    for event in run:
        if isinstance(event, FileDone) and event.status in ("done before", "kept"):
            files.add(event.file)
        yield event
    return run.result


def _said(files: Mapping[str, Mapping[str, Any]], failed: int, before: int, out: Path) -> Iterator[str]:
    """What the command says at its end."""
    from napari_unetseg.batch.quality import undecided

    earlier = f" now, {before} before" if before else ""
    done = len(files) - failed - before
    yield f"{done} of {len(files)} files segmented{earlier}; masks and table.csv are in {out}"
    if flagged := sum(bool(row["flags"]) for row in files.values()):
        deserve = "deserves" if flagged == 1 else "deserve"
        yield f"{flagged} of them {deserve} a look: {out / 'report.html'} shows the worst first."
    if sentence := undecided(None if row["doubt"] == "" else row["doubt"] for row in files.values()):
        yield sentence


def read_size(text: str) -> int:
    """Bytes of a size in words, units in steps of 1024; a number alone is in GB.

    Examples
    --------
    >>> read_size("2GB"), read_size("512 MiB"), read_size("1.5")
    (2147483648, 536870912, 1610612736)
    """
    found = _SIZE.fullmatch(text.strip().lower())
    size = int(float(found[1]) * 1024 ** ("kmgt".index(found[2] or "g") + 1)) if found else 0
    if size < 2**20:
        raise PlanError(f"{text} is no amount of memory.", hint="Give it as 2GB or 512MB.")
    return size


def spell_out(words: Sequence[str]) -> list[str]:
    """Command line in which ``--dask`` without an address has one, so that it may stand anywhere.

    Examples
    --------
    >>> spell_out(["segment", "--dask", "scans", "-m", "model"])
    ['segment', '--dask', 'here', 'scans', '-m', 'model']
    """
    spelt: list[str] = []
    for place, word in enumerate(words):
        spelt.append(word)
        following = words[place + 1] if place + 1 < len(words) else ""
        if word == "--dask" and not _ADDRESS.fullmatch(following):
            spelt.append(HERE)
    return spelt
