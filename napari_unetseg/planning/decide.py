"""A plan that completes itself: every decision the user left open, taken from the images, with a sentence for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from napari_unetseg.data import Dataset, Sample, fit_normalisation
from napari_unetseg.data.augment import make_recipe
from napari_unetseg.devices import free_memory, half_precision
from napari_unetseg.errors import PlanError
from napari_unetseg.events import Control, until_stopped
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import NETS
from napari_unetseg.optim import OPTIMISERS, SCHEDULES
from napari_unetseg.plan import Plan
from napari_unetseg.planning.cost import net_cost, step_memory
from napari_unetseg.planning.mirrored import mirrored_pair
from napari_unetseg.planning.objects import object_size
from napari_unetseg.postprocess import check_steps

__all__ = ["complete_plan", "decide_net"]

_MINUTES = 5.0
_SIDES = {(2, False): (128, 256), (2, True): (128, 512), (3, False): (48, 64), (3, True): (96, 128)}  # by dims and CUDA
_SEEN = 3  # a patch is at least so many objects wide
_BOTTOM = 4  # voxels that the coarsest level must see of the patch, along its longest side
_SHARE = 0.8  # of the free memory that a step may use by the estimate
_DENSE = 0.5  # share of labelled voxels from which on nobody needs a teacher
_FAST, _USUAL = 3e-3, 1e-3  # learning rates
_MANY = 100  # densely labelled images, from which on augmentation is at half strength


def complete_plan(
    plan: Plan,
    dataset: Dataset,
    samples: Sequence[Sample],
    device: torch.device,
    free: int | None = None,
    control: Control | None = None,
) -> tuple[Plan, tuple[str, ...]]:
    """Take every decision that `plan` leaves open.

    Parameters
    ----------
    plan : Plan
        Fields the user gave are kept, whatever they are.
    dataset : Dataset
        Classes, channels and dimensions.
    samples : sequence of Sample
        The images to be learned from.
    device : torch.device
        What it will run on.
    free : int, optional
        Bytes of memory that a step may use; what is free there now when omitted.
    control : Control, optional
        To stop it between two images; `Stopped` is raised.

    Returns
    -------
    Plan
        With no decision left open.
    tuple of str
        A sentence for every decision taken.

    Raises
    ------
    PlanError
        When a name is unknown or the net cannot do what the images need.
    """
    notes: list[str] = []
    for registry, name in ((NETS, plan.net.name), (LOSSES, plan.training.loss)):
        registry[name]
    for registry, name in ((OPTIMISERS, plan.training.optimiser), (SCHEDULES, plan.training.schedule)):
        registry[name]
    make_recipe(plan.training.recipe)
    check_steps(plan.post.steps)
    asked, plan = plan, plan.change(data={"labels": dataset.labels})
    decisions: tuple[Callable[[Plan], Plan], ...] = (
        lambda plan: _net(plan, dataset, samples, device, notes),
        lambda plan: _patch(plan, samples, device, notes, control),
        lambda plan: _depth(plan, notes),
        lambda plan: _batch(plan, device, notes),
        lambda plan: _fit_memory(plan, asked, device, notes, free),
        lambda plan: _augmentation(plan, dataset, samples, notes, control),
        lambda plan: _teacher(plan, samples, notes, control),
        lambda plan: _rate(plan, notes),
    )
    for decide in until_stopped(decisions, control):
        plan = decide(plan)
    if plan.training.minutes is None and plan.training.epochs is None:
        plan = plan.change(training={"minutes": _MINUTES})
        notes.append(f"Trains for {_MINUTES:g} minutes; Stop keeps the best so far.")
    if plan.data.normalisation is None:
        how = fit_normalisation(until_stopped(samples, control))
        plan = plan.change(data={"normalisation": how.model_dump()})
        notes.append(_NORMALISATION[how.kind].format(how=how))
    return plan, tuple(notes)


def _teacher(plan: Plan, samples: Sequence[Sample], notes: list[str], control: Control | None) -> Plan:
    """Let the instant model teach: in full where there are few labels, not at all where they cover half of it all."""
    if plan.training.teacher is not None:
        return plan
    known = sum(int(np.count_nonzero(sample.known)) for sample in until_stopped(samples, control))
    share = known / max(1, sum(sample.known.size for sample in samples))
    weight = round(max(0.0, 1 - share / _DENSE), 3)
    if weight:
        notes.append(f"{100 * share:.2g} % is labelled: the instant model answers first, and teaches the net the rest.")
    else:
        notes.append("At least half of all is labelled: the net learns from that alone, without the instant model.")
    return plan.change(training={"teacher": weight})


def _rate(plan: Plan, notes: list[str]) -> Plan:
    """Three times the usual rate where layers are normalised: minutes are few, and such nets bear it."""
    if plan.given("training", "learning_rate") or plan.training.optimiser not in ("adam", "adamw"):
        return plan
    fast = plan.net.norm in ("instance", "batch", "group") and not plan.net.pretrained
    rate = _FAST if fast else _USUAL
    notes.append(f"Learning rate {rate:g}{', which a net with normalised layers bears' if fast else ''}.")
    return plan.change(training={"learning_rate": rate})


_NORMALISATION = {
    "zscore": "Intensities: every image is brought to mean 0 and deviation 1.",
    "percentile": "Intensities: every image is stretched between its percentiles.",
    "rgb": "Intensities: colours are scaled from their full range.",
    "colour": "Intensities: colours are scaled from their full range, grey images stretched between percentiles.",
    "ct": "Intensities: CT, clipped to {how.low:.0f} .. {how.high:.0f} as seen on the classes.",
    "none": "Intensities: as they are.",
}


def _net(plan: Plan, dataset: Dataset, samples: Sequence[Sample], device: torch.device, notes: list[str]) -> Plan:
    facts = NETS.facts(plan.net.name)
    able, made_for_3d = facts.get("dims", (2, 3)), facts.get("native") == 3
    if plan.given("net", "dims"):
        dims = plan.net.dims
        if dims > dataset.ndim:
            raise PlanError(
                "A 3D net needs volumes, and these images are 2D.", hint="Leave out --dims, or use --dims 2."
            )
    else:
        deep = dataset.ndim == 3 and 3 in able and not plan.data.neighbours and _worth_3d(samples)
        dims = 3 if deep and (made_for_3d or device.type != "cpu" or 2 not in able) else 2
        if dims not in able:
            dims = able[0]
        if dataset.ndim == 3:
            why = ", which a processor learns far sooner; with hours, or a graphics card, choose 3D" if deep else ""
            whole = "3D: the volumes are learned as volumes."
            notes.append(whole if dims == 3 else f"2D: the volumes are learned plane by plane{why}.")
    neighbours = plan.data.neighbours
    if neighbours and (dims == 3 or dataset.ndim == 2):
        raise PlanError(
            "Neighbouring planes are for 2D nets on volumes.",
            hint="Set data.neighbours to 0, or dims to 2 for volumes.",
        )
    if neighbours:
        notes.append(f"2.5D: {neighbours} planes on each side of every plane are seen too, as channels.")
    outputs = 1 if len(dataset.classes) == 2 else len(dataset.classes)
    if plan.given("net", "outputs") and plan.net.outputs == len(dataset.classes):
        outputs = plan.net.outputs
    channels = dataset.in_channels * (2 * neighbours + 1)
    changes: dict[str, object] = {"dims": dims, "in_channels": channels, "outputs": outputs}
    decided = decide_net(plan, device.type)
    if decided.get("width", 1.0) != 1.0:
        notes.append("Half the paper's width, about four times faster on this processor (width 1 is the paper's).")
    elif "width" in decided:
        notes.append("The paper's width, which this device has the speed for.")
    if "norm" in decided:
        notes.append(
            "Instance normalisation, which holds with one or two patches a step (norm 'paper' keeps the paper's)."
        )
    return plan.change(net={**changes, **decided})


def decide_net(plan: Plan, device: str) -> dict[str, object]:
    """Fields of the net that `plan` leaves open and that need no look at the images, for a type of device."""
    if plan.net.pretrained:  # start weights fit the paper's net only
        return {}
    decisions: dict[str, object] = {"width": 1.0 if device == "cuda" else 0.5, "norm": "instance"}
    return {name: value for name, value in decisions.items() if not plan.given("net", name)}


def _worth_3d(samples: Sequence[Sample]) -> bool:
    """Enough planes, and not so thick that neighbours have little in common."""
    planes = min(sample.image.shape[0] for sample in samples)
    spacing = samples[0].image.geometry.spacing
    return planes >= 8 and spacing[0] / min(spacing[1:]) <= 6


def _patch(
    plan: Plan, samples: Sequence[Sample], device: torch.device, notes: list[str], control: Control | None
) -> Plan:
    dims, given = plan.net.dims, plan.training.patch
    if given is not None and len(given) < dims:
        raise PlanError(f"The patch {given} has two sides, a 3D net needs three.", hint="Give (Z, Y, X).")
    if given is not None:
        return plan if len(given) == dims else plan.change(training={"patch": given[-dims:]})
    largest = np.max([sample.image.shape[-dims:] for sample in samples], axis=0)
    least, most = _SIDES[dims, device.type == "cuda"]
    if dims == 2 and plan.data.labels == "mask":
        least = max(least, 256)
    size = object_size(samples, control)
    side = least if size is None else int(np.clip(-(-_SEEN * size.width // 32) * 32, least, most))
    wanted = [side] * dims
    if dims == 3:
        spacing = samples[0].image.geometry.spacing
        ratio = spacing[0] / min(spacing[1:])
        wanted[0] = max(16, side // 4) if ratio > 3 else side // 2 if ratio > 1.5 else side
    patch = tuple(int(min(side, -(-whole // 16) * 16)) for side, whole in zip(wanted, largest, strict=True))
    why = f": the objects are about {size.width:.0f} pixels wide, as {size.seen_in} show" if size else ""
    if dims == 3 and wanted[0] < side:
        why += f"{' and' if why else ':'} planes are {ratio:.1f} times as far apart as pixels"
    notes.append(f"Patches of {' x '.join(map(str, patch))} voxels{why}.")
    return plan.change(training={"patch": patch})


def _depth(plan: Plan, notes: list[str]) -> Plan:
    """As many levels as the paper's, but for the last ones where they would see the patch in a few voxels only."""
    if plan.given("net", "depth") or plan.net.pretrained or NETS.facts(plan.net.name).get("depth"):
        return plan
    factor, longest = net_cost(plan.net, plan.patch).divisor, max(plan.patch)
    levels = paper = int(np.log2(factor)) + 1
    while levels > 3 and longest / 2 ** (levels - 1) < _BOTTOM:
        levels -= 1
    if levels == paper:
        return plan
    try:
        shallower = plan.change(net={"depth": levels})
        net_cost(shallower.net, plan.patch)
    except PlanError:  # a net whose levels cannot be chosen
        return plan
    notes.append(f"{levels} levels in place of {paper}: the next would see a patch in less than {_BOTTOM} voxels.")
    return shallower


