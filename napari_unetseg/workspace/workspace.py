"""`Workspace`: masks of images, accepted or corrected; it has all that the storeys below it have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.data.annotation import overrule
from napari_unetseg.errors import ProjectError, UnetSegError
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace.accepting import Accepting
from napari_unetseg.workspace.state import Aside, Difference, Jobs, Message, Prediction, Preview

__all__ = ["Workspace"]


class Workspace(Accepting):
    """Everything the window shows and does, without the window; see the package's docstring for the signals.

    Parameters
    ----------
    jobs : Jobs
        Who runs the verbs. Its events must arrive on the thread that owns the workspace.
    aside : Aside, optional
        Who writes big files meanwhile; they are written at once when omitted.
    """

    def __init__(self, jobs: Jobs, aside: Aside | None = None) -> None:
        super().__init__(jobs, aside)
        self._unaccepted: Prediction | None = None  # what was shown before it was accepted
        self._differ_from: tuple[str, Prediction] | None = None

    def select_case(self, case: str | None) -> None:
        """Take another image in hand."""
        self._unaccepted = self._differ_from = None
        self._show(difference=None)
        super().select_case(case)

    def mask_so_far(self) -> np.ndarray:
        """Copy of the mask of the image in hand: of the model in use, else the one that was saved, else empty."""
        project, case, image = self._open, self.case, self._image
        if case is None or image is None:
            raise UnetSegError(self.why_not("annotate"))
        if self.prediction is not None and self.prediction.case == case:
            return np.array(self.prediction.mask.data, np.uint8)
        kept = project.mask(case)
        shape = image.shape
        return np.zeros(shape, np.uint8) if kept is None or kept.shape != shape else np.array(kept.data, np.uint8)

    # -- masks ------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Write the mask of the image in hand, strokes overruling the net, in the format and geometry of its image."""
        project, shown = self._ready("accept"), self.prediction
        assert shown is not None
        strokes = self._ink.labels.copy()
        self._saving(True)

        def save() -> tuple[LabelVolume, Path]:
            mask = LabelVolume(overrule(shown.mask.data, strokes), shown.mask.geometry)
            return mask, project.accept(shown.case, mask)

        def saved(result: tuple[LabelVolume, Path]) -> None:
            mask, path = result
            self._saving(False)
            if self.case == shown.case:
                self._unaccepted = shown
                self._show(prediction=Prediction(shown.case, shown.model, mask))
            self.message.emit(Message(f"The mask of {shown.case} is saved as {path.name}."))
            self.actions_changed.emit()

        self._write(save, saved, lambda: self._saving(False), f"The mask of {shown.case}")

    def undo_accept(self) -> None:
        """Take back the acceptance of the mask of the image in hand, and show the mask that was there before."""
        project, case = self._ready("undo_accept"), self.case
        assert case is not None
        self._saving(True)

        def undone(mask: LabelVolume | None) -> None:
            self._saving(False)
            self.message.emit(Message(f"The mask of {case} is accepted no longer."))
            if self.case != case:
                return
            before, self._unaccepted = self._unaccepted, None
            self._show(prediction=Prediction(case, None, mask) if mask else before)
            if self.prediction is None and not self.why_not("predict"):
                self.predict_current()

        self._write(lambda: project.undo_accept(case), undone, lambda: self._saving(False))

    def _saving(self, saving: bool) -> None:
        self.saving = saving
        self.actions_changed.emit()

    def correct(self) -> None:
        """Go on painting where the mask is wrong."""
        self._ready("correct").log("correct", case=self.case)
        self.message.emit(
            Message("Paint where the mask is wrong, then press Train again.", "A few strokes are enough.")
        )

    # -- rounds -----------------------------------------------------------------------------------------------

    def go_back_to_round(self, number: int) -> None:
        """Make the model of an earlier (or later) round the one that predicts, and show its mask and what differs."""
        project = self._ready("go_back")
        chosen = next((r for r in self.rounds if r.number == number), None)
        if chosen is None:
            raise ProjectError(
                f"There is no round {number}.", hint=f"Rounds: {', '.join(str(r.number) for r in self.rounds)}."
            )
        self._differ()
        self._use(chosen.folder)
        project.log("go back", round=number)
        if not self.why_not("predict"):
            self.predict_current()

    def undo_round(self) -> None:
        """Take the last training back: what was in use before answers again, the instant model after the first round.

        The round stays in the list, and can be gone forward to.
        """
        project = self._ready("undo_round")
        undone = next((r.number for r in self.rounds if r.current), 0)
        earlier = next((r for r in self.rounds if r.folder.name == self.round_before), None)
        self._differ()
        self._use(earlier.folder if earlier else None)
        project.log("undo round", round=undone)
        now = f"round {earlier.number} answers" if earlier else "nothing that was trained is in use"
        self.message.emit(Message(f"Round {undone} is undone: {now}.", "It stays in the list of rounds."))
        if not self.why_not("predict"):
            self.predict_current()
        elif earlier is None and self._image is not None and self.case is not None:
            self._show(preview=Preview(0, self.case, None, np.zeros(self._image.shape, np.uint8)))

    def _differ(self) -> None:
        """Keep what is shown now, to tell where the next mask differs."""
        current = next((f"round {r.number}" for r in self.rounds if r.current), "the mask before")
        shown = self.prediction
        self._differ_from = (current, shown) if shown is not None else None
        self._show(difference=None)

    def forget_difference(self) -> None:
        """Show no more where two rounds differ."""
        self._show(difference=None)

    def _predicting_done(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        case = job["args"]["case"]
        if case != self.case or self._image is None:
            return
        mask = LabelVolume(np.load(result["mask"]), self._image.geometry)
        shown = Prediction(case, Path(job["args"]["model"]), mask)
        self._show(preview=None, prediction=shown)
        if self._differ_from is not None:
            (name, before), self._differ_from = self._differ_from, None
            if before.case == case:
                now = next((f"Round {r.number}" for r in self.rounds if r.current), "This model")
                self._compare_masks(before, name, shown, now)

    def _compare_masks(self, before: Prediction, name: str, shown: Prediction, now: str) -> None:
        def found(difference: Difference) -> None:
            if self.prediction is shown:
                self._show(difference=difference)
                self.message.emit(Message(difference.sentence()))

        names = (name, now)
        self._write(lambda: Difference.between(before, shown, names), found, lambda: None)
