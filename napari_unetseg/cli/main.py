"""The commands. Torch is imported only by those that need it, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_unetseg import __version__
from napari_unetseg.cli import terminal
from napari_unetseg.cli.plans import (
    Data,
    Device,
    Dims,
    Epochs,
    ImageFiles,
    LabelFiles,
    Labels,
    Minutes,
    Net,
    PlanFile,
    Protocol,
    Seed,
    make_plan,
)
from napari_unetseg.errors import PlanError, UnetSegError
from napari_unetseg.events import Control

__all__ = ["Json", "app", "main", "numbers", "paired"]

app = typer.Typer(
    name="napari-unetseg",
    help="Scribble, fine-tune a U-Net, correct, and segment folders of 2D and 3D medical images.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
_EXTRAS = {"app": "napari", "dicom": "highdicom", "cluster": "distributed", "export": "onnx"}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def main() -> None:
    """Run the command line; every error meant for the user becomes two lines and exit code 2."""
    debug = "--debug" in sys.argv
    from napari_unetseg.cli.segment import spell_out

    sys.argv = spell_out([word for word in sys.argv if word != "--debug"])
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, format="%(message)s")
    logging.getLogger("napari_unetseg").setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        app()
    except UnetSegError as error:
        if debug:
            raise
        terminal.errors.print(f"Error: {error.message}", markup=False, style="red")
        if error.hint:
            terminal.errors.print(f"       {error.hint}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, default=str))


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Open napari with the workbench when no command is given."""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        _open_window(None)


def _open_window(project: Path | None) -> None:
    from napari_unetseg.cli.screen import why_no_window

    if reason := why_no_window():
        raise UnetSegError(reason, hint="The commands work without a window: napari-unetseg --help.")
    try:
        import napari

        from napari_unetseg.widgets.workbench import open_workbench
    except ImportError as error:
        raise UnetSegError(
            f"The window cannot be opened: {error.name} is not installed.",
            hint='Install it with: pip install "napari-unetseg[app]".',
        ) from error
    open_workbench(project)
    napari.run()


@app.command()
def demo(
    headless: Annotated[bool, typer.Option("--headless", help="Run the loop with a simulated annotator.")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("demo-output"),
    sample: Annotated[str, typer.Option(help="Sample set, see File > Open Sample in napari.")] = "nuclei-2d",
    minutes: Annotated[float, typer.Option(help="Training time a round.", min=0.02, max=60)] = 1.0,
    as_json: Json = False,
) -> None:
    """Run the main job on sample data: scribble, train, correct, retrain, segment a folder."""
    from napari_unetseg.cli.screen import why_no_window

    reason = "" if headless else why_no_window()
    if not headless and not reason:
        from napari_unetseg.samples import demo_project

        project = demo_project(_fresh(out), sample)
        path = project.path
        project.close()
        _open_window(path)
        return
    if reason:
        terminal.errors.print(f"{reason} Running without a window.", markup=False)
    from napari_unetseg.demo import run_demo

    control = Control()
    out = _fresh(out)
    result = terminal.run(run_demo.events(out, sample=sample, minutes=minutes, control=control), control)
    if as_json:
        _print_json(result)
    else:
        for line in result["lines"]:
            print(line)
        print(f"Masks, table.csv and pictures are in {out}")


def _fresh(out: Path) -> Path:
    """Give the folder asked for, or a numbered one beside it where that holds something already."""
    place, count = out, 2
    while place.exists() and (not place.is_dir() or any(place.iterdir())):
        place, count = out.with_name(f"{out.name}-{count}"), count + 1
    if place != out:
        terminal.errors.print(f"{out} is not empty: writing to {place}.", markup=False)
    return place


@app.command()
def nets(
    name: Annotated[str, typer.Argument(help="A name or a pattern, such as '*sharp*'.")] = "*",
    dims: Annotated[int | None, typer.Option(help="2 or 3.", min=2, max=3)] = None,
    in_channels: Annotated[int | None, typer.Option(help="Channels of the images.", min=1, max=1024)] = None,
    outputs: Annotated[int, typer.Option(help="Outputs of the net.", min=1, max=256)] = 1,
    as_json: Json = False,
) -> None:
    """List the architectures, with their number of parameters and their paper."""
    from napari_unetseg.nets import NETS, describe_net

    found = NETS.names(name)
    if not found:
        NETS[name]  # raises, with "did you mean"
    exact = name in NETS
    able = [one for one in found if exact or dims is None or dims in NETS.facts(one).get("dims", (2, 3))]
    described = [describe_net(one, dims, in_channels or 1, outputs) for one in able]
    if as_json:
        _print_json(described)
        return
    columns = ["name", "title", "dims", "trainable", "total", "weights", "paper"]
    terminal.table("", columns, [_net_row(net) for net in described])


def _net_row(net: dict[str, Any]) -> list[str]:
    count = net["parameters"]
    dims = "/".join(map(str, net["dims"]))
    numbers = [f"{count['trainable']:,}", f"{count['total']:,}"]
    return [net["name"], net["title"], dims, *numbers, net["pretrained"] or "", net["paper"]]


@app.command()
def train(
    data: Data = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write.")] = Path("model"),
    net: Net = None,
    dims: Dims = None,
    minutes: Minutes = None,
    epochs: Epochs = None,
    fold: Annotated[int | None, typer.Option(help="Fold to hold out.", min=0)] = None,
    protocol: Protocol = None,
    plan: PlanFile = None,
    labels: Labels = None,
    seed: Seed = None,
    device: Device = None,
    image: ImageFiles = None,
    label: LabelFiles = None,
    start: Annotated[Path | None, typer.Option("--from", help="Model to go on from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run was.")] = False,
    as_json: Json = False,
) -> None:
    """Train a net on labelled images, and say what it scores on what was held out."""
    wanted: dict[str, dict[str, Any]] = {
        "net": {"name": net, "dims": dims},
        "data": {"labels": labels, "fold": fold},
        "training": {"minutes": minutes, "epochs": epochs, "seed": seed, "device": device},
    }
    given = make_plan(protocol, plan, wanted)
    _check_model_folder(out)
    from napari_unetseg.data import load_dataset
    from napari_unetseg.devices import limit_threads
    from napari_unetseg.instant import fit_instant
    from napari_unetseg.training import fine_tune

    limit_threads()
    dataset = load_dataset(data, given.data, pairs=paired(data, image, label))
    control = Control()
    if given.net.name == "instant":
        model = terminal.run(fit_instant.events(dataset, given, control=control), control)
        model.save(out)
    else:
        events = fine_tune.events(dataset, given, start=start, control=control, folder=out, resume=resume)
        model = terminal.run(events, control)
    scores = model.scores
    if as_json:
        _print_json(
            {"model": str(out), "id": model.id, "classes": model.classes, "scores": scores and scores.to_dict()}
        )
        return
    print(scores.sentence() if scores else "Not scored.")
    if scores and len(scores.dice) > 1:
        terminal.table("", ["class", "dice", "jaccard"], [[c, scores.dice[c], scores.jaccard[c]] for c in scores.dice])
    print(f"Model {model.id} is in {out}")


def _check_model_folder(out: Path) -> None:
    """Refuse before the training, not after it, what cannot be written."""
    from napari_unetseg.errors import WriteError

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "model.json").exists())):
        raise WriteError(f"{out} exists and is not a model folder.", hint="Choose a new folder with -o.")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise WriteError(f"The folder {parent} cannot be written.", hint="Choose another place with -o.")


