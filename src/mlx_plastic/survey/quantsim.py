"""What each scheme does to a matrix, and whether the kernel does what the installed MLX does."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.kernel import SchemeRecord, record
from mlx_plastic.survey.plain import to_bf16, widened
from mlx_plastic.survey.schemes import Scheme
from mlx_plastic.survey.spectra import largest_singular_value
from mlx_plastic.survey.stats import Pass, ratio

log = logging.getLogger(__name__)

Array = NDArray[Any]

COLUMNS = (
    *("scheme", "mode", "bits", "group_size", "w_rel_fro", "w_rel_max", "w_rel_spectral", "sqnr_db"),
    *(
        "w_gram_cos_drift",
        "scale_mean",
        "scale_max",
        "bias_mean",
        "bias_max",
        "bits_per_weight",
        "scale_dtype",
    ),
    "error",
)
SCALE_DTYPES = {"mxfp4": "e8m0", "mxfp8": "e8m0", "nvfp4": "e4m3"}
SAME = 1e-4  # relative: rounding of float32 leaves less, another rule of rounding far more
GRAM_VALUES = 1 << 20  # of the rows that w_gram_cos_drift compares, at most


@dataclass(frozen=True)
class Prepared:
    """A scheme and how it will be computed. error: why the installed MLX cannot, where it cannot."""

    scheme: Scheme
    round_exponent: bool = False
    error: str = ""


def prepare(schemes: Sequence[Scheme], kernel: Any) -> tuple[list[Prepared], list[str]]:
    """Each scheme tried by the installed mx.quantize and by the kernel, on one small matrix.

    The kernel stands for what MLX does only where it gives the same. Returns what can be simulated, and
    warnings; nothing at all can be without MLX.
    """
    if not schemes:
        return [], []
    try:
        from mlx_plastic.backend import mx
    except Exception as error:
        return [], [f"quantization is not simulated: no MLX ({type(error).__name__}: {error})"]
    prepared, warnings = [], []
    for scheme in schemes:
        found = _try(scheme, kernel, mx)
        prepared.append(found)
        if found.error:
            warnings.append(f"scheme {scheme.name!r} fails: {found.error}")
    return prepared, warnings


def _try(scheme: Scheme, kernel: Any, mx: Any) -> Prepared:
    w = np.random.default_rng(0).standard_normal((16, 256)).astype(np.float32) * 0.02
    codes = to_bf16(w)
    exact = widened(codes, "bfloat16")
    try:
        settings = {"group_size": scheme.group_size, "bits": scheme.bits, "mode": scheme.mode}
        parts = mx.quantize(mx.array(exact).astype(mx.bfloat16), **settings, stream=mx.cpu)
        wide = [part.astype(mx.float32) if part.dtype == mx.bfloat16 else part for part in parts]
        theirs = np.array(mx.dequantize(*wide, **settings, dtype=mx.float32, stream=mx.cpu))
    except Exception as error:  # whatever the installed build says of this scheme
        return Prepared(scheme, error=f"{type(error).__name__}: {error}")
    goal = float(np.linalg.norm(theirs - exact))
    for nearest in (False, True):  # two builds of MLX round the exponents of mx formats in two ways
        one = record(scheme, "bfloat16", nearest)
        kernel.matrix(codes, "bfloat16", sizes=[], records=[one])
        if abs(math.sqrt(one.error2) / goal - 1) < SAME:
            return Prepared(scheme, nearest)
    return Prepared(scheme, error="the installed MLX quantizes by a rule that is not known here")


def records_for(prepared: Sequence[Prepared], cols: int, scale_type: str) -> list[SchemeRecord]:
    """For the schemes that can be applied to rows of that length."""
    return [
        record(one.scheme, scale_type, one.round_exponent)
        for one in prepared
        if not one.error and cols % one.scheme.group_size == 0
    ]


def quant_rows(
    w: Array, dtype: str, found: Pass, *, prepared: Sequence[Prepared], records: Sequence[SchemeRecord],
    scale_type: str, stats: Stats, kernel: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each scheme; what cannot be computed says why in `error`."""
    rows, waiting = [], iter(records)
    known = [one for one in records if _holds(one)] if not found.nonfinite else []
    moved = iter(drifts(w, dtype, known, stats, kernel) if known else ())
    for one in prepared:
        scheme = one.scheme
        row = dict.fromkeys(COLUMNS) | {
            "scheme": scheme.name,
            "mode": scheme.mode,
            "bits": scheme.bits,
            "group_size": scheme.group_size,
            "bits_per_weight": scheme.bits_per_weight(scale_type),  # type: ignore[arg-type]
            "scale_dtype": SCALE_DTYPES.get(scheme.mode, scale_type),
        }
        if one.error:
            row["error"] = one.error
        elif w.shape[1] % scheme.group_size:
            row["error"] = f"group size {scheme.group_size} does not divide {w.shape[1]} columns"
        elif found.nonfinite:
            row["error"] = f"{found.nonfinite} values are not finite"
        elif _holds(record := next(waiting)):
            row |= _measured(w, dtype, found, record, scheme, kernel) | {"w_gram_cos_drift": next(moved)}
        else:
            row["error"] = "what is decoded overflows: MLX keeps the scales of such small weights wrongly"
        rows.append(row)
    return rows


