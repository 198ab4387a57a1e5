"""Two runs beside each other: what only one of them has, and how far the figures of each matrix moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.errors import BadData
from mlx_plastic.survey import columns
from mlx_plastic.survey.config import Output
from mlx_plastic.survey.folder import RunFolder
from mlx_plastic.survey.frames import Columns, read_table, write_table

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
    shared = [key for key in a if key in b]
    if not shared:
        raise BadData("the two runs have no matrix in common", hint="compare two runs of one model")
    rows = [row for key in shared for row in _rows(key, a[key], b[key])]
    rows.sort(key=lambda row: -abs(row["relative"] or 0.0))
    return Comparison(rows, _names(a, b), _names(b, a))


def write_comparison(found: Comparison, path: Path) -> Path:
    """All rows as CSV, or parquet for a name that ends so."""
    form = "parquet" if path.suffix == ".parquet" else "csv"
    return write_table(path.with_suffix(""), COLUMNS, found.rows, Output(format=form))[0]  # type: ignore[arg-type]


Figures = dict[tuple[Any, ...], dict[str, Any]]  # by kind, projection, layer, expert and scheme


def _figures(run: RunFolder) -> Figures:
    """A row of matrix_stats stands under the scheme None."""
    config = run.config()
    found: Figures = {}
    for row in read_table(run.data / "matrix_stats", columns.matrix_columns(config.stats)):
        found[(*(row[name] for name in KEY), None, _which(row))] = row
    for row in read_table(run.data / "quant_sim", columns.QUANT):
        found[(*(row[name] for name in KEY), row["scheme"], _which(row))] = row
    return found


def _which(row: Mapping[str, Any]) -> str:
    """What tells matrices apart that are alike in all else; experts are told by their number."""
    return "" if row["expert_id"] is not None else str(row["derived_tensor"]).removeprefix("language_model.")


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


def _names(a: Figures, b: Figures) -> list[str]:
    """Matrices of a that b has not; schemes apart count as "matrix, scheme"."""
    told = [(a[key]["derived_tensor"], key[len(KEY)]) for key in a if key not in b]
    return [f"{name}, {scheme}" if scheme else str(name) for name, scheme in told]