def paired(data: Path | None, images: list[Path] | None, labels: list[Path] | None) -> list[tuple[Path, Path]]:
    """Pair up --image and --label, and see that there are data at all."""
    images, labels = images or [], labels or []
    if len(images) != len(labels):
        raise PlanError(f"{len(images)} --image and {len(labels)} --label were given.", hint="Give one label an image.")
    if data is None and not images:
        raise PlanError("No data was given.", hint="Give a folder, or --image FILE --label FILE.")
    if data is not None and images:
        raise PlanError("Both a folder and --image were given.", hint="Give one of them.")
    return list(zip(images, labels, strict=True))


@app.command()
def score(
    mask: Annotated[Path, typer.Argument(help="Mask file, or folder of masks.")],
    truth: Annotated[Path, typer.Argument(help="Truth file, or folder of truths with the same names.")],
    spacing: Annotated[str | None, typer.Option(help="Voxel size in axis order, such as 3,0.7,0.7.")] = None,
    membranes: Annotated[bool, typer.Option("--membranes", help="Also V_rand and V_info of each class.")] = False,
    as_json: Json = False,
) -> None:
    """Score masks against the truth: Jaccard, Dice, surface distances, volume difference."""
    from napari_unetseg.validate import score_files

    result = score_files(mask, truth, numbers(spacing), membranes=membranes)
    if as_json:
        _print_json(result)
        return
    first: dict[str, Any] = next(iter(result["mean"].values()), {})
    rows = [[case["name"], c, *v.values()] for case in result["cases"] for c, v in case["classes"].items()]
    rows += [["mean", c, *v.values()] for c, v in result["mean"].items()]
    terminal.table("", ["case", "class", *first], rows)
    units = " and ".join(dict.fromkeys(str(case["unit"]) for case in result["cases"]))
    print(f"Distances in {'the unit given' if spacing else units}; rvd, the relative volume difference, in percent.")


def numbers(text: str | None) -> list[float] | None:
    """Numbers of an option such as ``--spacing 3,0.7,0.7``."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        raise PlanError(f"--spacing {text!r} is not a list of numbers.", hint="Write it as 3,0.7,0.7.") from None


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say which versions and devices there are, what will be used, and why."""
    from napari_unetseg.cli.screen import why_no_window
    from napari_unetseg.devices import describe, limit_threads

    limit_threads()
    extras = [name if find_spec(module) else f"{name} (not installed)" for name, module in _EXTRAS.items()]
    window = why_no_window() or "can be opened"
    facts = {"napari-unetseg": __version__, **describe(), "extras": extras, "window": window}
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name:16} {', '.join(map(str, value)) if isinstance(value, list) else value}")
