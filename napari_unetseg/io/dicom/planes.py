"""Planes of DICOM files: one for each frame, gathered into stacks, ordered along their normal, placed in the world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from napari_unetseg.errors import ReadError
from napari_unetseg.io.dicom.headers import Header, as_numbers, wordless
from napari_unetseg.volume import Geometry

__all__ = ["Plane", "Stack", "gather", "place", "planes_of"]

_TURN = 1e-3  # directions that differ by less are the same
_PIXEL = 0.01  # relative difference of pixel sizes within one image
_SAME = 0.01  # mm: planes nearer than this lie at one position
_EVEN = 0.02  # share of the distance by which even planes may miss their place
_TILT = 0.2  # degrees from which a shear is worth a sentence
_STACKED = ("CT", "MR", "PT", "NM")  # planes of these make a stack even when they carry no position
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0))

# what may tell apart the images at one position, the first that does is taken
_TELLING = {
    "TemporalPositionIdentifier": "time", "EchoTime": "echo time", "EchoNumbers": "echo", "DiffusionBValue": "b-value",
    "TriggerTime": "trigger time", "InversionTime": "inversion time", "FlipAngle": "flip angle",
    "AcquisitionNumber": "acquisition",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plane:
    """One frame: where it lies, and how its stored values become real ones."""

    header: Header
    frame: int
    position: np.ndarray | None  # LPS, mm
    directions: np.ndarray | None  # (2, 3) along a row, along a column
    spacing: tuple[float, float] | None  # (y, x)
    rescale: tuple[float, float]  # slope, intercept
    facts: dict[str, float] = field(default_factory=dict)  # of `_TELLING`
    segment: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.header.number("Rows", 0) or 0), int(self.header.number("Columns", 0) or 0)

    @property
    def normal(self) -> np.ndarray:
        """Direction across a plane that has a place."""
        row, column = np.asarray(self.directions)
        return np.cross(row, column)

    @property
    def height(self) -> float:
        """How far along its normal a plane with a place lies, in mm."""
        return float(np.asarray(self.position) @ self.normal)


@dataclass(frozen=True)
class Stack:
    """Planes in order, and where they lie.

    Attributes
    ----------
    planes : tuple of tuple of Plane
        For each position, from the lowest along the normal, the images there: one, or one a channel.
    geometry : Geometry
        The grid.
    notes : tuple of str
        What the user should know about it.
    even : bool
        Whether the grid places every plane where it lies.
    """

    planes: tuple[tuple[Plane, ...], ...]
    geometry: Geometry
    notes: tuple[str, ...] = ()
    even: bool = True


def planes_of(header: Header) -> list[Plane]:
    """Planes of a file, one for each frame.

    Raises
    ------
    ReadError
        If its header is damaged.
    """
    with wordless(header.path):
        return _planes(header)


def _planes(header: Header) -> list[Plane]:
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    if per_frame:
        shared = list(header.get("SharedFunctionalGroupsSequence") or ())
        return [_grouped_plane(header, index, [*shared, group]) for index, group in enumerate(per_frame)]
    directions = header.numbers("ImageOrientationPatient", 6)
    detector = list(header.get("DetectorInformationSequence") or ())  # of nuclear medicine
    position = header.numbers("ImagePositionPatient", 3)
    if detector and directions is None:
        directions = as_numbers(detector[0].get("ImageOrientationPatient"), 6)
        position = position or as_numbers(detector[0].get("ImagePositionPatient"), 3)
    spacing = header.numbers("PixelSpacing", 2)
    facts = {keyword: value for keyword in _TELLING if (value := header.number(keyword)) is not None}
    rescale = (header.number("RescaleSlope", 1.0) or 1.0, header.number("RescaleIntercept", 0.0) or 0.0)
    first = Plane(header, 0, _array(position), _directions(directions), _positive(spacing), rescale, facts)
    if first.directions is None:
        first = replace(first, position=None)
    return [replace(first, frame=index, position=_moved(first, index)) for index in range(header.frames)]


def gather(planes: Iterable[Plane]) -> list[list[Plane]]:
    """Planes that make one image each: same size of picture and pixel, same directions, same frame of reference.

    Those without a place are alone, unless they are of a scanner.
    """
    groups: list[list[Plane]] = []
    for plane in planes:
        home = next((group for group in groups if _together(group[0], plane)), None)
        if home is None:
            groups.append([plane])
        else:
            home.append(plane)
    return groups


def place(planes: Sequence[Plane], fingerprint: Callable[[Plane], object]) -> Stack:
    """Order planes, and say where they lie.

    Parameters
    ----------
    planes : sequence of Plane
        Of one image, as `gather` gives them.
    fingerprint : callable
        Gives something that is equal for planes with equal pixels; asked only where it must be known.

    Raises
    ------
    ReadError
        If some positions hold several different images and others do not.
    """
    first = planes[0]
    notes: list[str] = []
    planes = _without_copies(planes, notes)
    if first.position is None or first.directions is None:
        return _unplaced(planes, notes)
    heights = [plane.height for plane in planes]
    spots: list[list[Plane]] = []
    last = -np.inf
    for index in np.argsort(heights, kind="stable"):
        if heights[index] - last > _SAME:
            spots.append([])
            last = heights[index]
        spots[-1].append(planes[index])
    spots = _channels(spots, fingerprint, notes)
    affine, spacing, even = _affine([spot[0] for spot in spots], notes)
    return Stack(tuple(map(tuple, spots)), Geometry(spacing, "mm", affine, "RAS+"), tuple(notes), even)


def _affine(planes: Sequence[Plane], notes: list[str]) -> tuple[np.ndarray, tuple, bool]:
    """Affine to RAS+ from the index (z, y, x), spacing, and whether each plane lies where it says."""
    first, normal = planes[0], planes[0].normal
    row, column = np.asarray(first.directions)
    dy, dx = first.spacing or (1.0, 1.0)
    if first.spacing is None:
        notes.append("The file gives no pixel size; 1 mm is used.")
    positions = np.array([plane.position for plane in planes])
    if len(planes) > 1:
        step = (positions[-1] - positions[0]) / (len(planes) - 1)
        even = _judge_gaps(positions @ normal, notes)
        _judge_tilt(step, normal, notes)
    else:
        sizes = (first.header.number("SpacingBetweenSlices"), first.header.number("SliceThickness"), 1.0)
        step, even = normal * next(abs(size) for size in sizes if size), True
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, column * dy, row * dx], axis=1)
    affine[:3, 3] = positions[0]
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    # the distance between planes, not between the first voxels of sheared ones, makes the voxel's volume right
    return affine, (float(step @ normal), dy, dx), even


def _judge_gaps(heights: np.ndarray, notes: list[str]) -> bool:
    gaps = np.diff(heights)
    usual, mean = float(np.median(gaps)), float(gaps.mean())
    wrong = np.abs(gaps - usual) > max(_EVEN * usual, _SAME)
    if not wrong.any():
        return True
    off = np.abs(heights - (heights[0] + mean * np.arange(len(heights)))).max()
    times = gaps / usual
    if (np.abs(times - np.rint(times)) < 2 * _EVEN).all():
        count = int((np.rint(times) - 1).sum())
        where = ", ".join(f"{index + 1} and {index + 2}" for index in np.flatnonzero(wrong)[:3])
        what = f"{count} slice{'s are' if count > 1 else ' is'} missing, between {where}"
    else:
        what = f"The slices are unevenly spaced, {gaps.min():.3g} to {gaps.max():.3g} mm apart"
    notes.append(
        f"{what}: they are kept as they are, shown {mean:.3g} mm apart, so that positions along the stack are off by "
        f"up to {off:.2g} mm, and volumes are approximate. DICOM-SEG masks keep each slice's true position."
    )
    return False


def _judge_tilt(step: np.ndarray, normal: np.ndarray, notes: list[str]) -> None:
    angle = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if angle > _TILT:
        notes.append(
            f"The slices are sheared by {angle:.1f} degrees (gantry tilt); the affine says so, nothing was resampled."
        )


def _without_copies(planes: Sequence[Plane], notes: list[str]) -> list[Plane]:
    """Planes without those that are there twice under other file names."""
    seen: dict[tuple[str, int], Plane] = {}
    for plane in planes:
        key = (plane.header.uid or str(plane.header.path), plane.frame)
        seen.setdefault(key, plane)
    if copies := len(planes) - len(seen):
        notes.append(f"{copies} image{'s are' if copies > 1 else ' is'} there twice; the copies are left out.")
    return list(seen.values())


def _channels(spots: list[list[Plane]], fingerprint: Callable[[Plane], object], notes: list[str]) -> list[list[Plane]]:
    """The images at each position in one order; equal ones are dropped where positions have different numbers."""
    if len({len(spot) for spot in spots}) > 1:
        kept = [_different(spot, fingerprint) for spot in spots]
        if dropped := sum(map(len, spots)) - sum(map(len, kept)):
            notes.append(f"{dropped} slice{'s repeat' if dropped > 1 else ' repeats'} another; left out.")
        spots = kept
    counts = sorted({len(spot) for spot in spots})
    if len(counts) > 1:
        raise ReadError(
            f"The series holds {counts[0]} to {counts[-1]} different images at a position, so it is no one image.",
            hint="Export each time point, echo or reconstruction as a series of its own.",
        )
    if counts[0] == 1:
        return spots

    def tells(keyword: str) -> bool:
        return all(len({plane.facts.get(keyword) for plane in spot} - {None}) == counts[0] for spot in spots)

    telling = next(filter(tells, _TELLING), "")
    by = f", by {_TELLING[telling]}" if telling else ""
    notes.append(f"There are {counts[0]} images at each position{by}; each is a channel.")

    def order(plane: Plane) -> tuple[float, float, int]:
        return plane.facts.get(telling, 0.0), plane.header.number("InstanceNumber", 0.0) or 0.0, plane.frame

    return [sorted(spot, key=order) for spot in spots]


def _different(spot: list[Plane], fingerprint: Callable[[Plane], object]) -> list[Plane]:
    return spot if len(spot) == 1 else list({fingerprint(plane): plane for plane in reversed(spot)}.values())[::-1]


def _unplaced(planes: list[Plane], notes: list[str]) -> Stack:
    """Planes that do not say where they lie: one picture, or a stack in their numbers' order."""
    header = planes[0].header
    sizes, unit = _pixel_size(planes[0])
    if len(planes) == 1:
        return Stack((tuple(planes),), Geometry(sizes, unit), tuple(notes))
    step = next((abs(v) for k in ("SpacingBetweenSlices", "SliceThickness") if (v := header.number(k))), 1.0)
    if header.frames > 1:
        notes.append("Its frames do not say where they lie; they are read as the planes of a stack, in their order.")
    else:
        key = "SliceLocation" if all(p.header.number("SliceLocation") is not None for p in planes) else "InstanceNumber"
        planes = sorted(planes, key=lambda plane: plane.header.number(key, 0.0) or 0.0)
        words = {"SliceLocation": "slice location", "InstanceNumber": "instance number"}[key]
        notes.append(f"Its slices do not say where they lie; they are stacked by {words}.")
    return Stack(tuple((plane,) for plane in planes), Geometry((step, *sizes), unit), tuple(notes))


