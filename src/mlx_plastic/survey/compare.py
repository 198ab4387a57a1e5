"""Two runs beside each other: what only one of them has, and how far the figures of each matrix moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.base.roles import natural
from mlx_plastic.errors import BadData
from mlx_plastic.survey import columns
from mlx_plastic.survey.config import Output
from mlx_plastic.survey.folder import RunFolder
from mlx_plastic.survey.frames import Columns, write_table
from mlx_plastic.survey.tables import matrix_stats, quant_sim

WEIGHTS = ("rms", "max_abs", "p99_abs", "kurtosis", "stable_rank", "effective_rank", "power_law_alpha")
QUANT = ("w_rel_fro", "w_rel_spectral", "w_gram_cos_drift", "bits_per_weight")
KEY = ("kind", "proj", "layer", "expert_id")
COLUMNS: Columns = {
    **columns.typed(*KEY, "derived_tensor", "scheme"),
    **{"measure": "str", "first": "float", "second": "float", "change": "float", "relative": "float"},
}


@dataclass(frozen=True)
class Comparison:
    """rows: one for each matrix, scheme and measure that both have, the largest relative change first."""

    rows: list[dict[str, Any]]
    only_first: list[str]
    only_second: list[str]

    def summary(self) -> list[dict[str, Any]]:
        """By kind, projection, scheme and measure: means, and the median and largest relative change."""
        groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for row in self.rows:
            groups.setdefault(tuple(row[n] for n in ("kind", "proj", "scheme", "measure")), []).append(row)
        return [_summed(key, rows) for key, rows in sorted(groups.items(), key=lambda item: str(item[0]))]


def _summed(key: tuple[Any, ...], rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    moved = [abs(row["relative"]) for row in rows if row["relative"] is not None]
    return dict(zip(("kind", "proj", "scheme", "measure"), key, strict=True)) | {
        "count": len(rows),
        "first_mean": float(np.mean([row["first"] for row in rows])),
        "second_mean": float(np.mean([row["second"] for row in rows])),
        "median_change": float(np.median(moved)) if moved else None,
        "largest_change": max(moved, default=None),
    }


def compare_runs(first: RunFolder, second: RunFolder) -> Comparison:
    """Matrices are the same if kind, projection, layer and expert are, in whichever layout they lie.

    Raises BadData if a run has no data, or the two share no matrix.
    """
    a, b = _figures(first), _figures(second)
    rows: list[dict[str, Any]] = []
    only_first, only_second, shared = [], [], 0
    for key in a | b:
        pairs, left, right = _paired(a.get(key, {}), b.get(key, {}))
        shared += len(pairs)
        rows += [row for mine, theirs in pairs for row in _rows(key, mine, theirs)]
        only_first += [_told(name, key) for name in left]
        only_second += [_told(name, key) for name in right]
    if not shared:
        raise BadData("the two runs have no matrix in common", hint="compare two runs of one model")
    rows.sort(key=lambda row: -abs(row["relative"] or 0.0))
    return Comparison(rows, only_first, only_second)


def write_comparison(found: Comparison, path: Path) -> Path:
    """All rows as CSV, or parquet for a name that ends so."""
    form = "parquet" if path.suffix == ".parquet" else "csv"
    return write_table(path.with_suffix(""), COLUMNS, found.rows, Output(format=form))[0]  # type: ignore[arg-type]


Row = Mapping[str, Any]
Figures = dict[tuple[Any, ...], dict[str, Row]]  # by kind, projection, layer, expert and scheme; by name


def _figures(run: RunFolder) -> Figures:
    """A row of matrix_stats stands under the scheme None."""
    found: Figures = {}
    for row in matrix_stats(run):
        found.setdefault((*(row[name] for name in KEY), None), {})[row["derived_tensor"]] = row
    for row in quant_sim(run):
        found.setdefault((*(row[name] for name in KEY), row["scheme"]), {})[row["derived_tensor"]] = row
    return found


def _paired(a: dict[str, Row], b: dict[str, Row]) -> tuple[list[tuple[Row, Row]], list[str], list[str]]:
    """Of matrices alike in all that a key tells: those of one name, then, if they are as many and of the same
    sizes, the others in the order of their names, which are not the same in each layout. And who is left.
    """
    pairs = [(a[name], b[name]) for name in a if name in b]
    left, right = sorted(a.keys() - b.keys(), key=natural), sorted(b.keys() - a.keys(), key=natural)
    if [_size(a[name]) for name in left] != [_size(b[name]) for name in right]:
        return pairs, left, right
    return pairs + [(a[mine], b[theirs]) for mine, theirs in zip(left, right, strict=True)], [], []


def _size(row: Row) -> tuple[int, int]:
    return row["rows"], row["cols"]


def _told(name: str, key: tuple[Any, ...]) -> str:
    scheme = key[len(KEY)]
    return f"{name}, {scheme}" if scheme else name


def _rows(key: tuple[Any, ...], a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    scheme = key[len(KEY)]
    for name in WEIGHTS if scheme is None else QUANT:
        x, y = a.get(name), b.get(name)
        if x is not None and y is not None:
            yield dict(zip(KEY, key, strict=False)) | {
                "derived_tensor": b["derived_tensor"],
                "scheme": scheme,
                "measure": name,
                "first": x,
                "second": y,
                "change": y - x,
                "relative": (y - x) / abs(x) if x else None,
            }
