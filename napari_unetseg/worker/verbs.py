"""The verbs of the worker: small functions from arguments to a result, generators of events where it takes long."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unetseg.batch import segment_folder, undo_run
from napari_unetseg.data import Dataset, Split, load_dataset, prepare, said_of, split
from napari_unetseg.data.splits import was_learned
from napari_unetseg.devices import choose_compute, choose_device, describe, limit_threads
from napari_unetseg.errors import EngineError, Stopped, UnetSegError
from napari_unetseg.events import Control, Event, Running, TileDone, Validated, View, until_stopped
from napari_unetseg.figures import curves
from napari_unetseg.inference import evaluate, make_predictor
from napari_unetseg.io import read
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import BLOCKS, DOWNS, NETS, SKIPS, UPS, Model, describe_net
from napari_unetseg.nets.making import measure_spec
from napari_unetseg.plan import Plan
from napari_unetseg.planning import decide_net
from napari_unetseg.postprocess import after_net
from napari_unetseg.project import Project
from napari_unetseg.registry import Registry
from napari_unetseg.scores import Scores
from napari_unetseg.training import fine_tune
from napari_unetseg.volume import Volume
from napari_unetseg.worker.masks import RawMasks, viewed_plane

__all__ = ["VERBS", "Args", "Bench", "Result", "Run", "load_image", "named", "need", "open_project", "plain"]

Args = Mapping[str, Any]
Result = Mapping[str, Any]
Run = Generator[Event, None, Result]

VERBS: Registry[Callable[[Args, Control, Bench], Run | Result]] = Registry("verb")

_KEPT_ARRAYS, _KEPT_MODELS = 4, 2


class Bench:
    """What stays warm between jobs: models lately used, facts about the nets, and the folder for arrays.

    Parameters
    ----------
    folder : Path
        Where arrays are handed over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = itertools.count(1)
        self._arrays: dict[str, deque[Path]] = {}
        self._models: OrderedDict[tuple[str, int], Model] = OrderedDict()
        self._nets: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        self.masks = RawMasks()
        self.live: Any = None  # what the verb ``instant`` keeps between strokes

    def warm_up(self) -> dict[str, Any]:
        """Set the threads, and tell what will be used."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = limit_threads(int(os.environ.get("OMP_NUM_THREADS") or max(1, cores - 1)))
        device = choose_device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
        return {"device": str(device), "name": name, "threads": threads, "torch": torch.__version__}

    def probe(self) -> Generator[None, None, None]:
        """Do now what would make the first training wait, and its stop: try out the device, load the plotting."""
        from napari_unetseg.worker.instant import warm_instant  # a verb, and verbs import this

        warm_instant()
        yield
        choose_compute()
        yield
        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # the first of a process loads torch's compiler
        yield
        curves([], self._folder / "first.png").unlink()

    def put(self, kind: str, array: np.ndarray) -> str:
        """Hand over an array: writes it and returns its path; of each kind only the newest few stay."""
        path = self._folder / f"{kind}-{next(self._number):06d}.npy"
        np.save(path, array)
        kept = self._arrays.setdefault(kind, deque())
        kept.append(path)
        if len(kept) > _KEPT_ARRAYS:
            with contextlib.suppress(OSError):  # Windows: somebody still reads it
                kept.popleft().unlink()
        return str(path)

    def model(self, folder: str) -> Model:
        """Load a model, or take it from memory while its folder is unchanged."""
        facts = Path(folder) / "model.json"
        key = (folder, facts.stat().st_mtime_ns if facts.is_file() else 0)
        if key not in self._models:
            self._models[key] = Model.load(folder)
            while len(self._models) > _KEPT_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key]

    def nets(self, dims: int | None, in_channels: int, outputs: int) -> Generator[Event, None, list[dict[str, Any]]]:
        """Facts about every net, which take seconds the first time."""
        key = (dims, in_channels, outputs)
        if key not in self._nets:
            facts, names = [], list(NETS)
            for name in names:
                able = NETS.facts(name).get("dims", (2, 3))
                facts.append(describe_net(name, dims if dims in able else None, in_channels, outputs))
                yield TileDone(len(facts), len(names))
            self._nets[key] = facts
        return self._nets[key]


def need(args: Args, key: str) -> Any:
    """Value of an argument that must be given."""
    if args.get(key) is None:
        raise EngineError(f"The request lacks {key!r}.", hint="This is a mistake of the program; please report it.")
    return args[key]


def open_project(args: Args) -> Project:
    """The project of a job, as it was at the `revisions` of its annotations where they are given."""
    project = Project.open(need(args, "project"), read_only=True)
    if args.get("revisions") is not None:
        project.freeze(args["revisions"])
    return project


def load_image(args: Args) -> Volume:
    """The image of a job: ``{project, case}`` or ``{image}``."""
    return open_project(args).image(need(args, "case")) if args.get("project") else read(need(args, "image"))


def named(args: Args) -> tuple[str, str]:
    """Names of the image and of the model of a job."""
    return f"{args.get('project') or ''}:{args.get('case') or need(args, 'image')}", need(args, "model")


# -- facts ----------------------------------------------------------------------------------------------------


@VERBS.register("doctor")
def doctor(args: Args, control: Control, bench: Bench) -> Result:
    """Versions, devices, memory, and what will be used: ``{}``."""
    return describe()


@VERBS.register("nets")
def nets(args: Args, control: Control, bench: Bench) -> Run:
    """Facts about every net, and about the parts they can be composed of.

    ``{dims, in_channels, outputs}`` to ``{nets: [...], parts: {block: {name: sentence}, skip: ...}, losses: {name:
    {title, sentence}}}``.
    """
    parts = {"block": BLOCKS, "down": DOWNS, "up": UPS, "skip": SKIPS}
    return {
        "nets": (yield from bench.nets(args.get("dims"), args.get("in_channels", 1), args.get("outputs", 1))),
        "parts": {kind: {part: one.facts(part)["sentence"] for part in one} for kind, one in parts.items()},
        "losses": {name: {key: LOSSES.facts(name)[key] for key in ("title", "sentence")} for name in LOSSES},
    }


@VERBS.register("check_net")
def check_net(args: Args, control: Control, bench: Bench) -> Result:
    """Size of the net that a plan asks for, or why there is none; nothing is allocated.

    ``{net, dims, in_channels, outputs}``, `net` with the fields that are given and the rest from the images in hand, to
    ``{parameters, divisor, width, norm, problem, hint}``; `problem` is empty when it can be built.
    """
    given = dict(need(args, "net"))
    try:
        plan = Plan(net={"in_channels": args.get("in_channels", 1), "outputs": args.get("outputs", 1), **given})
        able = NETS.facts(plan.net.name).get("dims", (2, 3))
        here = args.get("dims") if args.get("dims") in able else able[0]
        dims = plan.net.dims if "dims" in given else here
        spec = plan.change(net={**decide_net(plan, choose_device().type), "dims": dims}).net
        return {**measure_spec(spec), "width": spec.width, "norm": spec.norm, "problem": "", "hint": ""}
    except UnetSegError as error:
        return {"problem": error.message, "hint": error.hint}


# -- train ----------------------------------------------------------------------------------------------------


@VERBS.register("train")
def train(args: Args, control: Control, bench: Bench) -> Run:
    """Train on a project's strokes.

    ``{project, revisions, folder, plan, minutes, start, previous, view, resume}`` to ``{model, scores, previous}``: the
    model's folder, its scores, and those of the `previous` model on the same held-out voxels (None without any).
    """
    folder, plan = need(args, "folder"), Plan.from_json(json.dumps(args.get("plan") or {}))
    if control.view is None and (view := args.get("view")):
        control.look(View(view["case"], view.get("index")))
    dataset = load_dataset(open_project(args), plan.data, control=control)
    start, previous = args.get("start"), args.get("previous")
    before = None
    begun = bench.model(start) if start else None
    at_start = previous == start and begun is not None and begun.plan.net.name != "instant"  # then it is step 0's
    if previous and not at_start:
        parts = split(dataset, plan.data, plan.training.seed, begun.facts if begun else None)
        before = _score_before(bench.model(previous), dataset, parts, control)
    how = {"minutes": args.get("minutes"), "start": start, "folder": folder, "resume": bool(args.get("resume"))}
    run = Running(fine_tune.events(dataset, plan, control=control, **how))
    for event in run:
        if isinstance(event, Validated) and event.step == 0 and at_start:
            before = event.scores
        yield event
    return {"model": folder, "scores": plain(run.result.scores), "previous": plain(before)}


def _score_before(previous: Model, dataset: Dataset, parts: Split, control: Control) -> Scores | None:
    """Scores of the model so far on what the new one will be held to; None where the two cannot be compared."""
    channels = previous.plan.image_channels
    if not parts.heldout or previous.classes != dataset.classes or channels != dataset.in_channels:
        return None
    if was_learned(parts, dataset, previous.facts):
        return None
    images = [prepare(part.load(), previous.plan.normalisation) for part in until_stopped(parts.heldout, control)]
    rule = said_of(parts.rule, [image.known for image in images])
    with contextlib.suppress(Stopped):
        return evaluate(make_predictor(previous), images, dataset.classes, rule, control)
    return None


def plain(scores: Scores | None) -> dict[str, Any] | None:
    """Scores as they travel."""
    return scores.to_dict() if scores else None


# -- predict, segment -----------------------------------------------------------------------------------------


@VERBS.register("predict")
def predict_case(args: Args, control: Control, bench: Bench) -> Run:
    """Segment one image: ``{project, case, model, index, focus}`` (or ``{image, model}``) to ``{mask, objects}``.

    Both are paths of arrays; `objects` is None unless a step of the model's plan numbers them. Of a large volume the
    plane `index` comes first, as a preview.
    """
    image, model = load_image(args), bench.model(need(args, "model"))
    yield from viewed_plane(model, image, View(args.get("case", ""), args.get("index")), control)
    raw = yield from bench.masks.predict(named(args), model, image, control, args.get("focus"))
    mask, objects = after_net(raw.data, model.plan.post.steps, image.geometry.spacing)
    return {"mask": bench.put("mask", mask), "objects": None if objects is None else bench.put("objects", objects)}


@VERBS.register("segment")
def segment(args: Args, control: Control, bench: Bench) -> Run:
    """Segment files and folders: ``{inputs, model, out, failed_only}`` to ``{rows, out, stopped}``."""
    model, out = bench.model(need(args, "model")), need(args, "out")
    again = bool(args.get("failed_only"))
    rows = yield from segment_folder.events(need(args, "inputs"), model, out, control=control, failed_only=again)
    return {"rows": rows, "out": out, "stopped": control.stopped}


@VERBS.register("undo_segment")
def undo_segment(args: Args, control: Control, bench: Bench) -> Result:
    """Take the last run into a folder back: ``{out}`` to ``{removed, restored, kept}``; see `undo_run`."""
    return dataclasses.asdict(undo_run(need(args, "out")))
