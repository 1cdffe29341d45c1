"""``report.html``: the run at a glance, worst files first, in one file that needs no other."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_unetseg.batch.outputs import thumbnail
from napari_unetseg.io import atomic_write
from napari_unetseg.palette import PALETTE

__all__ = ["write_report"]

_PICTURES = 200  # of the worst files; a page with thousands would not open
_ROWS = 5000  # of the table; no browser shows a million, and the others are in table.csv
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}.facts{display:flex;flex-wrap:wrap;gap:.4rem 2rem}
.facts div{min-width:8rem}.facts b{display:block;font-size:1.15rem}.sheet{display:flex;flex-wrap:wrap;gap:10px}
figure{margin:0;width:150px;font-size:12px;overflow-wrap:anywhere}figure img,.none{width:150px;height:150px;
object-fit:contain;background:#eee;display:block}table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}
.legend span{margin-right:1.2rem}.legend i{font-style:normal}td.n,th.n{text-align:right}
.failed{color:#b00020}.flagged{color:#8a5200}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1c1c1e}th,td{border-color:#444}.failed{color:#ff8a80}
.flagged{color:#ffb74d}figure img,.none{background:#333}}
"""
_FLAGS = {
    "empty": "nothing found",
    "uncertain": "the net is more undecided over what it found than in the other files",
    "unlike": "unlike the images the model was trained on",
}


def write_report(folder: Path, entries: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Path:
    """Write the page.

    Parameters
    ----------
    folder : Path
        The output folder.
    entries : sequence of mapping
        Rows of the ledger, worst first.
    run : mapping
        What ``run.json`` says.
    """
    path, page = folder / "report.html", _page(folder, entries, run)
    atomic_write(path, lambda beside: beside.write_text(page, encoding="utf-8", errors="replace"))
    return path


def _page(folder: Path, entries: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> str:
    title = f"{len(entries)} files segmented into {folder.name}"
    pictured = entries[:_PICTURES]
    some = "" if len(pictured) == len(entries) else f", the worst {_PICTURES} of {len(entries)}"
    return "".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{_text(title)}</title><style>{_STYLE}</style><h1>{_text(title)}</h1>",
            f'<div class="facts">{"".join(_facts(entries, run))}</div>',
            f'<p class="legend">{"".join(_legend(run["classes"]))}</p>',
            f"<p>{_text(run['undecided'])}</p>" if run.get("undecided") else "",
            f'<h2>Worst first{some}</h2><div class="sheet">',
            *(_figure(entry, folder) for entry in pictured),
            f"</div><h2>{_listed(len(entries))}</h2>",
            _table(entries[:_ROWS], folder),
            "</html>",
        )
    )


def _listed(count: int) -> str:
    return "All files, worst first" if count <= _ROWS else f"The worst {_ROWS} of {count} files; all are in table.csv"


def _facts(entries: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Iterable[str]:
    count = {flag: sum(flag in (entry.get("flags") or ()) for entry in entries) for flag in _FLAGS}
    models = ", ".join(f"{one['id']} ({one['plan']['net']['name']})" for one in run["models"])
    facts = {
        "done": len(entries) - run["failed"],
        "failed": run["failed"],
        **{said: count[flag] for flag, said in _FLAGS.items()},
        "model": models,
        "device": run["device"],
        "files a second": run.get("files_a_second", ""),
        "written": run["written"],
    }
    return (f"<div><b>{_text(value)}</b>{_text(name)}</div>" for name, value in facts.items() if value != "")


def _legend(classes: Sequence[str]) -> Iterable[str]:
    """Each class but the background with the colour that it has in the pictures."""
    for index, name in enumerate(classes[1:], start=1):
        # a sign rather than a background, which is not printed
        yield f'<span><i style="color:{PALETTE[index % len(PALETTE)]}">■ </i>{_text(name)}</span>'


def _figure(entry: Mapping[str, Any], folder: Path) -> str:
    picture = _picture(entry, folder)
    image = f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else '<span class="none"></span>'
    return f"<figure>{image}{_text(Path(entry['file']).name)}<br>{_state(entry)}</figure>"


def _picture(entry: Mapping[str, Any], folder: Path) -> str:
    if not entry["mask"]:
        return ""
    try:
        return base64.b64encode(thumbnail(Path(entry["mask"]), folder).read_bytes()).decode()
    except OSError:
        return ""


def _state(entry: Mapping[str, Any]) -> str:
    if entry["status"] == "failed":
        return '<span class="failed">failed</span>'
    flags = entry.get("flags") or ()
    if not flags:
        return _text(entry["status"])
    why = f": {entry['why']}" if entry.get("why") else ""
    return f'<span class="flagged">{_text("; ".join(_FLAGS.get(flag, flag) for flag in flags) + why)}</span>'


def _table(entries: Sequence[Mapping[str, Any]], folder: Path) -> str:
    common = os.path.commonpath([str(Path(entry["file"]).parent) for entry in entries]) if entries else ""
    head = '<tr><th>file<th>state<th class="n">doubt<th>measured<th class="n">seconds<th>error</tr>'
    return f"<table>{head}{''.join(_row(entry, common) for entry in entries)}</table>"


def _row(entry: Mapping[str, Any], common: str) -> str:
    measured = ", ".join(
        f"{one['class']} {one['size']:.6g} {one['unit']}"
        + (f" in {one['components']} part{'s' * (one['components'] != 1)}" if one["components"] is not None else "")
        for one in entry["classes"]
    )
    doubt = "" if entry.get("doubt") is None else f"{entry['doubt']:.2f}"
    return (
        f"<tr><td>{_text(os.path.relpath(entry['file'], common))}<td>{_state(entry)}<td class=n>{doubt}"
        f"<td>{_text(measured)}<td class=n>{entry['seconds']:.2f}<td>{_text(entry['error'])}</tr>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))
