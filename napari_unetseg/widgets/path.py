"""The steps as one path: each is done, next or blocked, and only one is next."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unetseg.workspace import Workspace
from napari_unetseg.workspace.reasons import missing_strokes

__all__ = ["named", "next_thing", "steps"]

_DOES = ("add_images", "add_images", "annotate", "train", "predict", "segment_folder", "compare")


def steps(workspace: Workspace, summaries: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """State of each step for its header.

    Parameters
    ----------
    workspace : Workspace
        Asked why a step cannot be taken.
    summaries : sequence of (str, str)
        What each panel says of itself, and ``done``, ``next`` or empty; in the order of the panels.

    Returns
    -------
    list of (str, str, str)
        Text, kind (``done``, ``next``, ``blocked`` or empty), and the whole reason of what is blocked.
    """
    found = []
    wanting = [number for number, (_, kind) in enumerate(summaries) if kind == "next"]
    chosen = _DOES.index("train") if workspace.stage == "training" else max(wanting, default=None)
    for number, ((text, kind), action) in enumerate(zip(summaries, _DOES, strict=True)):
        why = ""
        if kind == "next":  # the furthest that can be done; a class without strokes does not hold a training up
            kind = "next" if number == chosen else ""
        elif not kind and action != "compare" and (why := workspace.why_not(action)):
            text, kind = text or _needs(workspace), "blocked"
        found.append((text, kind, why))
    return found


def next_thing(workspace: Workspace) -> str:
    """The one next thing to do, in a sentence."""
    if workspace.project is None:
        return "Start a project, or try the sample project."
    if not workspace.cases:
        return "Add images: press Add files, or drop them here."
    if workspace.stage == "training":
        return "Training. Watch the mask; go on painting where it is wrong, or press Stop when it is good enough."
    if workspace.stage == "segmenting":
        return "Segmenting the folder."
    if workspace.stage == "comparing":
        return "Comparing architectures; go on painting, or press Stop to see what is finished."
    if workspace.taken:
        return "Somebody else works in this project now: press Take back, or look around."
    if workspace.read_only:
        return "Look around: the project is open for reading only."
    if workspace.stage == "predicting":
        return "Computing the mask of this image."
    if left := workspace.unfinished:
        return f"{named(left)} was interrupted: press Resume to go on where it was, or Train to begin anew."
    if reason := workspace.why_not("train"):
        return reason
    if workspace.model is None:
        return "Press Train to teach a net from your strokes."
    if workspace.accepted:
        return "The mask is saved. Go to the next image, or segment a folder."
    if workspace.prediction is None:
        return "Press “Predict this image” to see what the model makes of it."
    return "Look at the mask: accept it, or paint where it is wrong and train again."


def named(round_folder: str) -> str:
    """A round as people say it: ``"Round 3"`` for ``"round-003"``."""
    return f"Round {int(round_folder.rpartition('-')[2])}"


def _needs(workspace: Workspace) -> str:
    """The first thing that is missing, in two or three words."""
    if workspace.project is None:
        return "needs a project"
    if not workspace.cases:
        return "needs images"
    if missing_strokes(workspace.stroke_counts()) and not workspace.rounds:
        return "needs strokes"
    return "needs a net" if workspace.model is None else "in a moment"
