"""Pop's identity between ranks of matrix polynomials: a diagnostic of tolerant ranks, and a heuristic.

For a square matrix M and polynomials f and g over one field,

    rank f(M) + rank g(M) = rank gcd(f, g)(M) + rank lcm(f, g)(M)

(V. Pop, "Relations between ranks of matrix polynomials", arXiv:2010.00634). It is a theorem about exact rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.lowrank.svd import singular_values

Array = NDArray[Any]
Number = int | float | Fraction
Polynomial = Sequence[Number]  # coefficients, the highest power first

CLAIM = (
    "Pop's identity holds for exact ranks, of every square matrix. Checked with a tolerant rank it tells one "
    "thing: whether the spectrum has a gap at that tolerance (defect 0) or values that lie about it (any "
    "other defect), where 'the' rank is a matter of choice. It does not say which rank a low-rank update of "
    "this matrix needs, nor what a model loses at a smaller one; the rank taken from it is a heuristic."
)

# x (x - 1/2) and x (x + 1/2): their gcd is x, so that what is left of the identity is the rank of M itself,
# found by another way; neither divides the other
GUIDE: tuple[Polynomial, Polynomial] = ((1, Fraction(-1, 2), 0), (1, Fraction(1, 2), 0))
GUIDE_TOLERANCE = 0.1  # directions under a tenth of the strongest count as none


@dataclass(frozen=True)
class PopCheck:
    """The four ranks of the identity at one tolerance, and what may be concluded from them."""

    rank_f: int
    rank_g: int
    rank_gcd: int
    rank_lcm: int
    tolerance: float
    claim: str = CLAIM

    @property
    def defect(self) -> int:
        """Left side minus right side; 0 in exact arithmetic."""
        return self.rank_f + self.rank_g - self.rank_gcd - self.rank_lcm

    @property
    def holds(self) -> bool:
        return self.defect == 0


def pop_identity(m: Array, f: Polynomial, g: Polynomial, *, tolerance: float | None = None) -> PopCheck:
    """Both sides of the identity for a square m (n, n), each polynomial evaluated by Horner's scheme.

    f, g: coefficients, the highest power first; ints, Fractions or floats, all taken exactly, so that gcd and
    lcm are exact. tolerance: a singular value of p(m) counts if it is above tolerance times the largest that
    p(m) could have, sum |c_i| ||m||^i; by default 8 n times the rounding of the dtype.
    Raises ValueError for a matrix that is not square or not finite, and for a pair in which one polynomial
    divides the other: gcd and lcm are then f and g themselves, and the check would hold by definition.
    """
    m = _square(m)
    f, g = _exact(f), _exact(g)
    divisor = _gcd(f, g)
    if len(divisor) == min(len(f), len(g)):
        raise ValueError("one polynomial divides the other: gcd and lcm are f and g, and nothing is checked")
    multiple = _divided(_product(f, g), divisor)[0]
    if tolerance is None:
        tolerance = 8 * len(m) * float(np.finfo(m.dtype).eps)
    norm = float(np.linalg.norm(m, 2))
    f_, g_, d_, m_ = (_rank_at(m, norm, p, tolerance) for p in (f, g, divisor, multiple))
    return PopCheck(f_, g_, d_, m_, tolerance)


def theorem_guided_rank(w: Array, *, tolerance: float = GUIDE_TOLERANCE) -> int:
    """A rank for w (out, in), square or not: rank f(M) + rank g(M) - rank lcm(M), in [1, min(out, in)].

    M is w over its norm, or, if w is not square, the Gram matrix of its smaller side over its norm (with the
    tolerance squared, as Gram matrices square singular values). f and g are GUIDE, whose gcd is x: by Pop's
    identity the sum is the rank of M. At a tolerance it is near the number of singular values above
    `tolerance` of the largest, and off by the defect where they lie about it: a heuristic, see CLAIM.
    Raises ValueError for values that are not finite.
    """
    m, tolerance = _guided(w, tolerance)
    if not m.any():
        return 1
    check = pop_identity(m, *GUIDE, tolerance=tolerance)
    return max(1, min(len(m), check.rank_f + check.rank_g - check.rank_lcm))


def theorem_diagnostic(
    w: Array, *, tolerance: float = GUIDE_TOLERANCE, pair: tuple[Polynomial, Polynomial] = GUIDE
) -> PopCheck:
    """The check that `theorem_guided_rank` rests on; for w of zeros all four ranks are 0.

    pair: other polynomials f and g of the same M. Raises ValueError as `pop_identity` does.
    """
    m, tolerance = _guided(w, tolerance)
    return pop_identity(m, *pair, tolerance=tolerance)


def horner(p: Polynomial, m: Array) -> Array:
    """p(m) for a square m, by Horner's scheme: deg p - 1 products."""
    p = _exact(p)
    eye = np.eye(len(m), dtype=m.dtype)
    found = float(p[0]) * eye
    for i, c in enumerate(p[1:]):
        found = (float(p[0]) * m if i == 0 else found @ m) + float(c) * eye
    return found


