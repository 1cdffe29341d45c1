"""The systems that `rivals.py` compares: each learns from strokes within a time, and gives masks of other images.

A system is given images and strokes, nothing else, and goes on from what it has when it is asked again. All use the
same device and as many threads. What each needs is imported only when it is used.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from napari_unetseg.data import Dataset
from napari_unetseg.data.annotation import to_mask
from napari_unetseg.data.dataset import Case, Sample
from napari_unetseg.devices import choose_compute
from napari_unetseg.errors import Stopped
from napari_unetseg.inference import predict
from napari_unetseg.instant import fit_instant
from napari_unetseg.nets import Model
from napari_unetseg.plan import Plan
from napari_unetseg.training import fine_tune
from napari_unetseg.volume import Volume

SIDE = {2: 256, 3: 64}  # of MONAI's patches, unless the images are smaller


@dataclass
class Painted:
    """An image, and its annotation so far; a reader of `napari_unetseg.data.dataset.Case`."""

    name: str
    image: Volume
    strokes: np.ndarray = field(repr=False)

    def target(self) -> tuple[np.ndarray, np.ndarray]:
        return to_mask(self.strokes)

    def sample(self) -> Sample:
        return Sample(self.name, self.image, *self.target())


@dataclass(frozen=True)
class Task:
    """What is to be learned: classes, background first, and where."""

    classes: tuple[str, ...]
    device: str
    threads: int
    seed: int


class System(Protocol):
    """One way to get from strokes to masks."""

    def warm_up(self) -> None:
        """Load what is loaded once a session, before any clock runs."""

    def learn(self, painted: Sequence[Painted], seconds: float) -> float | None:
        """Learn from all strokes for at most about so many seconds, going on from what there is.

        Returns the seconds that it took where the clock outside would tell too many.
        """

    def masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        """Masks of images: 0 background, 1.. classes."""


class Ours:
    """napari-unetseg as its window does it: `fine_tune` with its own decisions, going on from the last model."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model: Model | None = None

    def warm_up(self) -> None:
        choose_compute(self.task.device)

    def learn(self, painted: Sequence[Painted], seconds: float) -> None:
        cases = tuple(Case(one.name, one.name, None, None, one) for one in painted)
        image = painted[0].image
        dataset = Dataset(cases, self.task.classes, "annotation", (), image.data.shape[0], image.ndim)
        plan = Plan(training={"device": self.task.device, "seed": self.task.seed})
        start = self.model if self.model is not None and self.model.plan.net.name != "instant" else None
        if start is not None:
            plan = plan.change(net=start.plan.net.model_dump())
        try:
            self.model = fine_tune(dataset, plan, minutes=seconds / 60, start=start)
        except Stopped:  # no time for a first step of the net: what the window shows by then is the instant model
            self.model = fit_instant(dataset, plan)

    def masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        if self.model is None:
            raise TimeoutError
        return [predict(self.model, image).data for image in images]


