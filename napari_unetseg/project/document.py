"""What `project.json` holds, checked as strictly when read as when written: the file may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from napari_unetseg.errors import ProjectError, UnetSegError
from napari_unetseg.io import atomic_write
from napari_unetseg.project.names import check_classes, is_safe
from napari_unetseg.volume import Geometry

__all__ = ["SCHEMA", "CaseEntry", "Document"]

SCHEMA: Literal[1] = 1

Size = Annotated[int, Field(ge=1, le=2**31)]
Revision = Annotated[int, Field(ge=1, le=10**9)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, populate_by_name=True)


class CaseEntry(_Frozen):
    """One image of a project: where it is, its grid, and what became of it."""

    absolute: str = Field(default="", description="Full path of the image when it was added.")
    relative: str = Field(
        default="", description="Path from the project folder, with forward slashes; empty when far away."
    )
    shape: tuple[Size, ...] = Field(description="([Z,] Y, X), voxels.")
    geometry: dict[str, Any] = Field(description="As `Geometry.to_dict` gives it.")
    group: str | None = Field(
        default=None, description="Patient, animal or slide; images of one group are held out together."
    )
    accepted: tuple[Revision, ...] = Field(default=(), description="Accepted masks, the one in force last.")
    mask: Literal["none", "predicted", "accepted"] = Field(default="none", description="What lies in the masks folder.")

    @field_validator("relative")
    @classmethod
    def _is_relative(cls, value: str) -> str:
        if value.startswith(("/", "\\")) or PureWindowsPath(value).drive:
            raise ValueError("is not a relative path")
        return value

    @model_validator(mode="after")
    def _fits(self) -> CaseEntry:
        try:
            fits = self.grid.ndim == len(self.shape)
        except (UnetSegError, KeyError, TypeError) as error:
            raise ValueError(f"has no valid geometry ({error})") from error
        if not fits:
            raise ValueError("has a shape that does not fit its geometry")
        return self

    @property
    def grid(self) -> Geometry:
        """The geometry as an object."""
        return Geometry.from_dict(self.geometry)


class Document(_Frozen):
    """All of `project.json`; a change makes a new one, which is saved before it counts."""

    schema_number: Literal[1] = Field(default=SCHEMA, alias="schema")
    name: str
    created: str
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    cases: dict[str, CaseEntry] = Field(default_factory=dict)
    removed: dict[str, CaseEntry] = Field(default_factory=dict, description="Images taken out; strokes stay on disk.")
    current_model: str = Field(
        default="", description="Name in the models folder, or a full path; empty when there is none."
    )

    @field_validator("cases", "removed")
    @classmethod
    def _names_stay_inside(cls, value: dict[str, CaseEntry]) -> dict[str, CaseEntry]:
        for name in value:
            if not is_safe(name):
                raise ValueError(f"the image name {name!r} would lead outside the project")
        return value

    @model_validator(mode="after")
    def _is_sound(self) -> Document:
        names = [name.casefold() for name in (*self.cases, *self.removed)]
        if len(set(names)) < len(names):
            raise ValueError("an image name is there twice")
        try:
            check_classes(self.classes, self.colours)
        except ProjectError as error:
            raise ValueError(error.message) from error
        return self

    def with_case(self, case: str, entry: CaseEntry) -> Document:
        """The same with one case added or changed."""
        return self.model_copy(update={"cases": {**self.cases, case: entry}})

    def save(self, path: Path) -> None:
        """Write the document, atomically."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), indent=1)
        atomic_write(path, lambda beside: beside.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: Path) -> Document:
        """Read and check a document.

        Raises
        ------
        ProjectError
            If it is missing, damaged, made by a newer version, or holds what cannot be.
        """
        what = path.parent
        safe = "Restore project.json from a backup; the strokes lie untouched in the annotations folder beside it."
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ProjectError(
                f"{what} is not a project: it has no project.json.", hint="Choose a project folder, or create one."
            ) from error
        except OSError as error:
            raise ProjectError(f"{path} could not be read: {error.strerror}.", hint="Check the folder.") from error
        except (ValueError, RecursionError) as error:
            raise ProjectError(f"{path} is damaged: it is not JSON ({error}).", hint=safe) from error
        number = values.get("schema") if isinstance(values, Mapping) else None
        if isinstance(number, int) and number > SCHEMA:
            raise ProjectError(
                f"The project {what} was made by a newer version (format {number}, this one knows {SCHEMA}).",
                hint="Update napari-unetseg: pip install --upgrade napari-unetseg",
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ProjectError(f"{path} is damaged: {where} {first['msg']}.".replace("  ", " "), hint=safe) from error
