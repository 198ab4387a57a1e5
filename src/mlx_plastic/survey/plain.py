"""What kernel.c computes, in numpy alone: for a machine without a C compiler, and to hold the kernel against.

The rules are those of MLX's mx.quantize on the CPU, step by step in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BF16, F16, F32 = range(3)  # as kernel.c numbers them
AFFINE, MXFP4, MXFP8, NVFP4 = range(4)
TYPES = {"bfloat16": BF16, "float16": F16, "float32": F32}
MODES = {"affine": AFFINE, "mxfp4": MXFP4, "mxfp8": MXFP8, "nvfp4": NVFP4}
CHUNK = 1 << 20  # values widened at once
E2M1 = np.array(
    [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32
)  # above each of them the next step begins
E2M1_STEPS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def widened(w: Array, dtype: str) -> Array:
    """Codes of 2-byte floats, or floats, as float32 of the same shape."""
    if dtype == "bfloat16":
        return (w.astype(np.uint32) << 16).view(np.float32)
    return w.view(np.float16).astype(np.float32) if dtype == "float16" else w


@functools.cache
def code_values(dtype: str) -> Array:
    """The number that each of the 65,536 codes of a 2-byte float stands for, float64."""
    with np.errstate(invalid="ignore"):
        return widened(np.arange(65536, dtype=np.uint16), dtype).astype(np.float64)


def to_bf16(x: Array) -> Array:
    """float32 -> the codes (uint16) of the nearest bfloat16, halves to even; NaN stays NaN."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    codes = ((u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), codes)


def rounded(x: Array, kind: int) -> Array:
    """float32 -> the nearest value of the type, as float32. kind: of TYPES."""
    if kind == BF16:
        return widened(to_bf16(x), "bfloat16")
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32) if kind == F16 else x


class Decoded(NamedTuple):
    """values (groups, g); scales and biases (groups,), as they would be kept."""

    values: Array
    scales: Array
    biases: Array | None


