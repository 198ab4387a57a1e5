"""plots/ and one HTML report of a run: pictures and tables in one file that loads nothing from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mlx_plastic.home import write_atomic
from mlx_plastic.survey import columns
from mlx_plastic.survey.folder import RunFolder
from mlx_plastic.survey.frames import find_table, read_table
from mlx_plastic.survey.plots import all_pictures, label
from mlx_plastic.survey.tables import matrix_stats, overview, quant_sim, read_log
from mlx_plastic.survey.watch import ROUTING

REPORT = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a browser loads nothing, and runs nothing
SHOWN = 20  # rows of the lists of what is worst
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff}
body{max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;font-size:13px}
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}
.text{text-align:left}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(480px,1fr));gap:1em}
.pictures svg{width:100%;height:auto;border:1px solid #eee}p{max-width:48em}.wide{overflow-x:auto}
"""
HEADINGS = (
    ("bits_error", "Bits against error", "A point is a scheme over all weights; the line joins the best."),
    ("error_by_layer", "Error by layer", "The mean of each projection: what sticks out is fragile."),
    ("spectra", "Spectra", "Over the edge at which those of noise of that size would end lies structure."),
    ("heat_routing", "Load of experts", "Of the text that was watched: experts across, layers down."),
    ("heat_error", "Error of experts", "Experts across, layers down."),
    ("heat_", "Weights of experts", "Experts across, layers down."),
)  # fmt: skip


def make_report(run: RunFolder) -> Path:
    """Writes plots/*.svg and plots/report.html. Raises BadData if nothing was collected."""
    matrices, quant = list(matrix_stats(run)), list(quant_sim(run))
    spectrum = list(read_table(run.data / "spectra", columns.SPECTRA))
    seen = find_table(run.data / "routing")
    routing = list(read_table(run.data / "routing", ROUTING)) if seen else []
    drawn = all_pictures(matrices, quant, spectrum, routing)
    pictures = {_file_name(name): svg for name, svg in drawn.items()}
    for old in run.plots.glob("*.svg"):
        if old.stem not in pictures:
            old.unlink()
    for name, svg in pictures.items():
        write_atomic(run.plots / f"{name}.svg", svg.encode())
    page = "\n".join(_page(run, matrices, quant, pictures))
    write_atomic(run.plots / REPORT, page.encode())
    return run.plots / REPORT


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _page(
    run: RunFolder, matrices: Sequence[Any], quant: Sequence[Any], pictures: Mapping[str, str]
) -> list[str]:
    manifest, log = run.manifest(), read_log(run, "collect")
    title = f"Survey of {manifest.get('model_id', run.path.name)}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escape(title)}</title>',
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>",
        f"<p>{escape(_told(manifest, log, matrices))}</p>",
    ]
    if log.get("warnings"):
        items = "".join(f"<li>{escape(text)}</li>" for text in log["warnings"])
        parts.append(f"<h2>Warnings</h2><ul>{items}</ul>")
    rows = overview(quant)
    if rows:
        parts.append("<h2>Schemes</h2>" + _table(list(rows[0]), [list(row.values()) for row in rows]))
    left = dict(pictures)
    for prefix, heading, text in HEADINGS:
        mine = [left.pop(name) for name in list(left) if name.startswith(prefix)]
        if mine:
            parts.append(
                f'<h2>{escape(heading)}</h2><p>{escape(text)}</p><div class="pictures">{"".join(mine)}</div>'
            )
    parts += [*_fragile(quant), *_channels(matrices), "</body></html>\n"]
    return parts


def _told(manifest: Mapping[str, Any], log: Mapping[str, Any], matrices: Sequence[Any]) -> str:
    weights = sum(row["rows"] * row["cols"] for row in matrices)
    return (
        f"{manifest.get('model_path', '')}: {len(matrices)} matrices, {weights / 1e6:.1f} million weights, "
        f"{log.get('gigabytes', 0)} GB in {log.get('files', 0)} files, of model type "
        f"{log.get('model_type') or 'unknown'}."
    )


def _fragile(quant: Sequence[Mapping[str, Any]]) -> list[str]:
    """The matrices whose error is farthest above the median of their projection and scheme."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in quant:
        if row["w_rel_fro"]:
            groups.setdefault((label(row), row["scheme"]), []).append(row)
    found = []
    for rows in groups.values():
        middle = sorted(row["w_rel_fro"] for row in rows)[len(rows) // 2]
        found += [(row["w_rel_fro"] / middle, row) for row in rows if len(rows) > 2]
    found.sort(key=lambda item: -item[0])
    names = ["matrix", "scheme", "error", "over the median of its kind"]
    cells = [[row["derived_tensor"], row["scheme"], row["w_rel_fro"], times] for times, row in found[:SHOWN]]
    return ["<h2>Most fragile</h2>" + _table(names, cells)] if cells else []


def _channels(matrices: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [row for row in matrices if row["channel_max_over_median"]]
    rows.sort(key=lambda row: -row["channel_max_over_median"])
    names = ["matrix", "channel", "its mean |w| over the median channel's", "channels above 3 times"]
    keys = ("derived_tensor", "channel_top", "channel_max_over_median", "channel_outliers")
    cells = [[row[key] for key in keys] for row in rows[:SHOWN]]
    return ["<h2>Outlier channels</h2>" + _table(names, cells)] if cells else []


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    rows = list(rows)
    sides = [
        ' class="text"' if any(isinstance(row[i], str) for row in rows) else "" for i in range(len(names))
    ]
    head = "".join(f"<th{side}>{escape(name)}</th>" for name, side in zip(names, sides, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{s}>{escape(_cell(v))}</td>" for v, s in zip(row, sides, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
