"""Every command of the README and of docs/ is run, or a reason is given; every button they name is in the window.

A block of the pages for people (`PAGES`) bears a mark before it: ``<!-- run -->`` or ``<!-- not run: the reason -->``.
On the other pages blocks are run as far as `REASONS` has none against it. The commands run in this process, in a
folder with small images under the names that the pages use; times, folds and nets are shortened as `SHORT` says.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny import blobs, folder_of_blobs

import napari_unetseg as nus
from napari_unetseg.postprocess import STEPS
from napari_unetseg.samples import SAMPLES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md"] + [
    DOCS / f"{name}.md"
    for name in ("tutorial-microscopy", "tutorial-mri", "choosing-a-net", "when-results-are-poor", "python", "README")
]
REFERENCE = sorted({page.stem for page in DOCS.glob("*.md")} - {page.stem for page in PAGES})  # to look things up in
REASONS = {  # why a block of such a page is not run here, by its first words
    "benchmarks": {"": "measurements of minutes to hours, on public sets; benchmarks/ has the scripts"},
    "cluster": {"": "tests/batch/test_cluster.py runs the local example; SLURM and Kubernetes need a cluster"},
}
SHORT = (  # what is made smaller, so that all pages together take seconds
    (r"--minutes [\d.]+", "--minutes 0.01"),
    (r"minutes=[\d.]+", "minutes=0.01"),
    (r"--folds \d+", "--folds 2"),
    (r"--nets \S+", "--nets instant,unet --plan plan.json"),
    (r"(napari-unetseg (?:train|plan) (?!.*--plan)\S+)", r"\1 --plan plan.json"),
    (r"--plane Z \| ", ""),
    (r'"width": 0\.25', '"width": 0.1'),
)
WORDS = {
    "DATA": "data",
    "IMAGE": "scans/case0.tif",
    "MASK": "masks/case0.tif",
    "NAME": "1",
    "N": "1",
    "model2": "model",
    "Y,X": "20,20",
}
TUTORIALS = ("tutorial-microscopy", "tutorial-mri", "when-results-are-poor", "choosing-a-net")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, text, and the mark on the line before it."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    @property
    def commands(self) -> list[str]:
        """Commands of ours, one a line."""
        joined = re.sub(r"\n {8,}", " ", self.text)
        return [line.strip() for line in joined.splitlines() if re.match(r"\s*napari-unetseg\b", line)]


def blocks(page: Path) -> list[Block]:
    """Blocks of a page that have something to run: commands, Python or a plan."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"(?:^<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", text, re.M | re.S)
    made = [
        Block(page.stem if page.parent == DOCS else "../README", text[: one.start("text")].count("\n") + 1,
              one["language"], one["text"], one["mark"] or "")
        for one in found
    ]  # fmt: skip
    return [one for one in made if one.language in ("python", "json", "bash") or one.commands or one.mark]


def reason(block: Block) -> str:
    """Why a block is not run here; empty when it is."""
    if block.mark.startswith("not run:"):
        return block.mark.partition(":")[2].strip()
    if "test command" in block.mark or "demo command" in block.mark:
        return ".ci/run and the first minute of every user do it: it installs"
    reasons = REASONS.get(block.page, {})
    return next((why for start, why in reasons.items() if block.text.startswith(start)), "")


def words(command: str) -> list[str]:
    """A command as it is run here: the most of a synopsis, small, with the names of this folder."""
    for pattern, short in SHORT:
        command = re.sub(pattern, short, command)
    command = re.sub(r"[\[\]]|\.\.\.", " ", command)
    split = [word.partition("|")[0] for word in shlex.split(command, comments=True)]
    return [WORDS.get(word, word) for word in split[1:]]


ALL = [block for page in (*PAGES, *(DOCS / f"{name}.md" for name in REFERENCE)) for block in blocks(page)]
DONE: set[tuple[str, ...]] = set()
RUN = [block for block in ALL if not reason(block)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what the pages name: data, scans, truth, model, masks, a plan, a scan with strokes."""
    place = tmp_path_factory.mktemp("world")
    folder_of_blobs(place / "data", 6, (48, 48))
    folder_of_blobs(place / "unseen", 3, (48, 48))
    shutil.move(place / "unseen" / "images", place / "scans")
    shutil.move(place / "unseen" / "labels", place / "truth")
    net = {"name": "unet", "width": 0.1, "depth": 3, "dropout": 0.2}
    model = nus.fine_tune(place / "data", nus.Plan(net=net, training={"epochs": 1, "patch": (32, 32)}))
    model.save(place / "model")
    nus.segment_folder(place / "scans", model, place / "masks")
    (place / "plan.json").write_text(json.dumps({"net": {"width": 0.1}}))
    image, mask = blobs((12, 32, 32), classes=3)
    geometry = nus.Geometry((3.0, 1.0, 1.0), "mm")
    nus.write(place / "scan.nii.gz", nus.Volume(image[None], geometry))
    strokes = np.zeros(mask.shape, np.uint8)
    strokes[::3, ::2] = mask[::3, ::2] + 1
    np.save(place / "strokes.npy", strokes)
    return place


def test_every_block_is_run_or_has_a_reason(record_property):
    """Nothing is left out in silence, and most is run."""
    silent = [f"{one.page}:{one.line}" for one in ALL if one.page not in REFERENCE and not one.mark]
    assert not silent, silent
    left = [one for one in ALL if reason(one) and one.page not in REFERENCE]
    record_property("blocks run", len(RUN))
    record_property("blocks with a reason", [f"{one.page}:{one.line} {reason(one)}" for one in ALL if reason(one)])
    assert len(RUN) > 3 * len(left)


@pytest.mark.parametrize("block", [one for one in RUN if one.commands], ids=lambda one: f"{one.page}:{one.line}")
def test_commands_do_what_the_page_says(block, world, tmp_path, cli, monkeypatch):
    monkeypatch.chdir(shutil.copytree(world, tmp_path / "here"))
    for command in block.commands:
        typed = tuple(words(command))
        if typed in DONE:
            continue
        code, out, err = cli(*typed)
        assert code == 0, f"{command}\n{out}\n{err}"
        assert out + err, command
        if len(block.commands) == 1:  # in a fresh folder: the same on another page does the same
            DONE.add(typed)


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "python.md"], ids=lambda one: one.name)
def test_python_blocks_run_one_after_the_other(page, world, tmp_path, monkeypatch):
    here = tmp_path / "here"
    monkeypatch.chdir(shutil.copytree(world, here) if page.parent == ROOT else here.mkdir() or here)
    names = {"strokes": np.load(world / "strokes.npy")}
    found = [one for one in blocks(page) if one.language == "python" and not reason(one)]
    assert found
    for block in found:
        text = block.text
        for pattern, short in SHORT:
            text = re.sub(pattern, short, text)
        exec(compile("\n" * (block.line - 1) + text, str(page), "exec"), names)


@pytest.mark.parametrize("block", [b for b in RUN if b.language == "json"], ids=lambda one: f"{one.page}:{one.line}")
def test_plans_are_plans(block):
    given = json.loads(block.text)
    assert nus.Plan(**given).to_json(complete=False)


def test_python_blocks_that_are_not_run_name_what_exists():
    """Blocks with a reason are read at least: they parse, and what they import from us exists."""
    for block in (one for one in ALL if one.language == "python" and reason(one)):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_unetseg"):
                for name in node.names:
                    exec(f"from {node.module} import {name.name}", {})


def shown_words() -> set[str]:
    """All words that the window can show: every constant string of the widgets, titles of the steps, sample data."""
    found = {str(STEPS.facts(name)["title"]) for name in STEPS} | {SAMPLES.describe(name)[:-1] for name in SAMPLES}
    for file in (ROOT / "napari_unetseg" / "widgets").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value.strip(" ▸▾:"), node.value.partition(":")[0].strip(" ▸▾")}
    return found


@pytest.mark.parametrize("name", TUTORIALS)
def test_every_button_of_a_tutorial_is_in_the_window(name):
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    bold = {re.sub(r"\s+", " ", one) for one in re.findall(r"\*\*([^*]+)\*\*", text)}
    labels = {one for one in bold if len(one) < 60}  # longer ones are sentences that deserve the weight
    assert labels
    unknown = sorted(labels - shown_words())
    assert not unknown, unknown


@pytest.mark.parametrize("page", [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name} links to {target}"
        if heading:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert heading in anchors, f"{page.name} links to {target}"
