"""Time, memory and operations of every net, in 2D and in 3D: ``python benchmarks/nets.py`` writes ``results/nets.md``.

2D: 256x256, batch 2; 3D: 64x64x64, batch 1; one channel in, one out, float32. A training step is forward, binary
cross-entropy, backward and AdamW. Each net runs in a process of its own, so that its peak of memory is its own. Times
are processor seconds of one thread, the shortest of the repeats: on a busy machine they say more than the clock.
Operations are those of convolutions (two a multiply-add), counted by torch without running anything; a step has three
times those of a forward pass. "Slower than promised" is the time an operation takes, relative to the plain U-Net's of
the same dims.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from napari_unetseg.nets import NETS, build, count_parameters
from napari_unetseg.plan import NetSpec

SHAPES = {2: (2, 1, 256, 256), 3: (1, 1, 64, 64, 64)}
RESULTS = Path(__file__).parent / "results" / "nets.md"
SPEED = Path(__file__).parents[1] / "napari_unetseg" / "nets" / "speed.json"

# From torch's profiler and from leaving things out of the same nets, in 2D, one thread.
WHY = """\
* multiresunet: normalisation. Without it a step takes 2.2 s in place of 3.4 to 4.0: a block has six, each reads and
  writes tensors as large as the convolutions'. Its 17, 26, 35, 51, ... features also fill vectors of 16 badly.
* attention-unet: the paper's size needs 33, 66, 131, ... features. With 32, 64, 128, ... a step takes 1.45 s in place
  of 1.87, an inference 0.42 in place of 0.57, for 6 % fewer operations. The rest is normalisation (1.73 s without).
* nas-unet, nas-reduction-unet, efficient-unet: depthwise convolutions do little arithmetic on each voxel that they
  read, so memory sets the time; normalisation, activations and 3x3 means around them, which count as no operations at
  all, take as long as the convolutions. Normalisation alone is a third of nas-unet's step. Worse in 3D, where
  depthwise convolution has no quick way back on the processor: 24 channels of 64x64x64 take 0.31 s backward
  depthwise, 0.29 s in full, for a twenty-fourth of the operations. On a processor, choose another net for volumes.
* fcresnet, fcn-fcresnet: 140 thin convolutions, half of them 1x1, each behind a normalisation and a ReLU on a tensor
  as large as its input (a quarter of the step). On one thread torch also takes its plain kernel in place of oneDNN's
  for 101 of them, as it does for small 1x1 convolutions in the NAS nets; with two threads or more it does not.
* fcn-preprocessor: full-size levels of 16 and 48 features are too thin to keep the arithmetic units busy; pooling,
  repeating, padding for the even kernels and concatenation are a third of an inference.
* fcn8: a fifth of a step is the optimiser's pass over 134 million weights; inference keeps the promise.
* No dilated kernel was slow by itself: mildnet, of dilations 1, 3 and 5 throughout, keeps the promise. Channels-last
  memory takes 15 to 30 % off the inference of nearly all, the plain U-Net (0.28 s for 0.41) included.
* Batch normalisation that agrees with its evaluation looks at each tensor once more than torch's: a fifth of
  multiresunet's step, the net with most of it.
"""


def operations(name: str, dims: int) -> float:
    """Floating-point operations of a forward pass."""
    with torch.device("meta"), torch.no_grad():
        net = build(NetSpec(name=name, dims=dims)).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(SHAPES[dims]))
    return counter.get_total_flops()


def measure(name: str, dims: int, repeats: int) -> dict[str, float]:
    """Run one net in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = build(NetSpec(name=name, dims=dims))
    x = torch.randn(SHAPES[dims])
    target = (torch.randn(SHAPES[dims]) > 0).float()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def predict() -> None:
        with torch.inference_mode():
            net(x)

    net.eval()
    inference = shortest(predict, repeats)
    inference_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4)

    def step() -> None:
        loss = functional.binary_cross_entropy_with_logits(net(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    net.train()
    training = shortest(step, repeats)
    training_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    forward = operations(name, dims)
    return {
        "parameters": count_parameters(net)["trainable"],
        "forward": forward,
        "both": 3 * forward,
        "inference": inference,
        "training": training,
        "inference_memory": inference_memory * 1024,  # Linux counts in KiB
        "training_memory": training_memory * 1024,
    }


def shortest(run, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times[1:] or times)


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| net | parameters (M) | GFLOP forward | GFLOP step | inference (s) | step (s) | inference (MiB) | step (MiB)"
        " | inference slower than promised | step slower than promised |",
        "|---|" + "---:|" * 9,
    ]
    unet = rows["unet"]
    for name, row in rows.items():
        slower = [
            row[seconds] / row[flop] * unet[flop] / unet[seconds]
            for seconds, flop in (("inference", "forward"), ("training", "both"))
        ]
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.2f} | {row['forward'] / 1e9:.1f} | {row['both'] / 1e9:.1f}"
            f" | {row['inference']:.2f} | {row['training']:.2f} | {row['inference_memory'] / 2**20:.0f}"
            f" | {row['training_memory'] / 2**20:.0f} | {slower[0]:.2f} | {slower[1]:.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default="*", help="shell pattern of the nets to run (the plain U-Net always runs)")
    parser.add_argument("--dims", type=int, choices=(2, 3), nargs="+", default=[2, 3])
    parser.add_argument("--repeats", type=int, default=2, help="after one to warm up; 0 is quick and rough")
    parser.add_argument("--speed", action="store_true", help="only take the relative times from the results there are")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.speed:
        write_speed()
        return
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.repeats)))
        return
    text = [
        "# Every net: time, memory, operations",
        "",
        " ".join(__doc__.split("\n\n")[1].split()),
        "",
        f"torch {torch.__version__}, {processor()}, {platform.system()}.",
    ]
    for dims in arguments.dims:
        names = [n for n in NETS if dims in NETS.facts(n).get("dims", (2, 3))]
        names = [n for n in names if n == "unet" or n in NETS.names(arguments.nets)]
        rows = {}
        for name in names:
            command = [sys.executable, __file__, "--repeats", str(arguments.repeats), "--one", name, str(dims)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name} {dims}D: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            rows[name] = json.loads(done.stdout)
            print(f"{name} {dims}D: {rows[name]['training']:.2f} s a step", file=sys.stderr, flush=True)
        text += ["", f"## {dims}D, {'x'.join(map(str, SHAPES[dims][2:]))}, batch {SHAPES[dims][0]}", "", *table(rows)]
        write(text)


def write(text: list[str]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    ending = ["", "## Where a net is slower than its operations promise", "", WHY]
    RESULTS.write_text("\n".join([*text, *ending]), encoding="utf-8")
    write_speed()


def write_speed() -> None:
    """Write the time of a step relative to U-Net's, as the window shows it, from the table of results."""
    SPEED.write_text(json.dumps(speed(RESULTS.read_text(encoding="utf-8")), indent=1) + "\n", encoding="utf-8")


def speed(results: str) -> dict:
    steps: dict[str, dict[str, float]] = {}
    for section in results.split("\n## ")[1:]:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"]
        if rows:
            seconds = {row[0]: float(row[rows[0].index("step (s)")]) for row in rows[2:]}
            steps[section[0]] = {name: round(each / seconds["unet"], 2) for name, each in seconds.items()}
    machine = next(line for line in results.splitlines() if line.startswith("torch "))
    return {"machine": machine.rstrip("."), "step_time": steps}


def processor() -> str:
    """Name of the processor, where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()}, {len(names)} cores)" if names else platform.machine()


if __name__ == "__main__":
    main()
