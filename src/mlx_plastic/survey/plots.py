"""The pictures of a run, from its rows alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlx_plastic.draw import heatmap, lines
from mlx_plastic.survey.spectra import sketched

Rows = Sequence[Mapping[str, Any]]

HEAT_WEIGHTS = (
    ("kurtosis", "kurtosis"),
    ("outlier_max_over_mean", "max / mean"),
    ("stable_rank", "stable rank"),
)
SPECTRA_SHOWN = 8


def label(row: Mapping[str, Any]) -> str:
    return f"{row['kind']}.{row['proj']}"


def expert_heatmaps(matrices: Rows, quant: Rows) -> dict[str, str]:
    """Experts across, layers down: of the weights, and of the error of each scheme."""
    pictures: dict[str, str] = {}
    routed = [row for row in matrices if row["is_routed_expert"]]
    for name, unit in HEAT_WEIGHTS:
        pictures |= _heat(routed, name, f"{name} of experts", f"heat_{name}", unit)
    for scheme in _unique(row["scheme"] for row in quant):
        mine = [row for row in quant if row["scheme"] == scheme and row["is_routed_expert"]]
        pictures |= _heat(mine, "w_rel_fro", f"error of {scheme}", f"heat_error_{scheme}", "relative")
    return pictures


def _heat(rows: Rows, measure: str, title: str, name: str, unit: str) -> dict[str, str]:
    pictures = {}
    for proj in _unique(row["proj"] for row in rows):
        cells = {
            (row["expert_id"], row["layer"]): float(row[measure])
            for row in rows
            if row["proj"] == proj
            and row[measure] is not None
            and None not in (row["expert_id"], row["layer"])
        }
        if len(cells) > 1:
            drawn = heatmap(cells, title=f"{title}, {proj}", x_label="expert", y_label="layer", unit=unit)
            pictures[f"{name}_{proj}"] = drawn
    return pictures


def error_by_layer(quant: Rows) -> dict[str, str]:
    """For each scheme the mean relative error of each projection, layer by layer."""
    pictures, names = {}, sorted({label(row) for row in quant})
    for scheme in _unique(row["scheme"] for row in quant):
        sums: dict[str, dict[int, list[float]]] = {}
        for row in quant:
            if row["scheme"] == scheme and row["layer"] is not None and row["w_rel_fro"] is not None:
                sums.setdefault(label(row), {}).setdefault(row["layer"], []).append(row["w_rel_fro"])
        series = {
            k: [(float(i), float(np.mean(v))) for i, v in sorted(by.items())]
            for k, by in sorted(sums.items())
        }
        if series:
            title = f"error of {scheme} by layer"
            pictures[f"error_by_layer_{scheme}"] = lines(
                series, title=title, x_label="layer", y_label="||w - q|| / ||w||", names=names
            )
    return pictures


def spectra(rows: Rows, matrices: Rows) -> dict[str, str]:
    """One matrix of each projection, of the middle layer: its singular values over where noise would end."""
    edges = {row["derived_tensor"]: row for row in matrices}
    chosen: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        chosen.setdefault(label(row), []).append(row)
    series = {}
    for name, mine in sorted(chosen.items())[:SPECTRA_SHOWN]:
        row = mine[len(mine) // 2]
        edge = (edges.get(row["derived_tensor"]) or {}).get("mp_edge")
        values = [float(v) for v in str(row["values"]).split()]
        side = min(row["rows"], row["cols"])
        if edge and side > 1:
            at = sketched(side)
            series[name] = [(i / (side - 1), v / edge) for i, v in zip(at, values, strict=False)]
    if not series:
        return {}
    drawn = lines(
        series, title="singular values against the edge of noise", x_label="rank / largest rank",
        y_label="singular value / edge", log_y=True, level=(1.0, "edge of a random matrix"), dots=False,
    )  # fmt: skip
    return {"spectra": drawn}


def bits_error_front(quant: Rows) -> dict[str, str]:
    """Of each scheme the bits and the error over all weights; the line joins those that no other beats."""
    totals: dict[str, list[float]] = {}
    for row in quant:
        if row["w_rel_fro"] is not None:
            n = row["rows"] * row["cols"]
            total = totals.setdefault(row["scheme"], [0.0, 0.0, 0.0])
            total[0] += n
            total[1] += n * row["bits_per_weight"]
            total[2] += n * row["w_rel_fro"] ** 2
    points = {name: (bits / n, math.sqrt(square / n)) for name, (n, bits, square) in totals.items()}
    if not points:
        return {}
    best = [
        p for p in sorted(points.values()) if not any(q[0] <= p[0] and q[1] < p[1] for q in points.values())
    ]
    series = {name: [point] for name, point in sorted(points.items(), key=lambda item: item[1])}
    drawn = lines(
        {"front": best, **series}, title="bits against error", x_label="bits per weight",
        y_label="relative error, root mean square", log_y=all(error > 0 for _, error in points.values()),
    )  # fmt: skip
    return {"bits_error": drawn}


def routing_heatmap(routing: Rows) -> dict[str, str]:
    """Experts across, layers down: the load of each, after a text was watched."""
    cells = {(row["expert_id"], row["layer"]): row["load"] for row in routing if row["layer"] is not None}
    if not cells:
        return {}
    title = "load of experts: 1 is an even share"
    return {"heat_routing": heatmap(cells, title=title, x_label="expert", y_label="layer")}


def all_pictures(matrices: Rows, quant: Rows, spectrum: Rows, routing: Rows = ()) -> dict[str, str]:
    found = bits_error_front(quant) | error_by_layer(quant) | spectra(spectrum, matrices)
    found |= routing_heatmap(routing) | expert_heatmaps(matrices, quant)
    return {name: picture for name, picture in found.items() if picture}


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
