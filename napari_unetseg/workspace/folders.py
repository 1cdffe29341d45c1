"""`Folders`: many files segmented by the current model, and the worst of them sent back to be annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.errors import GeometryError, UnetSegError
from napari_unetseg.io import read_labels
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace.comparing import Comparing
from napari_unetseg.workspace.state import Aside, Jobs, Message, Prediction

__all__ = ["Folders"]

_FROM_EVENT = {
    "index": 0,
    "file": "",
    "status": "",
    "error": "",
    "seconds": 0.0,
    "flags": (),
    "doubt": None,
    "mask": "",
}


@dataclass(frozen=True)
class _SentBack:
    """What `undo_send_back` takes back: a case that was added, or None, and the case that was in hand before."""

    file: str
    added: str | None
    before: str | None


class Folders(Comparing):
    """Segments folders; `folder_rows` has a row a file: index, file, status, error, seconds, flags, doubt, mask."""

    def __init__(self, jobs: Jobs, aside: Aside | None = None) -> None:
        super().__init__(jobs, aside)
        self.folder_out: Path | None = None
        self._sent_back: list[_SentBack] = []

    @property
    def sent_back(self) -> tuple[str, ...]:
        """Files that were sent back to be annotated, the last of them last."""
        return tuple(one.file for one in self._sent_back)

    def segment_folder(self, inputs: Sequence[str | Path], out: str | Path, *, failed_only: bool = False) -> None:
        """Segment files or folders into `out` with the current model; `folder_changed` brings a row a file."""
        self._ready("segment_folder")
        self.folder_rows, self.folder_out = [], Path(out)
        self.folder_changed.emit(self.folder_rows)
        args: dict[str, Any] = {"inputs": [str(path) for path in inputs], "model": str(self.model), "out": str(out)}
        if failed_only:
            args["failed_only"] = True
        self._send(self._begin("segment", args, f"Segmenting into {Path(out).name}."))

    def _on_filedone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        if job["verb"] == "compare":
            self._comparison_filedone(job, event)
            return
        self.folder_rows.append({key: event.get(key, usual) for key, usual in _FROM_EVENT.items()})
        self.folder_changed.emit(self.folder_rows)
        done, total, rate = len(self.folder_rows), max(1, event["total"]), event.get("rate") or 0.0
        speed = f" ({rate:.1f} files a second)" if rate >= 1 else f" ({60 * rate:.1f} files a minute)" if rate else ""
        self._advance(done / total, event["left"], f"File {done} of {total}{speed}: {Path(event['file']).name}.")

    def _segmenting_done(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        failed = sum(row["status"] == "failed" for row in self.folder_rows)
        flagged = sum(bool(row["flags"]) for row in self.folder_rows)
        done = len(self.folder_rows) - failed
        files = "1 file is" if done == 1 else f"{done} files are"
        text = f"{files} segmented into {Path(job['args']['out']).name}"
        text += f", {failed} failed." if failed else "."
        hint = "The table has the details." if failed else "The worst come first in the list." if flagged else ""
        self.message.emit(Message(text, hint, "warning" if failed else "info"))

    def undo_segment(self) -> None:
        """Take the last run over the folder back: its masks go, those they replaced return.

        A mask that somebody changed since stays.
        """
        self._ready("undo_segment")
        assert self.folder_out is not None
        args = {"out": str(self.folder_out)}
        self._send(self._begin("undo_segment", args, f"Taking back what was written into {self.folder_out.name}."))

    def _undoing_done(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        self.folder_rows = []
        self.folder_changed.emit(self.folder_rows)
        removed, restored, kept = result["removed"], result["restored"], len(result["kept"])
        text = f"The run is taken back: {_masks(removed, 'is', 'are')} removed"
        text += f", {_masks(restored, 'is', 'are')} as before it." if restored else "."
        hint = f"{_masks(kept, 'stays', 'stay')}, for they were changed since, or nothing is left of those before."
        self.message.emit(Message(text, hint if kept else ""))
        self.actions_changed.emit()

    # -- back to annotation -----------------------------------------------------------------------------------

    def send_back(self, file: str | Path, mask: str | Path = "") -> str:
        """Take a file of the folder in hand: added to the project, with its mask shown to be corrected.

        Returns
        -------
        str
            The name of its case.
        """
        project, before = self._ready("send_back"), self.case
        file = Path(file)
        case = next((name for name in self.cases if self._is_of(name, file)), None)
        added = None
        if case is None:
            added = case = project.add(file)
            self.cases_changed.emit(self.cases)
        self.select_case(case)
        self._sent_back.append(_SentBack(str(file), added, before))
        project.log("sent back", case=case)
        if mask:
            self._show_mask(case, Path(mask))
        self.message.emit(Message(f"{file.name} is in hand.", "Paint where its mask is wrong, then train again."))
        self.actions_changed.emit()
        return case

    def undo_send_back(self) -> None:
        """Take the last image that was sent back out of the project again; strokes painted on it stay on disk."""
        self._ready("undo_send_back")
        last = self._sent_back.pop()
        self.message.emit(Message(f"{Path(last.file).name} is taken back; strokes painted on it are kept."))
        if last.added in self.cases:
            self.remove_case(last.added)
            self.removed = self.removed[:-1]  # it is sent back again rather than restored
        if last.before in self.cases:
            self.select_case(last.before)
        self.actions_changed.emit()

    def close_project(self) -> None:
        """Let go of the project."""
        self._sent_back = []
        self.folder_out = None
        super().close_project()

    def _is_of(self, case: str, file: Path) -> bool:
        try:
            return self._open.image_path(case).samefile(file)
        except (UnetSegError, OSError):
            return False

    def _show_mask(self, case: str, path: Path) -> None:
        """Show a mask that was written, on the image in hand; one with numbered objects as the class it is of."""
        assert self._image is not None
        try:
            found = read_labels(path)
            if found.shape != self._image.shape:
                raise GeometryError(f"{path.name} is not on the grid of {case}.")
        except UnetSegError as error:
            self.message.emit(Message(error.message, error.hint, "warning"))
            return
        data = found.data
        if int(data.max(initial=0)) >= len(self.classes):
            data = data > 0
        shown = LabelVolume(data.astype(np.uint8), self._image.geometry)
        self._show(prediction=Prediction(case, self.model, shown))


def _masks(count: int, one: str, several: str) -> str:
    return f"1 mask {one}" if count == 1 else f"{count} masks {several}"
