"""The Plan: a frozen document of everything that decides a result.

Each field carries its limits and a plain sentence, from which the form in the window, the command line's help and the
documentation are made. Unknown keys are refused. ``None`` always means "decided from the images when training starts";
a plan saved with a model has no ``None`` left where a decision was needed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_unetseg.errors import PlanError

__all__ = ["SCHEMA", "DataPlan", "InferencePlan", "NetSpec", "Normalisation", "Plan", "PostPlan", "TrainingPlan"]

SCHEMA = 1

Dims = Literal[2, 3]
Size = Annotated[tuple[Annotated[int, Field(ge=1, le=2**16)], ...], Field(min_length=2, max_length=3)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class NetSpec(_Frozen):
    """Which net: its name, what goes in and out, and what the user changed about it."""

    name: str = Field("unet", description="Name of the architecture, as `napari-unetseg nets` lists it.")
    dims: Dims = Field(2, description="2 for planes, 3 for volumes.")
    in_channels: int = Field(1, ge=1, le=1024, description="Channels of the images.")
    outputs: int = Field(1, ge=1, le=256, description="1 for one class against background (sigmoid), else one a class.")
    width: float = Field(
        1.0, ge=0.05, le=4, description="Factor on the number of features; 0.5 is about 4 times faster."
    )
    depth: int | None = Field(None, ge=2, le=7, description="Resolution levels; the paper's own when not given.")
    norm: Literal["paper", "batch", "instance", "group", "none"] = Field(
        "paper", description="Normalisation between layers; 'paper' keeps what the architecture's paper has."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of features dropped while training.")
    parts: Mapping[str, Any] = Field(
        default_factory=dict, description="Other blocks or skips than the architecture's own, and its options."
    )
    pretrained: str | None = Field(None, description="File or name of start weights for the encoder.")


class Normalisation(_Frozen):
    """How intensities become numbers near zero: `kind`, and for ``ct`` the window it was fitted to."""

    kind: Literal["zscore", "percentile", "rgb", "colour", "ct", "none"] = Field(
        "zscore",
        description="zscore and percentile: per image and channel; rgb: 0..255; colour: rgb, but percentile for images "
        "that are grey; ct: a fixed window.",
    )
    low: float = Field(0.0, description="Lower end of the ct window.")
    high: float = Field(1.0, description="Upper end of the ct window.")


class DataPlan(_Frozen):
    """What is learned from, and how it is measured."""

    labels: Literal["mask", "annotation"] = Field(
        "mask", description="mask: 0 is background; annotation: 0 is unlabelled, 1 background, 2.. the classes."
    )
    values: tuple[tuple[int, ...], ...] | None = Field(
        None, description="Label values in the files that belong to each class, background first."
    )
    normalisation: Normalisation | None = Field(None, description="Intensity normalisation.")
    heldout: float = Field(
        0.2, ge=0, le=0.9, description="Share of the images (or of the one image) held out for the score."
    )
    fold: int | None = Field(None, ge=0, description="Which fold to hold out, when folds are given.")
    folds: int = Field(5, ge=2, le=20, description="Number of folds, where the data does not bring its own.")
    neighbours: int = Field(
        0, ge=0, le=16, description="Of a 2D net on volumes: planes on each side that it also sees, as channels (2.5D)."
    )


class TrainingPlan(_Frozen):
    """How the net is trained."""

    loss: str = Field("ce+dice", description="Loss, on known voxels only.")
    optimiser: str = Field("adamw", description="Optimiser.")
    schedule: str = Field("cosine", description="How the learning rate falls: constant, cosine, polynomial, ...")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="Step size of the optimiser; typical 0.0001 to 0.01.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Pull of the weights towards zero.")
    momentum: float | None = Field(
        None, ge=0, lt=1, description="Momentum of SGD and RMSprop, first beta of Adam; the usual one when not given."
    )
    smoothing: float | None = Field(
        None, ge=0, lt=1, description="Memory of squared gradients: second beta of Adam, rho of RMSprop."
    )
    epsilon: float | None = Field(None, gt=0, le=1, description="What keeps Adam and RMSprop from dividing by zero.")
    decay: float = Field(0.0, ge=0, le=1, description="Of the schedule 'decay': rate / (1 + decay * updates).")
    patience: int = Field(
        10, ge=1, le=10_000, description="Of the schedule 'plateau': validations without gain before the rate falls."
    )
    average: float = Field(
        0.99, ge=0, lt=1, description="Memory of the running average of the weights; 0 keeps the weights themselves."
    )
    keep: Literal["steady", "best"] = Field(
        "steady", description="Weights kept: the last not clearly worse, or those with the highest held-out Dice."
    )
    validate_every: int | None = Field(
        None, ge=1, description="Epochs between validations; about twenty validations a run when not given."
    )
    stop_after: int | None = Field(
        None, ge=1, description="Validations without a better score after which training ends early."
    )
    batch_size: int | None = Field(None, ge=1, le=1024, description="Patches a step.")
    patch: Size | None = Field(None, description="Patch size in voxels, (Y, X) or (Z, Y, X).")
    teacher: float | None = Field(
        None, ge=0, le=10, description="Weight of what the instant model believes of unlabelled voxels; 0 for none."
    )
    augment: float = Field(1.0, ge=0, le=2, description="Strength of augmentation: 0 none, 1 usual.")
    recipe: Mapping[str, float] = Field(
        default_factory=dict, description="Chances and sizes of augmentation other than the usual, by name."
    )
    minutes: float | None = Field(None, gt=0, le=100_000, description="Time budget, in minutes.")
    epochs: int | None = Field(None, ge=1, le=1_000_000, description="Epochs to train, instead of minutes.")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="Steps an epoch; from the size of the data when not given."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Arithmetic of the net.")


class InferencePlan(_Frozen):
    """How a whole image is segmented."""

    tile: Size | None = Field(None, description="Tile size in voxels; by default about twice the training patch in 2D.")
    overlap: float = Field(0.25, ge=0, lt=1, description="Share of a tile that overlaps its neighbour.")
    margin: int | None = Field(
        None, ge=0, le=512, description="Voxels mirrored around the image; 16 in planes, 4 in volumes when not given."
    )
    axes: Literal["planes", "all"] = Field(
        "planes", description="Of a 2D net on volumes: plane by plane, or along all three axes and averaged (slower)."
    )
    memory: float | None = Field(
        None,
        gt=0,
        le=2**20,
        description="GiB the program may hold for a large image; half of what is free when not given.",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which a one-class net says yes.")
    temperature: float = Field(
        1.0, ge=0.01, le=100, description="What logits are divided by, fitted on held-out voxels so that 0.8 means 0.8."
    )
    tta: Literal["none", "flips", "turns"] = Field(
        "none", description="Average over mirror images, or also over quarter turns where the pixels are square."
    )
    dropout_passes: int = Field(
        0, ge=0, le=1000, description="Passes with dropout kept on that are averaged; 0 for one pass without."
    )


class PostPlan(_Frozen):
    """What is done to a mask after the net: steps by name with their options, in order."""

    steps: tuple[tuple[str, Mapping[str, Any]], ...] = Field((), description="Steps: (name, options).")


P = TypeVar("P", bound="Plan")


class Plan(_Frozen):
    """Everything that decides a result.

    Examples
    --------
    >>> plan = Plan(net="multiresunet")
    >>> plan.net.name, plan.training.loss
    ('multiresunet', 'ce+dice')
    >>> plan.change(training={"minutes": 2}).training.minutes
    2.0
    """

    schema_: int = Field(SCHEMA, alias="schema")
    net: NetSpec = NetSpec()
    data: DataPlan = DataPlan()
    training: TrainingPlan = TrainingPlan()
    inference: InferencePlan = InferencePlan()
    post: PostPlan = PostPlan()

    model_config = ConfigDict(populate_by_name=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _plan_error(error) from None

    @field_validator("net", mode="before")
    @classmethod
    def _net_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def change(self: P, **sections: Mapping[str, Any]) -> P:
        """Return a copy with some fields of some sections replaced: ``plan.change(net={"width": 0.5})``."""
        values = self.model_dump(exclude_unset=True)
        values.pop("schema_", None)
        known = [name for name in type(self).model_fields if name != "schema_"]
        for section, changes in sections.items():
            if section not in known:
                raise PlanError(f"A plan has no section {section!r}.", hint=f"Sections: {', '.join(known)}.")
            values[section] = {**values.get(section, {}), **changes}
        return type(self)(**values)

    def over(self: P, base: P) -> P:
        """Lay the fields that were given here over another plan, whose own show where nothing was given."""
        given = self.model_dump(exclude_unset=True)
        given.pop("schema_", None)
        return base.change(**given)

    @property
    def normalisation(self) -> Normalisation:
        """Intensity normalisation of a completed plan."""
        if self.data.normalisation is None:
            raise PlanError("The plan does not say how intensities are normalised.", hint="Use the plan of a model.")
        return self.data.normalisation

    @property
    def image_channels(self) -> int:
        """Channels of an image: those of the net, neighbouring planes not counted."""
        return self.net.in_channels // (2 * self.data.neighbours + 1)

    @property
    def patch(self) -> tuple[int, ...]:
        """Training patch of a completed plan, in voxels, ``(Y, X)`` or ``(Z, Y, X)``."""
        if self.training.patch is None:
            raise PlanError("The plan does not say the patch size.", hint="Use the plan of a model.")
        return self.training.patch

    def given(self, section: str, name: str) -> bool:
        """Whether the user (or a file) set that field, as opposed to its default standing there."""
        return section in self.model_fields_set and name in getattr(self, section).model_fields_set

    def to_json(self, complete: bool = True) -> str:
        """JSON text, one that `from_json` takes; only the fields that were given when not `complete`."""
        return self.model_dump_json(by_alias=True, indent=1, exclude_unset=not complete)

    def deciding(self) -> str:
        """JSON text of what is not as usual: the same for plans written before a field was there, and after."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    @classmethod
    def from_json(cls: type[P], text: str) -> P:
        """Read a plan from JSON text; every mistake in it becomes a `PlanError`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(
                f"The plan is not valid JSON: {error}.", hint="Correct it, or start from a saved plan."
            ) from None
        if not isinstance(values, dict):
            raise PlanError("The plan is not a JSON object.", hint="Start from the plan inside a model.json.")
        schema = values.get("schema", SCHEMA)
        if isinstance(schema, int) and schema > SCHEMA:
            raise PlanError("The plan was written by a newer version.", hint="Update napari-unetseg.")
        return cls(**values)

    @classmethod
    def read(cls: type[P], path: str | Path) -> P:
        """Read a plan from a JSON file, or from a ``model.json``, whose plan it takes."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise PlanError(f"The plan {path} could not be read: {why}.", hint="Check the path.") from None
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            return cls.from_json(text)
        return cls.from_json(json.dumps(values["plan"]) if isinstance(values, dict) and "plan" in values else text)


def _plan_error(error: ValidationError) -> PlanError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "plan"
    if first["type"] == "extra_forbidden":
        return _unknown_field([str(part) for part in first["loc"]])
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    value = f" (given {first['input']!r})" if first["type"] != "missing" else ""
    return PlanError(f"Plan field {where}: {first['msg']}{value}{more}.", hint="Correct that field, or leave it out.")


def _unknown_field(parts: Sequence[str]) -> PlanError:
    fields = Plan.model_fields
    for part in parts[:-1]:
        fields = getattr(fields[part].annotation, "model_fields", {}) if part in fields else {}
    names = [field.alias or name for name, field in fields.items()]
    near = difflib.get_close_matches(parts[-1].lower(), names, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There is: {', '.join(names)}." if names else ""
    return PlanError(f"There is no plan field {'.'.join(parts)}.", hint=hint or "Leave it out.")
