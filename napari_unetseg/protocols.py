"""How the papers trained their nets, by name: each protocol is a `Plan` to start from.

What a plan cannot say of a paper's training is listed with the protocol as `differs`, one sentence each, and shown when
it is used. This holds for all: the papers scale images to one size; here nothing is resized, patches of that size are
drawn instead. Gradients longer than 12 are shortened, which no paper does. The papers report the best epoch on the very
fold it was chosen on, which is optimistic; ``keep="best"`` does the same here, while `compare` scores on images that no
choice was made on.

Keras' ``l2(d)`` is a weight decay of ``2 d`` here, on kernels only, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_unetseg.plan import Plan
from napari_unetseg.registry import Registry

__all__ = ["PROTOCOLS"]

PROTOCOLS: Registry[Callable[[], Plan]] = Registry("protocol")

_RESIZED = "The paper scales images to one size; here patches of that size are drawn from images as they are."
_EPOCH = "An epoch draws as many random patches as cover the images, at least ten batches, and not each image once."
_COMMON = (_RESIZED, _EPOCH)
_KERAS_ADAM: dict[str, Any] = {"optimiser": "adam", "learning_rate": 1e-3, "epsilon": 1e-7}
# the usual recipe also changes intensities, which of the papers only MILDNet's does
_NO_TONES = {"toned": 0.0, "noised": 0.0, "blurred": 0.0}


def _plan(net: dict[str, Any], data: dict[str, Any], training: dict[str, Any], **sections: Any) -> Plan:
    """Plan with what all papers share: their own layers and widths, 32-bit arithmetic, the weights themselves."""
    shared = {"weight_decay": 0.0, "average": 0.0, "keep": "best", "validate_every": 1}
    shared |= {"precision": "float32", "teacher": 0.0}
    whole = {"width": 1.0, "norm": "paper"}
    return Plan(net={**whole, **net}, data=data, training={**shared, **training}, **sections)


@PROTOCOLS.register("multiresunet", paper="Ibtehaz & Rahman 2019", differs=_COMMON)
def multiresunet() -> Plan:
    """MultiResUNet in 2D: cross-entropy, Adam 0.001, 150 epochs of 256 x 256, no augmentation, best epoch kept."""
    training = {**_KERAS_ADAM, "schedule": "constant", "loss": "bce", "augment": 0.0}
    return _plan(
        {"name": "multiresunet", "dims": 2},
        {"normalisation": {"kind": "rgb"}, "heldout": 0.2, "folds": 5},
        {**training, "batch_size": 10, "epochs": 150, "patch": (256, 256)},
    )


@PROTOCOLS.register(
    "multiresunet-3d",
    paper="Ibtehaz & Rahman 2019",
    differs=(
        *_COMMON,
        "The paper does not say the batch in 3D, nor how the MR volumes are scaled: 1 and z-score here.",
    ),
)
def multiresunet_3d() -> Plan:
    """MultiResUNet in 3D: as in 2D, on patches of 48 x 80 x 80 voxels."""
    training = {**_KERAS_ADAM, "schedule": "constant", "loss": "bce", "augment": 0.0}
    return _plan(
        {"name": "multiresunet", "dims": 3},
        {"normalisation": {"kind": "zscore"}, "heldout": 0.2, "folds": 5},
        {**training, "batch_size": 1, "epochs": 150, "patch": (48, 80, 80)},
    )


@PROTOCOLS.register(
    "sharp-unet",
    paper="Zunair & Ben Hamza 2021",
    differs=(
        *_COMMON,
        "The paper waits on the validation loss; plateau and early end wait on the held-out Dice here.",
        "The repeats of the folds are left to --seed.",
    ),
)
def sharp_unet() -> Plan:
    """Sharp U-Net: cross-entropy, Adam 0.001, until 10 epochs bring no gain, no augmentation, best epoch kept.

    ``ce`` is the paper's binary cross-entropy for one class, and its categorical one for several.
    """
    until = {"epochs": 10_000, "schedule": "plateau", "patience": 10, "stop_after": 10}
    return _plan(
        {"name": "sharp-unet", "dims": 2},
        {"normalisation": {"kind": "rgb"}, "heldout": 0.2, "folds": 5},
        {**_KERAS_ADAM, **until, "loss": "ce", "batch_size": 16, "patch": (256, 256), "augment": 0.0},
    )


@PROTOCOLS.register(
    "modular",
    paper="Laird 2019",
    differs=(
        "The paper crops the middle 144 x 144 pixels; here patches of that size are drawn anywhere.",
        _EPOCH,
        "ZCA whitening is left out: taken literally it needs a matrix of 27 GB.",
    ),
)
def modular() -> Plan:
    """Modular U-Net with NASNet cells (the paper's best): Dice, Adam 0.0001, batch 40, 20 epochs, flips and shear."""
    # mirrored and sheared by up to 2 degrees: tan(2 degrees)
    recipe = {**_NO_TONES, "quarter": 0, "moved": 1.0, "rotation": 0.0, "scale": 0.0, "shear": 0.035, "warped": 0.0}
    return _plan(
        {"name": "nas-unet", "dims": 2},
        {"normalisation": {"kind": "zscore"}, "heldout": 0.16},
        {
            "optimiser": "adam",
            "learning_rate": 1e-4,
            "schedule": "constant",
            "loss": "dice",
            "batch_size": 40,
            "epochs": 20,
            "patch": (144, 144),
            "recipe": recipe,
        },
    )


@PROTOCOLS.register(
    "mildnet",
    paper="Gudhe et al. 2021",
    differs=(
        *_COMMON,
        "Images are stretched between their 0.1 and 99.9 percentiles, not between minimum and maximum.",
        "Turns are drawn from -180 to 180 degrees, not from the paper's five angles; colours change by channel gain.",
        "The paper does not say the patience of its plateau: 10 epochs here.",
        "The paper also reports training without augmentation: set training.augment to 0 in a --plan.",
    ),
)
def mildnet() -> Plan:
    """MILDNet: cross-entropy, Adam 0.001 falling on a plateau, batch 4, 100 epochs, strong augmentation."""
    recipe = {"quarter": 0, "rotation": 180.0, "scale": 0.1, "shear": 1.0, "warped": 0.5}  # tan(45 degrees)
    tones = {"brightness": 0.2, "contrast": 0.2, "gamma": 0.0, "noised": 0.5, "noise": 0.1, "blurred": 0.5, "blur": 1.4}
    return _plan(
        {"name": "mildnet", "dims": 2},
        {"normalisation": {"kind": "percentile"}, "heldout": 0.3, "folds": 5},
        {
            "optimiser": "adam",
            "learning_rate": 1e-3,
            "schedule": "plateau",
            "patience": 10,
            "loss": "bce",
            "batch_size": 4,
            "epochs": 100,
            "patch": (256, 256),
            "recipe": {**recipe, **tones},
        },
    )


_TEN = "The paper averages ten models of ten random splits: train with --seed 0 to 9, give all to segment with -m."
_EPOCHS = "The paper gives no limit of epochs: 1000 here, ended early after 50 without gain, as there."
_SPLINE = "The spline warp has control points about 32 pixels apart, not three along each side."


def _fcn_fcresnet(data: dict[str, Any], training: dict[str, Any], **sections: Any) -> Plan:
    rmsprop = {"optimiser": "rmsprop", "smoothing": 0.9, "epsilon": 1e-8, "schedule": "decay", "decay": 1e-3}
    until = {"epochs": 1000, "stop_after": 50, "loss": "batch-dice", "learning_rate": 1e-3}
    return _plan(
        {"name": "fcn-fcresnet", "dims": 2},
        {"normalisation": {"kind": "none"}, **data},
        {**rmsprop, **until, **training},
        **sections,
    )


@PROTOCOLS.register("fcn-fcresnet-em", paper="Drozdzal et al. 2017", differs=(_EPOCH, _TEN, _EPOCHS, _SPLINE))
def fcn_fcresnet_em() -> Plan:
    """FCN and FC-ResNet on electron micrographs: batch Dice, RMSprop with decay, raw images, flips, shear, turns."""
    # sheared by up to 0.41 radians
    recipe = {**_NO_TONES, "quarter": 0, "moved": 1.0, "rotation": 25.0, "scale": 0.0, "shear": 0.435, "warped": 1.0}
    return _fcn_fcresnet(
        {"heldout": 0.2},
        {"weight_decay": 2e-4, "batch_size": 8, "patch": (256, 256), "recipe": {**recipe, "warp": 0.1}},
    )


@PROTOCOLS.register(
    "fcn-fcresnet-liver",
    paper="Drozdzal et al. 2017",
    differs=(
        _EPOCH,
        _EPOCHS,
        "The paper decays the weights of the first net by 0.0001 and of the second by 0.0005; here both by 0.0005.",
        "Every class is at the centre of as many patches, where the paper has a lesion in every one.",
        "Lesions are not confined to the liver unless the labels leave the outside unknown.",
    ),
)
def fcn_fcresnet_liver() -> Plan:
    """FCN and FC-ResNet on CT of the liver: batch Dice, RMSprop with decay, raw images, crops of 128 x 128."""
    return _fcn_fcresnet(
        {"heldout": 0.27}, {"weight_decay": 1e-3, "batch_size": 20, "patch": (128, 128), "augment": 0.0}
    )


@PROTOCOLS.register("fcn-fcresnet-prostate", paper="Drozdzal et al. 2017", differs=(_EPOCH, _TEN, _EPOCHS, _SPLINE))
def fcn_fcresnet_prostate() -> Plan:
    """FCN and FC-ResNet on MR of the prostate: batch Dice, RMSprop with decay, raw images, largest object kept."""
    recipe = {**_NO_TONES, "flip": 0.0, "quarter": 0, "moved": 1.0, "rotation": 10.0, "scale": 0.0, "shear": 0.1}
    return _fcn_fcresnet(
        {"heldout": 0.2},
        {
            "learning_rate": 4e-4,
            "weight_decay": 2e-5,
            "batch_size": 24,
            "patch": (256, 256),
            "recipe": {**recipe, "warped": 1.0, "warp": 0.1},
        },
        post={"steps": (("largest-component", {}),)},
    )
