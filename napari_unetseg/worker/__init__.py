"""The worker process: ``python -m napari_unetseg.worker FOLDER`` runs one verb at a time, at low priority.

It reads commands and writes events, one JSON object a line, in UTF-8:

=====================================================  ================================================================
``{"id": 1, "verb": "train", "args": {...}}``          queue a verb of `VERBS`
``{"stop": 1}``                                        finish job 1 at its next step
``{"look": {"case": "a", "index": 3}}``                where the user looks
``{"shutdown": true}``, or the end of the input        finish, and exit
``{"id": 0, "event": "Ready", ...}``                   torch is loaded; facts about the device
``{"id": 1, "event": "StepDone", ...}``                an event of job 1, as `napari_unetseg.events` has it
``{"id": 1, "event": "Done", "result": {...}}``        the result of job 1
``{"id": 1, "event": "Failed", "message", "hint"}``    or why there is none; ``"stopped": true`` when the user wished so
=====================================================  ================================================================

Arrays travel as ``.npy`` files in FOLDER; of each kind only the newest few are kept. Whatever libraries print goes to
standard error. When whoever started it dies, its input ends, and it exits.
"""
