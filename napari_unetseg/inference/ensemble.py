"""Several looks at one image, averaged: models, mirrored and turned copies, dropout; and how much they disagree."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from napari_unetseg.errors import ModelError
from napari_unetseg.events import Control, Event, Running, TileDone, verb
from napari_unetseg.inference.sliding import Predictor, make_predictor, prepared_image
from napari_unetseg.inference.view import seen_of_plane
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.volume import Volume

__all__ = ["Belief", "Ensemble", "Symmetry", "dropping", "entropy", "predict_doubt", "symmetries"]

Tta = Literal["none", "flips", "turns"]
_SQUARE = 0.01  # relative difference of pixel sides up to which a pixel counts as square


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of class probabilities ``(K, [Z,] Y, X)``, divided by its maximum: 0 sure, 1 undecided, float32."""
    total = np.zeros(probability.shape[1:], np.float32)
    for one in probability:  # class by class: a volume of ten classes needs no ten more of it
        p = np.clip(one, 1e-7, 1)
        total -= p * np.log(p)
    return np.clip(total / math.log(len(probability)), 0, 1).astype(np.float32)


@dataclass(frozen=True)
class Symmetry:
    """A quarter turn (or none) followed by mirroring, both exact: voxels move, none is interpolated.

    Attributes
    ----------
    flips : tuple of int
        Axes that are mirrored, from the end: -1 is X.
    transposed : bool
        Whether Y and X are exchanged first; with flips this gives the quarter turns.
    """

    flips: tuple[int, ...] = ()
    transposed: bool = False

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Move the voxels of ``(..., [Z,] Y, X)``."""
        turned = np.swapaxes(array, -1, -2) if self.transposed else array
        return np.ascontiguousarray(np.flip(turned, self.flips))

    def undo(self, array: np.ndarray) -> np.ndarray:
        """Move them back; a view."""
        turned = np.flip(array, self.flips)
        return np.swapaxes(turned, -1, -2) if self.transposed else turned


def symmetries(kind: Tta, dims: int, spacing: Sequence[float]) -> tuple[Symmetry, ...]:
    """List what an image may be averaged over; the first is the image as it is.

    Parameters
    ----------
    kind : str
        ``none``; ``flips``, mirroring every axis the net sees (4 in 2D, 8 in 3D); ``turns``, quarter turns in the plane
        too (8 in 2D, 16 in 3D), left out where pixels are not square. Nothing is ever turned through Z, where voxels
        are seldom as long as wide and images look different.
    dims : int
        Of the net: a 2D net sees nothing of the order of planes.
    spacing : sequence of float
        Voxel size ``([z,] y, x)``.
    """
    if kind == "none":
        return (Symmetry(),)
    axes = range(-dims, 0)
    flips = [tuple(c) for n in range(dims + 1) for c in itertools.combinations(axes, n)]
    square = abs(spacing[-1] - spacing[-2]) <= _SQUARE * spacing[-1]
    return tuple(Symmetry(f, t) for t in ((False, True) if kind == "turns" and square else (False,)) for f in flips)


@dataclass(frozen=True, eq=False)
class Belief:
    """What several passes over one image say together.

    Attributes
    ----------
    probability : (K, [Z,] Y, X) float32 ndarray
        Mean over the passes.
    disagreement : ([Z,] Y, X) float32 ndarray or None
        Mutual information of class and pass, divided by its maximum: 0 where all passes say the same (even if all are
        undecided), 1 where each is sure of something else. None after a single pass.
    passes : int
    """

    probability: np.ndarray
    disagreement: np.ndarray | None
    passes: int

    def mask(self, threshold: float = 0.5) -> np.ndarray:
        """Mask ``([Z,] Y, X)`` uint8; `threshold` is for the foreground where it is one class."""
        if len(self.probability) == 2:
            return (self.probability[1] > threshold).astype(np.uint8)
        return self.probability.argmax(axis=0).astype(np.uint8)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.probability.nbytes + (0 if self.disagreement is None else self.disagreement.nbytes)

    @property
    def entropy(self) -> np.ndarray:
        """``([Z,] Y, X)`` float32: 0 sure, 1 undecided, whatever the reason."""
        return entropy(self.probability)


@dataclass(frozen=True)
class Ensemble:
    """Models whose probabilities are averaged, each on the image and on its symmetries, dropout kept on if wished.

    Attributes
    ----------
    models : tuple of Model
        All with the same classes.
    predictors : tuple of Predictor
    tta : str
        See `symmetries`.
    dropout_passes : int
        Passes a model and symmetry with dropout kept on (normalisation stays as it is); 0 for one without.
    """

    models: tuple[Model, ...]
    predictors: tuple[Predictor, ...]
    tta: Tta = "none"
    dropout_passes: int = 0

    @classmethod
    def of(
        cls, models: Sequence[Model], flips: bool = False, *, tta: Tta | None = None, dropout_passes: int | None = None
    ) -> Ensemble:
        """Make the models ready on the device.

        Parameters
        ----------
        models : sequence of Model
        flips : bool
            At least the flips, whatever the plan says.
        tta, dropout_passes : optional
            As the first model's plan says when not given.

        Raises
        ------
        ModelError
            When they do not segment the same classes, or dropout is asked of a net that has none.
        """
        if not models:
            raise ModelError("No model was given.", hint="Give at least one model folder.")
        first = models[0]
        for model in models[1:]:
            if model.classes != first.classes:
                raise ModelError(
                    f"Models of {', '.join(first.classes)} and of {', '.join(model.classes)} cannot be averaged.",
                    hint="Give models that were trained on the same classes.",
                )
        plan = first.plan.inference
        tta = plan.tta if tta is None else tta
        passes = plan.dropout_passes if dropout_passes is None else dropout_passes
        for model in models:
            if passes and not _dropouts(model.net):
                raise ModelError(
                    f"The net {model.plan.net.name} has no dropout, so it says the same in every pass.",
                    hint="Train with net.dropout above 0, or use mirrored copies or several models for the doubt.",
                )
        made = tuple(make_predictor(model) for model in models)
        return cls(tuple(models), made, "flips" if flips and tta == "none" else tta, passes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, background first."""
        return self.models[0].classes

    def passes(self, spacing: Sequence[float]) -> int:
        """How often the image is looked at, given its voxel size."""
        looks = sum(len(symmetries(self.tta, model.plan.net.dims, spacing)) for model in self.models)
        return looks * max(1, self.dropout_passes)

    def tiles(
        self, image: Volume, control: Control | None = None, focus: Sequence[float] | None = None
    ) -> Generator[Event, None, np.ndarray]:
        """Yield `TileDone`; return probabilities ``(K, [Z,] Y, X)`` float32."""
        return (yield from self.believe(image, control, focus)).probability

    def believe(
        self,
        image: Volume,
        control: Control | None = None,
        focus: Sequence[float] | None = None,
        plane: int | None = None,
    ) -> Generator[Event, None, Belief]:
        """Yield `TileDone` of all passes together; return what they say.

        Parameters
        ----------
        image : Volume
        control : Control, optional
            To stop it, within a tile.
        focus : sequence of float, optional
            Position ``([z,] y, x)`` whose tile comes first in each pass.
        plane : int, optional
            Of a volume: only this plane is looked at, and the arrays are ``(Y, X)``.
        """
        count = self.passes(image.geometry.spacing)
        total: np.ndarray | None = None
        doubt: np.ndarray | float = 0.0
        for number, run in enumerate(self._passes(image, control, focus, plane)):
            probability = yield from _counted(run, number, count)
            if count > 1:
                doubt = doubt + entropy(probability) / count
            total = probability if total is None else np.add(total, probability, out=total)
        assert total is not None  # of() refuses no models
        if count == 1:
            return Belief(total, None, 1)
        total /= count
        return Belief(total, np.clip(entropy(total) - doubt, 0, 1), count)

    def _passes(
        self, image: Volume, control: Control | None, focus: Sequence[float] | None, plane: int | None
    ) -> Iterator[Generator[Event, None, np.ndarray]]:
        spacing = image.geometry.spacing
        for model, predictor in zip(self.models, self.predictors, strict=True):
            part, inner = seen_of_plane(predictor, prepared_image(model, image), plane)
            for symmetry in symmetries(self.tta, model.plan.net.dims, spacing):
                moved = symmetry.apply(part)
                place = _moved(focus, symmetry, part.shape[1:]) if focus is not None and plane is None else None
                for seed in range(max(1, self.dropout_passes)):
                    run = predictor.tiles(moved, place, control, spacing)
                    yield self._one(run, predictor, (symmetry, inner, seed))

    def _one(
        self,
        run: Generator[Event, None, np.ndarray],
        predictor: Predictor,
        how: tuple[Symmetry, int | None, int],
    ) -> Generator[Event, None, np.ndarray]:
        symmetry, inner, seed = how
        with dropping(predictor.net, seed) if self.dropout_passes else contextlib.nullcontext():
            found = yield from run
        found = symmetry.undo(found)
        return found if inner is None else found[:, inner]

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """Mask uint8 of averaged probabilities, by the first model's plan."""
        return self.predictors[0].mask(probability)


