"""Figures of one matrix, from one pass over it: moments, exact percentiles, outliers of groups and channels.

Every figure is of the finite values; how many are not is a figure of its own, and where there are some, what
needs every value (groups, channels, spectra, quantization) is left empty. A ratio over zero is empty too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.kernel import SchemeRecord
from mlx_plastic.survey.plain import code_values, widened

Array = NDArray[Any]
Basic = tuple[dict[str, Any], dict[float, float]]  # moments, and values by percentile

ALWAYS = (50.0, 99.0, 99.9)  # percentiles that the tables always have
CHANNEL_OUTLIER = 3.0  # times the median channel


class Pass(NamedTuple):
    """What one pass over a matrix found. figures: columns of matrix_stats. norm: ||w||, Frobenius."""

    figures: dict[str, Any]
    norm: float
    max_abs: float
    nonfinite: int


def look(w: Array, dtype: str, stats: Stats, kernel: Any, records: Sequence[SchemeRecord]) -> Pass:
    """w: (rows, cols), C-contiguous, as the kernel takes it; the groups of `records` divide cols."""
    sizes = [g for g in stats.group_sizes_lastdim if g % 16 == 0 and w.shape[1] % g == 0]
    counts, columns, outliers = kernel.matrix(w, dtype, sizes=sizes, records=records)
    percents = sorted({*ALWAYS, *stats.percentiles_abs})
    if counts is not None:
        basic, ordered = _of_codes(counts, dtype, percents, kernel)
    else:
        basic, ordered = _of_floats(w, percents, kernel)
    nonfinite = int(basic["nonfinite"])
    figures = basic | _percentile_columns(ordered, basic)
    whole = nonfinite == 0
    figures |= _group_columns(w, dtype, stats, kernel, dict(zip(sizes, outliers, strict=True)), whole)
    figures |= _channel_columns(columns / w.shape[0]) if whole else dict.fromkeys(CHANNELS)
    finite = w.size - nonfinite
    norm = (basic["rms"] or 0.0) * math.sqrt(finite)
    return Pass(figures, norm, basic["max_abs"] or 0.0, nonfinite)


def _of_codes(counts: Array, dtype: str, percents: Sequence[float], kernel: Any) -> Basic:
    """Exact: the counts of codes are all that a matrix of 2-byte floats is, but for its order."""
    (finite, others, total, absolute, square, second, fourth), reached = kernel.codes(counts, dtype)
    n = int(finite)
    if not n:
        return _nothing(int(others)), {}
    wanted = sorted({k for p in percents for k in _ranks(p, n)} | {n - 1})
    found = code_values(dtype)[np.searchsorted(reached, wanted, side="right")]
    at = dict(zip(wanted, found.tolist(), strict=True))
    basic = _moments(n, float(total) / n, float(absolute), float(square), float(second), float(fourth))
    basic |= {"max_abs": at[n - 1], "nonfinite": int(others)}
    return basic, {p: _between(p, n, at.__getitem__) for p in percents}


def _of_floats(w: Array, percents: Sequence[float], kernel: Any) -> Basic:
    """Two passes: the upper 16 bits of |w| say where a percentile lies, the lower ones which it is."""
    upper, total, absolute = kernel.count32(w)
    nonfinite, upper = int(upper[0x7F80:].sum()), upper[:0x7F80]
    n = int(upper.sum())
    if not n:
        return _nothing(nonfinite), {}
    mean, reached = total / n, np.cumsum(upper)
    wanted = {k for p in percents for k in _ranks(p, n)} | {n - 1}
    bins = {k: int(np.searchsorted(reached, k, side="right")) for k in wanted}
    listed = sorted(set(bins.values()))
    (second, fourth, square), lower = kernel.moments32(w, mean, listed)
    within = dict(zip(listed, lower, strict=True))

    def at(k: int) -> float:
        before = int(reached[bins[k]] - upper[bins[k]])
        low = int(np.searchsorted(np.cumsum(within[bins[k]]), k - before, side="right"))
        return float(np.uint32(bins[k] << 16 | low).view(np.float32))

    basic = _moments(n, mean, absolute, float(square), float(second), float(fourth))
    basic |= {"max_abs": at(n - 1), "nonfinite": nonfinite}
    return basic, {p: _between(p, n, at) for p in percents}


def _moments(
    n: int, mean: float, absolute: float, square: float, second: float, fourth: float
) -> dict[str, Any]:
    """From sums over n values: of w, |w| and w^2, and of the 2nd and 4th power of w - mean."""
    return {
        "mean": mean,
        "std": math.sqrt(second / n),
        "mean_abs": absolute / n,
        "rms": math.sqrt(square / n),
        "kurtosis": n * fourth / second**2 if second > 0 and second**2 > 0 else None,
    }


def _nothing(nonfinite: int) -> dict[str, Any]:
    empty = dict.fromkeys(("mean", "std", "mean_abs", "rms", "kurtosis", "max_abs"))
    return {**empty, "nonfinite": nonfinite}


def _ranks(percent: float, n: int) -> tuple[int, int]:
    low = math.floor(percent / 100 * (n - 1))
    return low, min(low + 1, n - 1)


def _between(percent: float, n: int, at: Any) -> float:
    """The percentile of n ordered values, with a straight line between the two nearest (numpy's default)."""
    low, high = _ranks(percent, n)
    a, b = at(low), at(high)
    return float(a + (b - a) * (percent / 100 * (n - 1) - low))


def column_of(percent: float) -> str:
    """50 -> p50, 99.9 -> p999."""
    return f"p{percent:g}".replace(".", "")


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _percentile_columns(ordered: Mapping[float, float], basic: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {f"{column_of(p)}_abs": None for p in ALWAYS}
    found |= {f"{column_of(p)}_abs": value for p, value in ordered.items()}
    return found | {
        "outlier_max_over_mean": ratio(basic["max_abs"], basic["mean_abs"]),
        "outlier_p99_over_median": ratio(found["p99_abs"], found["p50_abs"]),
        "outlier_p999_over_median": ratio(found["p999_abs"], found["p50_abs"]),
    }


def _group_columns(
    w: Array, dtype: str, stats: Stats, kernel: Any, ratios: Mapping[int, Array], whole: bool
) -> dict[str, Any]:
    """max / mean of |w| in each group of a row: its percentile over the groups, and the largest."""
    percent = stats.group_outlier_percentile
    found: dict[str, Any] = {}
    for size in stats.group_sizes_lastdim:
        names = f"g{size}_{column_of(percent)}_outlier", f"g{size}_max_outlier"
        values = ratios.get(size)
        if values is None and w.shape[1] % size == 0:
            groups = np.abs(widened(w, dtype).astype(np.float64)).reshape(-1, size)
            mean = groups.mean(1)
            with np.errstate(invalid="ignore"):
                found_ratios = groups.max(1) / np.where(mean > 0, mean, 1)
            values = np.where(mean > 0, found_ratios, 0).astype(np.float32)
        if values is None or not whole:
            found |= dict.fromkeys(names)
            continue
        low, _ = _ranks(percent, values.size)
        a, b = kernel.select(values, low)
        between = a + (b - a) * (percent / 100 * (values.size - 1) - low)
        found |= dict(zip(names, (between, float(values.max())), strict=True))
    return found


CHANNELS = ("channel_max_over_median", "channel_outliers", "channel_top")


def _channel_columns(mean_abs: Array) -> dict[str, Any]:
    """Of the input channels (columns), by mean |w|: the largest over the median one, and which it is."""
    half = len(mean_abs) // 2
    ordered = np.partition(mean_abs, (len(mean_abs) - 1 - half, half))  # np.median imports numpy.ma: 60 ms
    median = float(ordered[half] + ordered[len(mean_abs) - 1 - half]) / 2
    outliers = int(np.count_nonzero(mean_abs > CHANNEL_OUTLIER * median)) if median > 0 else None
    return {
        "channel_max_over_median": ratio(float(mean_abs.max()), median),
        "channel_outliers": outliers,
        "channel_top": int(mean_abs.argmax()),
    }
