"""The columns of every table, with their types. Names are stable: columns are added, never renamed."""

from __future__ import annotations

from mlx_plastic.survey import quantsim, spectra, stats
from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.frames import Columns, Kind
from mlx_plastic.survey.measure import IDENTITY
from mlx_plastic.survey.stats import column_of

INTS = {"layer", "block4", "expert_id", "rows", "cols", "ndim", "nbytes", "bits", "group_size", "nonfinite"}
INTS |= {"channel_outliers", "channel_top", "energy_rank_90", "energy_rank_99", "above_edge", "count"}
BOOLS = {"is_routed_expert", "is_shared_expert", "in_index"}
TEXTS = {
    "file",
    "source_tensor",
    "derived_tensor",
    "proj",
    "kind",
    "dtype",
    "tensor_name",
    "shape",
    "index_shard",
}
TEXTS |= {"scheme", "mode", "scale_dtype", "error", "reason", "stage", "warning", "values", "pair", "a", "b"}


def kind_of(name: str) -> Kind:
    return "int" if name in INTS else "bool" if name in BOOLS else "str" if name in TEXTS else "float"


def typed(*names: str) -> Columns:
    return {name: kind_of(name) for name in names}


INVENTORY = typed("file", "tensor_name", "dtype", "shape", "ndim", "nbytes", "in_index", "index_shard")
UNMATCHED = typed(*INVENTORY, "reason")
WARNINGS = typed("stage", "warning")
SPECTRA = typed(*IDENTITY, "values")
QUANT = typed(*IDENTITY, *quantsim.COLUMNS)


def matrix_columns(settings: Stats) -> Columns:
    """Of matrix_stats; the groups and percentiles of a config give some of them their names."""
    return typed(*IDENTITY, *measures(settings))


def measures(settings: Stats) -> list[str]:
    """The figures of matrix_stats, without what identifies the matrix."""
    percents = sorted({*stats.ALWAYS, *settings.percentiles_abs})
    names = ["mean", "std", "mean_abs", "rms", "max_abs", *(f"{column_of(p)}_abs" for p in percents)]
    names += ["outlier_max_over_mean", "outlier_p99_over_median", "outlier_p999_over_median"]
    for size in settings.group_sizes_lastdim:
        names += [f"g{size}_{column_of(settings.group_outlier_percentile)}_outlier", f"g{size}_max_outlier"]
    return [*names, "kurtosis", "nonfinite", *stats.CHANNELS, *spectra.COLUMNS]