class Forest:
    """scikit-image's trainable segmentation, as its gallery has it: multiscale features and a random forest.

    The recipe of ilastik, Labkit and Weka. It knows no time: it is done when it is done.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.forest: Any = None
        self._largest = 16.0  # sigma of the features, smaller for thin volumes
        self._features: dict[str, np.ndarray] = {}

    def warm_up(self) -> None:
        import skimage.feature  # noqa: F401

    def learn(self, painted: Sequence[Painted], seconds: float) -> None:
        from sklearn.ensemble import RandomForestClassifier

        values, labels = [], []
        if self.forest is None:
            self._largest = min(16.0, max(2.0, min(min(one.image.shape) for one in painted) / 2))
        for one in painted:
            if one.name not in self._features:
                self._features[one.name] = self._describe(one.image)
            values.append(self._features[one.name][one.strokes > 0])
            labels.append(one.strokes[one.strokes > 0])
        self.forest = RandomForestClassifier(100, n_jobs=self.task.threads, random_state=self.task.seed)
        self.forest.fit(np.concatenate(values), np.concatenate(labels))

    def masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        found = []
        for image in images:
            features = self._describe(image)
            labels = self.forest.predict(features.reshape(-1, features.shape[-1]))
            found.append((labels.reshape(image.shape) - 1).astype(np.uint8))
        return found

    def _describe(self, image: Volume) -> np.ndarray:
        from skimage.feature import multiscale_basic_features

        return multiscale_basic_features(np.moveaxis(image.data, 0, -1), sigma_max=self._largest, channel_axis=-1)


class Monai:
    """MONAI: BasicUNet, MONAI's transforms, cache, loader and sliding window; cross-entropy where strokes are.

    Its Dice losses know no unlabelled voxels, or mask before the activation; cross-entropy with an index to ignore is
    what its users take for strokes.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.net: Any = None

    def warm_up(self) -> None:
        import monai.data
        import monai.inferers
        import monai.networks.nets
        import monai.transforms  # noqa: F401

    def learn(self, painted: Sequence[Painted], seconds: float) -> None:
        begin = time.monotonic()
        if self.net is None:
            self._make(painted[0].image)
        self.net.train()
        loss = torch.nn.CrossEntropyLoss(ignore_index=-1)
        for batch in self._batches(painted):
            self.optimiser.zero_grad()
            target = batch["label"][:, 0].long().to(self.task.device) - 1
            loss(self.net(batch["image"].to(self.task.device)), target).backward()
            self.optimiser.step()
            if time.monotonic() - begin >= seconds:
                return

    @torch.no_grad()
    def masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        from monai.inferers import sliding_window_inference
        from monai.transforms import NormalizeIntensity

        self.net.eval()
        found = []
        for image in images:
            values = NormalizeIntensity(channel_wise=True)(image.data.astype(np.float32))
            tensor = torch.as_tensor(values)[None].to(self.task.device)
            logits = sliding_window_inference(tensor, self.patch, 4, self.net, overlap=0.25, mode="gaussian")
            found.append(logits[0].argmax(0).cpu().numpy().astype(np.uint8))
        return found

    def _make(self, image: Volume) -> None:
        from monai.networks.nets import BasicUNet
        from monai.utils import set_determinism

        set_determinism(self.task.seed)
        side = SIDE[image.ndim]
        self.patch = tuple(min(side, max(16, 16 * (n // 16))) for n in image.shape)
        self.net = BasicUNet(image.ndim, image.data.shape[0], len(self.task.classes)).to(self.task.device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), 1e-3)

    def _batches(self, painted: Sequence[Painted]) -> Iterator[dict[str, torch.Tensor]]:
        from monai import transforms as of
        from monai.data import CacheDataset, DataLoader

        both, dims = ["image", "label"], painted[0].image.ndim
        classes = len(self.task.classes) + 1  # label 0 is unlabelled: no patch is centred there
        chain = [
            of.NormalizeIntensityd("image", channel_wise=True),
            of.SpatialPadd(both, self.patch),
            of.RandCropByLabelClassesd(
                both, "label", self.patch, [0, *[1] * (classes - 1)], classes, 4, warn=False, allow_smaller=True
            ),
            *(of.RandFlipd(both, 0.5, axis) for axis in range(dims)),
            of.RandRotate90d(both, 0.5, spatial_axes=(dims - 2, dims - 1)),
            of.RandScaleIntensityd("image", 0.1, prob=0.5),
            of.RandShiftIntensityd("image", 0.1, prob=0.5),
            of.RandGaussianNoised("image", 0.3, std=0.05),
        ]
        files = [{"image": p.image.data.astype(np.float32), "label": p.strokes[None]} for p in painted]
        data = CacheDataset(files, of.Compose(chain), progress=False)
        loader = DataLoader(data, batch_size=2, shuffle=True, num_workers=0)
        return itertools.chain.from_iterable(itertools.repeat(loader))


class NnUnet:
    """nnU-Net v2 with its ignore label, fingerprint, plans and preprocessing on the clock, cut when it is over.

    It trains anew each time, in a process of its own (`rival_nnunet.py`), and predicts with the weights it has then.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def warm_up(self) -> None:
        """Each process loads for itself; its clock begins after that."""

    def learn(self, painted: Sequence[Painted], seconds: float) -> float:
        self._place = tempfile.TemporaryDirectory()
        folder = Path(self._place.name)
        for number, one in enumerate(painted):
            np.savez(folder / f"painted{number}.npz", image=one.image.data, strokes=one.strokes,
                     spacing=one.image.geometry.spacing)  # fmt: skip
        facts = {"classes": self.task.classes, "device": self.task.device, "threads": self.task.threads}
        (folder / "task.json").write_text(json.dumps({**facts, "seconds": seconds}))
        self._run(folder, "learn")
        return json.loads((folder / "learned.json").read_text())["seconds"]

    def masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        folder = Path(self._place.name)
        for number, image in enumerate(images):
            np.savez(folder / f"image{number:04d}.npz", image=image.data, spacing=image.geometry.spacing)
        self._run(folder, "masks")
        return [np.load(folder / f"mask{number:04d}.npy") for number in range(len(images))]

    def _run(self, folder: Path, what: str) -> None:
        script = Path(__file__).with_name("rival_nnunet.py")
        words = [sys.executable, str(script), what, str(folder)]
        done = subprocess.run(words, env={**os.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else f"exit {done.returncode}")


SYSTEMS: dict[str, tuple[type, str]] = {
    "ours": (Ours, "torch"),
    "scikit-image forest": (Forest, "skimage"),
    "MONAI BasicUNet": (Monai, "monai"),
    "nnU-Net v2": (NnUnet, "nnunetv2"),
}


def missing(name: str) -> bool:
    """Whether what a system needs is not installed."""
    return importlib.util.find_spec(SYSTEMS[name][1]) is None
