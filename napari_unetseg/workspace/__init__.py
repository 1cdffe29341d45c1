"""The Workspace: live, evented state behind the window. It holds no widget and no torch, and is tested without either.

Widgets read its properties, connect to its signals and call its methods; nobody else changes it. **All of it belongs to
one thread** (the window's): the `Jobs` given to it must deliver events on that thread, after `submit` returned.

Signals (psygnal; each carries the new value)
    ``project_changed(Project | None)``  a project was opened, created or closed; everything below may be new
    ``cases_changed(tuple[str, ...])``   names of the project's images
    ``case_changed(str | None)``         the image in hand
    ``classes_changed(tuple[Class, ...])``  names and colours, background first, with label values
    ``strokes_changed(str)``             the strokes of this case changed
    ``plan_changed(Plan)``               what the next training will do
    ``nets_changed(tuple[dict, ...])``   facts of each architecture, as ``napari-unetseg nets --json``
    ``net_checked(dict)``                size of the net that the plan asks for, or the ``problem`` with it
    ``stage_changed(str)``               ``idle``, ``training``, ``predicting``, ``segmenting``, ``comparing``,
                                         ``undoing``
    ``progress_changed(Progress)``       fraction done, seconds left, one sentence
    ``curves_changed(Curves)``           loss points and scores of the running (or last) training
    ``rounds_changed(tuple[Round, ...])``  every model of the project with its scores, and which one is current
    ``corrections_changed(tuple[Correction, ...])``  scores on strokes that the model scored had never seen, before any
                                         model learned them (prequential); with them `forecast`: what more are worth
    ``preview_changed(Preview | None)``  mask of the viewed region, while training
    ``leader_changed(str)``              who answers while training: ``instant``, then the name of the net
    ``prediction_changed(Prediction | None)``  mask of the whole case in hand, strokes not yet applied
    ``difference_changed(Difference | None)``  where the round gone back to differs from the one before
    ``comparison_changed(dict | None)``  what `compare` found: ``report, table, tests, rows, runs, expected, failed``
    ``folder_changed(list[dict])`` rows of the folder being segmented: file, status, error, seconds,
                                         flags, doubt, mask
    ``message(Message)``                 one sentence for the user: text, hint, level (info, warning, error)
    ``actions_changed()``                some answer of `Workspace.why_not` may be new: refresh the buttons

Methods, one a task of the user
    open_project, create_project, close_project
    add_images, add_array, remove_case, undo_remove, select_case, next_case, image, mask_so_far
    set_classes - annotation, sync_strokes, stroke_counts
    change_plan, decide_for_me, ask_nets - train, resume, stop, look
    predict_current, accept, undo_accept, accept_part, undo_part, correct, go_back_to_round, undo_round,
    forget_difference, segment_folder, undo_segment, send_back, undo_send_back
    compare, comparison_seconds
    remember, recall (slice, zoom, ... of the window)
    why_not(action): the plain reason why a button is disabled, ``""`` when it is enabled

A method whose action is not possible raises a `UnetSegError` with that same reason.
"""

from napari_unetseg.workspace.state import (
    ACTIONS,
    Aside,
    AtOnce,
    Class,
    Curves,
    Difference,
    Jobs,
    Message,
    Prediction,
    Preview,
    Progress,
    Round,
)
from napari_unetseg.workspace.workspace import Workspace

__all__ = [
    "ACTIONS",
    "Aside",
    "AtOnce",
    "Class",
    "Curves",
    "Difference",
    "Jobs",
    "Message",
    "Prediction",
    "Preview",
    "Progress",
    "Round",
    "Workspace",
]