def _batch(plan: Plan, device: torch.device, notes: list[str]) -> Plan:
    if plan.training.batch_size is not None:
        return plan
    room = (2**20 if device.type == "cuda" else 2**17) * plan.net.dims // 2
    size = int(np.clip(room // int(np.prod(plan.patch)), 1, 16))
    notes.append(f"{_patches(size)} a step, about what keeps this device busy.")
    return plan.change(training={"batch_size": size})


def _patches(number: int) -> str:
    return f"{number} patch{'es' * (number != 1)}"


def _fit_memory(plan: Plan, asked: Plan, device: torch.device, notes: list[str], free: int | None) -> Plan:
    """Fewer patches a step, then smaller ones, then a narrower net, until a step fits; what was asked for stays."""
    room = free_memory(device) if free is None else free
    if room is None:
        return plan
    precision: str = plan.training.precision
    if precision == "auto":
        precision = half_precision(device) or "float32" if device.type == "cuda" else "float32"

    def needs(plan: Plan) -> int:
        return step_memory(plan.net, plan.patch, plan.training.batch_size or 1, precision)

    before = plan
    for smaller in (_fewer_patches, _smaller_patch, _narrower):
        while needs(plan) > _SHARE * room and (less := smaller(plan, asked)) is not None:
            plan = less
    if plan != before:
        training, width = plan.training, plan.net.width
        sides = " x ".join(map(str, plan.patch))
        notes.append(
            f"{room / 2**30:.1f} GB of memory are free, and a step as usual needs {needs(before) / 2**30:.1f}: "
            f"{_patches(training.batch_size or 1)} of {sides} a step, width {width:g}."
        )
    return plan


def _fewer_patches(plan: Plan, asked: Plan) -> Plan | None:
    batch = plan.training.batch_size or 1
    if asked.training.batch_size is not None or batch == 1:
        return None
    return plan.change(training={"batch_size": batch // 2})


def _smaller_patch(plan: Plan, asked: Plan) -> Plan | None:
    least = 64 if plan.net.dims == 2 else 32
    if asked.training.patch is not None or max(plan.patch) <= least:
        return None
    half = max(least, max(plan.patch) // 2 // 16 * 16)
    return plan.change(training={"patch": tuple(min(side, half) for side in plan.patch)})


def _narrower(plan: Plan, asked: Plan) -> Plan | None:
    if asked.given("net", "width") or plan.net.pretrained or plan.net.width <= 0.25:
        return None
    return plan.change(net={"width": plan.net.width / 2})


def _augmentation(
    plan: Plan, dataset: Dataset, samples: Sequence[Sample], notes: list[str], control: Control | None
) -> Plan:
    """Usual strength; less where there is much to see anyway; no flips where they would turn one class into another."""
    if not plan.given("training", "augment"):
        many = dataset.labels == "mask" and len(samples) >= _MANY
        plan = plan.change(training={"augment": 0.5 if many else 1.0})
        images = f"{len(samples)} image{'s' * (len(samples) != 1)}"
        notes.append(f"Augmentation at {'half' if many else 'its usual'} strength, for {images} to learn from.")
    recipe = plan.training.recipe
    if plan.training.augment and not recipe.keys() >= {"flip", "quarter"} and recipe.get("flip") != 0:
        pair = mirrored_pair(dataset.classes, samples, control)
        if pair is not None:
            plan = plan.change(training={"recipe": {"flip": 0.0, "quarter": 0.0, **recipe}})
            notes.append(f"Patches are never mirrored: {pair[0]} would become {pair[1]}.")
    return plan
