"""The rows of a run summed up by layer, by block of four layers and as a whole; scheme against scheme."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mlx_plastic.errors import BadData
from mlx_plastic.home import write_json
from mlx_plastic.survey import columns
from mlx_plastic.survey.config import SurveyConfig
from mlx_plastic.survey.folder import RunFolder
from mlx_plastic.survey.frames import Columns, read_table, write_table

LEVELS: dict[str, tuple[str, ...]] = {"layer": ("layer",), "block4": ("block4",), "global": ()}
BY = ("kind", "proj")
QUANT_MEASURES = (
    *("w_rel_fro", "w_rel_max", "w_rel_spectral", "sqnr_db", "w_gram_cos_drift"),
    *("scale_mean", "scale_max", "bias_mean", "bias_max", "bits_per_weight"),
)
IDENTITY = (
    *("derived_tensor", "layer", "block4", "kind", "proj", "expert_id"),
    *("is_routed_expert", "is_shared_expert"),
)


class Summary:
    """Rows added up by a key: of each measure mean, median, 95th percentile, smallest and largest."""

    def __init__(self, keys: Sequence[str], measures: Sequence[str]) -> None:
        self.keys, self.measures = tuple(keys), tuple(measures)
        self._values: dict[tuple[Any, ...], dict[str, list[float]]] = {}
        self._counts: dict[tuple[Any, ...], int] = {}
        self._weights: dict[tuple[Any, ...], int] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        key = tuple(row[name] for name in self.keys)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._weights[key] = self._weights.get(key, 0) + int(row["rows"]) * int(row["cols"])
        known = self._values.setdefault(key, {})
        for name in self.measures:
            if row.get(name) is not None:
                known.setdefault(name, []).append(float(row[name]))

    @property
    def columns(self) -> Columns:
        names = [f"{m}_{how}" for m in self.measures for how in ("mean", "p50", "p95", "min", "max")]
        return {
            **columns.typed(*self.keys),
            "count": "int",
            "weights": "int",
            **dict.fromkeys(names, "float"),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        for key in sorted(self._counts, key=lambda k: tuple((v is not None, v) for v in k)):
            row = dict(zip(self.keys, key, strict=True))
            row |= {"count": self._counts[key], "weights": self._weights[key]}
            for name, values in self._values[key].items():
                v = np.array(values)
                middle, high = np.percentile(v, [50, 95])
                how = {"mean": v.mean(), "p50": middle, "p95": high, "min": v.min(), "max": v.max()}
                row |= {f"{name}_{which}": float(value) for which, value in how.items()}
            yield row


def make_tables(run: RunFolder) -> dict[str, int]:
    """Writes tables/. Returns the rows of each. Raises BadData for rows that stand twice, naming them."""
    config = run.config()
    counts: dict[str, int] = {}
    counts |= _summaries(run, "A_weight", matrix_stats(run), columns.measures(config.stats), config, ())
    counts |= _summaries(run, "B_quant", quant_sim(run), QUANT_MEASURES, config, ("scheme",))
    counts["B_quant_deltas"] = _write_deltas(run, config)
    write_json(run.logs / "tables.json", {"rows": counts})
    return counts


def _summaries(
    run: RunFolder, prefix: str, rows: Iterable[Mapping[str, Any]], measures: Sequence[str],
    config: SurveyConfig, more: tuple[str, ...],
) -> dict[str, int]:  # fmt: skip
    sums = {level: Summary((*keys, *BY, *more), measures) for level, keys in LEVELS.items()}
    for row in rows:
        for summary in sums.values():
            summary.add(row)
    counts = {}
    for level, summary in sums.items():
        name = f"{prefix}_{level}_summary"
        _, counts[name], _ = write_table(run.tables / name, summary.columns, summary.rows(), config.output)
    return counts


def delta_pairs(config: SurveyConfig) -> list[Mapping[str, str]]:
    """Those of the config; without any, every scheme against the first."""
    if config.delta_pairs:
        return list(config.delta_pairs)
    schemes = [scheme.name for scheme in config.quant_schemes]
    return [{"name": f"{b}_minus_{schemes[0]}", "a": b, "b": schemes[0]} for b in schemes[1:]]


DELTA_COLUMNS: Columns = {
    **columns.typed(*IDENTITY, "pair", "a", "b"),
    **{f"{name}_{which}": "float" for name in QUANT_MEASURES for which in ("a", "b", "delta")},
}


def _write_deltas(run: RunFolder, config: SurveyConfig) -> int:
    rows = deltas(quant_sim(run), delta_pairs(config))
    return write_table(run.tables / "B_quant_deltas", DELTA_COLUMNS, rows, config.output)[1]


def deltas(rows: Iterable[Mapping[str, Any]], pairs: Sequence[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """a - b of every measure, for each matrix and pair; only rows without an error count.

    Raises BadData if a matrix has two rows of one scheme: which is meant is not known.
    """
    wanted = {pair[side] for pair in pairs for side in "ab"}
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        if row["scheme"] not in wanted:
            continue
        schemes = found.setdefault(row["derived_tensor"], {})
        if row["scheme"] in schemes:
            raise BadData(
                f"quant_sim holds {row['derived_tensor']!r} with scheme {row['scheme']!r} twice",
                hint="rules that take one tensor twice, or an edited table? collect again",
            )
        schemes[row["scheme"]] = row
    for schemes in found.values():
        for pair in pairs:
            a, b = schemes.get(pair["a"]), schemes.get(pair["b"])
            if a is not None and b is not None and not a["error"] and not b["error"]:
                yield _delta(a, b, pair)


def _delta(a: Mapping[str, Any], b: Mapping[str, Any], pair: Mapping[str, str]) -> dict[str, Any]:
    row = {name: a[name] for name in IDENTITY} | {"pair": pair["name"], "a": pair["a"], "b": pair["b"]}
    for name in QUANT_MEASURES:
        both = a[name] is not None and b[name] is not None
        row |= {
            f"{name}_a": a[name],
            f"{name}_b": b[name],
            f"{name}_delta": a[name] - b[name] if both else None,
        }
    return row


def matrix_stats(run: RunFolder) -> Iterator[dict[str, Any]]:
    return read_table(run.data / "matrix_stats", columns.matrix_columns(run.config().stats))


def quant_sim(run: RunFolder) -> Iterator[dict[str, Any]]:
    return read_table(run.data / "quant_sim", columns.QUANT)


def overview(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For a terminal, of rows of quant_sim: by kind, projection and scheme the bits and the errors."""
    summary = Summary((*BY, "scheme"), ("w_rel_fro", "bits_per_weight"))
    for row in rows:
        summary.add(row)
    shown = (*BY, "scheme", "count", "bits_per_weight_mean", "w_rel_fro_mean", "w_rel_fro_max")
    return [{name: row.get(name) for name in shown} for row in summary.rows()]


def read_log(run: RunFolder, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((run.logs / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found
