"""Doubt, guidance and explanations, for the image or the plane that the user looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_unetseg.events import Control
from napari_unetseg.explain import EXPLANATIONS, explain, object_at
from napari_unetseg.figures import reliability_diagram
from napari_unetseg.guidance import Suggestion, SuspiciousStroke, candidates_of, find_slips, suggest
from napari_unetseg.inference import predict_doubt
from napari_unetseg.validate import cross_check
from napari_unetseg.worker.verbs import VERBS, Args, Bench, Result, Run, load_image, need, open_project

__all__ = ["doubt_case", "doubtful_strokes", "explain_case", "explanations", "propose_next", "reliability"]


@VERBS.register("doubt")
def doubt_case(args: Args, control: Control, bench: Bench) -> Run:
    """Say how sure a model is, or several are.

    ``{project, case, model, index, tta, dropout_passes, focus}`` (or ``{image, ...}``; or ``models``, a list, in place
    of ``model``) to ``{probability, entropy, disagreement, mask, passes, index}``: paths of arrays ``(K, [Z,] Y, X)``
    and ``([Z,] Y, X)``, of plane `index` alone where it is given. `disagreement` is None after one pass. ``tta`` is
    ``none``, ``flips`` or ``turns``; it and ``dropout_passes`` are as the model's plan says when not given.
    """
    folders = args.get("models") or [need(args, "model")]
    models, index = [bench.model(folder) for folder in folders], args.get("index")
    image = load_image(args)
    plane = index if image.ndim == 3 else None
    belief = yield from predict_doubt.events(
        models,
        image,
        tta=args.get("tta"),
        dropout_passes=args.get("dropout_passes"),
        control=control,
        focus=args.get("focus"),
        plane=plane,
    )
    mask = belief.mask(models[0].plan.inference.threshold)
    disagreement = belief.disagreement
    return {
        "probability": bench.put("probability", belief.probability),
        "entropy": bench.put("entropy", belief.entropy),
        "disagreement": None if disagreement is None else bench.put("disagreement", disagreement),
        "mask": bench.put("doubt-mask", mask),
        "passes": belief.passes,
        "index": plane,
    }


@VERBS.register("reliability")
def reliability(args: Args, control: Control, bench: Bench) -> Result:
    """Say whether 0.8 means 0.8: ``{model}`` to ``{picture, temperature, ece_before, ece_after, voxels, rule}``.

    As measured where the model's score was; ``picture`` is the path of an array ``(Y, X, 3)`` uint8. All are None where
    nothing was held out.
    """
    scores = bench.model(need(args, "model")).scores
    if scores is None or scores.calibration is None:
        return dict.fromkeys(("picture", "temperature", "ece_before", "ece_after", "voxels", "rule"))
    found = scores.calibration
    picture = bench.put("reliability", reliability_diagram(found["before"], found["after"]))
    numbers = {key: found[key] for key in ("temperature", "ece_before", "ece_after", "voxels")}
    return {"picture": picture, "rule": scores.rule, **numbers}


@VERBS.register("propose")
def propose_next(args: Args, control: Control, bench: Bench) -> Run:
    """Propose what to annotate next.

    ``{project, revisions, model, cases, number, seconds, random_every, seed}``, all but the first and `model` optional,
    to ``{suggestions: [{case, index, point, box, label, class, doubt, drawn, reason, window, mask}]}``, the first to be
    looked at first. ``point`` is ``[y, x]``, ``box`` and ``window`` ``[[y0, y1], [x0, x1]]``, `index` the plane (None
    of a 2D image), ``mask`` the path of an array ``(Y, X)`` with what the model makes of the window: the whole plane,
    unless it is large. Stopped early, it answers with what it has.
    """
    project, model = open_project(args), bench.model(need(args, "model"))
    chosen = {key: args[key] for key in ("number", "seconds", "random_every", "seed") if args.get(key) is not None}
    candidates = candidates_of(project, args.get("cases"))
    found = yield from suggest.events(candidates, model, control=control, **chosen)
    said = [_suggestion(one, model.classes[one.label]) for one in found]
    for number, (one, values) in enumerate(zip(found, said, strict=True)):
        values["mask"] = bench.put(f"proposal-{number}", one.mask)
    return {"suggestions": said}


@VERBS.register("doubtful_strokes")
def doubtful_strokes(args: Args, control: Control, bench: Bench) -> Run:
    """Find strokes that look like slips.

    ``{project, revisions, model, cases, confidence, seconds}`` to ``{strokes: [{case, index, point, box, painted,
    predicted, voxels, confidence, by, reason}]}``, the largest first. Without ``model`` they are judged by small models
    that have not learned them, which takes some seconds and finds more; with it by that one. ``by`` is ``model`` or
    ``plane`` (the next one contradicts); ``painted`` and ``predicted`` are class indices; the rest as for ``propose``.
    """
    project = open_project(args)
    candidates = candidates_of(project, args.get("cases"))
    chosen = {"confidence": args["confidence"]} if args.get("confidence") is not None else {}
    if args.get("model") is None:
        found = yield from cross_check.events(candidates, project.classes, control=control, **chosen)
    else:
        chosen |= {"seconds": args["seconds"]} if args.get("seconds") is not None else {}
        found = yield from find_slips.events(candidates, bench.model(args["model"]), control=control, **chosen)
    return {"strokes": [_stroke(one, project.classes) for one in found]}


@VERBS.register("explanations")
def explanations(args: Args, control: Control, bench: Bench) -> Result:
    """Ways to explain: ``{}`` to ``{methods: {name: title}}``."""
    return {"methods": {name: EXPLANATIONS.facts(name)["title"] for name in EXPLANATIONS}}


@VERBS.register("explain")
def explain_case(args: Args, control: Control, bench: Bench) -> Run:
    """Show what a model looks at.

    ``{project, case, model, method, class_index, index, point}`` (or ``{image, ...}``) to ``{maps, names, legend,
    class_index, class, index, region, voxels}``: `maps` is the path of an array ``(M, [Z,] Y, X)`` in [0, 1], of plane
    `index` alone where it is given. With ``point``, ``[y, x]`` on that plane (``[z, y, x]`` without `index`), the
    object there is explained, as its class unless `class_index` says otherwise; ``region`` is then the path of a bool
    array of it, else None. ``method`` is one of ``explanations``.
    """
    model, image = bench.model(need(args, "model")), load_image(args)
    plane = args.get("index") if image.ndim == 3 else None
    label, region = args.get("class_index"), None
    if (point := args.get("point")) is not None:
        belief = yield from predict_doubt.events(
            model, image, tta="none", dropout_passes=0, control=control, plane=plane
        )
        region, label = object_at(belief.mask(model.plan.inference.threshold), point, label)
    label = len(model.classes) - 1 if label is None else label
    found = explain(need(args, "method"), model, image, label, region, plane, control)
    return {
        "maps": bench.put("explanation", found.maps.data),
        "names": list(found.names),
        "legend": found.legend,
        "class_index": label,
        "class": model.classes[label],
        "index": plane,
        "region": None if region is None else bench.put("explained", region),
        "voxels": None if region is None else int(region.sum()),
    }


def _suggestion(one: Suggestion, name: str) -> dict[str, Any]:
    return {
        "case": one.case,
        "index": one.index,
        "point": list(one.point),
        "box": _box(one.box),
        "label": one.label,
        "class": name,
        "doubt": round(one.doubt, 4),
        "drawn": one.drawn,
        "reason": one.reason,
        "window": _box(one.window),
    }


def _stroke(one: SuspiciousStroke, classes: tuple[str, ...]) -> Mapping[str, Any]:
    box = one.region[-2:]
    planes = one.region[0] if len(one.region) == 3 else None
    return {
        "case": one.case,
        "index": None if planes is None else (planes.start + planes.stop - 1) // 2,
        "point": [(part.start + part.stop - 1) // 2 for part in box],
        "box": _box(box),
        "painted": one.painted,
        "predicted": one.predicted,
        "voxels": one.voxels,
        "confidence": round(float(np.clip(one.confidence, 0, 1)), 4),
        "by": one.by,
        "reason": one.reason(classes),
    }


def _box(region: tuple[slice, ...]) -> list[list[int]]:
    return [[int(part.start), int(part.stop)] for part in region]
