"""Generated scenes: label maps of the kinds that biomedical images have, and an appearance drawn for each.

For `start_weights.py`. Nothing in them is of any image, so that every data set is one that a net learned on them never
saw, and no licence asks for anything.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

__all__ = ["SHAPE", "scene"]

SHAPE = (128, 256)


def field(rng: np.random.Generator, scale: float, stretch: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Smooth random field of mean 0 and deviation 1; details about `scale` pixels wide, longer along `angle`."""
    fy = np.fft.fftfreq(SHAPE[0])[:, None].astype(np.float32)
    fx = np.fft.rfftfreq(SHAPE[1])[None].astype(np.float32)
    along, across = fx * math.cos(angle) + fy * math.sin(angle), fy * math.cos(angle) - fx * math.sin(angle)
    power = np.exp(-((math.pi * scale) ** 2) * ((along * stretch) ** 2 + across**2) / 2)
    noise = np.fft.rfft2(rng.standard_normal(SHAPE, dtype=np.float32))
    found = np.fft.irfft2(noise * power, SHAPE).astype(np.float32)
    found -= found.mean()
    return found / (found.std() + 1e-6)


def grid(rng: np.random.Generator, bend: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels, displaced by about `bend` pixels."""
    y, x = np.indices(SHAPE, dtype=np.float32)
    if bend > 0:
        scale = rng.uniform(8, 40)
        y, x = y + bend * field(rng, scale), x + bend * field(rng, scale)
    return y, x


def blobs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Round things, apart or touching, some hollow: label 1 (and 2: another kind, or what is inside)."""
    size = math.exp(rng.uniform(math.log(4), math.log(45)))
    y, x = grid(rng, rng.uniform(0, 0.25) * size)
    crowd = rng.uniform(0.1, 0.9)
    number = int(np.clip(crowd * SHAPE[0] * SHAPE[1] / (math.pi * size**2), 2, 150))
    spread, long = rng.uniform(0, 0.4), rng.uniform(1, 2.2)
    q1, q2 = np.full(SHAPE, 9.0, np.float32), np.full(SHAPE, 9.0, np.float32)
    owner = np.zeros(SHAPE, np.int32)
    for index in range(number):
        cy, cx = rng.uniform(0, SHAPE[0]), rng.uniform(0, SHAPE[1])
        r = size * math.exp(rng.normal(0, spread))
        turn, a = rng.uniform(0, math.pi), rng.uniform(1, long)
        reach = int(r * a * 1.6) + 3
        box = (slice(max(0, int(cy) - reach), int(cy) + reach), slice(max(0, int(cx) - reach), int(cx) + reach))
        dy, dx = y[box] - cy, x[box] - cx
        u, v = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
        q = np.sqrt((u / a) ** 2 + v**2) / r
        first = q < q1[box]
        q2[box] = np.where(first, q1[box], np.minimum(q2[box], q))
        owner[box] = np.where(first, index, owner[box])
        q1[box] = np.where(first, q, q1[box])
    gap = rng.uniform(0, 3) / size if rng.random() < 0.5 else 0
    inside = (q1 < 1) & (q2 - q1 >= gap)
    labels = inside.astype(np.int32)
    kind = rng.random()
    if kind < 0.3:  # hollow, or a core within
        labels[inside & (q1 < rng.uniform(0.4, 0.8))] = 2
    elif kind < 0.5:  # two kinds side by side
        labels[inside & (rng.random(number + 1) < 0.5)[owner]] = 2
    return labels, owner


def cells(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A tissue of cells (1, 2 where there are two kinds) between membranes (0)."""
    size = math.exp(rng.uniform(math.log(10), math.log(60)))
    y, x = grid(rng, rng.uniform(0, 0.3) * size)
    number = max(4, int(1.6 * SHAPE[0] * SHAPE[1] / size**2))
    points = rng.uniform((-20, -20), (SHAPE[0] + 20, SHAPE[1] + 20), (number, 2)).astype(np.float32)
    far, owners = cKDTree(points).query(np.stack([y, x], -1).reshape(-1, 2), k=2)
    gap = (far[:, 1] - far[:, 0]).reshape(SHAPE)
    owner = owners[:, 0].reshape(SHAPE).astype(np.int32)
    labels = (gap > rng.uniform(1.5, 8)).astype(np.int32)
    if rng.random() < 0.3:
        labels[(labels == 1) & (rng.random(number) < 0.4)[owner]] = 2
    return labels, owner


def strands(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lines that wander: vessels, fibres, hair; some of them thicker (2)."""
    labels = np.zeros(SHAPE, np.int32)
    for label in (1, 2) if rng.random() < 0.3 else (1,):
        free = np.ones(SHAPE, bool)
        for _ in range(rng.integers(1, 14)):
            length = rng.integers(60, 500)
            angles = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, rng.uniform(0.01, 0.12), length))
            ys = np.round(rng.uniform(0, SHAPE[0]) + np.cumsum(np.sin(angles))).astype(int)
            xs = np.round(rng.uniform(0, SHAPE[1]) + np.cumsum(np.cos(angles))).astype(int)
            seen = (ys >= 0) & (ys < SHAPE[0]) & (xs >= 0) & (xs < SHAPE[1])
            free[ys[seen], xs[seen]] = False
        thick = rng.uniform(0.8, 4) * label * (1 + 0.3 * field(rng, 30))
        labels[ndimage.distance_transform_edt(free) < thick] = label
    return labels, labels


