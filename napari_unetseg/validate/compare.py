"""`compare_nets`: several nets on the same folds with the same budget, scored on images that they never saw."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetseg import __version__
from napari_unetseg.errors import PlanError, Stopped, UnetSegError, WriteError
from napari_unetseg.events import Control, Event, FileDone, Note, Running, Started, StepDone, verb
from napari_unetseg.io import atomic_write
from napari_unetseg.metrics import compare_masks
from napari_unetseg.plan import Plan
from napari_unetseg.validate.report import write_report
from napari_unetseg.validate.statistics import paired_tests, summarise, summarised

if TYPE_CHECKING:
    from napari_unetseg.data import Dataset
    from napari_unetseg.data.dataset import Sample
    from napari_unetseg.data.splits import Part, Split
    from napari_unetseg.nets import Model

__all__ = ["Comparison", "compare_nets"]

logger = logging.getLogger(__name__)

_FOLDS = 5
_RUNS = "runs"


@dataclass(frozen=True)
class Comparison:
    """What came out of `compare_nets`.

    Attributes
    ----------
    folder : Path
        Where the report lies.
    nets : tuple of str
        As they were given.
    runs : tuple of dict
        One a net and fold: ``net, fold, rule, status`` (``done`` or ``failed``), ``error, seconds, steps, parameters``
        and ``cases``, one a case and class.
    expected : int
        Runs there would be, had it not been stopped.
    plan : Plan
        What all had in common.
    notes : tuple of str
        How the data was understood and divided.
    """

    folder: Path
    nets: tuple[str, ...]
    runs: tuple[dict[str, Any], ...]
    expected: int
    plan: Plan
    notes: tuple[str, ...]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One a net, fold, case and class, with all metrics."""
        return [{"net": run["net"], "fold": run["fold"], **case} for run in self.runs for case in run["cases"]]

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """What the table sums up, see `summarised`."""
        return summarised(self.rows)

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """Means and deviations, see `summarise`."""
        return summarise(self.rows, self.nets)

    @cached_property
    def tests(self) -> list[dict[str, Any]]:
        """Paired tests, see `paired_tests`."""
        return paired_tests(self.rows, self.nets)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Runs that failed."""
        return [run for run in self.runs if run["status"] == "failed"]


@dataclass(frozen=True, eq=False)
class _Study:
    dataset: Dataset
    plan: Plan
    nets: dict[str, Plan]
    splits: dict[int, Split]
    notes: tuple[str, ...]
    membranes: bool


@verb
def compare_nets(
    data: Any,
    nets: Sequence[str],
    *,
    out: str | Path,
    folds: int | None = None,
    plan: Plan | None = None,
    membranes: bool = False,
    control: Control | None = None,
) -> Generator[Event, None, Comparison]:
    """Compare nets on the same data, folds and budget, and write a report.

    Every net is trained on all folds but one and scored on that one, in turn. No choice is made on the images it is
    scored on: weights are the last ones or, where the plan gives ``data.heldout``, chosen on a part of the training
    images. Runs that are finished are kept in the report's folder and not done again.

    Parameters
    ----------
    data : Project, Dataset, path
        What `napari_unetseg.data.load_dataset` takes.
    nets : sequence of str
        Names of nets, ``"instant"`` included; ``"unet:dice"`` is a net with another loss than the plan's.
    out : path
        Folder of the report: report.html, table.csv, cases.csv, tests.csv.
    folds : int, optional
        Made of whole groups, of blocks where there is one image only. 5 or the number of groups when not given; the
        data's own folds go before.
    plan : Plan, optional
        Budget and all else that the nets have in common.
    membranes : bool
        Also V_rand and V_info, each class being taken for the interior of cells.
    control : Control, optional
        To stop; what is finished by then is reported.

    Returns
    -------
    Comparison
        A net that failed has runs that say why.

    Raises
    ------
    PlanError, UnknownName
        There are no such nets, losses or folds.
    WriteError
        The folder cannot be written, or holds something else.
    Stopped
        When stopped before anything was finished.
    """
    control, folder = control or Control(), Path(out)
    study = _prepare(data, nets, plan or Plan(), folds, membranes)
    _check_folder(folder)
    planned = [(fold, net) for fold in study.splits for net in study.nets]
    yield Started("comparison", total=len(planned), notes=study.notes)
    runs: list[dict[str, Any]] = []
    begin, fresh = time.monotonic(), 0
    for index, (fold, net) in enumerate(planned):
        if control.stopped:
            break
        file = folder / _RUNS / f"{net.replace(':', '--')}_fold{fold}.json"
        key = _fingerprint(study, net, fold)
        run, status = _finished(file, key), "done before"
        if run is None:
            run = yield from _run(study, net, fold, control)
            if run is None:
                break
            status, fresh = run["status"], fresh + 1
            if status == "done":
                _write_json(file, {"fingerprint": key, **run})
        runs.append(run)
        left = (time.monotonic() - begin) / max(1, fresh) * (len(planned) - index - 1)
        yield FileDone(index, len(planned), f"{net}, fold {fold}", status, run["error"], run["seconds"], left)
    if not runs:
        raise Stopped("The comparison was stopped before anything was finished.", hint="Nothing was written.")
    comparison = Comparison(folder, tuple(study.nets), tuple(runs), len(planned), study.plan, study.notes)
    write_report(comparison)
    return comparison


def _prepare(data: Any, nets: Sequence[str], plan: Plan, folds: int | None, membranes: bool) -> _Study:
    from napari_unetseg.data import Dataset, load_dataset, split

    plans = {net: _plan_of(net, plan) for net in nets}
    if len(plans) < 2 or len(plans) != len(nets):
        raise PlanError("A comparison needs two different nets or more.", hint="Give them as --nets unet,multiresunet.")
    dataset = data if isinstance(data, Dataset) else load_dataset(data, plan.data)
    own = sorted({case.fold for case in dataset.cases if case.fold is not None})
    groups = len({case.group for case in dataset.cases})
    number = len(own) or folds or (min(_FOLDS, groups) if groups > 1 else _FOLDS)
    splits = {}
    for fold in own or range(number):
        chosen = plan.change(data={"fold": fold, "folds": max(2, number)})
        splits[fold] = split(dataset, chosen.data, plan.training.seed)
    if own and folds and folds != len(own):
        raise PlanError(f"The data brings {len(own)} folds of its own, not {folds}.", hint="Leave out --folds.")
    chosen_on = (
        "Weights are chosen on a part of the training images, never on the fold that is scored."
        if plan.given("data", "heldout") and plan.data.heldout
        else "Nothing is chosen on the fold that is scored: the last weights count."
    )
    notes = (*dataset.notes, f"{len(splits)} folds of {groups} group{'s' * (groups != 1)}. {chosen_on}")
    return _Study(dataset, plan, plans, splits, notes, membranes)


def _plan_of(name: str, plan: Plan) -> Plan:
    """Plan of one net: what all have in common, its own name and loss; unknown names are refused."""
    from napari_unetseg.losses import LOSSES
    from napari_unetseg.nets import NETS

    net, _, loss = name.partition(":")
    NETS[net]
    if loss and net == "instant":
        raise PlanError("The instant net has no loss to choose.", hint="Write it as 'instant'.")
    if loss:
        LOSSES[loss]
        plan = plan.change(training={"loss": loss})
    heldout = plan.data.heldout if plan.given("data", "heldout") else 0.0
    return plan.change(net={"name": net}, data={"fold": None, "heldout": heldout})


def _run(study: _Study, net: str, fold: int, control: Control) -> Generator[Event, None, dict[str, Any] | None]:
    """Train and score one net on one fold; None when stopped, a run that says why when it failed."""
    begin, parts = time.monotonic(), study.splits[fold]
    run: dict[str, Any] = {"net": net, "fold": fold, "rule": parts.rule, "status": "done", "error": ""}
    run |= {"seconds": 0.0, "steps": 0, "parameters": 0, "notes": [], "cases": []}
    try:
        model = yield from _train(_training_set(study.dataset, parts.train), study.nets[net], control)
        if control.stopped:
            return None
        run["steps"], run["notes"] = model.facts.get("steps", 0), list(model.facts.get("notes", ()))
        run["parameters"] = sum(p.numel() for p in model.net.parameters())
        run["cases"] = [row for part in parts.heldout for row in _score(model, part, study.membranes, control)]
    except Stopped:
        return None
    except UnetSegError as error:
        run |= {"status": "failed", "error": error.message, "cases": []}
    except (MemoryError, OSError, ValueError, RuntimeError, ArithmeticError, LookupError, TypeError) as error:
        logger.exception("%s failed on fold %d", net, fold)
        run |= {"status": "failed", "error": f"{type(error).__name__}: {error}".splitlines()[0], "cases": []}
    run["seconds"] = round(time.monotonic() - begin, 2)
    return run


def _train(dataset: Dataset, plan: Plan, control: Control) -> Generator[Event, None, Model]:
    from napari_unetseg.instant import fit_instant
    from napari_unetseg.training import fine_tune

    if plan.net.name == "instant":
        events = fit_instant.events(dataset, plan, control=control)
    else:
        events = fine_tune.events(dataset, plan, control=control)
    run = Running(events)
    for event in run:
        if isinstance(event, (StepDone, Note)):
            yield event
    return run.result


def _score(model: Model, part: Part, membranes: bool, control: Control) -> list[dict[str, Any]]:
    from napari_unetseg.inference import predict

    sample = part.load()
    geometry = sample.image.geometry
    mask = predict(model, sample.image, control=control)
    known = None if sample.known.all() else sample.known
    scores = compare_masks(mask.data, sample.target, geometry.spacing, model.classes, known=known, membranes=membranes)
    facts = {"case": part.name, "group": part.case.group, "voxels": int(sample.known.sum()), "unit": geometry.unit}
    return [{**facts, "class": name, **values} for name, values in scores.items()]


@dataclass(frozen=True, eq=False)
class _PartReader:
    part: Part

    def sample(self) -> Sample:
        return self.part.load()

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        sample = self.part.load()
        return sample.target, sample.known


def _training_set(dataset: Dataset, parts: Sequence[Part]) -> Dataset:
    """What remains for training, as a dataset of its own: the fold that is scored is out of reach."""
    from napari_unetseg.data import Dataset

    names = [part.name for part in parts]
    cases = []
    for index, part in enumerate(parts):
        name = part.name if names.count(part.name) == 1 else f"{part.name} part {names[: index + 1].count(part.name)}"
        # a group that is called held-out is a group like any other here
        cases.append(
            replace(part.case, name=name, group=f"group {part.case.group}", fold=None, reader=_PartReader(part))
        )
    return Dataset(tuple(cases), dataset.classes, dataset.labels, (), dataset.in_channels, dataset.ndim)


def _fingerprint(study: _Study, net: str, fold: int) -> str:
    """What a finished run must agree in to count: version, plan, classes, images and their division."""
    parts = study.splits[fold]
    sides = [
        [[part.name, str(part.region), _stamp(part, study.dataset)] for part in side]
        for side in (parts.train, parts.heldout)
    ]
    facts = [
        __version__,
        study.nets[net].to_json(complete=False),
        study.dataset.classes,
        sides,
        *(["membranes"] if study.membranes else []),
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _stamp(part: Part, dataset: Dataset) -> list[Any]:
    image = part.case.image
    written = [image.stat().st_size, image.stat().st_mtime_ns] if image is not None and image.is_file() else []
    return [written, dataset.counts(part.case).tolist() if dataset.countable else []]


def _finished(file: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) and run.pop("fingerprint", None) == fingerprint else None


def _write_json(file: Path, values: Any) -> None:
    text = json.dumps(values, indent=1)
    atomic_write(file, lambda beside: beside.write_text(text, encoding="utf-8"))


def _check_folder(folder: Path) -> None:
    ours = (folder / _RUNS).is_dir()
    if folder.exists() and (not folder.is_dir() or (not ours and any(folder.iterdir()))):
        raise WriteError(f"{folder} exists and is not a report folder.", hint="Choose a new folder with -o.")
    try:
        (folder / _RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"The folder {folder} cannot be written: {error.strerror or error}.", hint="Choose another place with -o."
        ) from error
