"""`Workspace`: the tasks that take a while, and what the events of their jobs change."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unetseg.data.annotation import overrule
from napari_unetseg.errors import ProjectError
from napari_unetseg.events import View
from napari_unetseg.plan import Plan
from napari_unetseg.scores import Scores
from napari_unetseg.volume import LabelVolume
from napari_unetseg.workspace.desk import MINUTES, Desk
from napari_unetseg.workspace.rounds import model_facts, not_worse, read_rounds, round_number
from napari_unetseg.workspace.state import Curves, Jobs, Message, Prediction, Preview

__all__ = ["Workspace"]

_STAGES = {"train": "training", "predict": "predicting", "segment": "segmenting"}
_DOING = {"train": "Training", "predict": "Segmenting", "segment": "Segmenting the folder"}


class Workspace(Desk):
    """Everything the window shows and does, without the window; see the package's docstring for the signals.

    Parameters
    ----------
    jobs : Jobs
        Who runs the verbs. Its events must arrive on the thread that owns the workspace.
    """

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._index: int | None = None
        self._running: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self._checked: dict[str, Any] = {}
        for changed in (self.case_changed, self.classes_changed, self.plan_changed):
            changed.connect(self._keep_facts)

    def close_project(self) -> None:
        """Stop what runs and let go of the project; everything painted is on disk already."""
        if self._running:
            self._jobs.stop(self._running["id"])
        self._running = {}
        super().close_project()

    def select_case(self, case: str | None) -> None:
        """Take another image in hand."""
        super().select_case(case)
        self.look(None)

    # -- the plan ---------------------------------------------------------------------------------------------

    def change_plan(self, **sections: Mapping[str, Any]) -> Plan:
        """Replace some fields: ``change_plan(net={"name": "unet3d"}, training={"minutes": 5})``."""
        return self._plan_so(self.plan.change(**sections))

    def decide_for_me(self, section: str, *names: str) -> Plan:
        """Take fields back, to be decided from the images and the device when training starts."""
        values = self.plan.model_dump(exclude_unset=True, by_alias=True)
        for name in names:
            values.get(section, {}).pop(name, None)
        return self._plan_so(Plan(**values))

    def _plan_so(self, plan: Plan) -> Plan:
        self.plan = plan
        self.remember(plan=json.loads(plan.to_json(complete=False)))
        self.plan_changed.emit(plan)
        return plan

    def ask_nets(self) -> None:
        """Have the facts about the architectures computed, for images like the one in hand; see `nets_changed`.

        From then on they are kept up to date with image, classes and plan, and so is `net_check`.
        """
        self._asked = self._shapes()
        self._jobs.submit("nets", self._asked, self._on_nets)
        self._check_net()

    def _shapes(self) -> dict[str, Any]:
        """What goes into a net and out of it, for images like the one in hand."""
        image, classes = self._image, len(self.classes)
        dims = self.plan.net.dims if image is None or self.plan.given("net", "dims") else image.ndim
        channels = 1 if image is None else image.data.shape[0]
        return {"dims": dims, "in_channels": channels, "outputs": classes if classes > 2 else 1}

    def _on_nets(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "Done":
            self.nets, self.parts = tuple(event["result"]["nets"]), event["result"]["parts"]
            self.nets_changed.emit(self.nets)
        elif event["event"] == "Failed":
            self._asked = {}
            self._complain(event)

    def _keep_facts(self, _: object = None) -> None:
        if not self.nets:  # nobody asked yet
            return
        if self._asked != self._shapes():
            self.ask_nets()
        else:
            self._check_net()

    def _check_net(self) -> None:
        net = json.loads(self.plan.net.model_dump_json(exclude_unset=True))
        asked = {"net": net, **self._shapes()}
        if asked != self._checked:
            self._checked = asked
            self._net_is({})
            self._jobs.submit("check_net", asked, lambda event: self._on_net_checked(asked, event))

    def _on_net_checked(self, asked: dict[str, Any], event: Mapping[str, Any]) -> None:
        if asked is not self._checked:  # another net was chosen meanwhile
            return
        if event["event"] == "Done":
            self._net_is(dict(event["result"]))
        elif event["event"] == "Failed":
            self._checked = {}

    def _net_is(self, check: dict[str, Any]) -> None:
        self.net_check = check
        self.net_checked.emit(check)
        self.actions_changed.emit()

    # -- train ------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Learn from all strokes within the plan's minutes, going on from the current model where it fits.

        A mask that is being computed makes way, so that no click is lost.
        """
        project = self._ready("train")
        if self._running:
            self._jobs.stop(self._running["id"])
            self._running = {}
        self._ink.snapshot()
        self._score_unseen()
        plan, start = self._going_on()
        folder = project.new_model_folder()
        revisions = {case: project.revisions(case)[-1] for case in project.annotated() if project.revisions(case)}
        args = {
            "project": str(project.path),
            "plan": json.loads(plan.to_json(complete=False)),
            "minutes": self.plan.training.minutes or MINUTES,
            "start": start and str(start),
            "previous": self.model and str(self.model),
            "folder": str(folder),
            "view": {"case": self.case, "index": self._index} if self.case else None,
        }
        self.curves = Curves(round_number(folder))
        self.curves_changed.emit(self.curves)
        self._show(preview=None)
        project.log("train", round=self.curves.number, start=start and start.name, net=self.plan.net.name)
        self._submit("train", args, f"Round {self.curves.number}: preparing.", revisions=revisions)

    def _going_on(self) -> tuple[Plan, Path | None]:
        """Plan of the next round, and the model it goes on from: the current one while it is of the kind asked for."""
        facts = model_facts(self.model) if self.model else {}
        net = facts.get("plan", {}).get("net", {})
        given = json.loads(self.plan.net.model_dump_json(exclude_unset=True))
        other = any(net.get(key) != value for key, value in given.items())
        if not net or other or len(facts.get("classes", ())) != len(self.classes):
            return self.plan, None
        return self.plan.change(net=net), self.model

    def _score_unseen(self) -> None:
        seen = self.recall("trained_on", {}).get(self.model.name) if self.model else None
        if seen is None:
            return
        args = {"project": str(self._open.path), "model": str(self.model), "seen": seen}
        self._jobs.submit("score_strokes", args, self._on_unseen)

    def _on_unseen(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "Done" and event["result"].get("scores") and self.project:
            scores = Scores.from_dict(event["result"]["scores"])
            self.corrections = (*self.corrections, scores)
            self.remember(corrections=[one.to_dict() for one in self.corrections])
            self.corrections_changed.emit(self.corrections)

    def stop(self) -> None:
        """Finish what runs at its next step; a training keeps its best model so far."""
        self._ready("stop")
        self.stopping = True
        self._jobs.stop(self._running["id"])
        self.actions_changed.emit()

    def look(self, index: int | None) -> None:
        """Say which slice of the case in hand is on screen (None: the whole image); previews of a training follow."""
        self._index = index
        if self.stage == "training" and self.case:
            self._jobs.look(View(self.case, index))

    # -- masks ------------------------------------------------------------------------------------------------

    def predict_current(self) -> None:
        """Segment the image in hand with the current model; `prediction_changed` brings the mask."""
        project = self._ready("predict")
        args = {"project": str(project.path), "case": self.case, "model": str(self.model)}
        self._submit("predict", args, f"Segmenting {self.case}.")

    def accept(self) -> Path:
        """Write the mask of the image in hand, strokes overruling the net, in the format and geometry of its image."""
        project, shown = self._ready("accept"), self.prediction
        assert shown is not None
        mask = LabelVolume(overrule(shown.mask.data, self._ink.labels), shown.mask.geometry)
        path = project.accept(shown.case, mask)
        self.message.emit(Message(f"The mask of {shown.case} is saved as {path.name}."))
        self.actions_changed.emit()
        return path

    def undo_accept(self) -> None:
        """Take back the acceptance of the mask of the image in hand."""
        project, case = self._ready("undo_accept"), self.case
        assert case is not None
        project.undo_accept(case)
        self.actions_changed.emit()

    def correct(self) -> None:
        """Go on painting where the mask is wrong."""
        self._ready("correct").log("correct", case=self.case)
        self.message.emit(
            Message("Paint where the mask is wrong, then press Train again.", "A few strokes are enough.")
        )

    def go_back_to_round(self, number: int) -> None:
        """Make the model of an earlier (or later) round the one that predicts, and show its mask."""
        project = self._ready("go_back")
        chosen = next((r for r in self.rounds if r.number == number), None)
        if chosen is None:
            raise ProjectError(
                f"There is no round {number}.", hint=f"Rounds: {', '.join(str(r.number) for r in self.rounds)}."
            )
        self._use(chosen.folder)
        project.log("go back", round=number)
        if not self.why_not("predict"):
            self.predict_current()

    def _use(self, folder: Path) -> None:
        self._open.set_current_model(folder)
        self._show(prediction=None)
        self._refresh_rounds()

    def _refresh_rounds(self) -> None:
        self.rounds = read_rounds(self._open)
        self.rounds_changed.emit(self.rounds)
        self.actions_changed.emit()

    def segment_folder(self, inputs: Sequence[str | Path], out: str | Path) -> None:
        """Segment files or folders into `out` with the current model; `folder_changed` brings a row a file."""
        self._ready("segment_folder")
        self.folder_rows = ()
        self.folder_changed.emit(())
        args = {"inputs": [str(path) for path in inputs], "model": str(self.model), "out": str(out)}
        self._submit("segment", args, f"Segmenting into {Path(out).name}.")

    # -- jobs -------------------------------------------------------------------------------------------------

    def _submit(self, verb: str, args: dict[str, Any], sentence: str, **facts: Any) -> None:
        job: dict[str, Any] = {"verb": verb, "args": args, **facts}
        self._running = job
        job["id"] = self._jobs.submit(verb, args, lambda event: self._on_event(job, event))
        self._enter(_STAGES[verb])
        self._advance(0.0, math.nan, sentence)

    def _on_event(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        if job is not self._running:  # of a project that was closed meanwhile
            return
        handler = getattr(self, f"_on_{event['event'].lower()}", None)
        if handler is not None:
            handler(job, event)

    def _on_started(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        for note in event.get("notes", ()):
            self.message.emit(Message(note))
        where = "the processor" if str(event.get("device", "cpu")) == "cpu" else "the graphics card"
        self._advance(0.0, math.nan, f"{_DOING[job['verb']]} on {where}.")

    def _on_note(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self.message.emit(Message(event["text"], level=event.get("level", "info")))

    def _on_stepdone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self.curves.steps.append(event["step"])
        self.curves.losses.append(event["loss"])
        self.curves_changed.emit(self.curves)
        seconds, left = event["seconds"], event["left"]
        fraction = seconds / (seconds + left) if seconds + left > 0 else 0.0
        self._advance(fraction, left, f"Round {self.curves.number}: step {event['step']}, loss {event['loss']:.3f}.")

    def _on_validated(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self.curves.validations.append((event["step"], Scores.from_dict(event["scores"])))
        if event["best"]:
            self.curves.kept = event["step"]
        self.curves_changed.emit(self.curves)

    def _on_previewready(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        view = event["view"]
        if view["case"] != self.case:
            return
        try:
            mask = np.load(event["mask"])
        except OSError:  # a newer preview has taken its place already
            return
        self._show(preview=Preview(event["step"], view["case"], view["index"], mask))

    def _on_tiledone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        done, total = event["done"], max(1, event["total"])
        self._advance(done / total, event["left"], f"Segmenting: tile {done} of {total}.")

    def _on_filedone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        row = {key: event[key] for key in ("index", "file", "status", "error", "seconds")}
        self.folder_rows = (*self.folder_rows, row)
        self.folder_changed.emit(self.folder_rows)
        done, total = len(self.folder_rows), max(1, event["total"])
        self._advance(done / total, event["left"], f"File {done} of {total}: {Path(event['file']).name}.")

    def _on_done(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self._running = {}
        self._enter("idle")
        {"train": self._trained, "predict": self._predicted, "segment": self._segmented}[job["verb"]](
            job, event["result"]
        )

    def _on_failed(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self._running = {}
        self._enter("idle")
        self._complain(event)

    def _complain(self, event: Mapping[str, Any]) -> None:
        level = "info" if event.get("stopped") else "error"
        self.message.emit(Message(event["message"], event.get("hint", ""), level))

    def _trained(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        folder = Path(result["model"])
        new = Scores.from_dict(result["scores"]) if result.get("scores") else None
        old = Scores.from_dict(result["previous"]) if result.get("previous") else None
        self._open.log("trained", round=self.curves.number, model=folder.name, scores=result.get("scores"))
        self.remember(trained_on={**self.recall("trained_on", {}), folder.name: job["revisions"]})
        if self.model is None or not_worse(new, old):
            self._use(folder)
            self.message.emit(
                Message(f"Round {self.curves.number}: {new.sentence() if new else 'stopped before its first score.'}")
            )
        else:
            self._refresh_rounds()
            self._explain_kept(new, old)
        if not self.why_not("predict"):
            self.predict_current()

    def _explain_kept(self, new: Scores | None, old: Scores | None) -> None:
        kept = next((r.number for r in self.rounds if r.current), "?")
        why = "was stopped before its first score"
        if new and old:
            dice = f"Dice {new.mean_dice:.2f} after {old.mean_dice:.2f}"
            why = f"scored worse than round {kept} on the same held-out voxels ({dice})"
        self.message.emit(
            Message(
                f"Round {self.curves.number} {why}, so round {kept} is kept.",
                f"Choose round {self.curves.number} in the list to use it all the same.",
                "warning",
            )
        )

    def _predicted(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        case = job["args"]["case"]
        if case != self.case or self._image is None:
            return
        mask = LabelVolume(np.load(result["mask"]), self._image.geometry)
        self._show(preview=None, prediction=Prediction(case, Path(job["args"]["model"]), mask))

    def _segmented(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        failed = sum(row["status"] == "failed" for row in self.folder_rows)
        done = len(self.folder_rows) - failed
        files = "1 file is" if done == 1 else f"{done} files are"
        text = f"{files} segmented into {Path(job['args']['out']).name}"
        text += f", {failed} failed." if failed else "."
        self.message.emit(
            Message(text, "The table has the details." if failed else "", "warning" if failed else "info")
        )
