"""`Learning`: training, its curves, what it is worth, and how it goes on after a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from psygnal import Signal

from napari_unetseg.io.formats import size_text
from napari_unetseg.metrics.forecast import Correction, Forecast, forecast_corrections
from napari_unetseg.plan import Plan
from napari_unetseg.project import Project
from napari_unetseg.scores import Scores
from napari_unetseg.workspace.desk import MINUTES
from napari_unetseg.workspace.rounds import (
    comparable,
    model_facts,
    not_worse,
    read_curves,
    read_rounds,
    round_number,
)
from napari_unetseg.workspace.running import Running
from napari_unetseg.workspace.state import Aside, Curves, Jobs, Message, Preview

__all__ = ["Learning"]

_UNFINISHED = "unfinished"
_BEFORE = "used before"  # by round: name of the model that it took the place of, empty when there was none


class Learning(Running):
    """Rounds of training."""

    leader_changed = Signal(str)

    def __init__(self, jobs: Jobs, aside: Aside | None = None) -> None:
        super().__init__(jobs, aside)
        self.leader = ""  # whose previews are shown while it trains: ``instant`` or the name of the net
        self.leads = ""  # the same as a sentence
        self.begun = "", 0.0  # name of the net that is trained, and its minutes
        self._channels: tuple[Path | None, int] = (None, 0)  # of a model, and how many its images have

    def train(self) -> None:
        """Learn from all strokes within the plan's minutes, going on from the current model where it fits.

        A mask that is being computed makes way, so that no click is lost.
        """
        project = self._ready("train")
        plan, start = self._going_on()
        self._start_round(
            project.new_model_folder(),
            plan=json.loads(plan.to_json(complete=False)),
            minutes=self.plan.training.minutes or MINUTES,
            start=start and str(start),
            previous=self.model and str(self.model),
        )

    def resume(self) -> None:
        """Go on with the training that was killed, on the strokes that it had begun with."""
        project, left = self._ready("resume"), self.recall(_UNFINISHED)
        revisions = {case: number for case, number in left["revisions"].items() if case in project.cases}
        models = project.path / "models"
        names = {key: left[key] and str(models / left[key]) for key in ("start", "previous")}
        kept = {"plan": left["plan"], "minutes": left["minutes"], "revisions": revisions}
        self._start_round(models / left["folder"], **kept, **names, resume=True)

    @property
    def unfinished(self) -> str:
        """Name of the round whose training was broken off and can be resumed; empty when there is none."""
        left = self.recall(_UNFINISHED) if self.project else None
        if not left or self.read_only or self.stage == "training":
            return ""
        models = self._open.path / "models"
        kept = any((models / f".{left['folder']}.training{end}" / "state.json").is_file() for end in ("", ".part"))
        return left["folder"] if kept and not (models / left["folder"] / "model.json").exists() else ""

    def _start_round(self, folder: Path, **args: Any) -> None:
        project = self._open
        view = {"case": self.case, "index": self._index} if self.case else None
        args = {"project": str(project.path), "folder": str(folder), "view": view, **args}
        self.begun = Plan.from_json(json.dumps(args["plan"])).net.name, args["minutes"]
        self.curves = Curves(round_number(folder))
        self.curves_changed.emit(self.curves)
        self._show(preview=None, difference=None)
        self._lead("", "")
        project.log("train", round=self.curves.number, start=args["start"] and Path(args["start"]).name)
        job = self._begin("train", args, f"Round {self.curves.number}: preparing.")

        def send(revisions: dict[str, int]) -> None:
            if job is not self._running:
                return
            if "revisions" not in args:
                args["revisions"] = revisions
                self._score_unseen(revisions)
            self._keep_unfinished(args)
            self._send(job)

        self._write(project.snapshot, send, lambda: self._on_failed(job, {"message": "The training did not begin."}))

    def _keep_unfinished(self, args: Mapping[str, Any]) -> None:
        kept = {key: args[key] for key in ("plan", "minutes", "revisions")}
        names = {key: args[key] and Path(args[key]).name for key in ("folder", "start", "previous")}
        self.remember(**{_UNFINISHED: {**kept, **names}})

    def _going_on(self) -> tuple[Plan, Path | None]:
        """Plan of the next round, and the model it goes on from: the current one while it is of the kind asked for.

        An instant model is given to any net: there are no weights to go on from, but its successor hears what it said.
        """
        facts = model_facts(self.model) if self.model else {}
        net = dict(facts.get("plan", {}).get("net", {}))
        if "parts" in net:  # the instant model beside it is fitted anew
            net["parts"] = {name: part for name, part in net["parts"].items() if name != "instant"}
        given = json.loads(self.plan.net.model_dump_json(exclude_unset=True))
        other = any(net.get(key) != value for key, value in given.items())
        if len(facts.get("classes", ())) != len(self.classes):
            return self.plan, None
        if net.get("name") == "instant":
            return self.plan, self.model
        if "name" not in net or other:
            return self.plan, None
        return self.plan.change(net=net), self.model

    # -- honest progress --------------------------------------------------------------------------------------

    def _score_unseen(self, revisions: Mapping[str, int]) -> None:
        model = self.model
        seen = self.recall("trained_on", {}).get(model.name) if model else None
        if seen is None or model is None:
            return
        args = {"project": str(self._open.path), "revisions": dict(revisions), "model": str(model), "seen": seen}
        project, number = self.project, round_number(model)
        self._jobs.submit("score_strokes", args, lambda event: self._on_unseen(project, number, event))

    def _on_unseen(self, project: Project | None, number: int, event: Mapping[str, Any]) -> None:
        if event["event"] != "Done" or not event["result"].get("scores") or project is not self.project:
            return
        result = event["result"]
        scores = Scores.from_dict(result["scores"])
        one = Correction(scores, number, int(result.get("seen", 0)), result.get("strokes"))
        self.corrections = (*self.corrections, one)
        self.remember(corrections=[correction.to_dict() for correction in self.corrections])
        self._look_ahead()

    def _hold(self, project: Project) -> None:
        super()._hold(project)
        self._look_ahead()
        if self.rounds:
            self.curves = read_curves(self.rounds[-1].folder)
            self.curves_changed.emit(self.curves)
            self._use_unheard()

    def _use_unheard(self) -> None:
        """Use the model of a training that came to its end when no window listened any more."""
        left, old = self.recall(_UNFINISHED), next((one.scores for one in self.rounds if one.current), None)
        new = next((one for one in self.rounds if left and one.folder.name == left["folder"]), None)
        if new is None or self.read_only:
            return
        self.curves.number = new.number
        told = {key: scores and scores.to_dict() for key, scores in (("scores", new.scores), ("previous", old))}
        self._training_done({"args": left}, {"model": str(new.folder), **told})

    def forecast_of(self, name: str) -> Forecast:
        """What more strokes are worth for one class."""
        return forecast_corrections(self.corrections, name)

    def _look_ahead(self) -> None:
        self.forecast = forecast_corrections(self.corrections)
        self.corrections_changed.emit(self.corrections)

    # -- events -----------------------------------------------------------------------------------------------

    def _on_stepdone(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self.curves.steps.append(event["step"])
        self.curves.losses.append(event["loss"])
        self.curves_changed.emit(self.curves)
        seconds, left = event["seconds"], event["left"]
        fraction = seconds / (seconds + left) if seconds + left > 0 else 0.0
        told = f"Round {self.curves.number}: step {event['step']:,}."
        self._advance(fraction, left, f"{told} {self._circumstances(job, event.get('memory'))}")

    def _circumstances(self, job: Mapping[str, Any], memory: int | None) -> str:
        """What is learned from, what it is scored on, where it runs and with how much memory."""
        count = len(job["args"].get("revisions", ()))
        rule = self.curves.validations[-1][1].rule if self.curves.validations else ""
        told = f"Strokes on {count} image{'s' * (count != 1)}{f', scored on {rule}' if rule else ''}. "
        where = job.get("where", "the processor").removeprefix("the ").capitalize()
        return f"{told}{where}{f', {size_text(memory)} of memory' if memory else ''}."

    def _on_validated(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self.curves.validations.append((event["step"], Scores.from_dict(event["scores"])))
        if event["best"]:
            self.curves.kept = event["step"]
        self.curves_changed.emit(self.curves)

    def _on_leads(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        self._lead(event["who"], event["text"])
        # that the instant model goes on answering stands beside the badge
        self.message.emit(Message(event["text"], level="log" if event["who"] == "instant" else "info"))

    def _lead(self, who: str, text: str) -> None:
        self.leader, self.leads = who, text
        self.leader_changed.emit(who)

    def show_preview(self, preview: Preview) -> None:
        """Show a mask that comes from elsewhere, until there is a better one."""
        self._show(preview=preview)

    def _on_previewready(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        view = event["view"]
        if view["case"] != self.case:
            return
        try:
            mask = np.load(event["mask"])
        except OSError:  # a newer preview has taken its place already
            return
        self._show(preview=Preview(event["step"], view["case"], view["index"], mask))

    def _on_failed(self, job: dict[str, Any], event: Mapping[str, Any]) -> None:
        if job["verb"] == "train" and not event.get("crashed"):
            self.remember(**{_UNFINISHED: None})
        super()._on_failed(job, event)

    def _training_done(self, job: dict[str, Any], result: Mapping[str, Any]) -> None:
        folder = Path(result["model"])
        new = Scores.from_dict(result["scores"]) if result.get("scores") else None
        old = Scores.from_dict(result["previous"]) if result.get("previous") else None
        self._open.log("trained", round=self.curves.number, model=folder.name, scores=result.get("scores"))
        trained_on = {**self.recall("trained_on", {}), folder.name: job["args"]["revisions"]}
        self.remember(trained_on=trained_on, **{_UNFINISHED: None})
        if self.model is None or not_worse(new, old) or (new and self._overtook()):
            before = self.model.name if self.model else ""
            self.remember(**{_BEFORE: {**self.recall(_BEFORE, {}), folder.name: before}})
            self._use(folder)
            said = f"Round {self.curves.number}: {new.sentence() if new else 'stopped before its first score.'}"
            # its score in the list is of the strokes of its time: not to be held against this one
            there = ""
            if new and old and before and comparable(new, old):
                there = f"Round {round_number(Path(before))} has {old.mean_dice:.2f} there."
            self.message.emit(Message(said, there))
        else:
            self._refresh_rounds()
            self._explain_kept(new, old)
        if not self.why_not("predict"):
            self.predict_current()

    def _overtook(self) -> bool:
        """Whether the net took over from an instant model: that training weighed its score, and how little it says."""
        by_instant = any(one.current and one.net == "instant" for one in self.rounds)
        return by_instant and self.leader not in ("", "instant")

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

    @property
    def round_before(self) -> str | None:
        """Folder's name of the round that the one in use took the place of; empty when it was the first.

        None where that is not known, or the earlier one is gone.
        """
        before = self.recall(_BEFORE, {}).get(self.model.name) if self.model else None
        there = not before or any(one.folder.name == before for one in self.rounds)
        return before if there else None

    def _use(self, folder: Path | None) -> None:
        self._open.set_current_model(folder)
        self._show(prediction=None)
        self._refresh_rounds()

    def _refresh_rounds(self) -> None:
        self.rounds = read_rounds(self._open)
        self.rounds_changed.emit(self.rounds)
        self.actions_changed.emit()

    def why_unlike(self) -> str:
        """Why the model in use cannot segment the image in hand, which has other channels; else empty."""
        model, image = self.model, self._image
        if model is None or image is None:
            return ""
        if self._channels[0] != model:
            plan = model_facts(model).get("plan", {})
            beside = 2 * (plan.get("data", {}).get("neighbours") or 0) + 1
            self._channels = model, (plan.get("net", {}).get("in_channels") or 0) // beside
        learned, here = self._channels[1], image.data.shape[0]
        if learned in (0, here):
            return ""
        return f"This image has {here} channel{'s' * (here != 1)}; the net in use was trained on images with {learned}."

    def predict_current(self) -> None:
        """Segment the image in hand with the current model; `prediction_changed` brings the mask."""
        project = self._ready("predict")
        args = {"project": str(project.path), "case": self.case, "model": str(self.model), "index": self._index}
        self._send(self._begin("predict", args, f"Segmenting {self.case}."))
