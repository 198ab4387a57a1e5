"""What the singular values of a matrix say, and the largest one of an error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.lowrank.rank import effective_rank, energy_rank, stable_rank
from mlx_plastic.survey.plain import widened

Array = NDArray[Any]

COLUMNS = (
    *("stable_rank", "effective_rank", "energy_rank_90", "energy_rank_99"),
    *("power_law_alpha", "spectral_norm", "mp_edge", "above_edge"),
)
CHUNK = 1 << 21  # values of a matrix that are held in float64 at once
GRAM_BLOCK = 512  # columns of a Gram matrix that are added to at once
CACHED = 1 << 17  # values of float32 that a second-level cache holds
POINTS = 64  # of a spectrum that are kept for the pictures
LEAST_TAIL = 8  # values that a power law is fitted to, at least
CANDIDATES = 200  # starts of the tail that are tried, at most
LANCZOS_STEPS = 60
LANCZOS_TOLERANCE = 1e-4  # of the largest singular value


def singular_values(w: Array, dtype: str) -> Array:
    """All of w (rows, cols), falling, float64: roots of the eigenvalues of the smaller Gram matrix.

    The Gram matrix is summed up in float64 over slices of w, so no copy of w is made. Exact to 1e-7 of the
    largest value: what is smaller is rounding.
    """
    rows, cols = w.shape
    side = min(rows, cols)
    gram = np.zeros((side, side))
    step = max(1, CHUNK // side)
    for i in range(0, max(rows, cols), step):
        part = widened(w[i : i + step] if rows >= cols else w[:, i : i + step].T, dtype).astype(np.float64)
        for k in range(0, side, GRAM_BLOCK):  # the lower triangle, which is all that eigvalsh reads
            across, below = part[:, k : k + GRAM_BLOCK], part[:, k + GRAM_BLOCK :]
            gram[k : k + GRAM_BLOCK, k : k + GRAM_BLOCK] += across.T @ across  # symmetric: half the work
            gram[k + GRAM_BLOCK :, k : k + GRAM_BLOCK] += below.T @ across
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))


def spectral_columns(s: Array, rows: int, cols: int, rms: float) -> dict[str, Any]:
    """The columns of matrix_stats that follow from a spectrum; all empty for a matrix of zeros."""
    if not s[0] > 0:
        return dict.fromkeys(COLUMNS)
    edge = rms * (math.sqrt(rows) + math.sqrt(cols))
    return {
        "stable_rank": stable_rank(s),
        "effective_rank": effective_rank(s),
        "energy_rank_90": energy_rank(s, 0.9),
        "energy_rank_99": energy_rank(s, 0.99),
        "power_law_alpha": power_law_alpha(s**2),
        "spectral_norm": float(s[0]),
        "mp_edge": edge,  # where the values of noise of that size end: Marchenko & Pastur 1967
        "above_edge": int(np.count_nonzero(s > edge)),
    }


def power_law_alpha(eigenvalues: Array) -> float | None:
    """The exponent of p(x) ~ x^-alpha for the tail of the eigenvalues of w^T w.

    The maximum-likelihood exponent of the tail that is nearest to a power law by Kolmogorov-Smirnov distance,
    among at most 200 starts of the tail; None below 8 values. Source: Clauset, Shalizi & Newman 2009,
    arXiv:0706.1062; used on weights by Martin & Mahoney 2021, arXiv:1810.01075.
    """
    x = np.sort(eigenvalues[eigenvalues > 0])
    n = len(x)
    if n < LEAST_TAIL:
        return None
    logs = np.log(x)
    above = np.cumsum(logs[::-1])[::-1]  # sums of the logarithms from each value up
    starts = np.unique(np.linspace(0, n - LEAST_TAIL, min(CANDIDATES, n - LEAST_TAIL + 1)).astype(int))
    left = n - starts
    excess = above[starts] - left * logs[starts]
    starts, left, excess = starts[excess > 0], left[excess > 0], excess[excess > 0]
    if not len(starts):
        return None
    slope = left / excess  # alpha - 1, by maximum likelihood
    within = np.arange(n) - starts[:, None]
    beyond = 1 - np.exp(-slope[:, None] * np.maximum(logs - logs[starts, None], 0))
    apart = np.where(within >= 0, np.abs(beyond - within / left[:, None]), 0)
    return 1 + float(slope[apart.max(1).argmin()])


def sketch(s: Array) -> list[float]:
    """At most 64 of the values, first and last among them, evenly spaced in rank."""
    return [float(f"{v:.6g}") for v in s[sketched(len(s))]]


def sketched(n: int) -> Array:
    """Which of n values a sketch has."""
    return np.unique(np.linspace(0, n - 1, min(POINTS, n)).round().astype(int))


def largest_singular_value(e: Array) -> float:
    """||e||_2 of a float32 matrix (rows, cols), to 1e-4, by Lanczos on e^T e; e is scaled in place.

    With full reorthogonalization. What is missing is at most the residual r of the Ritz pair, and about r^2
    over the gap to the next one: the smaller of the two says when to stop.
    Source: Golub & Kahan 1965, "Calculating the singular values and pseudo-inverse of a matrix"; the bound by
    the gap: Parlett 1980, "The symmetric eigenvalue problem", 11.7.
    """
    top = max(float(e.max(initial=0.0)), -float(e.min(initial=0.0)))
    if not top > 0 or not math.isfinite(top):
        return top
    exponent = max(-126, min(126, -math.frexp(top)[1]))
    np.multiply(e, np.float32(2.0**exponent), out=e)  # so that no square leaves float32
    v = np.random.default_rng(0).standard_normal(e.shape[1])
    basis = [np.asarray(v / np.linalg.norm(v))]
    diagonal: list[float] = []
    beside: list[float] = []
    found = 0.0
    for step in range(min(LANCZOS_STEPS, *e.shape)):
        onward = _to_and_fro(e, basis[-1].astype(np.float32))
        diagonal.append(float(onward @ basis[-1]))
        known = np.array(basis)
        for _ in range(2):
            onward -= known.T @ (known @ onward)
        size = float(np.linalg.norm(onward))
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        found = max(0.0, float(values[-1]))
        residual = size * abs(float(vectors[-1, -1]))
        gap = float(values[-1] - values[-2]) if step else 0.0
        if min(residual, residual**2 / gap if gap else math.inf) <= LANCZOS_TOLERANCE * found:
            break
        beside.append(size)
        basis.append(onward / size)
    return math.sqrt(found) / 2.0**exponent


def _to_and_fro(e: Array, v: Array) -> Array:
    """e^T (e v), float64: some rows at a time, so that they are read from memory once and not twice."""
    step = max(1, CACHED // e.shape[1])
    total = np.zeros(e.shape[1])
    for i in range(0, e.shape[0], step):
        part = e[i : i + step]
        total += (part @ v) @ part
    return total
