"""Everything about a graphics card that a processor cannot show, in one script and under ten minutes.

    python benchmarks/on_cuda.py [--piece agree ladder resume speed2 speed3] [--nets unet,multiresunet]

agree    losses, gradients and masks of every net on the card, in float32 and in autocast, beside the processor's
ladder   a training that does not fit: every rung of the memory ladder is taken and said, and the training ends well
resume   a training that is stopped, one that is killed and resumed: the same losses as one that ran through
speed2   steps a second of every net in 2D, in float32 and in autocast: the bare loop and ours (see steps.py)
speed3   the same in 3D

Every piece rewrites its section of ``results/cuda.md``. ``--device cpu --tiny`` runs all on a processor, small, to
see that the script works; it then writes nothing unless ``--out`` is given. Exit code 0: all as it should be; 1: not;
2: there is no such device here.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import steps
import torch

from napari_unetseg.devices import Compute, half_precision
from napari_unetseg.events import Control, Note, Running, StepDone
from napari_unetseg.losses import LOSSES
from napari_unetseg.nets import NETS, Model, build
from napari_unetseg.plan import NetSpec, Plan
from napari_unetseg.training import fine_tune

RESULTS = Path(__file__).parent / "results" / "cuda.md"
# how far a number may be from the processor's in float32: loss and gradients relative, masks as a share of the voxels
EXACT = {"loss": 1e-4, "gradients": 2e-2, "masks": 1e-3}
ROUGH = {"loss": 5e-2, "gradients": 0.5, "masks": 3e-2}
PATCH = {2: (128, 128), 3: (32, 32, 32)}
TINY = {2: (32, 32), 3: (16, 16, 16)}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--piece", choices=tuple(PIECES), nargs="+", default=tuple(PIECES))
    options.add_argument("--device", default="cuda")
    options.add_argument("--nets", default="*", help="shell pattern or names with commas")
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--tiny", action="store_true", help="small nets and patches, to see that the script works")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    given.threads, given.patch = torch.get_num_threads(), 32 if given.tiny else None
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"There is no CUDA device here (torch {torch.__version__}): nothing was measured.", file=sys.stderr)
        return 2
    well, out = True, given.out or (None if given.tiny else RESULTS)
    for piece in given.piece:
        begin, lines = time.monotonic(), []
        for line in PIECES[piece](given):
            print(line, flush=True)
            lines.append(line)
        lines.append(f"\n{time.monotonic() - begin:.0f} s.")
        print(lines[-1])
        well &= not any("**no**" in line for line in lines)
        if out is not None:
            write(out, piece, given.device, lines)
    return 0 if well else 1


def write(path: Path, piece: str, device: str, lines: list[str]) -> None:
    """Put the section of a piece in place of its last one."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# On a graphics card\n"
    sections = re.split(r"(?m)^(?=## )", text)
    kept = [section for section in sections if not section.startswith(f"## {piece}\n")]
    made = f"{datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {describe(device)}."
    body = "\n".join([f"## {piece}", "", made, "", *lines]) + "\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(kept).rstrip("\n") + "\n\n" + body.rstrip("\n") + "\n", encoding="utf-8")


