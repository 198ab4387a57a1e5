"""What a matrix takes in each form that this project stores, and what making its factors takes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from mlx_plastic.compress.schemes import FLOATING, nearest, schemes_for
from mlx_plastic.lowrank.factors import quantize_factors
from mlx_plastic.lowrank.svd import Array, Method, Svd, relative_residual, truncated_svd

LARGEST = 1 << 26  # numbers of a matrix that is made to measure with
DECAY = 0.7  # of the spectrum that it has, s_k = k ** -DECAY: about that of trained weights


@dataclass(frozen=True)
class Form:
    """One way to store it. share: of the bytes in float16.

    error: ||W - stored|| / ||W||, measured on a matrix of falling spectrum; None if it was too large to make.
    """

    form: str
    nbytes: int
    share: float
    error: float | None


@dataclass(frozen=True)
class Route:
    """One way to factors. peak_bytes: that it allocated beside the matrix, seen by tracemalloc."""

    svd: str
    peak_bytes: int
    seconds: float


@dataclass(frozen=True)
class Table:
    m: int
    n: int
    rank: int
    break_even_rank: int  # below it factors take less than the matrix
    forms: tuple[Form, ...]
    routes: tuple[Route, ...]


def table(m: int, n: int, rank: int, *, seed: int = 0, tick: Callable[[str], None] = lambda _: None) -> Table:
    """Raises ValueError for a rank that the matrix has not."""
    if not 1 <= rank <= min(m, n):
        raise ValueError(f"rank {rank} of {m} x {n}: it has at most {min(m, n)}")
    w = _matrix(m, n, seed) if m * n <= LARGEST else None
    factors: Svd | None = None
    if w is not None:
        tick("factors")
        factors = truncated_svd(w, rank)
    forms = [*_dense(m, n, w, tick), *_factored(m, n, rank, w, factors, tick)]
    routes = [] if w is None else [_route(w, rank, method, tick) for method in get_args(Method)]
    return Table(m, n, rank, m * n // (m + n), tuple(forms), tuple(routes))


def _matrix(m: int, n: int, seed: int) -> Array:
    random = np.random.default_rng(seed)
    k = min(m, n)
    left, right = (random.standard_normal((side, k)).astype(np.float32) for side in (m, n))
    s = (1 + np.arange(k)) ** -DECAY
    found: Array = (left * s.astype(np.float32)) @ right.T / np.float32(k)
    return found


def _dense(m: int, n: int, w: Array | None, tick: Callable[[str], None]) -> list[Form]:
    whole = 2 * m * n
    found = [Form("float32", 2 * whole, 2.0, 0.0 if w is not None else None)]
    floating = [scheme for scheme in FLOATING if scheme.fits(n)]
    for scheme in [*reversed(schemes_for(n)), *floating]:
        tick(scheme.name)
        error = None
        if w is not None:
            error = float(np.linalg.norm(w - nearest(w, scheme, "float16")) / np.linalg.norm(w))
        name = "float16" if scheme.is_whole else scheme.name
        found.append(Form(name, scheme.nbytes((m, n)), scheme.nbytes((m, n)) / whole, error))
    return found


def _factored(
    m: int, n: int, rank: int, w: Array | None, factors: Svd | None, tick: Callable[[str], None]
) -> list[Form]:
    numbers, whole = rank * (m + n), 2 * m * n
    lost = relative_residual(w, *factors) if w is not None and factors is not None else None
    found = [
        Form(f"rank {rank} float32", 4 * numbers, 4 * numbers / whole, lost),
        Form(f"rank {rank} float16", 2 * numbers, 2 * numbers / whole, lost),
    ]
    for bits in (8, 4):
        tick(f"int{bits}")
        error = None
        size = numbers * bits // 8 + 2 * rank * (-(-m // 64) + -(-n // 64))
        if w is not None and factors is not None:
            small = quantize_factors(*factors, bits=bits)
            size = small.nbytes
            error = float(np.linalg.norm(w - small.matrix()) / np.linalg.norm(w))
        found.append(Form(f"rank {rank} int{bits}", size, size / whole, error))
    return found


def _route(w: Array, rank: int, method: Any, tick: Callable[[str], None]) -> Route:
    import time

    tick(f"svd {method}")
    tracemalloc.start()
    began = time.perf_counter()
    try:
        truncated_svd(w, rank, method)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Route(method, peak, time.perf_counter() - began)
