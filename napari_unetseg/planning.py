"""A plan that completes itself: every decision the user left open, taken from the images, with a sentence for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_unetseg.data import Dataset, Sample, fit_normalisation
from napari_unetseg.data.augment import make_recipe
from napari_unetseg.devices import Compute
from napari_unetseg.errors import PlanError
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import NETS
from napari_unetseg.optim import OPTIMISERS, SCHEDULES
from napari_unetseg.plan import Plan
from napari_unetseg.postprocess import check_steps

__all__ = ["complete_plan", "decide_net"]

_MINUTES = 5.0


def complete_plan(
    plan: Plan, dataset: Dataset, samples: Sequence[Sample], compute: Compute
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
    compute : Compute
        What it will run on.

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
    plan = _net(plan, dataset, samples, compute, notes)
    plan = _patch(plan, dataset, samples, compute, notes)
    if plan.training.minutes is None and plan.training.epochs is None:
        plan = plan.change(training={"minutes": _MINUTES})
        notes.append(f"Trains for {_MINUTES:g} minutes; Stop keeps the best so far.")
    if plan.data.normalisation is None:
        how = fit_normalisation(samples)
        plan = plan.change(data={"normalisation": how.model_dump()})
        notes.append(_NORMALISATION[how.kind].format(how=how))
    return plan.change(data={"labels": dataset.labels}), tuple(notes)


_NORMALISATION = {
    "zscore": "Intensities: every image is brought to mean 0 and deviation 1.",
    "percentile": "Intensities: every image is stretched between its percentiles.",
    "rgb": "Intensities: colours are scaled from their full range.",
    "ct": "Intensities: CT, clipped to {how.low:.0f} .. {how.high:.0f} as seen on the classes.",
    "none": "Intensities: as they are.",
}


def _net(plan: Plan, dataset: Dataset, samples: Sequence[Sample], compute: Compute, notes: list[str]) -> Plan:
    able = NETS.facts(plan.net.name).get("dims", (2, 3))
    if plan.given("net", "dims"):
        dims = plan.net.dims
        if dims > dataset.ndim:
            raise PlanError(
                "A 3D net needs volumes, and these images are 2D.", hint="Leave out --dims, or use --dims 2."
            )
    else:
        dims = 3 if dataset.ndim == 3 and 3 in able and not plan.data.neighbours and _worth_3d(samples) else 2
        if dims not in able:
            dims = able[0]
        if dataset.ndim == 3:
            notes.append(
                "3D: the volumes are learned as volumes."
                if dims == 3
                else "2D: the volumes are learned plane by plane."
            )
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
    decided = decide_net(plan, compute.device.type)
    if decided.get("width", 1.0) != 1.0:
        notes.append("Half the paper's width, about four times faster on this processor (width 1 is the paper's).")
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


def _patch(plan: Plan, dataset: Dataset, samples: Sequence[Sample], compute: Compute, notes: list[str]) -> Plan:
    dims = plan.net.dims
    largest = np.max([sample.image.shape[-dims:] for sample in samples], axis=0)
    gpu = compute.device.type == "cuda"
    if plan.training.patch is None:
        if dims == 2:
            side = 256 if dataset.labels == "mask" else 128
            wanted: tuple[int, ...] = (side, side)
        else:
            spacing = samples[0].image.geometry.spacing
            flat = 2 if spacing[0] > 1.5 * min(spacing[1:]) else 1
            wanted = (48 // flat, 48, 48) if not gpu else (96 // flat, 96, 96)
        patch = tuple(int(min(side, -(-size // 16) * 16)) for side, size in zip(wanted, largest, strict=True))
        plan = plan.change(training={"patch": patch})
        notes.append(f"Patches of {' x '.join(map(str, patch))} voxels.")
    elif len(plan.training.patch) < dims:
        raise PlanError(f"The patch {plan.training.patch} has two sides, a 3D net needs three.", hint="Give (Z, Y, X).")
    elif len(plan.training.patch) > dims:
        plan = plan.change(training={"patch": plan.training.patch[-dims:]})
    if plan.training.batch_size is None:
        voxels = int(np.prod(plan.training.patch or (1,)))
        room = (2**20 if gpu else 2**17) * plan.net.dims // 2
        plan = plan.change(training={"batch_size": int(np.clip(room // voxels, 1, 16))})
    return plan
