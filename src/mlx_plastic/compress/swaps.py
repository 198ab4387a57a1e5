"""Under 3 bits the sum over matrices misleads.

a few changes of a plan, each scored by the real KL of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.base import Base
from mlx_plastic.base.widen import float32_weight
from mlx_plastic.compress.gptq import gptq, metric
from mlx_plastic.compress.metrics import Metrics
from mlx_plastic.compress.offers import Offer, Row
from mlx_plastic.compress.schemes import Dtype, nearest
from mlx_plastic.compress.taps import at
from mlx_plastic.lowrank.svd import Array
from mlx_plastic.packs.extract.divergence import Reference, reference
from mlx_plastic.samples import Encoded

TRIES = 24  # changes that are scored
KEPT_MATRICES = 64  # rounded ones, so that going back costs nothing


@dataclass(frozen=True)
class Swap:
    """One matrix gets more bytes, another less.

    gain: what the sum over matrices would fall by (it may rise).
    """

    up: int
    up_to: int
    down: int
    down_to: int
    gain: float


def swapped(
    base: Base,
    rows: Sequence[Row],
    choice: Sequence[int],
    room: int,
    texts: Sequence[Encoded],
    dtype: Dtype,
    store: Metrics | None,
    *,
    tries: int = TRIES,
    tick: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[list[int], list[float]]:
    """The choice after at most `tries` swaps, and the KL on `texts` after each; one is kept if that falls.

    room: bytes that the choice leaves of its budget. Afterwards the model has its own weights again.
    """
    found = list(choice)
    rounded: dict[tuple[int, int], mx.array] = {}

    def weight(i: int, k: int) -> mx.array:
        if (i, k) not in rounded:
            if len(rounded) > KEPT_MATRICES:
                rounded.clear()
            rounded[i, k] = mx.array(_rounded(originals[i], rows[i], rows[i].offers[k], dtype, store))
        return rounded[i, k]

    layers: list[Any] = [at(base.model, row.module) for row in rows]
    before = [layer.weight for layer in layers]
    originals = [np.array(float32_weight(layer)) for layer in layers]
    with reference(base.model, texts) as first:
        try:
            for i, layer in enumerate(layers):
                layer.weight = weight(i, found[i])
            least, history = _kl(first, base), list[float]()
            history.append(least)
            for n, swap in enumerate(_swaps(rows, found, room)):
                if n >= tries:
                    break
                tick(n, tries, f"swapping {rows[swap.up].module}")
                pair = ((swap.up, swap.up_to), (swap.down, swap.down_to))
                for i, k in pair:
                    layers[i].weight = weight(i, k)
                kl = _kl(first, base)
                if kl < least:
                    least = kl
                    room -= sum(_size(rows, i, k) - _size(rows, i, found[i]) for i, k in pair)
                    for i, k in pair:
                        found[i] = k
                else:
                    for i, _ in pair:
                        layers[i].weight = weight(i, found[i])
                history.append(least)
        finally:
            for layer, weight_before in zip(layers, before, strict=True):
                layer.weight = weight_before
    return found, history


def _swaps(rows: Sequence[Row], found: list[int], room: int) -> Iterator[Swap]:
    """Pairs within the bytes, those first that the sum over matrices likes most.

    `found` may change meanwhile.
    """
    tried: set[tuple[int, int, int, int]] = set()
    while True:
        best: Swap | None = None
        ups = [(i, k) for i, row in enumerate(rows) if (k := _next(row, found[i], 1)) is not None]
        downs = [(i, k) for i, row in enumerate(rows) if (k := _next(row, found[i], -1)) is not None]
        for i, up in ups:
            for j, down in downs:
                if i == j or (i, up, j, down) in tried:
                    continue
                grown = _size(rows, i, up) - _size(rows, i, found[i])
                freed = _size(rows, j, found[j]) - _size(rows, j, down)
                if grown > freed + room:
                    continue
                gain = _cost(rows, i, found[i]) - _cost(rows, i, up)
                gain += _cost(rows, j, found[j]) - _cost(rows, j, down)
                if best is None or gain > best.gain:
                    best = Swap(i, up, j, down, gain)
        if best is None:
            return
        tried.add((best.up, best.up_to, best.down, best.down_to))
        yield best


def _next(row: Row, now: int, step: int) -> int | None:
    """The offer that is the next larger, or smaller, of those that no other beats."""
    useful = [
        k
        for k, o in enumerate(row.offers)
        if not any(p.nbytes <= o.nbytes and p.kl_nats < o.kl_nats for p in row.offers)
    ]
    useful.sort(key=lambda k: row.offers[k].nbytes)
    size = row.offers[now].nbytes
    larger = [k for k in useful if step * (row.offers[k].nbytes - size) > 0]
    return None if not larger else larger[0 if step > 0 else -1]


def _size(rows: Sequence[Row], i: int, k: int) -> int:
    return rows[i].offers[k].nbytes


def _cost(rows: Sequence[Row], i: int, k: int) -> float:
    return rows[i].offers[k].kl_nats


def _rounded(w: Array, row: Row, offer: Offer, dtype: Dtype, store: Metrics | None) -> Array:
    if not offer.gptq or store is None:
        return nearest(w, offer.scheme, dtype)
    stack = w.reshape(-1, *w.shape[-2:])
    coded = [
        gptq(one, offer.scheme, metric(h, own=True), dtype).decoded()
        for one, h in zip(stack, store.of(row.module, len(stack), w.shape[-1]), strict=True)
    ]
    return np.stack(coded).reshape(w.shape)


def _kl(first: Reference, base: Base) -> float:
    return first.distance(base.model).kl_nats