def network(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Branching lines of even width between patches: membranes, vessels, fibres."""
    stretch = rng.uniform(1, 3)
    f = field(rng, rng.uniform(8, 40), stretch, rng.uniform(0, math.pi))
    gy, gx = np.gradient(f)
    distance = np.abs(f) / (np.hypot(gy, gx) + 1e-3)
    labels = (distance < rng.uniform(0.8, 5)).astype(np.int32)
    return labels, labels


def regions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two to four areas with soft, wavy limits."""
    scale, turn, stretch = rng.uniform(20, 70), rng.uniform(0, math.pi), rng.uniform(1, 2.5)
    rough = rng.uniform(0, 0.25)
    fields = [field(rng, scale, stretch, turn) + rough * field(rng, 8) for _ in range(rng.integers(2, 5))]
    labels = np.argmax(fields, axis=0).astype(np.int32)
    return labels, labels


def layers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bands one over the other."""
    y, x = grid(rng, rng.uniform(0, 10))
    turn = rng.uniform(0, math.pi)
    height = y * math.cos(turn) + x * math.sin(turn)
    cuts = np.sort(rng.uniform(height.min(), height.max(), rng.integers(1, 5)))
    labels = (np.digitize(height, cuts) % 4).astype(np.int32)
    return labels, labels


OBJECTS, GROUNDS = (blobs, blobs, blobs, cells, cells, strands, network), (regions, layers)


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image ``(3, Y, X)``, uint8, and its labels ``(Y, X)``, uint8."""
    labels, owner = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    if rng.random() < 0.35:
        labels, owner = GROUNDS[rng.integers(len(GROUNDS))](rng)
    if labels.max() == 0 or rng.random() < 0.6:
        for _ in range(1 + (rng.random() < 0.25)):
            over, whose = OBJECTS[rng.integers(len(OBJECTS))](rng)
            top = labels.max() + 1
            owner = np.where(over > 0, whose + owner.max() + 1, owner)
            labels = np.where(over > 0, over - 1 + top, labels)
    _, labels = np.unique(labels, return_inverse=True)
    labels = labels.reshape(SHAPE)
    return render(rng, labels, owner), labels.astype(np.uint8)


def render(rng: np.random.Generator, labels: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Give every label a colour and a texture, then what nobody asks for beside them."""
    kinds = int(labels.max()) + 1
    levels = rng.permutation(np.linspace(0, 1, max(kinds, 2)))[:kinds] + rng.normal(0, 0.08, kinds)
    levels = 0.5 + (levels - 0.5) * rng.uniform(0.15, 1)
    hue = rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0
    tint = rng.uniform(-0.5, 0.5, 3) * hue
    colours = levels[:, None] + hue * rng.uniform(-0.4, 0.4, (kinds, 3)) + tint
    textures = []
    for _ in range(3):
        f = field(rng, math.exp(rng.uniform(0, 2.5)), rng.choice([1, 1, 4]), rng.uniform(0, math.pi))
        if rng.random() < 0.3:  # granules
            f = 2.0 * (f > rng.uniform(0.8, 1.8))
        textures.append(f)
    mix = rng.normal(0, 1, (kinds, 3)) * (rng.random((kinds, 3)) < 0.5) * rng.uniform(0, 0.16)
    light = sum(mix[labels, i] * textures[i] for i in range(3))
    light = light + (rng.normal(0, rng.uniform(0, 0.12), int(owner.max()) + 1))[owner]
    if rng.random() < 0.2:  # what nobody asks for: specks and reflections
        light = light + rng.uniform(-0.6, 0.6) * (field(rng, rng.uniform(2, 5)) > rng.uniform(2.2, 3))
    image = np.moveaxis(colours[labels], -1, 0) + light
    return photograph(rng, image if hue else image[:1])


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Blur, halo, uneven light, noise and another scale of tones."""
    blur = rng.uniform(0.3, 2.2) if rng.random() < 0.8 else 0
    image = ndimage.gaussian_filter(image, (0, blur, blur)) if blur else image
    if rng.random() < 0.3:  # halo
        wide = rng.uniform(2, 8)
        image = image + rng.uniform(-0.4, 0.9) * (image - ndimage.gaussian_filter(image, (0, wide, wide)))
    image = image * (1 + rng.uniform(0, 0.25) * field(rng, 80)) + rng.uniform(0, 0.12) * field(rng, 90)
    grain = rng.standard_normal(image.shape)
    if rng.random() < 0.3:
        grain = 2 * ndimage.gaussian_filter(grain, (0, 0.8, 0.8))
    grain *= rng.uniform(0, 0.1) if rng.random() < 0.5 else rng.uniform(0, 0.12) * np.sqrt(np.clip(image, 0.02, 1.5))
    image = np.clip(image + grain, -0.3, 1.6)
    low, high = image.min(), image.max()
    image = ((image - low) / (high - low + 1e-6)) ** math.exp(rng.normal(0, 0.3))
    if rng.random() < 0.5:
        image = 1 - image
    return np.broadcast_to(np.round(255 * image), (3, *SHAPE)).astype(np.uint8)
