"""What the options of a step may be: read by the check before there is a mask, by the window and by the documents."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unetseg.errors import PlanError
from napari_unetseg.registry import Registry

__all__ = ["STEPS", "Option", "Step", "check_steps"]

Step = Callable[..., np.ndarray]

STEPS: Registry[Step] = Registry("post-processing step")

_KINDS = {"size": "a number above 0", "length": "a number above 0", "share": "a number between 0 and 1"}


@dataclass(frozen=True)
class Option:
    """One option of a step, in words.

    Attributes
    ----------
    title : str
        Its name in a form.
    kind : str
        ``size`` (area or volume), ``length``, ``share`` (between 0 and 1) or ``classes`` (labels).
    sentence : str
        What it does, with typical values.
    usual : float or None
        What a form starts with, in voxels for a size or a length.
    """

    title: str
    kind: str
    sentence: str
    usual: float | None = None

    def check(self, step: str, name: str, value: Any) -> None:
        """Raise `PlanError` for a value that it cannot have."""
        if self.kind == "classes":
            good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
            if not good or any(not _whole(label) or label < 1 for label in value):
                raise PlanError(
                    f"The option {name} of {step!r} is {value!r}.", hint="Give a list of class numbers, from 1."
                )
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
        if not number or value <= 0 or (self.kind == "share" and value >= 1):
            raise PlanError(f"The option {name} of {step!r} is {value!r}.", hint=f"It is {_KINDS[self.kind]}.")


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_steps(steps: Iterable[str | tuple[str, Mapping[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Names with their options, after a check of all that can be wrong before there is a mask.

    Raises
    ------
    UnknownName
        No step has that name.
    PlanError
        A step has no such option, the option cannot have that value, or the order makes no sense.
    """
    checked: list[tuple[str, dict[str, Any]]] = []
    numbered = ""
    for item in steps:
        name, options = _pair(item)
        _check_options(name, options)
        if numbered and (STEPS.facts(name)["instances"] or "classes" in options):
            raise PlanError(
                f"The step {name!r} needs classes, but {numbered!r} before it gives every object its own number.",
                hint=f"Put {name!r} before {numbered!r}." if name != numbered else "Take one of the two away.",
            )
        numbered = numbered or (name if STEPS.facts(name)["instances"] else "")
        checked.append((name, options))
    return checked


def _pair(item: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        return item, {}
    good = isinstance(item, Sequence) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], Mapping)
    if not good:
        raise PlanError(f"{item!r} is no step.", hint='Write a step as its name, or as ["minimum-size", {"size": 20}].')
    return item[0], dict(item[1])


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known: Mapping[str, Option] = STEPS.facts(name)["options"]
    parameters = inspect.signature(STEPS[name]).parameters
    for option, value in options.items():
        if option not in known:
            hint = f"It takes {', '.join(known)}." if known else "It takes none."
            raise PlanError(f"The step {name!r} has no option {option!r}.", hint=hint)
        if value is not None:
            known[option].check(name, option, value)
    for option in known:
        if parameters[option].default is inspect.Parameter.empty and options.get(option) is None:
            raise PlanError(f"The step {name!r} needs the option {option}.", hint="Add it to the step.")
