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

BLOCK = 64  # columns of which the slope is kept up to date
PANEL = 128  # columns that are factored at once
DAMPING = 0.01  # of the mean diagonal, added to it: what was never seen is not free
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.62, 0.55)  # of a group's range
ROUNDS = 3  # of scales, then codes
ROWS = 512  # done at once: each holds a few matrices of so many rows


@dataclass(frozen=True)
class Metric:
    """What an error costs.

    tr(E H E^T). h: (in, in) float32, damped; right: upper triangular, float32, h = right right^T.
    """

    h: Array
    right: Array


def metric(h: Array, damping: float = DAMPING, *, own: bool = False) -> Metric:
    """From the mean of x x^T (in, in). A matrix that is not positive definite is damped until it is.

    own: a float32 h is changed in its place, and kept.
    """
    h = np.asarray(h, np.float32) if own else np.array(h, np.float32)
    for at in range(0, len(h), PANEL):
        rows = slice(at, at + PANEL)
        h[rows, at:] = (h[rows, at:] + h[at:, rows].T) / 2
        h[at:, rows] = h[rows, at:].T
    diagonal = np.diag(h).astype(np.float64)
    mean = float(diagonal.mean())
    if not np.isfinite(mean):
        raise ValueError("the inputs' covariance is not finite")
    mean = mean or 1.0
    for times in (1, 10, 100, 1000):
        np.fill_diagonal(h, diagonal + times * damping * mean)
        try:
            return Metric(h, _factor(h))
        except np.linalg.LinAlgError:
            continue
    raise ValueError("the inputs' covariance has large negative eigenvalues: it is no covariance")


def _factor(h: Array) -> Array:
    """The upper triangular r (n, n) float32 with h = r r^T, panel by panel in float64.

    Raises LinAlgError if h is not positive definite.
    """
    n, r = len(h), h.copy()
    for stop in range(n, 0, -PANEL):  # a Cholesky factor from the last column on
        start = max(0, stop - PANEL)
        panel = r[:stop, start:stop].astype(np.float64)
        for at in range(stop, n, PANEL):
            done = r[:stop, at : at + PANEL].astype(np.float64)
            panel -= done @ done[start:].T
        corner = np.linalg.cholesky(panel[start:][::-1, ::-1])[::-1, ::-1]
        r[:start, start:stop] = panel[:start] @ np.linalg.inv(corner).T
        r[start:stop, start:stop] = corner
        r[stop:, start:stop] = 0
    return r


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
    """GPTQ itself, group by group.

    Its update by the inverse of h is, for the columns of a group, one by right's own columns: what the errors
    E before the group cost there, E right, is undone by the group's corner of right.
    """
    rows, width = w.shape
    top, g = 2**scheme.bits - 1, scheme.group_size
    codes = np.zeros((rows, width), np.uint8)
    scales, biases = (np.zeros((rows, width // g), np.float32) for _ in range(2))
    errors = np.zeros((rows, width), np.float32)
    for start in range(0, width, g):
        span, at = slice(start, start + g), start // g
        upper = np.triu(np.linalg.inv(m.right[span, span].astype(np.float64))).astype(np.float32)
        left = w[:, span] + (errors[:, :start] @ m.right[:start, span]) @ upper
        weights = 1 / np.diag(upper) ** 2  # what is lost where nothing can make up for it
        s, b = _grid(left, weights, top, dtype)
        for j in range(g):
            code = np.clip(np.rint((left[:, j] - b) / s), 0, top)
            codes[:, start + j] = code
            errors[:, start + j] = w[:, start + j] - (s * code + b)
            e = (left[:, j] - (s * code + b)) / upper[j, j]
            left[:, j + 1 :] -= e[:, None] * upper[j, j + 1 :]
        scales[:, at], biases[:, at] = s, b
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