def describe(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{device} ({platform.processor() or platform.machine()})"


def chosen(given: argparse.Namespace, dims: int) -> list[str]:
    """Names of the nets that were asked for and can do these dims."""
    patterns = given.nets.split(",")
    names = dict.fromkeys(name for pattern in patterns for name in NETS.names(pattern))
    return [name for name in names if name != "instant" and dims in NETS.facts(name).get("dims", (2, 3))]


# -- agree ----------------------------------------------------------------------------------------------------


def agree(given: argparse.Namespace) -> Iterator[str]:
    """Compare loss, gradients and mask of every net with those of the processor in float32."""
    device = torch.device(given.device)
    half = half_precision(device) or "float32"
    yield "| net | precision | loss | gradients | masks | agrees |"
    yield "|---|---|---:|---:|---:|---|"
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    for dims in (2, 3):
        for name in chosen(given, dims):
            wanted = outcome(name, dims, Compute(torch.device("cpu")), given)
            for precision, most in (("float32", EXACT), (half, ROUGH)):
                got = outcome(name, dims, Compute(device, precision, True), given)
                off = difference(got, wanted)
                slack = 2 if given.tiny else 1
                verdict = "yes" if all(off[key] <= slack * most[key] for key in most) else "**no**"
                numbers = " | ".join(f"{off[key]:.1e}" for key in most)
                yield f"| {name} {dims}D | {precision} | {numbers} | {verdict} |"
    torch.backends.cudnn.allow_tf32 = tf32


def outcome(name: str, dims: int, compute: Compute, given: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Loss, gradients and mask of a net on a fixed batch."""
    torch.manual_seed(0)
    patch = (TINY if given.tiny else PATCH)[dims]
    net = build(NetSpec(name=name, dims=dims, outputs=3, width=0.1 if given.tiny else 0.5, norm="instance"))
    image = torch.randn(2, 1, *patch)
    target, known = torch.randint(0, 3, (2, *patch)), torch.rand(2, *patch) < 0.3
    net, image = compute.place(net.eval()), compute.place(image)
    with compute.autocast():
        logits = net(image)
    loss = LOSSES["ce+dice"](logits.float(), target.to(compute.device), known.to(compute.device))
    loss.backward()
    gradients = torch.cat([p.grad.float().flatten().cpu() for p in net.parameters() if p.grad is not None])
    return {"loss": loss.detach().cpu(), "gradients": gradients, "logits": logits.detach().float().cpu()}


def difference(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    off = {key: float((got[key] - wanted[key]).norm() / wanted[key].norm()) for key in ("loss", "gradients")}
    # where two classes are as likely, rounding decides
    first, second = wanted["logits"].topk(2, dim=1).values.unbind(1)
    clear = first - second > 0.02 * wanted["logits"].std()
    other = got["logits"].argmax(1) != wanted["logits"].argmax(1)
    return {**off, "masks": float((other & clear).float().mean())}


# -- ladder, resume -------------------------------------------------------------------------------------------


def small_plan(given: argparse.Namespace, **training) -> Plan:
    plain = {
        "device": given.device,
        "precision": "float32",
        "epochs": 2,
        "steps_per_epoch": 4,
        "teacher": 0,
        **training,
    }
    return Plan(
        net={"name": "unet", "width": 0.1 if given.tiny else 1.0}, data={"labels": "annotation"}, training=plain
    )


def ladder(given: argparse.Namespace) -> Iterator[str]:
    """Train with less memory than the plan needs."""
    side, batch = (256, 4) if given.tiny else (512, 16)
    with tempfile.TemporaryDirectory() as place:
        data = steps.strokes(Path(place), 2)
        plan = small_plan(given, patch=(side, side), batch_size=batch)
        losses, notes, run = [], [], Running(fine_tune.events(data, plan))
        events = iter(run)
        next(events)  # data, net and device are ready now
        with little_memory(given):
            for event in events:
                losses += [event.loss] if isinstance(event, StepDone) else []
                notes += [event.text] if isinstance(event, Note) else []
    yield from (f"* {note}" for note in notes)
    training = run.result.plan.training
    well = len(losses) == 8 and any("Out of memory" in note for note in notes)
    yield (
        f"\n{len(losses)} steps were made, the last with {training.batch_size} patches of {training.patch} on "
        f"{training.device} in {training.precision}. As it should be: {'yes' if well else '**no**'}"
    )


@contextlib.contextmanager
def little_memory(given: argparse.Namespace) -> Iterator[None]:
    """Leave the card 6 GB. A processor has no allocator that says no: there, passes of many voxels are refused."""
    if given.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 6e9 / torch.cuda.get_device_properties(0).total_memory))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def refuse(net: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        if net.training and args[0].numel() > 2**16:
            raise torch.OutOfMemoryError("out of memory, as this script wishes")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def resume(given: argparse.Namespace) -> Iterator[str]:
    """Stop a training, and kill one and go on."""
    with tempfile.TemporaryDirectory() as place:
        data, out = steps.strokes(Path(place), 2), Path(place) / "model"
        plan = small_plan(given, patch=(64, 64), batch_size=2, epochs=4)
        whole = [e.loss for e in fine_tune.events(data, plan) if isinstance(e, StepDone)]
        killed = fine_tune.events(data, plan, folder=out)
        for _ in itertools.takewhile(lambda e: not (isinstance(e, StepDone) and e.step == 10), killed):
            pass
        killed.close()
        rest = [e for e in fine_tune.events(data, plan, folder=out, resume=True) if isinstance(e, StepDone)]
        off = max(abs(e.loss - whole[e.step - 1]) / abs(whole[e.step - 1]) for e in rest)
        yield f"Killed at step 10 and resumed at {rest[0].step}: losses differ by at most {off:.1e}. {said(off < 1e-2)}"
        again = [e.loss for e in fine_tune.events(data, plan) if isinstance(e, StepDone)]
        off = max(abs(a - b) / abs(b) for a, b in zip(again, whole, strict=True))
        yield f"The same seed again: losses differ by at most {off:.1e}. {said(off < 1e-2)}"
        control, long = Control(), small_plan(given, patch=(64, 64), batch_size=2, epochs=10**6)
        for event in fine_tune.events(data, long, folder=out, control=control):
            if isinstance(event, StepDone) and event.step == 6:
                control.stop()
                begin = time.monotonic()
        took = time.monotonic() - begin
        kept = Model.load(out).facts["kept_step"]
        yield f"Stopped, scored and saved within {took:.2f} s, weights of step {kept}. {said(took < 5)}"


def said(well: bool) -> str:
    return f"As it should be: {'yes' if well else '**no**'}"


# -- speed ----------------------------------------------------------------------------------------------------


def speed(dims: int) -> Callable[[argparse.Namespace], Iterator[str]]:
    def piece(given: argparse.Namespace) -> Iterator[str]:
        """Measure every net in float32 and in autocast."""
        yield from steps.heading()
        with tempfile.TemporaryDirectory() as place:
            data = steps.strokes(Path(place), dims)
            for name in chosen(given, dims):
                for precision in ("float32", half_precision(torch.device(given.device)) or "auto"):
                    given.precision = precision
                    try:
                        yield steps.row(data, name, dims, given)
                    except (RuntimeError, MemoryError) as error:  # one net that does not fit is no end of the table
                        yield f"| {name} {dims}D | | {precision} | {str(error).splitlines()[0][:60]} |"
                    if given.device.startswith("cuda"):
                        torch.cuda.empty_cache()

    return piece


PIECES = {"agree": agree, "ladder": ladder, "resume": resume, "speed2": speed(2), "speed3": speed(3)}

if __name__ == "__main__":
    sys.exit(main())
