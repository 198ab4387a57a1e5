"""Linear layers whose update is a set of rank-1 components that grow, shrink, are parked and woken.

The update of a layer is scale * sum_k b_k a_k^T; a component is a column b_k of b and a row a_k of a. Each
has an id that is given once. Components stand in the order of their ids, so that a parked one that is woken
stands where it stood: the layer then computes the very same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_plastic.backend import mx, nn
from mlx_plastic.lowrank.layers import DeltaLinear, DeltaSwitchLinear
from mlx_plastic.lowrank.quantized import Bits, dequantize_rows, quantize_rows
from mlx_plastic.lowrank.svd import Array, balanced, product_svd

IDLE = 1e-7  # of the largest singular value: under it a float32 SVD tells only rounding


@dataclass(frozen=True)
class Parked:
    """A component at rest: a (..., in) and b (..., out), float32.

    bits: of the form that was kept of them; None at full precision.
    error: ||b a^T as parked - as it was|| / ||b a^T||; 0 at full precision.
    """

    id: int
    a: Array
    b: Array
    bits: Bits | None = None
    error: float = 0.0


@dataclass(frozen=True)
class Turn:
    """How components were rewritten as others: b_new = b_old @ turn, a_new = turn^-1 @ a_old.

    turn: (..., rank, rank). What an optimizer knows of the old ones can be carried over by it.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]
    turn: Array


@dataclass
class Components:
    """Which components a layer has had. Not a module, so that it is no part of the model.

    active: rising ids of the columns of b and rows of a, in their order. next_id: never given before.
    turned: how they were last rewritten.
    """

    active: list[int]
    next_id: int
    parked: dict[int, Parked] = field(default_factory=dict)
    turned: Turn | None = None

    def new(self, count: int) -> list[int]:
        ids = list(range(self.next_id, self.next_id + count))
        self.next_id += count
        return ids


