"""Write the table of ``architectures.md``: ``python docs/make_architectures.py``.

Counts are those of the nets as they are built now, at the channels of the published figure; times are the benchmark's.
"""

from __future__ import annotations

from pathlib import Path

from napari_unetseg.nets import BLOCKS, DOWNS, NETS, SKIPS, UPS, describe_net
from napari_unetseg.nets.speed import measured_on, step_time

PAGE = Path(__file__).parent / "architectures.md"
MARK = "<!-- made by docs/make_architectures.py: {} -->"

# name: dims and channels in of the published figure, the figure, how it was met, which reading was taken
READINGS: dict[str, tuple[int, int, str, str, str]] = {
    "unet": (2, 1, "7,759,521", "EXACT", "32 to 512 features, biases, no normalisation"),
    "wide-unet": (2, 1, "9.1 M", "EXACT against the UNet++ authors' 9,282,246",
                  "35 to 560, decoder mirrors the encoder; 9,130,476 with `\"reading\": \"hybrid\"`"),
    "unet3d": (3, 4, "19,078,593 in all", "EXACT", "channels doubled before pooling, four levels, no biases"),
    "multiresunet": (2, 3, "7,262,750 in all", "EXACT",
                     "as the authors' first code: output normalised too; 3D: 18,657,689 in all, EXACT"),
    "sharp-unet": (2, 3, "7,764,417 in all", "EXACT", "the sharpening kernel alone (sum 0), frozen"),
    "wide-sharp-unet": (2, 3, "9.1 M", "as wide-unet", "widths mirrored; 4,725 frozen"),
    "ternausnet16": (2, 3, "23.7 M", "MATCH", "the decoder of segmentation_models; the original has 29.3 or 32.2 M"),
    "sharp-ternausnet16": (2, 3, "23.7 M", "MATCH", "the kernel on its four skips"),
    "resnet50-unet": (2, 3, "32.5 M", "MATCH", "torchvision's ResNet-50, for which there are start weights"),
    "sharp-resnet50-unet": (2, 3, "32.7 M", "NOT REACHED by any reading",
                            "32.7 contradicts the paper's own \"no extra learnable\""),
    "attention-unet": (2, 4, "8.5 M", "TUNED", "33 to 524 features; gates on all levels but the finest"),
    "efficient-unet": (2, 4, "8.5 M", "TUNED", "36 to 572 features; one inverted bottleneck a level"),
    "nas-unet": (2, 4, "8.5 M", "MATCH within 0.4 %, weak evidence",
                 "16 to 256 filters; both inputs of a cell are the same tensor"),
    "nas-reduction-unet": (2, 4, "8.5 M", "TUNED", "reduction cells take the place of pooling"),
    "unet++": (2, 1, "9,041,601", "EXACT against the authors' integer", "no normalisation, from the paper alone"),
    "residual-unet": (2, 3, "none", "DERIVED", "sum before the last ReLU, projected by 1x1 where widths differ"),
    "resdunet": (2, 3, "none", "DERIVED", "as the MILDNet paper draws it: half residual, half dilated"),
    "mildnet": (2, 3, "none", "DERIVED", "branches summed; 11.3 M with `\"merge\": \"concat\"`"),
    "mildnet-plain-skips": (2, 3, "none", "DERIVED", "the same without MLR skips"),
    "unet-mlr": (2, 3, "none", "DERIVED", "two residual levels of two convolutions in each skip"),
    "fcn8": (2, 3, "128 M", "NOT REACHED in millions; 128.05 x 2^20", "VGG16 with its classifier as convolutions"),
    "fcn-preprocessor": (2, 1, "1.8 M, 23 convolutions", "MATCH",
                         "concatenation before the 2x2 convolution; 3x3 output"),
    "fcresnet": (2, 1, "11 M, 140 convolutions", "MATCH", "long skips are sums, both sides projected"),
    "fcn-fcresnet": (2, 1, "12.8 M", "near: 12.87", "the sum of both, trained end to end"),
}  # fmt: skip


def table() -> list[str]:
    """One row a net."""
    lines = [
        "| name | title | paper | dims | sizes padded to | trainable | frozen | total | counted | published | status"
        " | step 2D | step 3D | reading |",
        "|---|---|---|---|---:|---:|---:|---:|---|---|---|---:|---:|---|",
    ]
    for name in NETS:
        dims, channels, published, status, reading = READINGS[name]
        net = describe_net(name, dims, channels, 1)
        count = net["parameters"]
        steps = [step_time(name, d) for d in (2, 3)]
        cells = [
            f"`{name}`", net["title"], net["paper"], "/".join(f"{d}D" for d in net["dims"]), str(net["divisor"]),
            *(f"{count[kind]:,}" for kind in ("trainable", "frozen", "total")), f"{dims}D, {channels} in",
            published, status, *("" if step is None else f"{step:.2f}" for step in steps), reading,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parts() -> list[str]:
    """One row a part."""
    lines = ["| part | name | what it is |", "|---|---|---|"]
    for kind, registry in {"block": BLOCKS, "skip": SKIPS, "down": DOWNS, "up": UPS}.items():
        lines += [f"| `{kind}` | `{name}` | {registry.facts(name)['sentence']} |" for name in registry]
    return lines


def page(text: str) -> str:
    """The page with its made sections as they should be."""
    for name, lines in {"nets": table(), "parts": parts(), "machine": [f"Measured with {measured_on()}."]}.items():
        start, end = MARK.format(name), MARK.format(f"end of {name}")
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = "\n".join([before + start, *lines, end + after])
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