def _guided(w: Array, tolerance: float) -> tuple[Array, float]:
    w = np.asarray(w)
    if w.ndim != 2 or 0 in w.shape:
        raise ValueError(f"{w.shape} is not a matrix")
    w = w.astype(np.float64 if w.dtype == np.float64 else np.float32)
    if w.shape[0] != w.shape[1]:
        w, tolerance = (w @ w.T if w.shape[0] < w.shape[1] else w.T @ w), tolerance**2
    norm = float(np.linalg.norm(_square(w), 2))
    return (w / norm if norm else w), tolerance


def _square(m: Array) -> Array:
    m = np.asarray(m)
    m = m if m.dtype in (np.float32, np.float64) else m.astype(np.float64)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not m.size:
        raise ValueError(f"{m.shape} is not a square matrix")
    if not np.isfinite(m).all():
        raise ValueError(f"the matrix {m.shape} holds values that are not finite")
    return m


def _rank_at(m: Array, norm: float, p: Polynomial, tolerance: float) -> int:
    values = horner(p, m)
    largest = sum(abs(float(c)) * norm**i for i, c in enumerate(reversed(p)))
    fine = tolerance < 1e-6  # the Gram matrix of `singular_values` is no good below
    s = np.linalg.svd(values, compute_uv=False) if fine else singular_values(values)
    return int(np.count_nonzero(s > tolerance * largest))


def _exact(p: Polynomial) -> list[Fraction]:
    """The coefficients without leading zeros. Raises ValueError for the zero polynomial."""
    found = [Fraction(c) for c in p]
    while found and not found[0]:
        found.pop(0)
    if not found:
        raise ValueError("the zero polynomial has no gcd or lcm to speak of")
    return found


def _product(f: Sequence[Fraction], g: Sequence[Fraction]) -> list[Fraction]:
    found = [Fraction(0)] * (len(f) + len(g) - 1)
    for i, a in enumerate(f):
        for j, b in enumerate(g):
            found[i + j] += a * b
    return found


def _divided(f: Sequence[Fraction], g: Sequence[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    """Quotient and remainder of f by g; the remainder of an even division is empty."""
    rest, quotient = list(f), []
    while len(rest) >= len(g):
        c = rest[0] / g[0]
        quotient.append(c)
        rest = [a - c * b for a, b in zip(rest, [*g, *[Fraction(0)] * (len(rest) - len(g))], strict=True)][1:]
    while rest and not rest[0]:
        rest.pop(0)
    return quotient, rest


def _gcd(f: Sequence[Fraction], g: Sequence[Fraction]) -> list[Fraction]:
    """Monic, by Euclid's algorithm."""
    while g:
        f, g = g, _divided(f, g)[1]
    return [c / f[0] for c in f]