def _pixel_size(plane: Plane) -> tuple[tuple[float, float], str]:
    """Pixel size of a picture without a place, and its unit."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if sizes := _positive(plane.header.numbers(keyword, 2)):
            return sizes, "mm"
    regions = list(plane.header.get("SequenceOfUltrasoundRegions") or ())
    units = [regions[0].get(f"PhysicalUnits{axis}Direction") for axis in "XY"] if len(regions) == 1 else []
    if units == [3, 3]:  # centimetres
        deltas = as_numbers([regions[0].get("PhysicalDeltaY"), regions[0].get("PhysicalDeltaX")], 2)
        if deltas and all(deltas):
            return (abs(deltas[0]) * 10, abs(deltas[1]) * 10), "mm"
    return (1.0, 1.0), "pixel"


def _grouped_plane(header: Header, index: int, groups: Sequence) -> Plane:
    """Plane of an enhanced object, from its shared groups and its own."""

    def find(group: str, keyword: str, default: object = None) -> object:
        for dataset in reversed(groups):
            for item in dataset.get(group) or ():
                if item.get(keyword) is not None:
                    return item.get(keyword)
        return default

    position = as_numbers(find("PlanePositionSequence", "ImagePositionPatient"), 3)
    directions = _directions(as_numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"), 6))
    spacing = as_numbers(find("PixelMeasuresSequence", "PixelSpacing"), 2)
    rescale = [as_numbers([find("PixelValueTransformationSequence", f"Rescale{k}")], 1) for k in ("Slope", "Intercept")]
    told = {
        "TemporalPositionIdentifier": find("FrameContentSequence", "TemporalPositionIndex"),
        "EchoTime": find("MREchoSequence", "EffectiveEchoTime"),
        "DiffusionBValue": find("MRDiffusionSequence", "DiffusionBValue"),
        "TriggerTime": find("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    }
    segment = as_numbers([find("SegmentIdentificationSequence", "ReferencedSegmentNumber", 0)], 1)
    return Plane(
        header,
        index,
        _array(position) if directions is not None else None,
        directions,
        _positive(spacing),
        (rescale[0][0] if rescale[0] else 1.0, rescale[1][0] if rescale[1] else 0.0),
        {key: found[0] for key, value in told.items() if (found := as_numbers([value], 1))},
        int(segment[0]) if segment else 0,
    )


def _moved(plane: Plane, index: int) -> np.ndarray | None:
    """Position of a frame of an old multi-frame object, which says it by offsets or by a distance."""
    if plane.position is None or plane.directions is None or plane.header.frames == 1:
        return plane.position
    offsets = plane.header.numbers("GridFrameOffsetVector", plane.header.frames)
    distance = plane.header.number("SpacingBetweenSlices") or plane.header.number("SliceThickness")
    if offsets is None and not distance:
        return None
    along = offsets[index] if offsets is not None else index * float(distance or 0)
    return plane.position + plane.normal * along


def _together(a: Plane, b: Plane) -> bool:
    if a.header.get("SeriesInstanceUID") != b.header.get("SeriesInstanceUID") or a.shape != b.shape:
        return False
    if (a.position is None) != (b.position is None):
        return False
    if a.header is not b.header and max(a.header.frames, b.header.frames) > 1:
        return False  # every multi-frame object is an image by itself
    if a.header.number("SamplesPerPixel", 1) != b.header.number("SamplesPerPixel", 1):
        return False
    if a.position is None:
        scanned = a.header.modality in _STACKED and not (a.header.is_screenshot or b.header.is_screenshot)
        return a.header is b.header or scanned
    if a.directions is None or b.directions is None or not _same_pixels(a, b):
        return False
    frames = {plane.header.get("FrameOfReferenceUID") for plane in (a, b)} - {None}
    return len(frames) < 2 and bool(np.abs(a.directions - b.directions).max() < _TURN)


def _same_pixels(a: Plane, b: Plane) -> bool:
    if a.spacing is None or b.spacing is None:
        return a.spacing is b.spacing
    return np.allclose(a.spacing, b.spacing, rtol=_PIXEL)


def _directions(numbers: tuple[float, ...] | None) -> np.ndarray | None:
    """Unit vectors along a row and a column; None when they are none."""
    if numbers is None:
        return None
    found = np.array(numbers).reshape(2, 3)
    lengths = np.linalg.norm(found, axis=1)
    if (lengths < 0.5).any() or abs(found[0] @ found[1]) > 0.05:
        return None
    return found / lengths[:, None]


def _array(numbers: tuple[float, ...] | None) -> np.ndarray | None:
    return None if numbers is None else np.array(numbers)


def _positive(numbers: tuple[float, ...] | None) -> tuple[float, float] | None:
    return (numbers[0], numbers[1]) if numbers and min(numbers) > 0 else None
