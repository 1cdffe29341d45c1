"""From a `NetSpec` to a net: checks, options, free composition of parts, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from napari_unetseg.errors import ModelError, PlanError
from napari_unetseg.nets.assembly import BLOCKS, DOWNS, NETS, SKIPS, UPS, Padded, Parts, UShape
from napari_unetseg.nets.blocks import Layers, scaled
from napari_unetseg.nets.pretrained import WEIGHTS, find_weights, read_weights
from napari_unetseg.nets.speed import step_time
from napari_unetseg.nets.together import Together
from napari_unetseg.plan import NetSpec

__all__ = ["Request", "build", "count_parameters", "describe_net", "measure_spec", "unpadded"]

_PARTS = {"block": BLOCKS, "down": DOWNS, "up": UPS, "skip": SKIPS}
_BESIDE = "instant"  # part that puts the instant model beside a net: its anisotropy and channels
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Request:
    """What a family's recipe is asked for.

    Attributes
    ----------
    spec : NetSpec
        The user's wishes.
    layers : Layers
        What parts are made of, as spec and paper say.
    options : mapping
        The family's own options, each with a value: the one asked for, or the default.
    """

    spec: NetSpec
    layers: Layers
    options: Mapping[str, Any]

    def widths(self, *paper: int) -> tuple[int, ...]:
        """Features per level: the paper's, doubled on to `depth` levels or cut to them, times `width`."""
        depth = self.spec.depth or len(paper)
        levels = [*paper, *(paper[-1] * 2**more for more in range(1, depth - len(paper) + 1))][:depth]
        return tuple(scaled(width, self.spec.width) for width in levels)


def build(spec: NetSpec, *, start: bool = True) -> nn.Module:
    """Build the net that `spec` describes.

    Parameters
    ----------
    spec : NetSpec
        Which net. ``norm="paper"`` keeps the paper's normalisation with its exact parameters; where that is a batch
        normalisation it is one whose evaluation agrees with its training at any batch size (`BatchNorm`).
    start : bool
        Whether to read the start weights that ``spec.pretrained`` names; a model that brings its own weights needs
        none.

    Returns
    -------
    nn.Module
        ``forward(x)`` takes float (B, C, [Z,] Y, X) of any size and returns logits (B, outputs, [Z,] Y, X), or a list
        of them in deeply supervised training. ``divisor`` is what it pads sizes to.

    Raises
    ------
    PlanError
        When the net cannot do what is asked: these dims, this depth, an unknown part or option.
    """
    net = unpadded(spec)
    if start and spec.pretrained:
        _load_start_weights(net, spec)
    return Padded(net, net.divisor)


def unpadded(spec: NetSpec) -> nn.Module:
    """Build the net that `spec` describes for sizes that its ``divisor`` divides."""
    if _BESIDE in spec.parts:
        return _with_instant(spec)
    facts = NETS.facts(spec.name)
    _check(spec, facts)
    layers = Layers(spec.dims, spec.norm, **facts.get("layers", {}))
    request = Request(spec, layers, _options(spec, facts))
    made = NETS[spec.name](request)
    if isinstance(made, Parts):
        made = UShape(
            _composed(made, spec.parts),
            layers,
            spec.in_channels,
            spec.outputs,
            dropout=spec.dropout,
            deep_supervision=bool(spec.parts.get("deep_supervision", False)),
        )
    elif chosen := [part for part in (*_PARTS, "deep_supervision") if part in spec.parts]:
        raise PlanError(
            f"{facts['title']} is not made of parts: {', '.join(chosen)} cannot be chosen.", hint="Leave it out."
        )
    return made


def _with_instant(spec: NetSpec) -> Together:
    """Build the net with the instant one beside it, whose anisotropy and channels its part says."""
    parts = dict(spec.parts)
    try:
        anisotropy, channels = parts.pop(_BESIDE)
        instant = NetSpec(
            name="instant", dims=spec.dims, in_channels=channels, outputs=spec.outputs, parts={"anisotropy": anisotropy}
        )
    except (TypeError, ValueError):
        raise PlanError(
            f"The part {_BESIDE!r} is {spec.parts[_BESIDE]!r}, not an anisotropy and a number of channels.",
            hint="Leave it out: training puts it there.",
        ) from None
    if instant.in_channels > spec.in_channels:
        raise PlanError(f"The part {_BESIDE!r} wants {channels} channels of {spec.in_channels}.", hint="Leave it out.")
    return Together(unpadded(spec.model_copy(update={"parts": parts})), unpadded(instant), channels, spec.outputs)


def count_parameters(net: nn.Module) -> dict[str, int]:
    """Count as the papers do.

    Parameters
    ----------
    net : nn.Module
        Any net.

    Returns
    -------
    dict of str to int
        ``trainable``: what the optimiser changes; ``frozen``: fixed kernels; ``total``: both, and the running mean and
        variance of batch normalisations (Keras' "total params").
    """
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in net.parameters() if not p.requires_grad)
    statistics = 0
    for name, buffer in net.named_buffers():
        if name.rpartition(".")[2] in _STATISTICS:
            statistics += buffer.numel()
        elif buffer.is_floating_point():
            frozen += buffer.numel()
    return {"trainable": trainable, "total": trainable + frozen + statistics, "frozen": frozen}