@verb
def predict_doubt(
    models: Model | Sequence[Model],
    image: Volume,
    *,
    tta: Tta | None = None,
    dropout_passes: int | None = None,
    control: Control | None = None,
    focus: Sequence[float] | None = None,
    plane: int | None = None,
) -> Generator[Event, None, Belief]:
    """Probability, entropy and disagreement of an image.

    Parameters
    ----------
    models : Model, or several
        Ten of them are what Drozdzal et al. 2017 average.
    image : Volume
    tta, dropout_passes : optional
        As the first model's plan says when not given; see `Ensemble`.
    control : Control, optional
        To stop it, within a tile.
    focus : sequence of float, optional
        Position ``([z,] y, x)`` whose tile comes first.
    plane : int, optional
        Of a volume: only this plane is looked at, and the arrays are ``(Y, X)``.

    Raises
    ------
    ModelError
        When models and image do not fit, or a net has no dropout.
    Stopped
        When `control` said stop.
    """
    given = [models] if isinstance(models, Model) else list(models)
    ensemble = Ensemble.of(given, tta=tta, dropout_passes=dropout_passes)
    return (yield from ensemble.believe(image, control, focus, plane))


def _counted(run: Generator[Event, None, np.ndarray], number: int, count: int) -> Generator[Event, None, np.ndarray]:
    """Pass the events of one pass on, its tiles counted among those of all."""
    running = Running(run)
    for event in running:
        if isinstance(event, TileDone):
            each = event.left / max(1, event.total - event.done)
            left = event.left + each * event.total * (count - number - 1)
            event = replace(event, done=number * event.total + event.done, total=event.total * count, left=left)
        yield event
    return running.result


def _moved(focus: Sequence[float], symmetry: Symmetry, shape: Sequence[int]) -> tuple[float, ...]:
    """Where a place lies once the image is turned and mirrored."""
    place, size = list(focus), list(shape)
    if symmetry.transposed:
        place[-1], place[-2] = place[-2], place[-1]
        size[-1], size[-2] = size[-2], size[-1]
    for axis in symmetry.flips:
        place[axis] = size[axis] - 1 - place[axis]
    return tuple(place)


def _dropouts(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, _DropoutNd) and module.p > 0]


@contextlib.contextmanager
def dropping(net: nn.Module, seed: int) -> Iterator[None]:
    """Keep the net's dropout on, its draws given by the seed; all else stays in evaluation mode."""
    modules = _dropouts(net)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        for module in modules:
            module.train()
        yield
    finally:
        for module in modules:
            module.eval()
        torch.set_rng_state(state)
