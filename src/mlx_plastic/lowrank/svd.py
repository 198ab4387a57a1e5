"""Singular values and vectors: of a product without forming it, of the largest few, of stacks of matrices.

All on the CPU with numpy (MLX has no SVD on the GPU): float64 arrays are computed in float64, everything else
in float32. A leading axis is a stack of experts, each decomposed by itself.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Svd = tuple[Array, Array, Array]  # u (..., out, k), s (..., k) falling, vt (..., k, in): w = u * s @ vt
Method = Literal["gram", "exact", "randomized"]

OVERSAMPLE = 8  # columns more than asked for, of which the randomized method keeps the best
POWER_STEPS = 2  # of the randomized method; each squares the gap between kept and dropped values
GRAM_FLOOR = {np.float32: 1e-3, np.float64: 1e-7}  # of the largest value; below it a Gram matrix is rounding


def product_svd(b: Array, a: Array) -> Svd:
    """The thin SVD of b @ a, from the factors alone: the (out, in) matrix is never formed.

    b: (..., out, rank), a: (..., rank, in). With b = Qb Rb and a.T = Qa Ra, b @ a = Qb (Rb @ Ra.T) Qa.T, and
    only the small core in the middle is decomposed: O((out + in) rank^2) instead of O(out in^2).
    Returns u (..., out, k), s (..., k), vt (..., k, in) with k = min(rank, out, in); s beyond the product's
    true rank is zero up to rounding (1e-7 of the largest in float32).
    Raises ValueError where the shapes do not fit or a value is not finite.
    """
    b, a = _floating(b), _floating(a)
    if b.ndim < 2 or a.ndim != b.ndim or b.shape[-1] != a.shape[-2] or b.shape[:-2] != a.shape[:-2]:
        raise ValueError(f"b {b.shape} and a {a.shape} are no (..., out, rank) and (..., rank, in)")
    qb, rb = np.linalg.qr(b)
    qa, ra = np.linalg.qr(a.mT)
    u, s, vt = np.linalg.svd(rb @ ra.mT, full_matrices=False)
    return qb @ u, s, vt @ qa.mT


def truncated_svd(w: Array, rank: int, method: Method = "gram", *, seed: int = 0) -> Svd:
    """The `rank` largest singular values of w (..., out, in) and their vectors: the best fit of that rank.

    "gram": eigenvectors of w.T @ w (or w @ w.T, the smaller), then one Rayleigh-Ritz step; five times faster
    than a full SVD. A Gram matrix squares the spectrum, so if the last value wanted is under 1e-3 of the
    first it is computed again in float64: the fit is then the best one up to 1e-6 of the largest value.
    "exact": LAPACK's full SVD. "randomized": Halko, Martinsson & Tropp 2011 (arXiv:0909.4061) with two power
    steps and `seed`; the fastest for a small rank, and near the best fit where the spectrum falls: see
    `relative_residual` for what it lost.
    Raises ValueError for a rank outside [1, min(out, in)] or values that are not finite.
    """
    w = _floating(w)
    if w.ndim < 2 or not 1 <= rank <= min(w.shape[-2:]):
        raise ValueError(f"rank {rank} is not within 1 and the sides of {w.shape}")
    if method == "exact":
        u, s, vt = np.linalg.svd(w, full_matrices=False)
        return u[..., :rank], s[..., :rank], vt[..., :rank, :]
    if w.shape[-2] < w.shape[-1]:
        v, s, ut = truncated_svd(w.mT, rank, method, seed=seed)
        return ut.mT, s, v.mT
    if method == "randomized":
        return _from_range(w, _random_range(w, rank, seed), rank)
    if method == "gram":
        return _by_gram(w, rank)
    raise ValueError(f"method {method!r} is not gram, exact or randomized")


def singular_values(w: Array) -> Array:
    """All singular values of w (..., out, in), falling: (..., min(out, in)).

    From the eigenvalues of the Gram matrix in float64: exact to 1e-7 of the largest for float32 input (a
    value that is truly zero may come out as large as that), and four times faster than an SVD.
    """
    w = _floating(w)
    wide = w if w.shape[-2] >= w.shape[-1] else w.mT
    exact = wide.astype(np.float64)
    found = np.linalg.eigvalsh(exact.mT @ exact)[..., ::-1]
    values: Array = np.sqrt(np.maximum(found, 0.0)).astype(w.dtype)
    return values


def balanced(u: Array, s: Array, vt: Array, rank: int | None = None) -> tuple[Array, Array]:
    """(b, a) with b @ a = u * s @ vt, cut to `rank`: each takes the root of s.

    So both have columns and rows of one size, which keeps them as far from the ends of float16 as can be.
    """
    root = np.sqrt(s[..., :rank])
    return u[..., :rank] * root[..., None, :], root[..., :, None] * vt[..., :rank, :]


def relative_residual(w: Array, u: Array, s: Array, vt: Array) -> float:
    """||w - u * s @ vt|| / ||w|| in Frobenius norm, over a whole stack; 0 for a w of zeros."""
    lost = np.asarray(w, np.float64) - (u * s[..., None, :]).astype(np.float64) @ vt
    whole = float(np.linalg.norm(np.asarray(w, np.float64)))
    return float(np.linalg.norm(lost)) / whole if whole else 0.0


def tail_residual(s: Array, rank: int) -> float:
    """What cutting a whole spectrum (..., k) at `rank` loses, relative to its Frobenius norm."""
    energy = np.asarray(s, np.float64) ** 2
    whole = float(energy.sum())
    return float(np.sqrt(energy[..., rank:].sum() / whole)) if whole else 0.0


def _by_gram(w: Array, rank: int) -> Svd:
    v = _leading(w, rank)
    u, s, vt = _ritz(w, v)
    floor = GRAM_FLOOR[w.dtype.type]
    if not np.all(s[..., rank - 1] > floor * s[..., 0]):
        if w.dtype == np.float64:
            return truncated_svd(w, rank, "exact")
        u, s, vt = _ritz(w, _leading(w.astype(np.float64), rank).astype(w.dtype))
    return u, s, vt


def _leading(w: Array, rank: int) -> Array:
    """(..., in, rank): the leading right singular vectors."""
    return np.linalg.eigh(w.mT @ w)[1][..., : -rank - 1 : -1]


def _ritz(w: Array, v: Array) -> Svd:
    """The SVD of w on the span of v: orthonormal on both sides, also where w is rank-deficient."""
    q, r = np.linalg.qr(w @ v)
    u, s, vt = np.linalg.svd(r)
    return q @ u, s, vt @ v.mT


def _random_range(w: Array, rank: int, seed: int) -> Array:
    """(..., out, k): an orthonormal basis that catches the leading left singular vectors of w."""
    k = min(rank + OVERSAMPLE, w.shape[-1])
    probe = np.random.default_rng(seed).standard_normal((w.shape[-1], k)).astype(w.dtype)
    q = np.linalg.qr(w @ probe)[0]
    for _ in range(POWER_STEPS):
        q = np.linalg.qr(w @ np.linalg.qr(w.mT @ q)[0])[0]
    return q


def _from_range(w: Array, q: Array, rank: int) -> Svd:
    u, s, vt = np.linalg.svd(q.mT @ w, full_matrices=False)
    return q @ u[..., :rank], s[..., :rank], vt[..., :rank, :]


def _floating(w: Array) -> Array:
    w = np.asarray(w)
    w = w if w.dtype == np.float64 else w.astype(np.float32)
    if not np.isfinite(w).all():
        raise ValueError(f"the matrix {w.shape} holds values that are not finite")
    return w
