"""`Truths`: masks known to be right, from files or from a layer; where the mask errs, and scores of every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.data.truth import as_classes
from napari_unetseg.errors import AnnotationError, UnetSegError
from napari_unetseg.io import find_images, read_labels, stem
from napari_unetseg.scores import Scores
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace.errand import Errand
from napari_unetseg.workspace.state import Difference, Jobs, Message, Prediction
from napari_unetseg.workspace.workspace import Workspace

__all__ = ["ON", "Truths"]

ON = {"truth": "the truth", "accepted": "accepted masks", "strokes": "your strokes"}
_TRUTHS = "truths"
_NAMES = ("the truth", "the mask")


class Truths:
    """Truth of each image, as far as there is any.

    Signals: ``errors_changed(Difference | None)``: where truth and mask differ; ``rows_changed(tuple)``: scores by
    image and class; ``changed()``.
    """

    errors_changed = Signal(object)
    rows_changed = Signal(tuple)
    changed = Signal()

    def __init__(self, workspace: Workspace, jobs: Jobs) -> None:
        self.workspace = workspace
        self.errors: Difference | None = None
        self.shown = False  # whether errors are wanted
        self.rows: tuple[dict[str, Any], ...] = ()
        self.said = ""  # on what the rows were measured
        self.errand = Errand(workspace, jobs)
        self._layers: dict[str, LabelVolume] = {}
        self.errand.changed.connect(self.changed.emit)
        workspace.actions_changed.connect(self.changed.emit)
        workspace.project_changed.connect(self._forget)
        workspace.prediction_changed.connect(self._again)
        workspace.case_changed.connect(self._again)

    @property
    def files(self) -> dict[str, str]:
        """Truth file of each image that has one."""
        return dict(self.workspace.recall(_TRUTHS, {}))

    @property
    def known(self) -> bool:
        """Whether there is truth of the image in hand."""
        return self.workspace.case in self._layers or self.workspace.case in self.files

    # -- choosing ---------------------------------------------------------------------------------------------

    def take_files(self, paths: Sequence[str | Path]) -> None:
        """Take truth from files, or from a folder, each for the image of the same name; one alone for that in hand."""
        files = [Path(found) for path in paths for found in (find_images(path) if Path(path).is_dir() else [path])]
        cases = {case.casefold(): case for case in self.workspace.cases}
        paired = {cases[name]: str(file) for file in files if (name := _bare(file, cases)) in cases}
        if not paired and len(files) == 1 and self.workspace.case:
            paired = {self.workspace.case: str(files[0])}
        if not paired:
            raise AnnotationError(
                "None of these files has the name of an image of the project.",
                hint="A truth file is called as its image, or that with _mask, _label, _truth or _seg behind it.",
            )
        for case in paired:
            self._layers.pop(case, None)
        self.workspace.remember(**{_TRUTHS: {**self.files, **paired}})
        count = f"{len(paired)} image{'s' * (len(paired) != 1)}"
        self.workspace.message.emit(Message(f"There is truth for {count} of {len(self.workspace.cases)}."))
        self._again()

    def take_labels(self, labels: LabelVolume) -> None:
        """Take truth of the image in hand from labels that are open; they are not kept with the project."""
        case = self.workspace.case
        if case is None:
            raise UnetSegError(self.workspace.why_not("annotate"))
        self._layers[case] = labels
        self._again()

    def truth(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Mask known to be right of an image, and where it is known.

        Raises
        ------
        AnnotationError, ReadError
            When it does not fit the image or the classes, or cannot be read.
        """
        kept = self._layers.get(case)
        labels = kept if kept is not None else read_labels(self.files[case])
        project = self.workspace.project
        assert project is not None
        if labels.data.shape != project.shape(case):
            raise AnnotationError(
                f"The truth has the shape {labels.data.shape}, {case} {project.shape(case)}.",
                hint="Choose the truth of this image, on the same grid.",
            )
        return as_classes(np.asarray(labels.data), len(self.workspace.classes), f"The truth of {case}")

    # -- where the mask errs ----------------------------------------------------------------------------------

    def why_not_show(self) -> str:
        """Why errors cannot be shown; ``""`` when they can."""
        workspace = self.workspace
        if workspace.case is None:
            return workspace.why_not("annotate")
        missing = "" if workspace.prediction else "There is no mask of this image yet: train, or press Predict."
        return missing or ("" if self.known else "Choose the truth of this image first.")

    def show(self, shown: bool) -> None:
        """Show where the mask differs from the truth, from now on, or no more."""
        if shown and (reason := self.why_not_show()):
            raise UnetSegError(reason)
        self.shown = shown
        self._again()

    def _again(self, _: Any = None) -> None:
        shown, case = self.workspace.prediction, self.workspace.case
        if not self.shown or shown is None or case is None or not self.known:
            self._tell(None)
            return

        def compare() -> Difference:
            truth, known = self.truth(case)
            right = LabelVolume(np.where(known, truth, shown.mask.data), shown.mask.geometry)
            return Difference.between(Prediction(case, None, right), shown, _NAMES)

        def found(errors: Difference) -> None:
            if self.shown and self.workspace.prediction is shown:
                self._tell(errors)

        self.workspace._write(compare, found, lambda: self._tell(None))

    def _tell(self, errors: Difference | None) -> None:
        if errors is not self.errors:
            self.errors = errors
            self.errors_changed.emit(errors)
        self.changed.emit()

    # -- scores -----------------------------------------------------------------------------------------------

    def why_not_score(self, on: str) -> str:
        """Why images cannot be scored on that (a key of `ON`); ``""`` when they can."""
        workspace = self.workspace
        if self.errand.running:
            return "The images are being scored."
        if reason := workspace.why_not("segment_folder"):
            return reason
        return (
            ""
            if self._cases(on)
            else {
                "truth": "Choose truth files first.",
                "accepted": "Accept the mask of an image first.",
                "strokes": "Paint strokes first.",
            }[on]
        )

    def score(self, on: str) -> None:
        """Segment every image that has `on` (a key of `ON`) with the model in use, and score it; see `rows`."""
        if reason := self.why_not_score(on):
            raise UnetSegError(reason)
        workspace = self.workspace
        project, model = workspace.project, workspace.model
        assert project is not None
        assert model is not None
        cases = self._cases(on)
        args: dict[str, Any] = {"project": str(project.path), "model": str(model), "on": on, "cases": cases}
        if on == "truth":
            args["truths"] = {case: self.files[case] for case in cases}
        number = next((one.number for one in workspace.rounds if one.current), None)
        name = f"Round {number}" if number is not None else "The model"
        learned = set(workspace.recall("trained_on", {}).get(model.name, ()))
        current = next((one for one in workspace.rounds if one.current), None)
        held = _held_whole(current.scores) if current and current.scores else set()
        self.errand.start("score_cases", args, lambda result: self._on_rows((on, name), (learned, held), result))

    def stop(self) -> None:
        """Score no more images."""
        self.errand.stop()

    def _cases(self, on: str) -> list[str]:
        workspace = self.workspace
        if workspace.project is None:
            return []
        if on == "truth":
            return [case for case in workspace.cases if case in self.files]
        return list(workspace.project.accepted()) if on == "accepted" else workspace.annotated

    def _on_rows(self, of: tuple[str, str], seen: tuple[set[str], set[str]], result: Mapping[str, Any]) -> None:
        on, name = of
        learned, held = seen
        rows = [{**row, "seen": _seen(row["case"], learned, held)} for row in result["rows"]]
        images = {row["case"] for row in rows}
        taught = sum(_seen(case, learned, held) == "learned" for case in images)
        count = f"{len(images)} image{'s' * (len(images) != 1)}"
        said = f"{name} against {ON[on]} of {count}."
        if taught:
            said += f" It has learned from {taught} of them: what counts are the others."
        if on == "accepted":
            said += " A mask that was accepted as a model made it flatters that model."
        if failed := result.get("failed"):
            said += f" Left out: {'; '.join(f'{case} ({why})' for case, why in failed.items())}"
        self.rows, self.said = tuple(rows), said
        self.rows_changed.emit(self.rows)

    def _forget(self, _: Any = None) -> None:
        self._layers, self.shown, self.rows, self.said = {}, False, (), ""
        self._tell(None)
        self.rows_changed.emit(())


def _held_whole(scores: Scores) -> set[str]:
    """Images of which the model has seen nothing; of those that a part was held out of it has learned the rest."""
    rule = scores.rule
    parts = (
        " of each of " in rule or "a block of " in rule or any(rule.endswith(f" of {case}") for case in scores.images)
    )
    return set() if parts or not rule else set(scores.images)


def _seen(case: str, learned: set[str], held: set[str]) -> str:
    if case in held:
        return "held out"
    return "learned" if case in learned else "new"


def _bare(file: Path, cases: Mapping[str, str]) -> str:
    name = stem(file).casefold()
    for end in ("", "_mask", "_masks", "_label", "_labels", "_truth", "_seg", "-mask", "-label", "-truth"):
        if end and name.endswith(end) and name[: -len(end)] in cases:
            return name[: -len(end)]
    return name
