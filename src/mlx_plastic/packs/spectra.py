"""The singular values of each module's update, from its factors alone."""

from __future__ import annotations

from mlx_plastic.lowrank.svd import Array, product_svd
from mlx_plastic.packs.tensors import Factors


def spectrum(f: Factors) -> Array:
    """The singular values of (alpha / rank) * B @ A, falling: (rank,), of stacked experts (E, rank).

    float32; a value far below the first is rounding (see product_svd).
    """
    s = product_svd(f.b, f.a)[1]
    return s * f.scale