def describe_net(name: str, dims: int | None = None, in_channels: int = 1, outputs: int = 1) -> dict[str, Any]:
    """Describe a net as ``napari-unetseg nets --json`` does; nothing is allocated.

    Parameters
    ----------
    name : str
        Name of the net.
    dims : {2, 3} or None
        Dims to count the parameters for; None means those the net was made for.
    in_channels, outputs : int
        Channels of the images and of the logits.

    Returns
    -------
    dict
        name, title, family, dims (those it can do), in_channels, outputs, parameters {trainable, total, frozen},
        divisor, pretrained (name of the start weights it can take, or None), paper, sentence, step_time (see
        `napari_unetseg.nets.speed.step_time`).
    """
    facts = NETS.facts(name)
    able = facts.get("dims", (2, 3))
    dims = dims or facts.get("native", able[0])
    measured = measure_spec(NetSpec(name=name, dims=dims, in_channels=in_channels, outputs=outputs))
    return {
        "name": name,
        "title": facts["title"],
        "family": facts["family"],
        "dims": list(able),
        "in_channels": in_channels,
        "outputs": outputs,
        "parameters": measured["parameters"],
        "divisor": measured["divisor"],
        "pretrained": facts.get("pretrained"),
        "paper": facts["paper"],
        "sentence": facts["sentence"],
        "step_time": step_time(name, dims),
    }


def measure_spec(spec: NetSpec) -> dict[str, Any]:
    """Parameters and divisor of the net that `spec` describes; nothing is allocated.

    Raises
    ------
    PlanError
        When `build` would raise one: start weights that are not there included.
    """
    with torch.device("meta"):
        net = build(spec, start=False)
    if spec.pretrained:
        find_weights(NETS.facts(spec.name)["pretrained"], spec.pretrained)
    return {"parameters": count_parameters(net), "divisor": net.divisor}


def _check(spec: NetSpec, facts: Mapping[str, Any]) -> None:
    able = facts.get("dims", (2, 3))
    if spec.dims not in able:
        others = [name for name in NETS if spec.dims in NETS.facts(name).get("dims", (2, 3))]
        raise PlanError(f"{facts['title']} cannot do {spec.dims}D.", hint=f"These can: {', '.join(others)}.")
    depth = facts.get("depth")
    if depth and spec.depth not in (None, depth):
        raise PlanError(
            f"{facts['title']} always has {depth} resolution levels, not {spec.depth}.", hint="Leave out the depth."
        )
    if spec.pretrained and not facts.get("pretrained"):
        able_names = [name for name in NETS if NETS.facts(name).get("pretrained")]
        raise PlanError(
            f"There are no start weights for {facts['title']}.", hint=f"These take some: {', '.join(able_names)}."
        )
    if spec.pretrained and (spec.width != 1 or spec.norm not in ("paper", "batch")):
        raise PlanError(
            f"Start weights fit {facts['title']} only at its own width and normalisation.",
            hint="Set width to 1 and norm to paper, or leave out the start weights.",
        )


def _load_start_weights(net: nn.Module, spec: NetSpec) -> None:
    backbone = NETS.facts(spec.name)["pretrained"]
    state = read_weights(backbone, str(spec.pretrained))
    try:
        (net.encoder if isinstance(net, UShape) else net).load_imagenet(state)
    except (RuntimeError, KeyError) as error:
        raise ModelError(
            f"The start weights {spec.pretrained} are not those of {backbone}.",
            hint=f"Use torchvision's {WEIGHTS[backbone]}.",
        ) from error


def _options(spec: NetSpec, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the family with the values asked for; the first of the values allowed is the default."""
    allowed: Mapping[str, tuple[Any, ...]] = facts.get("options", {})
    unknown = set(spec.parts) - set(allowed) - set(_PARTS) - {"deep_supervision"}
    if unknown:
        known = ", ".join([*_PARTS, "deep_supervision", *allowed])
        raise PlanError(f"{facts['title']} has no part or option {sorted(unknown)[0]!r}.", hint=f"It has: {known}.")
    chosen = {option: values[0] for option, values in allowed.items()}
    for option in chosen.keys() & spec.parts.keys():
        value = spec.parts[option]
        value = tuple(value) if isinstance(value, list) else value
        if value not in allowed[option]:
            raise PlanError(
                f"{facts['title']} cannot have {option} = {value!r}.",
                hint=f"Possible: {', '.join(map(str, allowed[option]))}.",
            )
        chosen[option] = value
    return chosen


def _composed(parts: Parts, wanted: Mapping[str, Any]) -> Parts:
    """Replace parts by those that the user names."""
    chosen = {kind: registry[wanted[kind]] for kind, registry in _PARTS.items() if kind in wanted}
    if parts.encoder and chosen.keys() & {"down"}:
        raise PlanError("The encoder of this net is a whole: its down-sampling cannot be chosen.", hint="Leave it out.")
    if "block" in chosen:  # everywhere, so that a net with a block of its own in some places really gets the other
        chosen |= {"stem": None, "bottom": None, "decoder": None}
    return replace(parts, **chosen)
