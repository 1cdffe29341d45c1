"""Several models, or one model on flipped copies, averaged: probabilities and the doubt in them."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_unetseg.errors import ModelError
from napari_unetseg.events import Control, Event, TileDone
from napari_unetseg.inference.sliding import Predictor, make_predictor, prepared_image
from napari_unetseg.nets.checkpoint import Model
from napari_unetseg.volume import Volume

__all__ = ["Ensemble", "entropy"]


def entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of class probabilities ``(K, [Z,] Y, X)``, divided by its maximum: 0 sure, 1 undecided, float32."""
    p = np.clip(probability, 1e-7, 1)
    return (-(p * np.log(p)).sum(axis=0) / np.log(len(p))).astype(np.float32)


@dataclass(frozen=True)
class Ensemble:
    """Models whose probabilities are averaged, each on the image and, with `flips`, on its mirror images.

    Attributes
    ----------
    models : tuple of Model
        All with the same classes.
    flips : bool
        Test-time augmentation: average over every combination of mirrored Y and X.
    """

    models: tuple[Model, ...]
    predictors: tuple[Predictor, ...]
    flips: bool = False

    @classmethod
    def of(cls, models: Sequence[Model], flips: bool = False) -> Ensemble:
        """Make the models ready on the device.

        Raises
        ------
        ModelError
            When they do not segment the same classes.
        """
        first = models[0]
        for model in models[1:]:
            if model.classes != first.classes:
                raise ModelError(
                    f"Models of {', '.join(first.classes)} and of {', '.join(model.classes)} cannot be averaged.",
                    hint="Give models that were trained on the same classes.",
                )
        return cls(tuple(models), tuple(make_predictor(model) for model in models), flips)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, background first."""
        return self.models[0].classes

    def tiles(self, image: Volume, control: Control | None = None) -> Generator[Event, None, np.ndarray]:
        """Yield `TileDone`; return probabilities ``(K, [Z,] Y, X)`` float32."""
        axes = [()] if not self.flips else [tuple(c) for n in range(3) for c in itertools.combinations((-2, -1), n)]
        runs = [(m, p, flip) for m, p in zip(self.models, self.predictors, strict=True) for flip in axes]
        total: np.ndarray | None = None
        for number, (model, predictor, flip) in enumerate(runs):
            mirrored = np.ascontiguousarray(np.flip(prepared_image(model, image), flip))
            run = predictor.tiles(mirrored, control=control)
            while True:
                try:
                    event = next(run)
                except StopIteration as end:
                    probability = np.flip(end.value, flip)
                    break
                if isinstance(event, TileDone):
                    tiles = event.total
                    event = replace(event, done=number * tiles + event.done, total=tiles * len(runs))
                yield event
            total = probability / len(runs) if total is None else total + probability / len(runs)
        if total is None:
            raise ModelError("No model was given.", hint="Give at least one model folder.")
        return total

    def mask(self, probability: np.ndarray) -> np.ndarray:
        """Mask uint8 of averaged probabilities, by the first model's plan."""
        return self.predictors[0].mask(probability)
