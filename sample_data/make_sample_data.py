"""Make the sample data of this folder, byte for byte the same every time: ``python sample_data/make_sample_data.py``.

Two sets are generated, so that their truth is exact: `nuclei-2d` and `organ-3d`. Four come from pictures that
scikit-image ships; their masks are made here by classical steps and are no clinical truth. `README.md` beside this file
says where each comes from.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import tifffile
from scipy import ndimage
from skimage import color, data, filters, io, measure, morphology, segmentation, transform

HERE = Path(__file__).resolve().parent


# ---- nuclei-2d: fluorescence images of nuclei, as a wide-field microscope with a 20x lens would take them ------

PIXEL_UM = 0.5
SIDE = 256
SLIDES = ("a", "b", "c")  # three stainings, of four fields each


def make_nuclei(folder: Path) -> None:
    """Twelve 16-bit fields of nuclei with debris and out-of-focus nuclei, and the truth."""
    for number, slide in enumerate(SLIDES):
        for field in range(1, 5):
            rng = np.random.default_rng([2024, number, field])
            image, truth = nuclei_field(rng, staining=(1.0, 0.75, 1.3)[number])
            name = f"slide-{slide}_{field}.tif"
            write_tiff(folder / "images" / name, image, PIXEL_UM)
            write_tiff(folder / "masks" / name, truth.astype(np.uint8), PIXEL_UM)


def nuclei_field(rng: np.random.Generator, staining: float) -> tuple[np.ndarray, np.ndarray]:
    """One field of view: uint16 image and bool truth, both (256, 256)."""
    shape = (SIDE, SIDE)
    truth, sharp = np.zeros(shape, bool), np.zeros(shape)
    for centre, radius in scatter(rng, count=int(rng.integers(17, 24)), radii=(10.5, 16.0)):
        body = outline(rng, shape, centre, radius)
        brightness = rng.uniform(0.35, 1.1)
        sharp = np.where(body, brightness * chromatin(rng, body), sharp)
        truth |= body
    sharp = ndimage.gaussian_filter(sharp, 0.9)  # the lens
    blurred = np.zeros(shape)  # nuclei of other depths: same light, no texture, no edge
    for centre, radius in scatter(rng, count=int(rng.integers(9, 13)), radii=(11.0, 17.0)):
        blurred += rng.uniform(0.45, 1.3) * outline(rng, shape, centre, radius)
    blurred = ndimage.gaussian_filter(blurred, rng.uniform(4.5, 6.0))
    light = staining * (sharp + blurred + debris(rng, shape)) + 0.12 + 0.10 * cloud(rng, shape, 30)
    light *= illumination(rng, shape)
    photons = rng.poisson(np.clip(light, 0, None) * 260)
    counts = photons * 14.0 + rng.normal(520, 38, shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16), truth


def scatter(rng: np.random.Generator, count: int, radii: tuple[float, float]) -> list[tuple[np.ndarray, float]]:
    """Centres and radii in the field; some touch, none lie on one another."""
    found: list[tuple[np.ndarray, float]] = []
    for _ in range(count * 40):
        if len(found) == count:
            break
        radius = rng.uniform(*radii)
        if found and rng.random() < 0.45:  # beside another one
            other, near = found[int(rng.integers(len(found)))]
            angle = rng.uniform(0, 2 * np.pi)
            centre = other + (near + radius) * 0.97 * np.array([np.sin(angle), np.cos(angle)])
        else:
            centre = rng.uniform(0, SIDE, 2)
        inside = (centre > -4).all() and (centre < SIDE + 4).all()
        if inside and all(np.hypot(*(centre - c)) > 0.92 * (radius + r) for c, r in found):
            found.append((centre, radius))
    return found


def outline(rng: np.random.Generator, shape: tuple[int, int], centre: np.ndarray, radius: float) -> np.ndarray:
    """A wobbly ellipse, bool."""
    y, x = np.indices(shape)
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.35)
    dy, dx = y - centre[0], x - centre[1]
    u = (np.cos(turn) * dx + np.sin(turn) * dy) / np.sqrt(stretch)
    v = (-np.sin(turn) * dx + np.cos(turn) * dy) * np.sqrt(stretch)
    angle = np.arctan2(v, u)
    wobble = sum(rng.normal(0, 0.05 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
    return np.hypot(u, v) < radius * (1 + wobble)


def chromatin(rng: np.random.Generator, body: np.ndarray) -> np.ndarray:
    """Texture of a nucleus in focus: grains, dark nucleoli, a faint rim."""
    noise = rng.normal(size=body.shape)
    grains = ndimage.gaussian_filter(noise, 1.3) - ndimage.gaussian_filter(noise, 3.0)
    texture = 1 + 0.26 * grains / grains.std()
    depth = ndimage.distance_transform_edt(body)
    texture += 0.30 * np.exp(-(((depth - 2.0) / 1.5) ** 2))
    inner = np.argwhere(depth > 4)
    for _ in range(int(rng.integers(1, 4)) if len(inner) else 0):
        centre = inner[int(rng.integers(len(inner)))]
        distance = np.hypot(*(np.indices(body.shape) - centre[:, None, None]))
        texture *= 1 - 0.6 * np.exp(-((distance / rng.uniform(1.8, 2.8)) ** 2))
    return np.clip(texture, 0.1, None)


def debris(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Bright smooth specks and a fibre: light that is no nucleus."""
    light = np.zeros(shape)
    for _ in range(int(rng.integers(9, 15))):
        centre, radius = rng.uniform(0, SIDE, 2), rng.uniform(2.0, 5.0)
        distance = np.hypot(*(np.indices(shape) - centre[:, None, None]))
        light += rng.uniform(0.7, 1.9) * np.exp(-((distance / radius) ** 2))
    along = np.linspace(0, 1, 1200)
    start, end, bend = rng.uniform(0, SIDE, 2), rng.uniform(0, SIDE, 2), rng.uniform(-60, 60, 2)
    path = start + (end - start) * along[:, None] + bend * np.sin(np.pi * along)[:, None]
    y, x = np.clip(np.rint(path).astype(int), 0, SIDE - 1).T
    fibre = np.zeros(shape)
    fibre[y, x] = 1
    return light + rng.uniform(2.0, 3.2) * ndimage.gaussian_filter(fibre, 1.6)


