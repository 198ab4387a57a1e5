"""How many directions a matrix has, by several measures, and a rank chosen by one of them.

A measure takes a matrix (out, in) or, where it is at hand, its spectrum: singular values (k,), non-negative,
in any order. None of them says what rank a low-rank *update* of the matrix needs: the spectrum of a weight
and that of what it has still to learn are two things (`packs/ranks/budget.py` looks at the second).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.lowrank.pop import theorem_guided_rank
from mlx_plastic.lowrank.svd import singular_values, tail_residual

Array = NDArray[Any]
Strategy = Literal["stable", "energy", "effective", "theorem", "activation"]

ENERGY_SHARE = 0.9  # of the squared norm, where a strategy needs one
ROUNDING = 0.01  # of a direction: what noise in the tail of a spectrum may add to a measure


class Choice(NamedTuple):
    """rank: in [1, min(out, in)]. residual: ||A - A_rank|| / ||A|| in Frobenius norm, of the best A_rank."""

    rank: int
    residual: float


def stable_rank(w: Array) -> float:
    """||W||_F^2 / ||W||_2^2: how many directions as strong as the strongest would hold the same energy.

    Returns a real number in [1, k]. Raises ValueError if every value is zero.
    Source: Rudelson & Vershynin 2007, "Sampling from large matrices" (as "numerical rank").
    """
    s = _spectrum(w)
    return float(np.sum((s / s.max()) ** 2))


def effective_rank(w: Array) -> float:
    """exp(H(p)), p = s / sum(s): how many directions carry the weight, by the entropy of the singular values.

    Returns a real number in [1, k]. Raises ValueError if every value is zero.
    Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    s = _spectrum(w)
    p = s[s > 0] / s.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def energy_rank(w: Array, share: float = ENERGY_SHARE) -> int:
    """The smallest r with s_1^2 + ... + s_r^2 >= share * ||W||_F^2.

    share: in (0, 1]. Returns an integer in [1, k]. Raises ValueError if every value is zero.
    Source: Eckart & Young 1936; the best rank-r fit then keeps that share of the squared norm.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} is not in (0, 1]")
    energy = np.cumsum(np.sort(_spectrum(w))[::-1] ** 2)
    enough = share * energy[-1] * (1 - 1e-12)  # the sum of all, in another order, may round above it
    return int(np.searchsorted(energy, enough)) + 1


def activation_rank(covariance: Array, share: float = ENERGY_SHARE) -> int:
    """The smallest r such that r directions hold `share` of what comes into a layer.

    covariance: (in, in), the mean of x x^T over the layer's inputs x (not centred: a layer sees their
    mean too). The r principal directions hold `share` of its trace. Returns an integer in [1, in].
    Raises ValueError if it is not symmetric, not finite, or zero.
    Source: principal components (Pearson 1901); for transformers Yu & Wu, AAAI 2023, "Compressing
    Transformers: Features Are Low-Rank, but Weights Are Not".
    """
    c = np.asarray(covariance, np.float64)
    if c.ndim != 2 or c.shape[0] != c.shape[1] or not np.isfinite(c).all():
        raise ValueError(f"{c.shape} is not a finite square matrix")
    if not np.allclose(c, c.T, rtol=1e-4, atol=1e-6 * max(1e-30, float(np.abs(c).max()))):
        raise ValueError("a covariance is symmetric, this matrix is not")
    return energy_rank(np.sqrt(np.maximum(np.linalg.eigvalsh(c), 0.0)), share)


def jacobian_rank(
    jvp: Callable[[Array], Array], width: int, *, probes: int = 32, tolerance: float = 1e-3, seed: int = 0
) -> int:
    """How many directions a map answers to at a point, seen through `probes` random ones.

    jvp: a direction v (width,) -> J v (out,), with J the map's Jacobian at the point. Y = [J v_1 ... J v_p]
    with Gaussian v_i has the rank of J if p is larger, almost surely; singular values of Y above `tolerance`
    of the largest count. Returns an integer in [0, probes]: one equal to `probes` means "at least".
    Source: Halko, Martinsson & Tropp 2011, arXiv:0909.4061 (range finding); ranks of networks' Jacobians:
    Feng et al. 2022, arXiv:2206.06072.
    """
    if probes < 1 or width < 1:
        raise ValueError(f"{probes} probes of width {width} see nothing")
    v = np.random.default_rng(seed).standard_normal((min(probes, width), width))
    seen = np.stack([np.asarray(jvp(one), np.float64).reshape(-1) for one in v])
    if not np.isfinite(seen).all():
        raise ValueError("the Jacobian holds values that are not finite")
    s = np.linalg.svd(seen, compute_uv=False)
    return int(np.count_nonzero(s > tolerance * s[0])) if s[0] > 0 else 0


def largest_rank(out: int, width: int, target: float) -> int:
    """The largest r whose two factors hold at most `target` of the matrix's numbers, in [1, min(out, in)].

    r (out + in) <= target * out * in; at least 1, which is more than `target` if that is very small.
    """
    if not target > 0:
        raise ValueError(f"a target of {target} is not above 0")
    return max(1, min(out, width, math.floor(target * out * width / (out + width) * (1 + 1e-12))))


def choose_rank(
    w: Array, target: float, strategy: Strategy = "energy", *, covariance: Array | None = None
) -> Choice:
    """What `strategy` says w (out, in) needs, but no more than `target` of the matrix's numbers in factors.

    target: of the compression, the numbers in both factors over those of w, above 0; see `largest_rank`.
    covariance: of the layer's inputs, for the strategy "activation". Returns (rank, residual).
    Raises ValueError if w is not a finite matrix, or for a target or strategy that there is none of.
    """
    w = np.asarray(w)
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"{w.shape} is not a matrix")
    s = singular_values(w)
    need = needed_rank(w, strategy, spectrum=s, covariance=covariance)
    whole = math.ceil(need - ROUNDING)
    rank = max(1, min(whole, largest_rank(w.shape[0], w.shape[1], target)))
    return Choice(rank, tail_residual(s, rank))


def needed_rank(
    w: Array, strategy: Strategy, *, spectrum: Array | None = None, covariance: Array | None = None
) -> float:
    """What one strategy says of w, in directions, with no cap; 1 for a matrix of zeros."""
    s = singular_values(w) if spectrum is None else spectrum
    if not np.any(s):
        return 1.0
    if strategy == "theorem":
        return float(theorem_guided_rank(w))
    if strategy == "activation":
        if covariance is None:
            raise ValueError('the strategy "activation" needs the covariance of the inputs')
        return float(activation_rank(covariance))
    measures: dict[str, Callable[[Array], float]] = {
        "stable": stable_rank,
        "energy": energy_rank,
        "effective": effective_rank,
    }
    if strategy not in measures:
        raise ValueError(f"no strategy {strategy!r}: there are {', '.join(measures)}, theorem, activation")
    return float(measures[strategy](s))


def _spectrum(w: Array) -> Array:
    """Singular values of a matrix, or the ones given, in float64. Raises ValueError if none is above zero."""
    w = np.asarray(w)
    s = np.asarray(w if w.ndim == 1 else singular_values(w), np.float64)
    if s.ndim != 1 or not np.isfinite(s).all() or np.any(s < 0):
        raise ValueError("neither a matrix nor finite, non-negative singular values")
    if not np.any(s):
        raise ValueError("every singular value is zero: such a matrix has no direction")
    return s
