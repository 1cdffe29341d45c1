"""What tests of the window's drawers share: a model without weights, and answers to what was asked of the worker."""

from __future__ import annotations

import json

import numpy as np

from napari_unetseg.plan import Plan


def model_folder(bench, number=1, **facts):
    """A model of the project, as far as the window looks at it."""
    folder = bench.workspace.project.path / "models" / f"round-{number:03d}"
    folder.mkdir(parents=True)
    classes = [one.name for one in bench.workspace.classes]
    document = {"plan": json.loads(Plan().to_json()), "classes": classes, "scores": None, **facts}
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def arrays(folder, **named):
    """Write arrays as a worker does; their paths by name."""
    for name, array in named.items():
        np.save(folder / f"{name}.npy", array)
    return {name: str(folder / f"{name}.npy") for name in named}


def asked(jobs, verb):
    """Arguments of all requests of that kind."""
    return [args for name, args in jobs.submitted if name == verb]


def answer(jobs, verb, result, event="Done"):
    """Answer the newest request of that kind."""
    index = max(i for i, (name, _) in enumerate(jobs.submitted) if name == verb)
    facts = {"result": result} if event == "Done" else result
    jobs.listeners[index]({"id": index + 1, "event": event, **facts})


def segmented(bench, jobs, folder, case=None, mask=None):
    """Have the case in hand (or `case`) segmented, and answer with a mask (empty when none is given)."""
    if case is not None:
        bench.workspace.select_case(case)
    if bench.workspace.stage != "predicting":
        bench.workspace.predict_current()
    mask = np.zeros(bench.workspace.image().shape, np.uint8) if mask is None else mask
    answer(jobs, "predict", {**arrays(folder, mask=mask), "objects": None})