def _holds(one: SchemeRecord) -> bool:
    """Whether what is decoded is finite."""
    return math.isfinite(one.error2) and math.isfinite(one.scale_max)


def _measured(
    w: Array, dtype: str, found: Pass, one: SchemeRecord, scheme: Scheme, kernel: Any
) -> dict[str, Any]:
    error, groups = math.sqrt(one.error2), w.size // scheme.group_size
    relative = ratio(error, found.norm) if found.norm else 0.0 if error == 0 else None
    affine = scheme.mode == "affine"
    row = {
        "w_rel_fro": relative,
        "w_rel_max": ratio(one.error_max, found.max_abs) if found.max_abs else relative,
        "sqnr_db": -20 * math.log10(relative) if relative else None,
        "scale_mean": one.scale_sum / groups,
        "scale_max": float(one.scale_max),
        "bias_mean": one.bias_sum / groups if affine else None,
        "bias_max": float(one.bias_max) if affine else None,
    }
    norm = found.figures.get("spectral_norm")
    if norm:
        decoded = kernel.decode(w, dtype, one)
        _subtract(decoded, w, dtype)
        row["w_rel_spectral"] = largest_singular_value(decoded) / norm
    return row


def _subtract(decoded: Array, w: Array, dtype: str) -> None:
    """decoded -= w, a slice at a time: w is not widened as a whole."""
    step = max(1, GRAM_VALUES // w.shape[1])
    for i in range(0, w.shape[0], step):
        decoded[i : i + step] -= widened(w[i : i + step], dtype)


def drifts(
    w: Array, dtype: str, records: Sequence[SchemeRecord], stats: Stats, kernel: Any
) -> list[float | None]:
    """For each scheme the root mean square change of the cosine between two rows, of evenly spaced ones.

    Rows of zeros have no angle; None where fewer than two have one.
    """
    k = min(w.shape[0], stats.quant_gram_sample_k, max(2, GRAM_VALUES // w.shape[1]))
    rows = np.ascontiguousarray(w[np.arange(k) * (w.shape[0] - 1) // max(1, k - 1)])
    every = np.empty((1 + len(records), *rows.shape), np.float32)
    every[0] = widened(rows, dtype)
    for place, one in zip(every[1:], records, strict=True):
        place[:] = kernel.decode(rows, dtype, one)
    cosines, seen = _cosines(every)
    both = seen[1:] & seen[0]
    moved = (cosines[1:] - cosines[0]) * (both[:, :, None] & both[:, None, :])
    moved[:, np.arange(k), np.arange(k)] = 0
    squares, n = np.einsum("sij,sij->s", moved, moved), both.sum(1)
    return [
        math.sqrt(s / (m * (m - 1))) if m > 1 else None
        for s, m in zip(squares.tolist(), n.tolist(), strict=True)
    ]


def _cosines(rows: Array) -> tuple[Array, Array]:
    """Of each sample of rows (s, k, cols): (s, k, k) cosines between them, and (s, k) which are not zeros."""
    gram = rows @ rows.transpose(0, 2, 1)
    tops = gram.max((1, 2))
    if not ((tops > 1e-20) & (tops < 1e30)).all():  # squares would leave float32
        exponents = np.frexp(np.abs(rows).max((1, 2), keepdims=True))[1]
        scaled = np.ldexp(rows, -exponents)
        gram = scaled @ scaled.transpose(0, 2, 1)
    gram = gram.astype(np.float64)
    size = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    seen = size > 0
    length = np.where(seen, size, 1)
    return gram / (length[:, :, None] * length[:, None, :]), seen
