"""The sum of several updates, exactly: their factors side by side, in float16 and under one alpha.

The k-th update has the scale s_k = weight_k * alpha_k / rank_k, but the sum has a single scale s, so each b
has to take s_k / s in. A power of two goes in without loss. Any other number is rounded; then what the
rounding took is carried along as further columns, so that the sum keeps its 24 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlx_plastic.errors import BadPack
from mlx_plastic.lowrank.svd import Array
from mlx_plastic.packs.algebra.updates import Part
from mlx_plastic.packs.format.pack import Factors

LARGEST = 65504.0  # of float16
SAME = 1e-7  # relative: two scales that only rounding sets apart


def concatenated(parts: Sequence[Part], *, compact: bool = False) -> Factors:
    """The weighted sum of updates of one module, as one.

    compact: round weights that are no powers of two of each other, rather than carry the remainder: the rank
    is the sum of the ranks, the error about 2e-4 of the sum. Raises BadPack if weights lie so far apart that
    float16 cannot hold both.
    """
    scales = [weight * factors.scale for factors, weight in parts]
    common = _common_scale(scales, [factors.rank for factors, _ in parts])
    pairs = [
        pair
        for (factors, _), scale in zip(parts, scales, strict=True)
        for pair in _folded(factors, scale / common, compact)
    ]
    b, a = np.concatenate([b for b, _ in pairs], axis=-1), np.concatenate([a for _, a in pairs], axis=-2)
    return Factors(a, b, a.shape[-2] * common)


def _common_scale(scales: Sequence[float], ranks: Sequence[int]) -> float:
    """The scale that spares most columns their rounding, moved below the smallest: then bits only move up."""
    spared = [
        sum(rank for other, rank in zip(scales, ranks, strict=True) if abs(_split(other / mine)[0]) == 1)
        for mine in scales
    ]
    best = abs(scales[spared.index(max(spared))])
    return math.ldexp(best, min(_split(scale / best)[1] for scale in scales))


def _split(x: float) -> tuple[float, int]:
    """(m, e) with x = m * 2**e and 1 <= |m| < 2; a power of two up to rounding is one."""
    half, exponent = math.frexp(x)
    for power, place in ((0.5, exponent - 1), (1.0, exponent)):
        if abs(abs(half) - power) < SAME:
            return math.copysign(1.0, x), place
    return 2 * half, exponent - 1


def _folded(f: Factors, c: float, compact: bool) -> list[tuple[Array, Array]]:
    """float16 pairs (b, a) that add up to c * B @ A."""
    mantissa, exponent = _split(c)
    b, a = _raised(f, exponent)
    wanted = mantissa * b
    pair = _half(wanted), _half(a)
    rest = wanted - pair[0].astype(np.float64)
    return [pair] if compact or not rest.any() else [pair, _remainder(rest, a)]


def _raised(f: Factors, exponent: int) -> tuple[Array, Array]:
    """(b, a) with b @ a = 2 ** exponent * B @ A, the powers shared so that both stay of one size."""
    b, a = f.b.astype(np.float64), f.a.astype(np.float64)
    tops = [max(float(np.abs(x).max()), 1e-8) for x in (b, a)]
    of_b = min(max(round((exponent + math.log2(tops[1] / tops[0])) / 2), 0), exponent)
    raised = b * 2.0**of_b, a * 2.0 ** (exponent - of_b)
    if max(float(np.abs(x).max()) for x in raised) > LARGEST / 2:
        raise BadPack(
            f"the updates differ by a factor of {2.0**exponent:g}, more than float16 can hold",
            hint="give weights that lie closer together, or leave the weakest pack out",
        )
    return raised


def _remainder(rest: Array, a: Array) -> tuple[Array, Array]:
    """What rounding took, moved up into the range of float16 at the expense of a."""
    sizes = [float(np.sqrt(np.mean(x * x))) for x in (a, rest)]
    up = min(max(round(math.log2(max(sizes[0], 1e-8) / sizes[1]) / 2), 0), 15)
    return _half(rest * 2.0**up), _half(a * 2.0**-up)


def _half(x: Array) -> Array:
    return x.astype(np.float16)
