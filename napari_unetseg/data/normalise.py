"""Intensities to numbers near zero: measured on the whole image once, applied to any part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.plan import Normalisation
from napari_unetseg.volume import Volume

__all__ = ["Intensities", "about", "fit_normalisation", "measure", "measure_slabs", "normalise"]

_LOOKED_AT = 1_000_000  # voxels a channel that statistics are taken from
_FEWEST = 10_000  # finite ones among them; where there are fewer, all finite voxels are looked for
_HOUNSFIELD = -500  # whole numbers below this are air in a CT; nothing else common goes there
_NARROWEST = 50.0  # of a ct window: strokes inside one organ say little about its surroundings
_TINT, _COLOURED = 0.03, 0.001  # of the range that channels differ by, and of the pixels where, in a colour image
_PER_CLASS = 500  # voxels of each class and image that kinds are compared on
_CLEARLY = 1.5  # times as well told apart, for another kind than the usual one


class Annotated(Protocol):
    """What the fit looks at; `napari_unetseg.data.dataset.Sample` is one."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> Volume: ...
    @property
    def target(self) -> np.ndarray: ...
    @property
    def known(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Intensities:
    """Per channel: clip to ``low..high``, subtract `shift`, multiply by `scale`.

    Measure it on a whole image with `measure`, then apply it to the image or to any tile of it.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def repeated(self, times: int) -> Intensities:
        """For channels that come several times, one set after the other."""
        return Intensities(self.low * times, self.high * times, self.shift * times, self.scale * times)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Normalise ``(C, [Z,] Y, X)`` of any real dtype to float32; what is not a number becomes the minimum."""
        out = np.empty(image.shape, np.float32)
        for source, target, *how in zip(image, out, self.low, self.high, self.shift, self.scale, strict=True):
            low, high, shift, scale = how
            # 32-bit integers and doubles may need more digits than float32 has before the shift
            exact = source.dtype.itemsize > 2 and source.dtype != np.float32
            values = source.astype(np.float64 if exact else np.float32)
            if source.dtype.kind == "f":
                np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
            np.clip(values, low, high, out=values)
            values -= shift
            values *= scale
            target[...] = values
        return out


def measure(image: np.ndarray, how: Normalisation) -> Intensities:
    """Look at a whole image ``(C, [Z,] Y, X)`` and say how its intensities are to be normalised.

    Raises
    ------
    ReadError
        A channel holds no finite value.
    """
    if how.kind == "colour":
        how = _colour([image], image.shape, image.dtype)
    return _fitted(map(_finite, image), image.dtype, how)


def measure_slabs(
    slabs: Callable[[], Iterable[np.ndarray]], shape: Sequence[int], dtype: np.dtype, how: Normalisation
) -> Intensities:
    """What `measure` says of the whole image, of which only a slab at a time is in memory.

    Parameters
    ----------
    slabs : callable
        Gives the image from its beginning in slabs ``(C, n, ...)`` along the first axis after the channels; called
        again where much of it is not finite, and not at all where the normalisation is the same for every image. Of
        a colour image only as many as it takes to see that.
    shape : sequence of int
        ``(C, [Z,] Y, X)`` of the whole.
    dtype : numpy.dtype
    how : Normalisation

    Raises
    ------
    ReadError
        A channel holds no finite value.
    """
    channels = range(shape[0])
    if how.kind == "colour":
        how = _colour(slabs(), shape, dtype)
    if (how.kind == "ct" and dtype.kind in "iub") or (how.kind == "rgb" and dtype.kind in "iu" and dtype.itemsize < 4):
        return _fitted((np.zeros(1, dtype) for _ in channels), dtype, how)
    sizes = [int(np.prod(shape[1:], dtype=object))] * len(channels)
    some = _taken(([slab[c].reshape(-1) for c in channels] for slab in slabs()), sizes, dtype)
    if all(_enough(values) for values in some):
        return _fitted((_kept(values) for values in some), dtype, how)
    counts = np.zeros(len(channels), np.int64)
    for slab in slabs():
        counts += [np.count_nonzero(np.isfinite(slab[c])) for c in channels]
    full = _taken(([slab[c][np.isfinite(slab[c])] for c in channels] for slab in slabs()), counts.tolist(), dtype)
    return _fitted((_kept(s if _enough(s) else f) for s, f in zip(some, full, strict=True)), dtype, how)


def _colour(slabs: Iterable[np.ndarray], shape: Sequence[int], dtype: np.dtype) -> Normalisation:
    """What ``colour`` means for an image: ``percentile`` if its channels are all the same, as of fluorescence saved as
    colours, else ``rgb``.
    """
    top = np.iinfo(dtype).max if dtype.kind in "iu" else 1.0
    coloured, enough = 0, _COLOURED * np.prod(shape[1:], dtype=float)
    for slab in slabs:
        for part in np.array_split(slab, max(1, slab[0].size // _LOOKED_AT), axis=1):
            coloured += int(np.count_nonzero(part.max(axis=0) > part.min(axis=0) + _TINT * top))
            if coloured > enough:
                return Normalisation(kind="rgb")
    return Normalisation(kind="percentile")


def _fitted(channels: Iterable[np.ndarray], dtype: np.dtype, how: Normalisation) -> Intensities:
    """Intensities from some finite values of each channel."""
    rows = []
    for values in channels:
        if how.kind == "rgb":
            top = float(np.iinfo(dtype).max) if dtype.kind in "iu" and dtype.itemsize < 4 else float(values.max())
            rows.append((0.0, top, 0.0, 1.0 / top if top > 0 else 0.0))
        elif how.kind == "ct":
            middle, half = (how.low + how.high) / 2, max(how.high - how.low, 1e-6) / 2
            rows.append((how.low, how.high, middle, 2.0 / half))  # -2..2, about the spread of a z-score
        elif how.kind == "none":
            rows.append((float(values.min()), float(values.max()), 0.0, 1.0))
        else:
            rows.append(_stretch(values, how.kind))
    low, high, shift, scale = zip(*rows, strict=True)
    return Intensities(low, high, shift, scale)


def normalise(image: np.ndarray, how: Normalisation) -> np.ndarray:
    """Normalise a whole image.

    Parameters
    ----------
    image : (C, [Z,] Y, X) ndarray of any real dtype
    how : Normalisation
        ``zscore`` and ``percentile`` look at this image, channel by channel, and clip to its 0.1 to 99.9 percentiles;
        ``rgb`` divides by the dtype's maximum; ``colour`` does so too, but is ``percentile`` for an image whose
        channels are all the same; ``ct`` maps a fixed window to -2..2.

    Returns
    -------
    (C, [Z,] Y, X) float32 ndarray
        Finite everywhere; a constant image becomes zeros (``zscore``, ``percentile``).

    Raises
    ------
    ReadError
        A channel holds no finite value.
    """
    return measure(image, how).apply(image)


def fit_normalisation(samples: Iterable[Annotated], kind: str | None = None) -> Normalisation:
    """Choose the kind of normalisation by looking at the images, and fit the window of ``ct``.

    Parameters
    ----------
    samples : iterable of Sample
        Images as read, with their targets; looked at one by one.
    kind : str, optional
        Take this kind instead of choosing: whole numbers that go below -500 are ``ct``, three 8-bit channels
        ``colour``, everything else ``zscore``, or ``percentile`` where that makes the classes clearly more alike from
        image to image (`_told_apart`).

    Raises
    ------
    ReadError
        An image holds no finite value; the message names it.
    """
    kinds, inside, shown = [], [], []
    for sample in samples:
        image = sample.image.data
        with about(sample.name):
            kinds.append(_kind(image))
            if "ct" in (kind, kinds[-1]):
                inside.append(_finite(_on_classes(image[0], sample)))
            elif kind is None and kinds[-1] == "zscore":
                shown.append(_of_classes(sample))
    if kind is None:
        kind = max(("zscore", "ct", "colour"), key=kinds.count)
        if kind == "zscore" and _told_apart(shown, "percentile") > _CLEARLY * _told_apart(shown, "zscore"):
            kind = "percentile"
    if kind != "ct" or not inside:
        return Normalisation(kind=kind)  # type: ignore[arg-type]
    low, high = (float(v) for v in np.percentile(np.concatenate(inside), (0.5, 99.5)))
    grow = max(0.0, _NARROWEST - (high - low)) / 2
    return Normalisation(kind="ct", low=low - grow, high=high + grow)


@contextmanager
def about(name: str) -> Iterator[None]:
    """Name the image in what is said about it."""
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{name}: {error.message}", hint=error.hint) from None


def _kind(image: np.ndarray) -> str:
    if image.shape[0] == 3 and image.dtype == np.uint8:
        return "colour"
    values = _finite(image[0])
    whole = image.dtype.kind == "i" or bool((values == np.round(values)).all())
    return "ct" if image.shape[0] == 1 and whole and values.min() < _HOUNSFIELD else "zscore"


def _of_classes(sample: Annotated) -> dict[str, dict[int, np.ndarray]]:
    """Voxels ``(C, N)`` of each known class of an image, by kind of normalisation."""
    image, found = sample.image.data, {}
    step = _step(int(np.count_nonzero(sample.known)))
    places = np.flatnonzero(sample.known.reshape(-1)[::step]) * step
    labels = sample.target.reshape(-1)[places]
    for number in np.unique(labels):
        some = places[labels == number]
        found[int(number)] = image.reshape(len(image), -1)[:, some[:: max(1, len(some) // _PER_CLASS)]]
    kinds = [(kind, measure(image, Normalisation(kind=kind))) for kind in ("zscore", "percentile")]
    return {kind: {number: how.apply(values) for number, values in found.items()} for kind, how in kinds}


def _told_apart(images: Sequence[dict[str, dict[int, np.ndarray]]], kind: str) -> float:
    """How well the intensities of all images together tell the classes apart: Fisher's criterion, between the classes
    over within them. It falls when a class looks different from image to image. 0 where nothing can be said.
    """
    numbers = sorted({number for image in images for number in image[kind]})
    of = {number: [image[kind][number] for image in images if number in image[kind]] for number in numbers}
    if len(numbers) < 2 or min(map(len, of.values())) < 2:
        return 0.0
    classes = [np.concatenate(parts, axis=1).astype(np.float64) for parts in of.values()]
    within = np.mean([np.cov(values, bias=True).reshape(len(values), -1) for values in classes], axis=0)
    between = np.cov(np.stack([values.mean(axis=1) for values in classes], axis=1), bias=True)
    steady = within + 1e-6 * max(np.trace(within), 1e-12) * np.eye(len(within))
    return float(np.trace(np.linalg.solve(steady, between.reshape(len(within), -1))))


def _on_classes(channel: np.ndarray, sample: Annotated) -> np.ndarray:
    """Intensities on known voxels of the classes, of the background where there are none, else everywhere."""
    for where in (sample.known & (sample.target > 0), sample.known):
        if where.any():
            return channel[where]
    return channel


def _finite(channel: np.ndarray) -> np.ndarray:
    """Evenly spaced finite values of a channel, 1D."""
    flat = channel.reshape(-1)
    values = flat[:: _step(flat.size)]
    if not _enough(values):
        finite = flat[np.isfinite(flat)]
        values = finite[:: _step(finite.size)]
    return _kept(values)


def _step(size: int) -> int:
    return max(1, size // _LOOKED_AT) | 1  # an odd step does not walk down one column


def _taken(pieces: Iterable[Sequence[np.ndarray]], sizes: Sequence[int], dtype: np.dtype) -> list[np.ndarray]:
    """Evenly spaced values of channels of some sizes, from flat pieces that follow one another."""
    steps = [_step(size) for size in sizes]
    found = [np.empty(-(-size // step), dtype) for size, step in zip(sizes, steps, strict=True)]
    passed, kept = [0] * len(sizes), [0] * len(sizes)
    for piece in pieces:
        for c, (values, step) in enumerate(zip(piece, steps, strict=True)):
            some = values[-passed[c] % step :: step]
            found[c][kept[c] : kept[c] + some.size] = some
            passed[c], kept[c] = passed[c] + values.size, kept[c] + some.size
    return found


def _enough(values: np.ndarray) -> bool:
    """Whether the finite ones among some values say enough of all."""
    if values.dtype.kind != "f":
        return True
    finite = int(np.count_nonzero(np.isfinite(values)))
    return finite == values.size or finite >= _FEWEST


def _kept(values: np.ndarray) -> np.ndarray:
    """The finite ones of some values, of which there must be one."""
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        values = values[finite]
    if values.size == 0:
        raise ReadError("The image holds no number, only NaN or infinity.", hint="Export it again, or leave it out.")
    return values.astype(np.uint8) if values.dtype == bool else values


def _stretch(values: np.ndarray, kind: str) -> tuple[float, float, float, float]:
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    if kind == "percentile":
        return low, high, low, 1.0 / (high - low) if high > low else 0.0
    clipped = np.clip(values.astype(np.float64), low, high)
    mean, spread = float(clipped.mean()), float(clipped.std())
    # a spread of rounding errors is no contrast
    return low, high, mean, 1.0 / spread if spread > 1e-9 * max(abs(mean), 1e-30) else 0.0