class Plastic(DeltaLinear):
    """What a plastic layer can do, of one matrix or of a stack of experts: see the module."""

    components: Components

    def __init__(
        self, base: nn.Module, a: mx.array, b: mx.array, *, scale: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__(base, a, b, scale=scale, dropout=dropout)
        rank = int(a.shape[-2])
        self.components = Components(list(range(rank)), rank)

    @property
    def rank(self) -> int:
        return len(self.components.active)

    @property
    def ids(self) -> list[int]:
        return list(self.components.active)

    @property
    def parked_ids(self) -> list[int]:
        return sorted(self.components.parked)

    def spectrum(self) -> Array:
        """(k,) the singular values of the update, falling; of a stack their root mean square over experts."""
        s = self._svd()[1].astype(np.float64)
        found: Array = np.sqrt(np.mean(s.reshape(-1, s.shape[-1]) ** 2, axis=0))
        return found

    def grow(self, count: int, *, seed: int) -> list[int]:
        """`count` new components that do nothing yet: a random, b zero; the output stays the same.

        a is uniform within 1 / sqrt(in), drawn by numpy from `seed` and the ids. Returns the new ids.
        """
        if count < 1:
            raise ValueError(f"growing by {count}")
        ids = self.components.new(count)
        a, b = self._factors()
        bound = a.shape[-1] ** -0.5
        shape = (*a.shape[:-2], 1, a.shape[-1])
        new = [np.random.default_rng([seed, i]).uniform(-bound, bound, shape).astype(np.float32) for i in ids]
        self._set(
            [*self.components.active, *ids],
            np.concatenate([a, *new], axis=-2),
            np.concatenate([b, np.zeros((*b.shape[:-1], count), np.float32)], axis=-1),
        )
        return ids

    def settle(self) -> list[int]:
        """Rewrite the update as its own singular directions, the largest first, equal up to rounding.

        All components get new ids: what they were is no more. A direction of no size gets an a as of a new
        component, so that it can still learn. Returns the new ids.
        """
        u, s, vt = self._svd()
        b, a = balanced(u, s / np.float32(self.scale), vt)
        idle = s <= IDLE * s.max(axis=-1, keepdims=True)
        a = np.where(idle[..., :, None], vt * np.float32(3**-0.5), a)
        b = np.where(idle[..., None, :], np.float32(0.0), b)
        old, before = self.ids, self._factors()[1]
        ids = self.components.new(a.shape[-2])
        turn = np.linalg.pinv(before.astype(np.float64)) @ b
        self.components.turned = Turn(tuple(old), tuple(ids), turn.astype(np.float32))
        self._set(ids, a, b)
        return ids

    def shrink(self, threshold: float, *, soft: bool = True, least: int = 1) -> list[int]:
        """Soft-threshold the singular values of the update: s becomes max(s - threshold, 0).

        The layer settles first. Components at or under the threshold are parked as they are, but `least` of
        them stay; soft=False leaves the others as large as they were. Returns the ids of what was parked.
        """
        if not threshold >= 0:
            raise ValueError(f"a threshold of {threshold}")
        s = self.spectrum()
        ids = self.settle()
        kept = max(int(np.count_nonzero(s > threshold)), min(least, len(s)))
        parked = self.park(ids[kept:])
        if soft and threshold and kept:
            left = np.maximum(s[:kept] - threshold, 0.0) / np.maximum(s[:kept], 1e-30)
            root = np.sqrt(left).astype(np.float32)
            a, b = self._factors()
            self._set(self.ids, a * root[:, None], b * root)
        return parked

    def park(self, ids: Iterable[int], *, bits: Bits | None = None) -> list[int]:
        """Put components to rest: the layer computes as if they had never been.

        bits: 8 or 4 keeps a rounded form, whose error is in `parked`. Raises KeyError for ids that are not
        active.
        """
        wanted = sorted(set(ids))
        if missing := [i for i in wanted if i not in self.components.active]:
            raise KeyError(f"no active components {missing}: there are {self.components.active}")
        a, b = self._factors()
        where = {i: at for at, i in enumerate(self.components.active)}
        for i in wanted:
            self.components.parked[i] = _parked(i, a[..., where[i], :], b[..., where[i]], bits)
        self._keep([i for i in self.components.active if i not in wanted])
        return wanted

    def wake(self, ids: Iterable[int] | None = None) -> list[int]:
        """Bring parked components back to where they stood; all of them by default.

        At full precision the output is bit for bit what it was, if nothing else has changed. Raises KeyError
        for ids that are not parked.
        """
        wanted = sorted(self.components.parked if ids is None else set(ids))
        if missing := [i for i in wanted if i not in self.components.parked]:
            raise KeyError(f"no parked components {missing}: there are {self.parked_ids}")
        a, b = self._factors()
        rows = {i: (a[..., at, :], b[..., at]) for at, i in enumerate(self.components.active)}
        rows |= {i: (p.a, p.b) for i in wanted for p in [self.components.parked.pop(i)]}
        self._from(rows)
        return wanted

    def parked(self, i: int) -> Parked:
        return self.components.parked[i]

    def _keep(self, ids: Sequence[int]) -> None:
        a, b = self._factors()
        where = [at for at, i in enumerate(self.components.active) if i in set(ids)]
        self._set(ids, a[..., where, :], b[..., where])

    def _from(self, rows: dict[int, tuple[Array, Array]]) -> None:
        ids = sorted(rows)
        a = np.stack([rows[i][0] for i in ids], axis=-2)
        self._set(ids, a, np.stack([rows[i][1] for i in ids], axis=-1))

    def _factors(self) -> tuple[Array, Array]:
        return np.array(self.a.astype(mx.float32)), np.array(self.b.astype(mx.float32))

    def _set(self, ids: Sequence[int], a: Array, b: Array) -> None:
        self.components.active = list(ids)
        self.a, self.b = (mx.array(np.ascontiguousarray(x, np.float32)) for x in (a, b))

    def _svd(self) -> tuple[Array, Array, Array]:
        a, b = self._factors()
        return product_svd(b * np.float32(self.scale), a)


class PlasticLinear(Plastic):
    """A frozen linear layer with a plastic update: a (rank, in), b (out, rank)."""


class PlasticSwitchLinear(Plastic, DeltaSwitchLinear):
    """A frozen stack of experts with a plastic update of one rank: a (E, rank, in), b (E, out, rank).

    A component is the k-th of all experts together, since they share one array.
    """

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:  # type: ignore[override]
        return DeltaSwitchLinear.__call__(self, x, indices, sorted_indices)


def plastic(layer: DeltaLinear) -> Plastic:
    """The same layer, with components."""
    kind = PlasticSwitchLinear if layer.a.ndim == 3 else PlasticLinear
    base: Any = layer.base
    return kind(base, layer.a, layer.b, scale=layer.scale, dropout=layer.dropout)


def _parked(i: int, a: Array, b: Array, bits: Bits | None) -> Parked:
    if bits is None:
        return Parked(i, a.copy(), b.copy())
    small_a, small_b = (_rounded(x, bits) for x in (a, b))
    before, after = (_outer(*pair) for pair in ((a, b), (small_a, small_b)))
    size = float(np.linalg.norm(before))
    error = float(np.linalg.norm(after - before)) / size if size else 0.0
    return Parked(i, small_a, small_b, bits, error)


def _rounded(x: Array, bits: Bits) -> Array:
    return dequantize_rows(*quantize_rows(x, bits), bits=bits).astype(np.float32)


def _outer(a: Array, b: Array) -> Array:
    product: Array = b.astype(np.float64)[..., :, None] * a[..., None, :]
    return product