def illumination(rng: np.random.Generator, shape: tuple[int, ...], depth: float = 0.9) -> np.ndarray:
    """A smooth field around 1 that multiplies the light: the bias."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    slope = rng.normal(size=len(shape))
    slope *= depth / np.linalg.norm(slope)
    bend = rng.uniform(-0.35, -0.1) * depth
    return np.exp(sum(s * a for s, a in zip(slope, axes, strict=True)) + bend * sum(a**2 for a in axes))


def cloud(rng: np.random.Generator, shape: tuple[int, ...], size: float | tuple[float, ...]) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), size)
    return (noise - noise.mean()) / noise.std()


def write_tiff(path: Path, image: np.ndarray, pixel_um: float) -> None:
    """Save as ImageJ does, with the pixel size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, image, imagej=True, resolution=(1 / pixel_um, 1 / pixel_um), metadata={"unit": "um", "axes": "YX"}
    )


# ---- organ-3d: an organ with lesions, as a coarse, oblique, T1-weighted scan would show them ------

VOXELS = (24, 80, 80)  # z, y, x
STEP_MM = (3.0, 1.0, 1.0)
TILTS_DEG = ((12, -7, 20), (-9, 5, -14), (6, 11, 8), (-14, -4, 25))  # about x, y, z: one for each scan


def make_organs(folder: Path) -> None:
    """Four oblique, anisotropic volumes of an organ with lesions, and the truth (1 organ, 2 lesion)."""
    for number, tilt in enumerate(TILTS_DEG, start=1):
        rng = np.random.default_rng([2025, number])
        image, truth = organ_scan(rng)
        affine = oblique(tilt, offset=rng.uniform(-60, 60, 3))
        write_nifti(folder / "images" / f"scan-{number}.nii.gz", image, affine)
        write_nifti(folder / "masks" / f"scan-{number}.nii.gz", truth, affine)