def quantized(w: Array, one: Any, kind: int) -> Decoded:
    """One scheme on groups w (groups, g), float32. kind: the type that the weights are kept in."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _affine(w, one) if one.mode == AFFINE else _floating(w, one, kind)


def _affine(w: Array, one: Any) -> Decoded:
    bins = np.float32((1 << one.bits) - 1)
    low, high = w.min(1), w.max(1)
    below = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / bins, np.float32(1e-7))
    scale, edge = np.where(below, scale, -scale), np.where(below, low, high)
    q0 = np.rint(edge / scale)
    bias = np.where(q0 != 0, edge, np.float32(0))
    scale = np.where(q0 != 0, edge / np.where(q0 != 0, q0, np.float32(1)), scale)
    codes = np.rint(np.clip((w - bias[:, None]) / scale[:, None], np.float32(0), bins))
    scale, bias = rounded(scale, one.scale_type), rounded(bias, one.scale_type)
    return Decoded(codes * scale[:, None] + bias[:, None], scale, bias)


def _floating(w: Array, one: Any, kind: int) -> Decoded:
    top = np.abs(w).max(1)
    if one.mode == NVFP4:
        scale = e4m3(rounded(top / np.float32(6), kind))
        step = np.where(scale > 0, scale, np.float32(np.inf))[:, None]  # a scale of 0 decodes to zeros
    else:
        ratio = rounded(top / np.float32(6 if one.mode == MXFP4 else 448), kind)
        e = np.where(ratio == 0, 0, _exponent(ratio, bool(one.round_exponent)))
        step = np.ldexp(np.float32(1), e)[:, None]
        scale = np.ldexp(np.float32(1), ((e + 127) & 255) - 127)  # MLX keeps it in a byte that wraps
    size = np.abs(w) / step
    found = e4m3(size) if one.mode == MXFP8 else E2M1_STEPS[np.searchsorted(E2M1, size)]
    return Decoded(np.copysign(found * scale[:, None], w), scale, None)


def e4m3(x: Array) -> Array:
    """Values >= 0 rounded to 4 bits of exponent and 3 of mantissa, halves to even; above 448 they are 448."""
    x = np.minimum(x, np.float32(448))
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    normal = ((u + 0x7FFFF + (u >> 20 & 1)) & np.uint32(0xFFF00000)).view(np.float32)
    return np.where(x < 2**-6, np.rint(x * np.float32(512)) / np.float32(512), normal)


def _exponent(ratio: Array, nearest: bool) -> Array:
    mantissa, e = np.frexp(ratio)  # ratio = m 2^e, m in [1/2, 1)
    low = mantissa <= np.float32(0.70710678) if nearest else mantissa == 0.5
    return np.where(low, e - 1, e)


class PlainKernel:
    """The same calls as `kernel.Kernel`."""

    def matrix(
        self, w: Array, dtype: str, *, sizes: Sequence[int], records: Sequence[Any]
    ) -> tuple[Array | None, Array, list[Array]]:
        columns = np.zeros(w.shape[1])
        counts = np.zeros(65536, np.int64) if dtype != "float32" else None
        outliers: list[list[Array]] = [[] for _ in sizes]
        for part in _rows(w):
            if counts is not None:
                counts += np.bincount(part.reshape(-1), minlength=65536)
            wide = widened(part, dtype)
            with np.errstate(invalid="ignore"):
                columns += np.abs(wide).sum(0, dtype=np.float64)
            for k, size in enumerate(sizes):
                outliers[k].append(_ratios(wide.reshape(-1, size)))
            for one in records:
                _add(one, wide.reshape(-1, one.group), dtype)
        return counts, columns, [np.concatenate(found) for found in outliers]

    def codes(self, counts: Array, dtype: str) -> tuple[Array, Array]:
        values = code_values(dtype)
        finite = np.isfinite(values)
        kept, n = np.where(finite, values, 0.0), int(counts[finite].sum())
        met = np.where(finite, counts, 0).astype(np.float64)
        total = float(met @ kept)
        second = (kept - (total / n if n else 0.0)) ** 2
        sums = [n, int(counts[~finite].sum()), total, met @ np.abs(kept), met @ kept**2]
        both = (met[:32768] + met[32768:]).astype(
            np.int64
        )  # without their sign, codes are in the order of magnitudes
        return np.array([*sums, met @ second, met @ second**2]), np.cumsum(both)

    def decode(self, w: Array, dtype: str, one: Any) -> Array:
        found = quantized(widened(w, dtype).reshape(-1, one.group), one, TYPES[dtype])
        return found.values.reshape(w.shape)

    def select(self, values: Array, k: int) -> tuple[float, float]:
        after = min(k + 1, values.size - 1)
        ordered = np.partition(values, [k, after])
        return float(ordered[k]), float(ordered[after])

    def count32(self, w: Array) -> tuple[Array, float, float]:
        magnitude = np.abs(w.reshape(-1))
        counts = np.bincount(magnitude.view(np.uint32) >> 16, minlength=32768)
        finite = w[np.isfinite(w)].astype(np.float64)
        return counts, float(finite.sum()), float(np.abs(finite).sum())

    def moments32(self, w: Array, mean: float, bins: Sequence[int]) -> tuple[Array, Array]:
        finite = w[np.isfinite(w)].astype(np.float64)
        second = (finite - mean) ** 2
        sums = np.array([second.sum(), (second * second).sum(), (finite * finite).sum()])
        u = np.abs(w.reshape(-1)).view(np.uint32)
        counts = [np.bincount(u[u >> 16 == b] & 0xFFFF, minlength=65536) for b in bins]
        return sums, np.array(counts or [np.zeros(65536, np.int64)])


def _rows(w: Array) -> Iterator[Array]:
    step = max(1, CHUNK // max(1, w.shape[1]))
    return (w[i : i + step] for i in range(0, w.shape[0], step))


def _ratios(groups: Array) -> Array:
    size = np.abs(groups)
    total = size.sum(1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = size.max(1) / (total / groups.shape[1])
    return np.where(total > 0, found, 0).astype(np.float32)


def _add(one: Any, groups: Array, dtype: str) -> None:
    found = quantized(groups, one, TYPES[dtype])
    error = np.abs(groups.astype(np.float64) - found.values)
    one.error2 += float((error * error).sum())
    one.error_max = max(one.error_max, float(error.max(initial=0)))
    scale = np.abs(found.scales)
    one.scale_sum += float(scale.sum(dtype=np.float64))
    one.scale_max = max(one.scale_max, float(scale.max()))
    if found.biases is not None:
        bias = np.abs(found.biases)
        one.bias_sum += float(bias.sum(dtype=np.float64))
        one.bias_max = max(one.bias_max, float(bias.max()))
