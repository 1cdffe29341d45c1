"""nnU-Net v2 for `rivals.py`, in a process of its own: its folders and its settings are the process's.

    python benchmarks/rival_nnunet.py FOLDER

FOLDER has task.json and the painted images as npz. Each line of standard input is ``["learn", seconds]``, which trains
for so long from where it is, or ``["masks", count]``, which segments image*.npz into mask*.npy; each is answered by a
line of JSON with the seconds it took. Everything is nnU-Net's own: file layout with an ignore label, fingerprint,
plans, preprocessing, trainer, predictor. Only the end of the training is ours: when the seconds are over, planning and
preprocessing included; and on a processor it is told to plan for 1 GB of memory in place of 8, so that its steps are
smaller and it makes more of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1]) if len(sys.argv) == 2 else Path()
for variable in ("raw", "preprocessed", "results"):  # read when nnunetv2 is imported
    os.environ[f"nnUNet_{variable}"] = str(FOLDER / variable)
os.environ.setdefault("nnUNet_compile", "f")  # compiling takes longer than the longest budget

import numpy as np  # noqa: E402
import torch  # noqa: E402

NUMBER, NAME = 1, "Dataset001_strokes"
_SMALL = 1.0  # GB that it plans for on a processor


def main() -> None:
    from importlib.metadata import version

    from clocks import count_processor
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: F401 - loaded before the clock
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: F401

    task = json.loads((FOLDER / "task.json").read_text())
    os.environ.update(nnUNet_n_proc_DA=str(max(1, task["threads"] - 1)))
    torch.set_num_threads(task["threads"])
    if task["busy"]:
        count_processor()
    trainer: Any = None
    for line in sys.stdin:
        what, number = json.loads(line)
        begin = time.monotonic()
        if what == "learn":
            trainer = trainer or prepare(task)
            trainer.go_on(begin + number)
            steps = f"{trainer.iterations} of {trainer.configuration_manager.batch_size} x {trainer.patch}"
            facts = {"steps": steps, "versions": f"nnunetv2 {version('nnunetv2')}, torch {torch.__version__}"}
        else:
            masks(task, number)
            facts = {}
        print("\n" + json.dumps({"seconds": time.monotonic() - begin, **facts}), flush=True)


def spaced(values: np.lib.npyio.NpzFile) -> tuple[np.ndarray, list[float]]:
    """Image as ``(C, Z, Y, X)``, and spacing, as nnU-Net's readers give them."""
    image, spacing = values["image"].astype(np.float32), [float(s) for s in values["spacing"]]
    # nnU-Net's readers give a plane a far spacing along an axis of one voxel
    return (image[:, None], [999.0, *spacing]) if image.ndim == 3 else (image, spacing)


def prepare(task: dict[str, Any]) -> Any:
    """Fingerprint, plan, preprocess; returns the trainer."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    dims = write_raw(task, sorted(FOLDER.glob("painted*.npz")))
    extract_fingerprints([NUMBER], num_processes=1, check_dataset_integrity=False, verbose=False)
    plan_experiments([NUMBER], gpu_memory_target_in_gb=_SMALL if task["device"] == "cpu" else None)
    configuration = f"{dims}d" if dims == 2 else "3d_fullres"
    preprocess([NUMBER], configurations=[configuration], num_processes=[1])
    if task["busy"]:  # one thread on the clock: it augments in this process
        os.environ.update(nnUNet_n_proc_DA="0")
    return make_trainer(task, configuration)


def write_raw(task: dict[str, Any], files: list[Path]) -> int:
    """Write the images as nnU-Net wants them; unpainted voxels have the ignore label."""
    import SimpleITK as sitk

    raw, classes = FOLDER / "raw" / NAME, task["classes"]
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for number, file in enumerate(files):
        values = np.load(file)
        image, spacing = spaced(values)
        strokes = values["strokes"].astype(np.int16)
        labels = np.where(strokes > 0, strokes - 1, len(classes)).astype(np.uint8).reshape(image.shape[1:])
        parts = [(raw / "imagesTr" / f"case{number:03d}_{c:04d}.nii.gz", one) for c, one in enumerate(image)]
        for path, one in [*parts, (raw / "labelsTr" / f"case{number:03d}.nii.gz", labels)]:
            picture = sitk.GetImageFromArray(one)
            picture.SetSpacing(spacing[::-1])
            sitk.WriteImage(picture, str(path))
    labels = {**{name: number for number, name in enumerate(classes)}, "ignore": len(classes)}
    labels = {"background" if number == 0 else name: number for name, number in labels.items()}
    facts = {"channel_names": {str(c): "zscore" for c in range(len(image))}, "labels": labels,
             "numTraining": len(files), "file_ending": ".nii.gz"}  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(facts))
    return 2 if image.shape[1] == 1 else 3


def make_trainer(task: dict[str, Any], configuration: str) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Cut(nnUNetTrainer):
        """Ends when the time is over, in the middle of an epoch where that is when, and goes on from there."""

        iterations = 0

        @property
        def patch(self) -> str:
            return " x ".join(map(str, self.configuration_manager.patch_size))

        def go_on(self, end: float) -> None:
            while time.monotonic() < end or not self.iterations:
                if self.iterations % self.num_iterations_per_epoch == 0:
                    self.on_train_epoch_start()
                self.network.train()
                self.train_step(next(self.dataloader_train))
                self.iterations += 1
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_final.pth"))

    preprocessed = FOLDER / "preprocessed" / NAME
    plans, facts = (json.loads((preprocessed / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    Cut.__name__ = nnUNetTrainer.__name__  # the predictor looks for the class by its name
    plans["continue_training"] = False  # which nnU-Net's own command adds
    trainer = Cut(plans, configuration, "all", facts, torch.device(task["device"]))
    trainer.disable_checkpointing = False
    trainer.initialize()
    trainer.on_train_start()
    return trainer


def masks(task: dict[str, Any], count: int) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device(task["device"]), perform_everything_on_device=True, verbose=False,
                                allow_tqdm=False, use_mirroring=False)  # fmt: skip
    (weights,) = (FOLDER / "results").rglob("checkpoint_final.pth")
    predictor.initialize_from_trained_model_folder(str(weights.parents[1]), ("all",), weights.name)
    for file in sorted(FOLDER.glob("image*.npz"))[:count]:
        image, spacing = spaced(np.load(file))
        mask = predictor.predict_single_npy_array(image, {"spacing": spacing})
        shape = np.load(file)["image"].shape[1:]
        np.save(file.with_name(file.name.replace("image", "mask")).with_suffix(".npy"),
                np.asarray(mask, np.uint8).reshape(shape))  # fmt: skip


if __name__ == "__main__":
    main()