def organ_scan(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One scan: int16 image and uint8 truth, both (24, 80, 80); computed at 1 mm, so that slices are thick."""
    fine = (VOXELS[0] * 3, *VOXELS[1:])
    body = ball(rng, fine, (36, 40, 40), (60, 35, 37), wobble=0.02)
    muscle = ndimage.binary_erosion(body, iterations=3)
    organ = ball(rng, fine, np.array([36, 37, 29]) + rng.uniform(-3, 3, 3), rng.uniform((22, 18, 15), (28, 22, 19)))
    organ &= ndimage.binary_erosion(muscle, iterations=2)
    lesion = np.zeros(fine, bool)
    inner = np.argwhere(ndimage.distance_transform_edt(organ) > 5)
    for radius in rng.uniform(4.0, 8.5, int(rng.integers(2, 5))):
        centre = inner[int(rng.integers(len(inner)))]
        lesion |= ball(rng, fine, centre, (radius,) * 3) & ndimage.binary_erosion(organ, iterations=1)
    # the same greys as the organ and the lesions, elsewhere: a spleen, a gut with contents, vessels
    spleen = ball(rng, fine, np.array([34, 46, 63]) + rng.uniform(-3, 3, 3), (17, 10, 7)) & muscle & ~organ
    gut = ball(rng, fine, np.array([38, 24, 55]) + rng.uniform(-3, 3, 3), (20, 8, 11)) & muscle & ~organ & ~spleen
    filled = ball(rng, fine, np.array([38, 24, 55]) + rng.uniform(-3, 3, 3), (12, 5, 7)) & gut
    bone = ball(rng, fine, (36, 64, 40), (80, 6, 7), wobble=0.03)
    tissue = 470 + 28 * cloud(rng, fine, 3)
    image = np.where(body, 900 + 30 * cloud(rng, fine, 2), 8)  # fat under the skin
    image = np.where(muscle, tissue, image)
    image = np.where(bone, 250, image)
    image = np.where(spleen, 640 + 20 * cloud(rng, fine, 4), image)
    image = np.where(gut, 650 + 40 * cloud(rng, fine, 2), image)
    image = np.where(filled, 420, image)
    image = np.where(organ, 645 + 38 * cloud(rng, fine, 1.3), image)
    image = np.where(lesion, 455 + 45 * cloud(rng, fine, 2), image)
    image = np.where(vessels(rng, fine) & muscle & ~lesion, 430, image)
    image = ndimage.gaussian_filter(image, (0.5, 0.8, 0.8)) * illumination(rng, fine, depth=0.55)
    image = image.reshape(VOXELS[0], 3, *VOXELS[1:]).mean(axis=1)
    noisy = np.hypot(image + rng.normal(0, 24, VOXELS), rng.normal(0, 24, VOXELS))  # magnitude images are Rician
    labels = np.stack([(~organ).astype(float), organ & ~lesion, lesion])
    truth = labels.reshape(3, VOXELS[0], 3, *VOXELS[1:]).mean(axis=2).argmax(axis=0)
    return np.rint(noisy).astype(np.int16), truth.astype(np.uint8)


def ball(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    centre: np.ndarray | tuple[float, ...],
    radii: np.ndarray | tuple[float, ...],
    wobble: float = 0.10,
) -> np.ndarray:
    """An ellipsoid with an uneven surface, bool."""
    grid = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    distance = np.sqrt(((grid / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(axis=0))
    return distance < 1 + wobble * cloud(rng, shape, max(2.0, min(radii) / 3))


def vessels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A few thin curved tubes through the middle, bool."""
    lines = np.zeros(shape, bool)
    along = np.linspace(0, 1, 400)[:, None]
    for _ in range(5):
        start, end = rng.uniform(0.2, 0.8, (2, 3)) * np.array(shape)
        path = start + (end - start) * along + rng.uniform(-10, 10, 3) * np.sin(np.pi * along)
        lines[tuple(np.clip(np.rint(path).astype(int), 0, np.array(shape) - 1).T)] = True
    return ndimage.distance_transform_edt(~lines) < 1.6


def oblique(tilt_deg: tuple[float, float, float], offset: np.ndarray) -> np.ndarray:
    """Affine from the index (i, j, k) = (x, y, z) of the file to RAS+ in mm."""
    a, b, c = np.deg2rad(tilt_deg)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    # x to the patient's left and y to the back, as scanners store them
    affine[:3, :3] = about_z @ about_y @ about_x @ np.diag([-STEP_MM[2], -STEP_MM[1], STEP_MM[0]])
    affine[:3, 3] = np.round(offset, 2)
    return affine


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """Save (z, y, x) as the (x, y, z) that NIfTI has, in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume.T, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    # gzip writes the time and the name of the file into its header; neither belongs into data that are compared
    path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


# ---- real pictures, from scikit-image; the masks are the outcome of the steps below and no more ------


def make_cell(folder: Path) -> None:
    """A quantitative phase image of one cell; its outline by a threshold halfway between cell and surroundings."""
    image = data.cell()
    smooth = filters.gaussian(image, 3)
    around = np.median(smooth)
    body = largest(ndimage.binary_fill_holes(smooth > (around + np.percentile(smooth, 98)) / 2))
    write_tiff(folder / "images" / "cell.tif", image, 0.107)
    write_tiff(folder / "masks" / "cell.tif", morphology.opening(body, morphology.disk(5)).astype(np.uint8), 0.107)


def make_ihc(folder: Path) -> None:
    """Colonic glands in brown (DAB) and blue (haematoxylin): brown tissue and blue nuclei by colour separation."""
    image = data.immunohistochemistry()
    blue, _, brown = np.moveaxis(filters.gaussian(color.rgb2hed(image), 1.5, channel_axis=-1), -1, 0)
    stained = tidy(brown > filters.threshold_otsu(brown), 150)
    nuclei = tidy((blue > filters.threshold_otsu(blue)) & ~stained, 40)
    save_png(folder / "images" / "ihc.png", image)
    save_png(folder / "masks" / "ihc.png", np.where(stained, 1, np.where(nuclei, 2, 0)).astype(np.uint8))


def make_retina(folder: Path) -> None:
    """Part of a fundus photograph at half size: vessels by ridges of the green channel."""
    image = data.retina()[194:1218, 130:1154]
    image = np.rint(transform.downscale_local_mean(image, (2, 2, 1))).astype(np.uint8)
    green = filters.gaussian(image[..., 1], 0.7)
    green = green / filters.gaussian(green, 25)
    ridges = filters.sato(green, sigmas=(1.5, 2, 3), black_ridges=True)
    inside = ndimage.binary_erosion(filters.gaussian(image[..., 1], 3) > 0.08, iterations=12, border_value=1)
    ridges[~inside] = 0  # the edge of the photograph is a ridge too
    low, high = np.percentile(ridges[inside], (88, 94))
    vessels = tidy(filters.apply_hysteresis_threshold(ridges, low, high), 120)
    save_png(folder / "images" / "retina.png", image)
    save_png(folder / "masks" / "retina.png", vessels.astype(np.uint8))


def make_microaneurysms(folder: Path) -> None:
    """Detail of a diabetic retina: small dark spots, by closing them by diameter (Walter and others, 2007)."""
    image = data.microaneurysms()
    smooth = np.rint(filters.gaussian(image, 0.7, preserve_range=True)).astype(np.uint8)
    depth = morphology.diameter_closing(smooth, 10, connectivity=2).astype(int) - smooth
    # parts of vessels that the border of the picture cuts short look like spots
    spots = segmentation.clear_border(morphology.reconstruction(depth >= 14, depth >= 5).astype(bool))
    save_png(folder / "images" / "microaneurysms.png", image)
    save_png(folder / "masks" / "microaneurysms.png", tidy(spots, 6).astype(np.uint8))


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part."""
    labels = measure.label(mask)
    return labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1


def tidy(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Without parts and holes of fewer than `smallest` pixels."""
    for _ in range(2):
        labels = measure.label(mask)
        mask = ~(mask & (np.bincount(labels.ravel())[labels] >= smallest))
    return mask


def save_png(path: Path, image: np.ndarray) -> None:
    """Save without metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, image, check_contrast=False)


SETS = {
    "nuclei-2d": make_nuclei,
    "organ-3d": make_organs,
    "cell": make_cell,
    "ihc": make_ihc,
    "retina": make_retina,
    "microaneurysms": make_microaneurysms,
}


def main() -> None:
    """Make the sets named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; all when none is named")
    parser.add_argument("-o", "--out", type=Path, default=HERE, help="folder to write to; this one when omitted")
    chosen = parser.parse_args()
    for name in chosen.sets or SETS:
        SETS[name](chosen.out / name)
        size = sum(path.stat().st_size for path in (chosen.out / name).rglob("*.*")) / 2**20
        print(f"{name}: {size:.2f} MiB")


if __name__ == "__main__":
    main()
