"""The systems that `rivals.py` compares: each learns from strokes within a time, and gives masks of other images.

A system is given images and strokes, nothing else, and goes on from what it has when it is asked again. All use the
same device and as many threads. What each needs is imported only when it is used.
"""

from __future__ import annotations

import importlib.metadata
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
from typing import Any, ClassVar

import numpy as np
import torch

import napari_unetseg
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

SIDE = {2: 128, 3: 48}  # of MONAI's patches, unless the images are smaller


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
    busy: bool = False  # whether the clock counts processor seconds
    nnunet: str | None = None  # python that nnU-Net runs in


class System:
    """One way to get from strokes to masks.

    Attributes
    ----------
    title, package : str
        As it is called in tables, and what must be installed for it.
    steady : bool
        Whether a short training is the beginning of a longer one, so that one run can be looked at on its way.
    steps : str
        What it got done so far.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    steady: ClassVar[bool] = True

    def __init__(self, task: Task) -> None:
        self.task, self.steps = task, ""

    def warm_up(self) -> None:
        """Load what is loaded once a session, before any clock runs."""

    def versions(self) -> str:
        """What was measured."""
        return f"{self.package} {importlib.metadata.version(self.package)}"

    def learn(self, painted: Sequence[Painted], seconds: float) -> float:
        """Learn from all strokes for at most about so many seconds, going on from what there is.

        Returns the seconds that it took.
        """
        begin = time.monotonic()
        self._learn(painted, seconds)
        return time.monotonic() - begin

    def masks(self, images: Sequence[Volume]) -> tuple[list[np.ndarray], float]:
        """Masks of images, 0 background, 1.. classes; and the seconds they took."""
        begin = time.monotonic()
        masks = self._masks(images)
        return masks, time.monotonic() - begin

    def _learn(self, painted: Sequence[Painted], seconds: float) -> None:
        raise NotImplementedError

    def _masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        raise NotImplementedError


class Ours(System):
    """napari-unetseg as its window does it: `fine_tune` with its own decisions, going on from the last model."""

    title, package, steady = "ours", "torch", False

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.model: Model | None = None

    def warm_up(self) -> None:
        for dims in (2, 3):
            choose_compute(self.task.device, dims=dims)

    def versions(self) -> str:
        return f"napari-unetseg {napari_unetseg.__version__}, torch {torch.__version__}"

    def _learn(self, painted: Sequence[Painted], seconds: float) -> None:
        cases = tuple(Case(one.name, one.name, None, None, one) for one in painted)
        image = painted[0].image
        dataset = Dataset(cases, self.task.classes, "annotation", (), image.data.shape[0], image.ndim)
        plan = Plan(training={"device": self.task.device, "seed": self.task.seed})
        start = self.model
        if start is not None and start.plan.net.name != "instant":
            plan = plan.change(net=start.plan.net.model_dump())
        try:
            self.model = fine_tune(dataset, plan, minutes=seconds / 60, start=start)
        except Stopped:  # no time for a first step of the net: what the window shows by then is the instant model
            self.model = fit_instant(dataset, plan)
        facts = self.model.facts
        self.steps = f"{facts['steps']}, kept {facts.get('kept_step', 'instant')}"

    def _masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        assert self.model is not None
        return [predict(self.model, image).data for image in images]


class Forest(System):
    """scikit-image's trainable segmentation, as its gallery has it: multiscale features and a random forest.

    The recipe of ilastik, Labkit and Weka. It knows no time: it is done when it is done.
    """

    title, package = "scikit-image forest", "scikit-image"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.forest: Any = None
        self._known = 0  # voxels learned from
        self._largest = 16.0  # sigma of the features, smaller for thin volumes
        self._features: dict[str, np.ndarray] = {}

    def warm_up(self) -> None:
        import skimage.feature  # noqa: F401

    def _learn(self, painted: Sequence[Painted], seconds: float) -> None:
        from sklearn.ensemble import RandomForestClassifier

        known = sum(int((one.strokes > 0).sum()) for one in painted)
        if known == self._known:
            return  # more time changes nothing
        self._known, values, labels = known, [], []
        if self.forest is None:
            self._largest = min(16.0, max(2.0, min(min(one.image.shape) for one in painted) / 2))
        for one in painted:
            if one.name not in self._features:
                self._features[one.name] = self._describe(one.image)
            values.append(self._features[one.name][one.strokes > 0])
            labels.append(one.strokes[one.strokes > 0])
        self.forest = RandomForestClassifier(100, n_jobs=self.task.threads, random_state=self.task.seed)
        self.forest.fit(np.concatenate(values), np.concatenate(labels))

    def _masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        found = []
        for image in images:
            features = self._describe(image)
            labels = self.forest.predict(features.reshape(-1, features.shape[-1]))
            found.append((labels.reshape(image.shape) - 1).astype(np.uint8))
        return found

    def _describe(self, image: Volume) -> np.ndarray:
        from skimage.feature import multiscale_basic_features

        return multiscale_basic_features(np.moveaxis(image.data, 0, -1), sigma_max=self._largest, channel_axis=-1)


class Monai(System):
    """MONAI: BasicUNet, MONAI's transforms, cache, loader and sliding window; cross-entropy where strokes are.

    Its Dice losses know no unlabelled voxels, or mask before the activation; cross-entropy with an index to ignore is
    what its users take for strokes. Patches and batches are of ours' size, and the precision is what ours probed to be
    fastest here: batches of 8 patches of 256 x 256 in float32 are too slow for a processor's budgets.
    """

    title, package = "MONAI BasicUNet", "monai"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.net: Any = None
        self.taken = 0

    def warm_up(self) -> None:
        import monai.data
        import monai.inferers
        import monai.networks.nets
        import monai.transforms  # noqa: F401

        for dims in (2, 3):
            choose_compute(self.task.device, dims=dims)

    def _learn(self, painted: Sequence[Painted], seconds: float) -> None:
        begin = time.monotonic()
        if self.net is None:
            self._make(painted[0].image)
        self.net.train()
        loss = torch.nn.CrossEntropyLoss(ignore_index=-1)
        for batch in self._batches(painted):
            if self.taken and time.monotonic() - begin >= seconds:
                return
            self.optimiser.zero_grad()
            target = batch["label"][:, 0].long().to(self.task.device) - 1
            with self.compute.autocast():
                logits = self.net(self.compute.place(batch["image"].as_tensor()))
            loss(logits.float(), target).backward()
            self.optimiser.step()
            self.taken += 1
            self.steps = str(self.taken)

    @torch.no_grad()
    def _masks(self, images: Sequence[Volume]) -> list[np.ndarray]:
        from monai.inferers import sliding_window_inference
        from monai.transforms import NormalizeIntensity

        def forward(x: torch.Tensor) -> torch.Tensor:
            with self.compute.autocast():
                return self.net(self.compute.place(x)).float()

        self.net.eval()
        found = []
        for image in images:
            values = NormalizeIntensity(channel_wise=True)(image.data.astype(np.float32))
            tensor = torch.as_tensor(values)[None].to(self.task.device)
            logits = sliding_window_inference(tensor, self.patch, 4, forward, overlap=0.25, mode="gaussian")
            found.append(logits[0].argmax(0).cpu().numpy().astype(np.uint8))
        return found

    def _make(self, image: Volume) -> None:
        from monai.networks.nets import BasicUNet
        from monai.utils import set_determinism

        set_determinism(self.task.seed)
        side = SIDE[image.ndim]
        self.patch = tuple(min(side, max(16, 16 * (n // 16))) for n in image.shape)
        self.compute = choose_compute(self.task.device, dims=image.ndim)
        self.net = self.compute.place(BasicUNet(image.ndim, image.data.shape[0], len(self.task.classes)))
        self.optimiser = torch.optim.AdamW(self.net.parameters(), 1e-3)

    def _batches(self, painted: Sequence[Painted]) -> Iterator[dict[str, Any]]:
        from monai import transforms as of
        from monai.data import CacheDataset, DataLoader

        both, dims, square = ["image", "label"], painted[0].image.ndim, self.patch[-1] == self.patch[-2]
        classes = len(self.task.classes) + 1  # label 0 is unlabelled: no patch is centred there
        chain = [
            of.NormalizeIntensityd("image", channel_wise=True),
            of.SpatialPadd(both, self.patch),
            of.RandCropByLabelClassesd(
                both, "label", self.patch, [0, *[1] * (classes - 1)], classes, 2, warn=False, allow_smaller=True
            ),
            *(of.RandFlipd(both, 0.5, axis) for axis in range(dims)),
            # a quarter turn of a patch that is no square makes one that fits in no batch
            *([of.RandRotate90d(both, 0.5, spatial_axes=(dims - 2, dims - 1))] if square else []),
            of.RandScaleIntensityd("image", 0.1, prob=0.5),
            of.RandShiftIntensityd("image", 0.1, prob=0.5),
            of.RandGaussianNoised("image", 0.3, std=0.05),
        ]
        files = [{"image": p.image.data.astype(np.float32), "label": p.strokes[None]} for p in painted]
        data = CacheDataset(files, of.Compose(chain), progress=False)
        loader = DataLoader(data, batch_size=2 if len(files) > 1 else 1, shuffle=True, num_workers=0)
        return itertools.chain.from_iterable(itertools.repeat(loader))


class NnUnet(System):
    """nnU-Net v2 with its ignore label, fingerprint, plans and preprocessing on the clock, cut when it is over.

    It lives in a process of its own (`rival_nnunet.py`), which waits while it is looked at; for other strokes it
    begins anew.
    """

    title, package = "nnU-Net v2", "nnunetv2"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._process: subprocess.Popen | None = None
        self._known = -1
        self._version = ""

    def versions(self) -> str:
        return self._version

    def learn(self, painted: Sequence[Painted], seconds: float) -> float:
        known = sum(int((one.strokes > 0).sum()) for one in painted)
        if known != self._known:
            self._start(painted)
        self._known = known
        said = self._ask("learn", seconds)
        self.steps, self._version = said["steps"], said["versions"]
        return said["seconds"]

    def masks(self, images: Sequence[Volume]) -> tuple[list[np.ndarray], float]:
        folder = Path(self._place.name)
        for number, image in enumerate(images):
            np.savez(folder / f"image{number:04d}.npz", image=image.data, spacing=image.geometry.spacing)
        said = self._ask("masks", len(images))
        return [np.load(folder / f"mask{number:04d}.npy") for number in range(len(images))], said["seconds"]

    def _start(self, painted: Sequence[Painted]) -> None:
        self._end()
        self._place = tempfile.TemporaryDirectory()
        folder = Path(self._place.name)
        for number, one in enumerate(painted):
            np.savez(folder / f"painted{number}.npz", image=one.image.data, strokes=one.strokes,
                     spacing=one.image.geometry.spacing)  # fmt: skip
        task = self.task
        facts = {"classes": task.classes, "device": task.device, "threads": task.threads, "busy": task.busy}
        (folder / "task.json").write_text(json.dumps(facts))
        words = [task.nnunet or sys.executable, str(Path(__file__).with_name("rival_nnunet.py")), str(folder)]
        pipe, log = subprocess.PIPE, (folder / "log.txt").open("w")
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, stderr=log, text=True)

    def _ask(self, what: str, number: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, number]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"seconds"'):  # the rest is nnU-Net's own talk
                return json.loads(line)
        log = (Path(self._place.name) / "log.txt").read_text().strip().splitlines()
        raise RuntimeError(log[-1] if log else "nnU-Net ended")

    def _end(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._place.cleanup()

    def __del__(self) -> None:
        self._end()


SYSTEMS: dict[str, type[System]] = {"ours": Ours, "forest": Forest, "monai": Monai, "nnunet": NnUnet}


def missing(name: str, nnunet: str | None) -> bool:
    """Whether what a system needs is not installed."""
    if name == "nnunet" and nnunet:
        return False
    try:
        importlib.metadata.version(SYSTEMS[name].package)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False
