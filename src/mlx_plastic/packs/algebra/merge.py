"""Merges that look at single weights: TIES and DARE. Each needs the full update, of one matrix at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from mlx_plastic.lowrank.svd import Array, truncated_svd
from mlx_plastic.packs.algebra.updates import Part, product
from mlx_plastic.packs.format.pack import Factors

Merge = Literal["ties", "dare"]
DENSITY: dict[Merge, float] = {"ties": 0.2, "dare": 0.5}  # the share of single weights that is kept


def ties(deltas: Sequence[Array], weights: Sequence[float], density: float) -> Array:
    """One matrix from several, without their quarrels: trim, elect a sign, take the mean of who agrees.

    Of each delta the `density` largest magnitudes stay. The sign of an entry is that of the weighted sum;
    merged are the entries of that sign: sum of weight * delta over their number. With weights 1 that is the
    disjoint mean. Source: Yadav et al. 2023, arXiv:2306.01708; trimmed by matrix rather than by model.
    """
    trimmed = [weight * _trimmed(delta, density) for delta, weight in zip(deltas, weights, strict=True)]
    sign = np.sign(sum(trimmed))
    agree = [np.sign(delta) == sign for delta in trimmed]
    count = np.maximum(sum(a & (sign != 0) for a in agree), 1)
    merged: Array = sum(d * a for d, a in zip(trimmed, agree, strict=True)) / count
    return merged


def _trimmed(delta: Array, density: float) -> Array:
    kept = max(1, round(density * delta.size))
    if kept >= delta.size:
        return delta
    floor = np.partition(np.abs(delta), -kept, axis=None)[-kept]
    return np.where(np.abs(delta) >= floor, delta, 0)


def dare(
    deltas: Sequence[Array], weights: Sequence[float], density: float, random: np.random.Generator
) -> Array:
    """The weighted sum of deltas of which only a random share `density` is kept, divided by that share.

    The mean over seeds is the plain sum. Source: Yu et al. 2023, arXiv:2311.03099.
    """
    total: Array = np.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        total += weight / density * np.where(random.random(delta.shape) < density, delta, 0)
    return total


def merged_svd(
    parts: Sequence[Part], rank: int, method: Merge, *, density: float, seed: int, path: str
) -> tuple[Array, Array, Array, float]:
    """(u, s, vt) in float32 of the merge, cut to `rank`, and the Frobenius norm of the whole merge.

    Stacked experts are merged one by one. The same seed and path give the same draw.
    """
    pieces = []
    square = 0.0
    for i, expert in enumerate(_experts(parts)):
        weights = [weight for _, weight in expert]
        deltas = [_dense(factors) for factors, _ in expert]
        if method == "ties":
            whole = ties(deltas, weights, density)
        else:
            random = np.random.default_rng([seed, zlib.crc32(path.encode()), i])
            whole = dare(deltas, weights, density, random)
        square += float(np.sum(np.square(whole, dtype=np.float64)))
        pieces.append(truncated_svd(whole, min(rank, *whole.shape)))
    u, s, vt = (np.stack(x) if parts[0][0].a.ndim == 3 else x[0] for x in zip(*pieces, strict=True))
    return u, s, vt, square**0.5


def _experts(parts: Sequence[Part]) -> Iterator[list[Part]]:
    first = parts[0][0]
    if first.a.ndim == 2:
        yield list(parts)
        return
    for i in range(first.a.shape[0]):
        yield [(Factors(f.a[i], f.b[i], f.alpha), weight) for f, weight in parts]


def _dense(factors: Factors) -> Array:
    b, a = product(factors)
    return b.astype(np.float32) @ a.astype(np.float32)
