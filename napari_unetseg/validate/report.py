"""The report of a comparison: one HTML file that needs nothing beside it, and its tables as CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetseg import __version__
from napari_unetseg.figures import strips
from napari_unetseg.io import atomic_write
from napari_unetseg.metrics import METRICS

if TYPE_CHECKING:
    from napari_unetseg.validate.compare import Comparison

__all__ = ["write_report"]

_CASE = ("net", "fold", "group", "case", "class", "voxels")
_TESTS = ("net", "other", "pairs", "difference", "p", "p_holm")
_RUNS = ("net", "fold", "rule", "status", "error", "seconds", "steps", "parameters")
_FEWEST_PAIRS = 6  # with fewer, the signed-rank test cannot reach p < 0.05 whatever the scores
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.6em 0 1.4em;font-size:14px}th,td{padding:.25em .8em;border-bottom:1px solid #ddd;
text-align:right;white-space:nowrap}th:first-child,td:first-child,td.text{text-align:left}td.text{white-space:normal;min-width:6em}
img{max-width:100%}.wide{overflow-x:auto}.bad{color:#a33}pre{background:#f5f5f5;padding:1em;overflow-x:auto}"""


def write_report(comparison: Comparison) -> Path:
    """Write report.html, table.csv, cases.csv and tests.csv into the comparison's folder; returns the HTML file.

    Raises
    ------
    WriteError
        The folder cannot be written to, or the disk is full.
    """
    folder = comparison.folder
    columns = list(comparison.table[0])
    _write_csv(folder / "table.csv", columns, comparison.table)
    _write_csv(folder / "cases.csv", _case_columns(comparison), comparison.rows)
    _write_csv(folder / "tests.csv", _TESTS, comparison.tests)
    page = folder / "report.html"
    text = _page(comparison)
    atomic_write(page, lambda beside: beside.write_text(text, encoding="utf-8"))
    return page


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, lambda beside: beside.write_text(text.getvalue(), encoding="utf-8"))


def _case_columns(comparison: Comparison) -> tuple[str, ...]:
    further = [name for name in comparison.metrics if name not in METRICS]
    return *_CASE, *METRICS, *further, "unit"


def _page(comparison: Comparison) -> str:
    cases = _case_columns(comparison)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>Comparison of {escape(', '.join(comparison.nets))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Comparison of {len(comparison.nets)} nets</h1>",
        *(f"<p>{escape(note)}</p>" for note in comparison.notes),
        *_warnings(comparison),
        "<h2>Scores</h2>",
        "<p>Mean ± standard deviation over the held-out cases, in brackets the deviation of the folds' means.</p>",
        _score_table(comparison),
        *_pictures(comparison),
        "<h2>Paired tests</h2>",
        *_tests(comparison),
        "<h2>Cases</h2>",
        _table(cases, [[row.get(name) for name in cases] for row in comparison.rows]),
        "<h2>Runs</h2>",
        _table(_RUNS, [[run[name] for name in _RUNS] for run in comparison.runs]),
        f"<h2>Plan</h2><p>What all nets had in common, where it is not the default; napari-unetseg {__version__}.</p>",
        f"<pre>{escape(comparison.plan.to_json(complete=False))}</pre></body></html>",
    ]
    return "\n".join(parts)


def _warnings(comparison: Comparison) -> list[str]:
    said = []
    missing = comparison.expected - len(comparison.runs)
    if missing:
        said.append(f"Stopped early: {missing} of {comparison.expected} runs are missing; the same command goes on.")
    if comparison.failed:
        said.append("Some runs failed; means are over the folds that each net has finished, so compare with care.")
        said += [f"{run['net']}, fold {run['fold']}: {run['error']}" for run in comparison.failed]
    return [f"<p class='bad'>{escape(line)}</p>" for line in said]


def _score_table(comparison: Comparison) -> str:
    units, metrics = {row["unit"] for row in comparison.rows}, comparison.metrics
    unit = units.pop() if len(units) == 1 else "units of the files"
    heads = [
        f"{name} ({unit})" if name in METRICS and METRICS.facts(name)["unit"] == "spacing" else name for name in metrics
    ]
    rows = []
    for row in comparison.table:
        cells = [row["net"], row["class"], row["cases"], row["folds"]]
        rows.append([*cells, *(_spread(row, metric) for metric in metrics)])
    return _table(("net", "class", "cases", "folds", *heads), rows)


def _spread(row: Mapping[str, Any], metric: str) -> str | None:
    mean, deviation, folds = (row[f"{metric}_{what}"] for what in ("mean", "sd", "sd_folds"))
    if mean is None:
        return None
    words = f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
    words += f" ({folds:.3f})" if folds is not None else ""
    return words if row[f"{metric}_n"] == row["cases"] else f"{words} of {row[f'{metric}_n']}"


def _pictures(comparison: Comparison) -> list[str]:
    pictures = []
    for name in dict.fromkeys(row["class"] for row in comparison.rows):
        values = {
            net: [row["dice"] for row in comparison.rows if row["class"] == name and row["net"] == net]
            for net in comparison.nets
        }
        address = base64.b64encode(_png(strips(values, f"Dice of {name}"))).decode()
        pictures.append(f"<p><img alt='Dice of {escape(name)}' src='data:image/png;base64,{address}'></p>")
    return pictures


def _png(rgb: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _tests(comparison: Comparison) -> list[str]:
    words = (
        "Wilcoxon's signed-rank test, two-sided, on the Dice of each case (mean over classes; cases of one group count "
        "as one), corrected for the number of pairs of nets after Holm. Folds share training images, so that p is "
        "somewhat too small."
    )
    parts = [f"<p>{words}</p>", _table(_TESTS, [[test[name] for name in _TESTS] for test in comparison.tests])]
    fewest = min((test["pairs"] for test in comparison.tests), default=0)
    if fewest < _FEWEST_PAIRS:
        parts.append(f"<p class='bad'>With {fewest} pairs no difference, however large, can reach p &lt; 0.05.</p>")
    return parts


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: Any) -> str:
    if value is None:
        return "<td>-</td>"
    if isinstance(value, float):
        return f"<td>{value:.3g}</td>" if abs(value) < 0.01 else f"<td>{value:.3f}</td>"
    if isinstance(value, int):
        return f"<td>{value:,}</td>"
    return f"<td class='text'>{escape(str(value))}</td>"
