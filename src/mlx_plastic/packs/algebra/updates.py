"""What a module's update is worth, from its factors alone: its norm, its angle to another, sums of several.

The update of a module is scale * b @ a. No function here forms that (out, in) matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from mlx_plastic.lowrank.svd import Array
from mlx_plastic.packs.format.pack import Factors

Part = tuple[Factors, float]  # an update and its weight in a sum
SMALL, LARGE = 2.0**-6, 2.0**6  # the largest value of a factor is kept between: float16 loses bits under 6e-5


def product(factors: Factors, weight: float = 1.0) -> tuple[Array, Array]:
    """(b, a) in float64 with b @ a = weight * scale * B @ A."""
    return factors.b.astype(np.float64) * (weight * factors.scale), factors.a.astype(np.float64)


def side_by_side(parts: Sequence[Part]) -> tuple[Array, Array]:
    """(b, a) in float64 of the sum of several updates, with the sum of their ranks."""
    pairs = [product(factors, weight) for factors, weight in parts]
    return np.concatenate([b for b, _ in pairs], axis=-1), np.concatenate([a for _, a in pairs], axis=-2)


def norm(b: Array, a: Array) -> float:
    """||b @ a|| in Frobenius norm, over a whole stack: that of the small core between the two QR factors.

    Exact to 1e-15 of ||b|| ||a||, so that it also tells how far two sums that nearly cancel are apart.
    """
    rb = np.linalg.qr(b, mode="r")
    ra = np.linalg.qr(a.mT, mode="r")
    return float(np.linalg.norm(rb @ np.swapaxes(ra, -1, -2)))


def inner(one: tuple[Array, Array], other: tuple[Array, Array]) -> float:
    """<b1 @ a1, b2 @ a2> = sum((b1.T @ b2) * (a1 @ a2.T)), over a whole stack."""
    (b1, a1), (b2, a2) = one, other
    return float(np.sum((b1.mT @ b2) * (a1 @ a2.mT)))


def distance(factors: Factors, parts: Sequence[Part]) -> float:
    """||the update of `factors` - the sum of `parts`|| in Frobenius norm."""
    return norm(*side_by_side([(factors, 1.0), *((f, -weight) for f, weight in parts)]))


def halved(b: Array, a: Array) -> Factors:
    """The update b @ a as float16 factors, whose range powers of two in alpha keep them in."""
    up_b, up_a = _shift(b), _shift(a)
    rank = a.shape[-2]
    return Factors(
        (a * 2.0**up_a).astype(np.float16), (b * 2.0**up_b).astype(np.float16), rank * 2.0 ** -(up_a + up_b)
    )


def _shift(x: Array) -> int:
    """By which power of two the largest value of x comes to lie between SMALL and LARGE; 0 if it does."""
    top = float(np.abs(x).max(initial=0.0))
    return 0 if top == 0 or SMALL <= top <= LARGE else -math.frexp(top)[1]


def relative(errors: Iterable[float], norms: Iterable[float]) -> float:
    """sqrt(sum of squared errors / sum of squared norms): the relative error over all modules."""
    whole = math.hypot(*norms)
    return math.hypot(*errors) / whole if whole else 0.0
