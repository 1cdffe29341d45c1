"""`segment_folder`: files listed, those that changed segmented here or on a cluster, rows, table and report.

One mask per input in the family of its image, ``table.csv`` with one row a file and class, ``run.json`` that says how,
``report.html`` and ``contact-sheet.png`` with the worst first; ``objects.csv`` where objects are numbered. A ledger
beside them, one line a file, lets a second run redo only what changed. One bad file never stops the run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_unetseg.batch.ledger import NAME as LEDGER
from napari_unetseg.batch.ledger import Ledger
from napari_unetseg.batch.listing import list_files, place_masks, without
from napari_unetseg.batch.local import Step, run_here
from napari_unetseg.batch.lock import only_run
from napari_unetseg.batch.objects import gather_objects
from napari_unetseg.batch.outputs import Cluster, Job, Outputs
from napari_unetseg.batch.quality import Doubts, undecided, worst_first
from napari_unetseg.batch.report import write_report
from napari_unetseg.batch.tables import append_rows, rows_of, write_run, write_table
from napari_unetseg.batch.thumbnails import contact_sheet
from napari_unetseg.batch.undo import keep_before
from napari_unetseg.batch.work import Entry, Segmenter, keep
from napari_unetseg.errors import ReadError, WriteError
from napari_unetseg.events import Control, Event, FileDone, Started, verb
from napari_unetseg.nets import Model

__all__ = ["segment_folder"]

SHEET = "contact-sheet.png"


@verb
def segment_folder(
    inputs: str | Path | Iterable[str | Path],
    model: Model | str | Path | Sequence[Model | str | Path],
    out: str | Path,
    outputs: Outputs = Outputs(),
    *,
    control: Control | None = None,
    failed_only: bool = False,
    cluster: Cluster | None = None,
) -> Generator[Event, None, list[dict[str, Any]]]:
    """Segment files and folders.

    Parameters
    ----------
    inputs : path or iterable of paths
        Image files, folders (searched recursively), glob patterns, or text files with one of these a line.
    model : Model or path, or several
        Several are averaged.
    out : path
        Folder for masks, ``table.csv``, ``run.json``, ``report.html``, ``contact-sheet.png`` and the ledger.
    outputs : Outputs
        What else to write.
    control : Control, optional
        To stop it, within a tile; finished files stay and are not done again the next time.
    failed_only : bool
        Only try again what failed in an earlier run; all other rows stay as they are.
    cluster : Cluster, optional
        Compute on a Dask cluster instead of in this process.

    Returns
    -------
    list of dict
        The rows of ``table.csv``.

    Raises
    ------
    ReadError
        When there is no image at all, or, with `failed_only`, no earlier run.
    WriteError
        When the output folder cannot be written, its disk is full, or another run is writing there.
    ModelError
        When a model is incomplete.
    """
    models = [model] if isinstance(model, (Model, str, Path)) else list(model)
    loaded = [m if isinstance(m, Model) else Model.load(m) for m in models]
    segmenter = Segmenter(outputs.ensemble(loaded), outputs)
    place = Path(os.path.abspath(out))
    files = list_files(inputs, place)
    folder = _make_folder(place)
    control = control or Control()
    with only_run(folder), contextlib.ExitStack() as stack:
        run = _Run(folder, files, segmenter, failed_only)
        device = str(segmenter.ensemble.predictors[0].compute.device)
        if cluster is not None:
            from napari_unetseg.batch.cluster import Computers  # needs an extra

            computers = stack.enter_context(Computers.join(cluster))
            yield from computers.wait(control)
            device = computers.said
        yield Started(f"segmenting {len(run.files)} files", device, len(run.files))
        yield from run.take_over(control)
        if run.jobs:
            entries = run.ledger.entries
            keep_before(folder, (entries[str(job.file)] for job in run.jobs if str(job.file) in entries))
        steps: Generator[Step, None, None]
        if cluster is not None:
            steps = computers.segment(run.jobs, segmenter, run.begin, control)
        else:
            steps = run_here(run.jobs, segmenter, run.begin, control)
        with contextlib.closing(steps):
            yield from run.follow(steps)
        return run.close()


class _Run:
    """State of one run: what is to be done, and the rows so far."""

    def __init__(self, folder: Path, files: Sequence[Path], segmenter: Segmenter, failed_only: bool) -> None:
        if failed_only and not (folder / LEDGER).is_file():
            raise ReadError(f"There is no earlier run in {folder}.", hint="Run once without --failed-only.")
        self.folder, self.segmenter, self.failed_only = folder, segmenter, failed_only
        self.ledger = Ledger(folder, segmenter.recipe, segmenter.earlier_recipe, verify=segmenter.outputs.verify)
        self.ledger.sweep()
        written = self.ledger.written
        # an image may have that name; ours is not taken for one
        entries, sheet = self.ledger.entries, folder / SHEET
        theirs = sheet.exists() and (not entries or str(sheet) in entries)
        self.sheet = None if theirs else sheet
        ours = itertools.chain(written, self.ledger.doubtful, [str(self.sheet)] if self.sheet else [])
        self.files = without(files, ours)
        self.targets = place_masks(self.files, folder, written, segmenter.outputs.nameless)
        self.jobs: list[Job] = []
        self.rows: dict[Path, Entry] = {}
        self._doubts = Doubts()
        self._total = len(self.files)
        self._begin = time.monotonic()
        self._computed = 0

    def take_over(self, control: Control) -> Generator[FileDone, None, None]:
        """Rows of the files that are done, and the list of those that are not."""
        for file, target in zip(self.files, self.targets, strict=True):
            if control.stopped:
                return
            begin = time.monotonic()
            if self.failed_only and not self.ledger.failed(file):
                entry, status = self.ledger.entries.get(str(file)), "done before"
                if entry is None:  # was never tried
                    self._total -= 1
                    continue
            elif (entry := self.ledger.finished(file, target)) is not None:
                status = "done before"
            elif self.ledger.corrected(file, target):
                entry = keep(self.ledger.entries[str(file)], target, self.segmenter.ensemble.classes)
                status = entry["status"]
            else:
                self.jobs.append(Job(file, target, self.folder, self.ledger.starts(file)))
                continue
            yield self._done(file, entry, status, time.monotonic() - begin)

    def begin(self, job: Job) -> None:
        """Say in the ledger that a file is begun."""
        self.ledger.start(job.file, job.target)

    def follow(self, steps: Iterable[Step]) -> Generator[Event, None, None]:
        """Keep the rows that come in, and pass on the other events."""
        self._begin = time.monotonic()
        if self.jobs:  # what is killed before its end leaves a table too, in the order in which files were done
            write_table(self.folder, [row for entry in self.rows.values() for row in rows_of(entry, self.folder)])
        try:
            for step in steps:
                if isinstance(step, tuple):
                    job, entry = step
                    self._computed += 1
                    whole = self.ledger.add(job.file, entry)
                    append_rows(self.folder, rows_of(whole, self.folder))
                    yield self._done(job.file, whole, whole["status"], whole["seconds"])
                else:
                    yield step
        except WriteError as error:
            raise WriteError(
                f"{error.message} The run stopped after {len(self.rows)} of {self._total} files.",
                hint="Free some space and run the same command again; finished files are not done again.",
            ) from error

    def _done(self, file: Path, entry: Mapping[str, Any], status: str, seconds: float) -> FileDone:
        self.rows[file] = entry = self._doubts.flagged(entry)
        passed = max(1e-9, time.monotonic() - self._begin)
        rate = self._computed / passed
        left = (len(self.jobs) - self._computed) / rate if rate else float("nan")
        return FileDone(
            len(self.rows) - 1,
            self._total,
            str(file),
            status,
            entry["error"],
            seconds,
            left,
            rate=rate,
            flags=tuple(entry.get("flags") or ()),
            doubt=entry.get("doubt"),
            mask=entry["mask"],
        )

    def close(self) -> list[dict[str, Any]]:
        """Write table, report and contact sheet; returns the rows of the table."""
        entries = self._doubts.settled(self.rows[file] for file in self.files if file in self.rows)
        seconds = time.monotonic() - self._begin
        facts: dict[str, Any] = {"computed": self._computed, "seconds": round(seconds, 1)}
        if self._computed:
            facts["files_a_second"] = round(self._computed / max(seconds, 1e-9), 2)
        facts["undecided"] = undecided(entry.get("doubt") for entry in entries)
        self.ledger.tidy()
        rows = [row for entry in entries for row in rows_of(entry, self.folder)]
        write_table(self.folder, rows)
        gather_objects(self.folder, entries)
        run = write_run(self.folder, self.segmenter, entries, facts)
        worst = worst_first(entries)
        write_report(self.folder, worst, run)
        if self.sheet is not None:
            contact_sheet(self.sheet, worst, self.folder, run["classes"])
        return rows


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"The output folder {folder} cannot be written: {error.strerror or error}.",
            hint="Choose another folder or free some space.",
        ) from error
    return folder
