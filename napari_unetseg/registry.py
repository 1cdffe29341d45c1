"""One `Registry` class for everything that has a name: nets, losses, metrics, formats, post-processing steps."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from napari_unetseg.errors import UnknownName

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things, with facts about each and "did you mean" for the rest.

    Parameters
    ----------
    kind : str
        What is registered, in the singular, as the user would say it ("net", "loss", "format").

    Examples
    --------
    >>> LOSSES = Registry[object]("loss")
    >>> @LOSSES.register("dice", smooth=1.0)
    ... def dice(p, y):
    ...     '''Overlap loss.'''
    >>> LOSSES.names(), LOSSES.facts("dice")["smooth"], LOSSES.describe("dice")
    (['dice'], 1.0, 'Overlap loss.')
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """Decorate a thing to register it under `name`, with `facts` about it; ``hidden=True`` keeps it off lists."""

        def keep(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._things[name] = thing
            self._facts[name] = MappingProxyType(facts)
            return thing

        return keep

    def __getitem__(self, name: str) -> T:
        self._check(name)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._things if not self._facts[name].get("hidden"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def names(self, pattern: str = "*") -> list[str]:
        """Names that match a shell `pattern`, in the order of registration; a hidden one only by its whole name."""
        return [name for name in self if fnmatch(name, pattern)] or [name for name in self._things if name == pattern]

    def facts(self, name: str) -> Mapping[str, Any]:
        """What was said about `name` when it was registered."""
        self._check(name)
        return self._facts[name]

    def describe(self, name: str) -> str:
        """First line of the thing's docstring."""
        doc = inspect.getdoc(self[name]) or ""
        return doc.splitlines()[0] if doc else ""

    def _check(self, name: str) -> None:
        if isinstance(name, str) and name in self._things:
            return
        near = difflib.get_close_matches(str(name).lower(), list(self), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(self)}."
        raise UnknownName(f"There is no {self.kind} called {name!r}.", hint=hint)
