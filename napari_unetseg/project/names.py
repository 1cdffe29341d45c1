"""Names that are safe as files on every system, and the names and colours of classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

from napari_unetseg.errors import ProjectError
from napari_unetseg.palette import PALETTE

__all__ = ["MAX_CLASSES", "check_classes", "is_safe", "safe_name", "unique_name"]

MAX_CLASSES = 255  # annotations are uint8: 0 is unlabelled, then one value a class
_BYTES = 100  # of a name; file systems allow 255, and counters and suffixes are still to come
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def safe_name(text: str) -> str:
    """Turn any text into a name that is one plain file name on Linux, macOS and Windows.

    Examples
    --------
    >>> safe_name("../a:b"), safe_name("con"), safe_name("  "), safe_name("Größe 3")
    ('_a_b', 'con_', 'image', 'Größe 3')
    """
    text = unicodedata.normalize("NFC", text).encode("utf-8", "ignore")[:_BYTES].decode("utf-8", "ignore")
    return _clean(text)


def is_safe(text: str) -> bool:
    """Whether `text` is a name as `safe_name` and `unique_name` make them."""
    return len(text.encode("utf-8", "replace")) <= 2 * _BYTES and _clean(text) == text


def unique_name(text: str, taken: Collection[str]) -> str:
    """`safe_name`, with a counter when a name is `taken` that differs at most by case."""
    name = base = safe_name(text)
    folded, count = {other.casefold() for other in taken}, 1
    while name.casefold() in folded:
        count += 1
        name = f"{base}-{count}"
    return name


def check_classes(
    names: Sequence[str], colours: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and colours of classes in their canonical form, background first.

    Parameters
    ----------
    names : sequence of str
        At least two, all different.
    colours : sequence of str, optional
        One ``#rrggbb`` for each name; a palette that colour-blind people can tell apart when omitted.

    Raises
    ------
    ProjectError
        For fewer than two classes, a name twice or empty, or something that is not a colour.
    """
    if isinstance(names, str):
        raise ProjectError(f"Classes are a list of names, not {names!r}.", hint='Give, say, ["background", "cell"].')
    clean = tuple(" ".join(str(name).split()) for name in names)
    if not 2 <= len(clean) <= MAX_CLASSES:
        raise ProjectError(
            f"A project needs between 2 and {MAX_CLASSES} classes, not {len(clean)}.",
            hint='Give the background first, then at least one class, say ["background", "cell"].',
        )
    for index, name in enumerate(clean):
        if not name or name.casefold() in {other.casefold() for other in clean[:index]}:
            raise ProjectError(
                f"The class name {name!r} is {'used twice' if name else 'empty'}.",
                hint="Give each class a name of its own.",
            )
    if colours is None:
        return clean, tuple(PALETTE[index % len(PALETTE)] for index in range(len(clean)))
    tints = tuple(str(colour).lower() for colour in colours)
    wrong = [tint for tint in tints if not _COLOUR.fullmatch(tint)]
    if wrong or len(tints) != len(clean):
        raise ProjectError(
            f"{wrong[0]!r} is not a colour." if wrong else f"{len(tints)} colours for {len(clean)} classes.",
            hint="Give one colour like #e69f00 for each class.",
        )
    return clean, tints


def _clean(text: str) -> str:
    text = "".join("_" if c in '<>:"/\\|?*' or unicodedata.category(c)[0] == "C" else c for c in text).strip(" .")
    head, dot, tail = text.partition(".")
    if head.rstrip().lower() in _RESERVED:
        text = f"{head.rstrip()}_{dot}{tail}"
    return text or "image"
