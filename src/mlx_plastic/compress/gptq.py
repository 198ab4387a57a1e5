"""Rounding a matrix so that what it does to its inputs changes least.

GPTQ (Frantar et al. 2022, arXiv:2210.17323) rounds column by column and lets the columns that are left make
up for the error; scales of a group are searched when its first column is reached. Two steps follow, in turn:
the best scales and biases for the codes, and the best code for each column with all others fixed (coordinate
descent, as in QuantEase, arXiv:2309.01885). Rows do not depend on each other, so they may be done in
batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_plastic.compress.schemes import Coded, Dtype, Scheme, rounded
from mlx_plastic.lowrank.svd import Array

BLOCK = 64  # columns between two updates of all that are left
DAMPING = 0.01  # of the mean diagonal, added to it: what was never seen is not free
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.62, 0.55)  # of a group's range
ROUNDS = 3  # of scales, then codes
ROWS = 4096  # done at once


@dataclass(frozen=True)
class Metric:
    """What an error costs.

    tr(E H E^T). h: (in, in) float32, damped; upper: Cholesky factor of its inverse, float32.
    """

    h: Array
    upper: Array


def metric(h: Array, damping: float = DAMPING) -> Metric:
    """From the mean of x x^T (in, in). A matrix that is not positive definite is damped until it is."""
    h = np.array(h, np.float64)
    h += h.T.copy()
    h /= 2
    diagonal = np.diag(h).copy()
    mean = float(np.trace(h)) / len(h)
    if not np.isfinite(mean):
        raise ValueError("the inputs' covariance is not finite")
    mean = mean or 1.0
    for times in (1, 10, 100, 1000):
        np.fill_diagonal(h, diagonal + times * damping * mean)
        try:
            right = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]  # upper, h = right right^T
        except np.linalg.LinAlgError:
            continue
        kept = h.astype(np.float32)
        del h
        return Metric(kept, _inverted(right).astype(np.float32))  # since h^-1 = right^-T right^-1
    raise ValueError("the inputs' covariance has large negative eigenvalues: it is no covariance")


def _inverted(upper: Array) -> Array:
    """The inverse of an upper triangular matrix, in its place: wide ones are not held twice."""
    half = len(upper) // 2
    if half < BLOCK:
        upper[:] = np.triu(np.linalg.inv(upper))
        return upper
    _inverted(upper[:half, :half])
    _inverted(upper[half:, half:])
    upper[:half, half:] = -(upper[:half, :half] @ upper[:half, half:]) @ upper[half:, half:]
    return upper


def gptq(
    w: Array, scheme: Scheme, m: Metric, dtype: Dtype, *, rounds: int = ROUNDS, rows: int = ROWS
) -> Coded:
    """w (out, in) in codes of an affine scheme, its scales and biases exact in `dtype`."""
    if scheme.mode != "affine" or scheme.is_whole:
        raise ValueError(f"codes of {scheme.name}")
    parts = [_batch(w[at : at + rows], scheme, m, dtype, rounds) for at in range(0, len(w), rows)]
    codes, scales, biases = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("codes", "scales", "biases")
    )
    return Coded(codes, scales, biases, scheme.group_size)


def _batch(w: Array, scheme: Scheme, m: Metric, dtype: Dtype, rounds: int) -> Coded:
    w = np.asarray(w, np.float32)
    coded = _greedy(w, scheme, m, dtype)
    h = m.h
    best, least = coded, error(w - coded.decoded(), h)
    for _ in range(rounds):
        coded = _best_codes(w, _best_scales(w, coded, h, dtype), h, scheme.bits)
        now = error(w - coded.decoded(), h)
        better = (now < least)[:, None]
        best = Coded(
            np.where(better, coded.codes, best.codes),
            np.where(better, coded.scales, best.scales),
            np.where(better, coded.biases, best.biases),
            scheme.group_size,
        )
        least = np.minimum(now, least)
    return best


def error(e: Array, h: Array) -> Array:
    """(out,) e_o H e_o^T for each row of e (out, in)."""
    found: Array = np.einsum("oi,oi->o", e @ h, e)
    return found


def _greedy(w: Array, scheme: Scheme, m: Metric, dtype: Dtype) -> Coded:
    """GPTQ itself."""
    left = w.astype(np.float32).copy()
    rows, width = w.shape
    top, g = 2**scheme.bits - 1, scheme.group_size
    upper = m.upper
    weights = 1 / np.diag(upper) ** 2  # what is lost where nothing can make up for it
    codes = np.zeros((rows, width), np.uint8)
    scales, biases = (np.zeros((rows, width // g), np.float32) for _ in range(2))
    block = max(BLOCK, g)
    for start in range(0, width, block):
        stop = min(start + block, width)
        errors = np.zeros((rows, stop - start), np.float32)
        for j in range(start, stop):
            at = j // g
            if j % g == 0:
                ahead = slice(j, j + g)
                scales[:, at], biases[:, at] = _grid(left[:, ahead], weights[ahead], top, dtype)
            s, b = scales[:, at], biases[:, at]
            code = np.clip(np.rint((left[:, j] - b) / s), 0, top)
            codes[:, j] = code
            e = (left[:, j] - (s * code + b)) / upper[j, j]
            left[:, j + 1 : stop] -= e[:, None] * upper[j, j + 1 : stop]
            errors[:, j - start] = e
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    return Coded(codes, scales, biases, g)


def _grid(group: Array, weights: Array, top: int, dtype: Dtype) -> tuple[Array, Array]:
    """The scale and bias (rows,) of least weighted squared error among some that clip the range."""
    low, high = group.min(axis=1), group.max(axis=1)
    middle, half = (low + high) / 2, (high - low) / 2
    best = np.full(len(group), np.inf, np.float32)
    scale, bias = np.ones(len(group), np.float32), np.zeros(len(group), np.float32)
    for clip in CLIPS:
        s = _nonzero(rounded(2 * clip * half / top, dtype))
        b = rounded(middle - clip * half, dtype)
        q = np.clip(np.rint((group - b[:, None]) / s[:, None]), 0, top) * s[:, None] + b[:, None]
        lost = ((group - q) ** 2) @ weights
        better = lost < best
        scale, bias = np.where(better, s, scale), np.where(better, b, bias)
        best = np.minimum(lost, best)
    return scale, bias


def _nonzero(scale: Array) -> Array:
    """A group of one value has no range: any scale will do, but not zero."""
    return np.where(scale == 0, np.float32(2.0**-14), scale)


def _best_scales(w: Array, coded: Coded, h: Array, dtype: Dtype) -> Coded:
    """Group by group the scale and bias that cost least with the codes as they are and all else fixed."""
    g = coded.group_size
    scales, biases = coded.scales.copy(), coded.biases.copy()
    residual = w - coded.decoded()
    codes = coded.codes.astype(np.float32)
    for at in range(scales.shape[1]):
        span = slice(at * g, (at + 1) * g)
        c, hg = codes[:, span], h[span, span]
        slope = residual @ h[:, span]
        ones = hg.sum(axis=1)
        ch = c @ hg
        cc, c1, o1 = np.einsum("oi,oi->o", ch, c), c @ ones, float(ones.sum())
        rc, r1 = np.einsum("oi,oi->o", slope, c), slope.sum(axis=1)
        det = cc * o1 - c1 * c1
        safe = det > 1e-6 * np.maximum(cc * o1, 1e-30)
        det = np.where(safe, det, 1.0)
        ds, db = (rc * o1 - r1 * c1) / det, (r1 * cc - rc * c1) / det
        s = np.where(safe, rounded(scales[:, at] + ds, dtype), scales[:, at])
        b = np.where(safe, rounded(biases[:, at] + db, dtype), biases[:, at])
        s = np.where(s == 0, scales[:, at], s)
        residual[:, span] -= (s - scales[:, at])[:, None] * c + (b - biases[:, at])[:, None]
        scales[:, at], biases[:, at] = s, b
    return Coded(coded.codes, scales, biases, g)


def _best_codes(w: Array, coded: Coded, h: Array, bits: int) -> Coded:
    """Column by column the code that costs least with all others fixed."""
    g, top = coded.group_size, 2**bits - 1
    codes = coded.codes.copy()
    residual = w - coded.decoded()
    width = w.shape[1]
    block = max(BLOCK, g)
    for start in range(0, width, block):
        stop = min(start + block, width)
        span = slice(start, stop)
        slope = residual @ h[:, span]  # kept up to date inside the block
        for j in range(start, stop):
            s, b = coded.scales[:, j // g], coded.biases[:, j // g]
            now = s * codes[:, j] + b
            wanted = now + slope[:, j - start] / h[j, j]
            code = np.clip(np.rint((wanted - b) / s), 0, top)
            change = s * code + b - now
            codes[:, j] = code
            residual[:, j] -= change
            slope -= change[:, None] * h[j, span]
    return Coded(codes, coded.scales, coded.biases, g)
