"""Write the round-trip table of ``formats.md``: ``python docs/make_formats.py``.

Each row is a file written by us, read back by us, and read by a library that shares no code with ours, which says
where in the world one marked voxel lies.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from napari_unetseg.io import open_lazy, read, read_labels, write
from napari_unetseg.volume import Geometry, LabelVolume, Volume

PAGE = Path(__file__).parent / "formats.md"
START, END = "<!-- made by docs/make_formats.py -->", "<!-- end -->"
MARKED = {2: (1, 4), 3: (3, 1, 4)}


def grids() -> dict[str, Geometry]:
    """Grids that scans and microscopes have."""
    turn, _ = np.linalg.qr(np.array([[1, 0.2, -0.1], [0.1, 1, 0.3], [-0.2, 0.1, 1]]))
    affine = np.eye(4)
    affine[:3, :3] = turn[:, ::-1] * (2.5, 0.8, 0.7)
    affine[:3, 3] = (-91.5, 126.25, -72.125)
    return {
        "3D, oblique, mm, RAS+": Geometry((2.5, 0.8, 0.7), "mm", affine, "RAS+"),
        "3D, µm, on the stage": Geometry((0.29, 0.1032, 0.1032), "um").shifted((10, -2000, 3000)),
        "2D, µm": Geometry((0.5, 0.25), "um"),
    }


FAMILIES = {
    "NIfTI .nii.gz": (".nii.gz", "{}"),
    "NIfTI .nii": (".nii", "{}"),
    "NRRD": (".nrrd", "{}"),
    "MHA": (".mha", "{}"),
    "OME-Zarr 0.4": (".ome.zarr", '{"ome-zarr": "0.4"}'),
    "OME-Zarr 0.5": (".ome.zarr", '{"ome-zarr": "0.5"}'),
    "OME-TIFF": (".ome.tif", "{}"),
    "ImageJ TIFF": (".tif", '{"tiff": "imagej"}'),
    "PNG": (".png", "{}"),
}


def seen(path: Path, ndim: int) -> tuple[str, np.ndarray, str]:
    """Library, world position of the marked voxel in our axis order of the world, and the unit that it names."""
    name = path.name
    if name.endswith((".nii", ".nii.gz")):
        import nibabel as nib

        image = nib.load(path)
        index = np.argwhere(np.asarray(image.dataobj))[0]
        return "nibabel", nib.affines.apply_affine(image.affine, [*index, 0][:3]), image.header.get_xyzt_units()[0]
    if name.endswith((".nrrd", ".mha")):
        import SimpleITK as sitk

        scan = sitk.ReadImage(str(path))
        index = np.argwhere(sitk.GetArrayFromImage(scan))[0][::-1]
        place = np.array(scan.TransformIndexToPhysicalPoint([int(i) for i in index]))
        return "SimpleITK", np.array([*(place * (-1, -1, 1)[:ndim]), 0])[:3], "mm" if name.endswith(".mha") else "none"
    if name.endswith(".zarr"):
        import zarr

        attributes = dict(zarr.open_group(path, mode="r").attrs)
        multiscale = attributes.get("ome", attributes)["multiscales"][0]
        steps = {step["type"]: step[step["type"]] for step in multiscale["datasets"][0]["coordinateTransformations"]}
        index = np.argwhere(zarr.open_array(path / "0", mode="r")[...])[0]
        place = index * steps["scale"] + steps.get("translation", 0)
        return "zarr", np.array([*(0,) * (3 - ndim), *place]), multiscale["axes"][-1].get("unit", "none")
    if name.endswith(".tif"):
        import tifffile

        with tifffile.TiffFile(path) as tif:
            index = np.argwhere(tif.asarray())[0]
            if tif.is_imagej:
                x, y = (tif.pages[0].tags[f"{axis}Resolution"].value for axis in "XY")
                scale = [*([tif.imagej_metadata["spacing"]] if ndim == 3 else []), y[1] / y[0], x[1] / x[0]]
                unit, start = tif.imagej_metadata["unit"], [0.0] * ndim
            else:
                pixels = next(e for e in ElementTree.fromstring(tif.ome_metadata).iter() if e.tag.endswith("}Pixels"))
                plane = next((e for e in pixels if e.tag.endswith("}Plane")), None)
                axes, unit = "ZYX"[-ndim:], pixels.get("PhysicalSizeXUnit", "")
                scale = [float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in axes]
                start = [float(plane.get(f"Position{axis}", 0)) if plane is not None else 0.0 for axis in axes]
        return "tifffile", np.array([*(0,) * (3 - ndim), *(index * scale + start)]), unit
    from PIL import Image

    return "Pillow", np.array([0, *np.argwhere(np.asarray(Image.open(path)))[0]]), "none"


def row(family: str, grid: str, folder: Path) -> list[str]:
    """One line of the table."""
    suffix, header = FAMILIES[family]
    geometry = grids()[grid]
    ndim = geometry.ndim
    shape = (5, 6, 7)[-ndim:]
    if family == "PNG" and ndim == 3:
        return [family, grid, "refused: one plane only", *["–"] * 6]
    values = np.random.default_rng(0).integers(0, 60000, (1, *shape)).astype(np.uint16)
    scan = Volume(values, geometry, header=json.loads(header))
    path = write(folder / f"scan{suffix}", scan)
    back = read(path)
    lazy = open_lazy(path)
    same = back.data.dtype == values.dtype and np.array_equal(back.data, values)
    same_lazy = np.array_equal(lazy[..., 1:3, 2:], values[..., 1:3, 2:])
    labels = LabelVolume(np.zeros(shape, np.uint8), back.geometry, header=json.loads(header))
    labels.data[MARKED[ndim]] = 2
    path = write(folder / f"mask{suffix}", labels, like=replace(back, header={**back.header, **json.loads(header)}))
    mask = read_labels(path)
    library, place, unit = seen(path, ndim)
    there = geometry.to_world(MARKED[ndim])
    # formats that know millimetres only say so, and lengths are compared in them
    factor = 1e-3 if geometry.unit == "um" and unit == "mm" else 1.0  # MHA
    if library == "SimpleITK" and not geometry.world:
        place = np.array([0, *place[1::-1] * -1] if ndim == 2 else (place * (-1, -1, 1))[::-1])
    if library == "nibabel" and not geometry.world:
        place = place[::-1]
    distance = float(np.abs(place - there * factor).max())
    kept = back.geometry.matches(geometry, 1e-4)
    return [
        family,
        grid,
        "same" if same else "CHANGED",
        "same" if same_lazy and not lazy.in_memory else "whole" if same_lazy else "CHANGED",
        f"{'same' if kept else 'lost'}, {back.geometry.unit}",
        "same" if mask.geometry.matches(back.geometry, 1e-4) and mask.data[MARKED[ndim]] == 2 else "CHANGED",
        library,
        unit,
        f"{distance:.1g}" if distance < 1e-3 else "not said",
    ]


def dicom_row(folder: Path, tilt: float) -> list[str]:
    """One line for a series, made by pydicom, and its segmentation, read through GDCM."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import dicoms
    import SimpleITK as sitk

    values = np.random.default_rng(0).integers(0, 60000, (5, 6, 7)).astype(np.uint16)
    name = f"series-{tilt}"
    dicoms.series(folder / name, values, tilt=tilt)
    scan = read(folder / name)
    labels = LabelVolume(np.zeros(scan.shape, np.uint8), scan.geometry, header=scan.header)
    labels.data[MARKED[3]] = 1
    path = write(folder / f"{name}.dcm", labels, like=scan)
    mask = read_labels(path)
    there = dicoms.world(*MARKED[3], tilt=tilt)
    if tilt:  # a frame at a time: what reads sheared planes as one box cannot place them
        place = by_hand(path) * (-1, -1, 1)
    else:
        frames = sitk.ReadImage(str(path))
        index = np.argwhere(sitk.GetArrayFromImage(frames))[0][::-1]
        place = np.array(frames.TransformIndexToPhysicalPoint([int(i) for i in index])) * (-1, -1, 1)
    return [
        "DICOM series, DICOM-SEG",
        f"3D, oblique{', tilted gantry' * bool(tilt)}, mm, RAS+",
        "same" if scan.data.dtype == values.dtype and np.array_equal(scan.data[0], values) else "CHANGED",
        "whole",
        f"{'same' if np.allclose(scan.geometry.to_world(MARKED[3]), there, atol=1e-3) else 'lost'}, mm",
        "same" if mask.geometry.matches(scan.geometry, 1e-4) and mask.data[MARKED[3]] == 1 else "CHANGED",
        "pydicom" if tilt else "SimpleITK",
        "mm",
        f"{np.abs(place - there).max():.1g}",
    ]


def by_hand(path: Path) -> np.ndarray:
    """Position (LPS) of the marked voxel of a DICOM-SEG, from the elements of its frame."""
    import pydicom

    made = pydicom.dcmread(path)
    frame, y, x = np.argwhere(made.pixel_array)[0]
    shared = made.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    dy, dx = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    start = made.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0].ImagePositionPatient
    return np.array(start, float) + along[0] * dx * x + along[1] * dy * y


def table() -> list[str]:
    """The rows, with their heading."""
    heads = ["family", "grid", "values, dtype", "regions", "geometry, unit", "mask", "read by", "its unit", "off by"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    with tempfile.TemporaryDirectory() as folder:
        for grid in grids():
            lines += [f"| {' | '.join(row(family, grid, Path(folder)))} |" for family in FAMILIES]
        lines += [f"| {' | '.join(dicom_row(Path(folder), tilt))} |" for tilt in (0.0, 0.3)]
    return lines


def main() -> None:
    """Put the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n\n" + "\n".join(table()) + f"\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write("\n".join(table()) + "\n")
    else:
        main()
