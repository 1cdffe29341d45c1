"""Why a button is disabled, in the user's words; ``""`` when it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_unetseg.registry import Registry

if TYPE_CHECKING:
    from napari_unetseg.workspace.desk import Desk

__all__ = ["REASONS"]

REASONS: Registry[Callable[[Desk], str]] = Registry("action")

_BUSY = {
    "training": "Training is running: stop it first, or wait.",
    "predicting": "A mask is being computed: wait, or stop it first.",
    "segmenting": "A folder is being segmented: wait, or stop it first.",
    "comparing": "Architectures are being compared: wait, or stop it first; what is finished is kept.",
    "undoing": "A run is being taken back: wait a moment.",
}
_READ_ONLY = "The project is open for reading only."
_TAKEN = "The project was taken over: press Take back in step 1 to go on here."
_SAVING = "The mask is being saved."
_NO_PROJECT = "Open or create a project first."
_NO_CASE = "Choose an image first."
_NO_IMAGES = "Add an image first."
_NO_MODEL = "Train a model first."
_NO_MASK = "There is no mask of this image yet: train, or press Predict."


def _project(w: Desk) -> str:
    return "" if w.project else _NO_PROJECT


def _case(w: Desk) -> str:
    return _project(w) or ("" if w.case else _no_case(w))


def _read_only(w: Desk) -> str:
    return _TAKEN if w.taken else _READ_ONLY if w.read_only else ""


@REASONS.register("add_images")
def _add(w: Desk) -> str:
    return _project(w) or _read_only(w)


@REASONS.register("undo_remove")
def _undo_remove(w: Desk) -> str:
    return _add(w) or ("" if w.removed else "No image was taken out of the project.")


@REASONS.register("annotate")
def _annotate(w: Desk) -> str:
    return _case(w) or _read_only(w)


@REASONS.register("train")
def _train(w: Desk) -> str:
    busy = "" if w.stage == "predicting" else _BUSY.get(w.stage, "")  # a mask that nobody waits for makes way
    return _add(w) or _no_images(w) or busy or missing_strokes(w.stroke_counts()) or _net(w)


@REASONS.register("compare")
def _compare(w: Desk) -> str:
    busy = "" if w.stage == "predicting" else _BUSY.get(w.stage, "")
    return _add(w) or _no_images(w) or busy or missing_strokes(w.stroke_counts())


@REASONS.register("resume")
def _resume(w: Desk) -> str:
    if reason := _add(w) or ("" if w.stage == "predicting" else _BUSY.get(w.stage, "")):
        return reason
    return "" if w.unfinished else "No training was interrupted."


@REASONS.register("stop")
def _stop(w: Desk) -> str:
    if w.stage == "idle":
        return "Nothing is running."
    return "Stopping: the step at hand is being finished." if w.stopping else ""


@REASONS.register("predict")
def _predict(w: Desk) -> str:
    return _case(w) or _BUSY.get(w.stage, "") or _model(w) or w.why_unlike()


@REASONS.register("accept")
def _accept(w: Desk) -> str:
    return _correct(w) or (_SAVING if w.saving else "")


@REASONS.register("correct")
def _correct(w: Desk) -> str:
    return _annotate(w) or ("" if w.prediction else _NO_MASK)


@REASONS.register("undo_accept")
def _undo_accept(w: Desk) -> str:
    if reason := _annotate(w) or (_SAVING if w.saving else ""):
        return reason
    return "" if w.accepted else "The mask of this image was not accepted yet."


@REASONS.register("accept_part")
def _accept_part(w: Desk) -> str:
    return _accept(w) or ("All of the mask is accepted already." if w.accepted else "")


@REASONS.register("undo_part")
def _undo_part(w: Desk) -> str:
    if reason := _annotate(w) or (_SAVING if w.saving else ""):
        return reason
    if w.accepted:
        return "All of the mask is accepted: undo that first."
    return "" if getattr(w, "accepted_parts", ()) else "No slice or class of this image was accepted yet."


@REASONS.register("go_back")
def _go_back(w: Desk) -> str:
    if reason := _add(w) or _BUSY.get(w.stage, ""):
        return reason
    return "" if any(not one.current for one in w.rounds) else "There is no earlier round to go back to."


@REASONS.register("undo_round")
def _undo_round(w: Desk) -> str:
    if reason := _add(w) or _model(w) or _BUSY.get(w.stage, ""):
        return reason
    return "" if getattr(w, "round_before", None) is not None else "It is not known what was in use before this round."


@REASONS.register("segment_folder")
def _segment_folder(w: Desk) -> str:
    return _project(w) or _BUSY.get(w.stage, "") or _model(w)


@REASONS.register("undo_segment")
def _undo_segment(w: Desk) -> str:
    if reason := _project(w) or _BUSY.get(w.stage, ""):
        return reason
    return "" if any(row["mask"] for row in w.folder_rows) else "No folder was segmented since the project was opened."


@REASONS.register("send_back")
def _send_back(w: Desk) -> str:
    return _add(w)


@REASONS.register("undo_send_back")
def _undo_send_back(w: Desk) -> str:
    return _add(w) or ("" if getattr(w, "sent_back", ()) else "Nothing was sent back to annotation.")


@REASONS.register("next")
def _next(w: Desk) -> str:
    return _project(w) or _no_images(w) or ("" if len(w.cases) > 1 else "This is the only image of the project.")


def missing_strokes(counts: dict[str, int]) -> str:
    """Say which strokes are missing before anything can be learned: at least two classes must have some."""
    painted = [name for name, voxels in counts.items() if voxels]
    if len(painted) >= 2:
        return ""
    names = list(counts)
    missing = [name for name in names if name not in painted]
    if not painted:
        return f"Paint at least one stroke of {names[0]} and one of {_either(names[1:])}; there are none yet."
    other = names[0] if painted != names[:1] else _either(names[1:])
    have = "has" if len(missing) == 1 else "have"
    return f"Paint at least one stroke of {painted[0]} and one of {other}; {_both(missing)} {have} none yet."


def _either(names: list[str]) -> str:
    return " or ".join(names)


def _both(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _no_images(w: Desk) -> str:
    return "" if w.cases else _NO_IMAGES


def _no_case(w: Desk) -> str:
    return _no_images(w) or _NO_CASE


def _net(w: Desk) -> str:
    return w.net_check.get("problem", "")


def _model(w: Desk) -> str:
    return "" if w.model else _NO_MODEL
