"""Updates known by their singular values, cut to a rank or to a budget of bytes, and what the cut loses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlx_plastic.errors import BadConfig, BadPack
from mlx_plastic.lowrank.svd import Array, balanced
from mlx_plastic.packs.algebra.updates import halved, norm, product
from mlx_plastic.packs.format.pack import Factors, Storage, stored_bytes, stored_factors, tensor_bytes
from mlx_plastic.packs.format.tensors import KINDS
from mlx_plastic.packs.ranks.allocate import Offer, allocate

ROUNDING = 1e-13  # of the largest square: what float32 leaves of a zero
HEADER_BYTES = 80  # about what a tensor's entry in the header takes, its module's path aside


@dataclass(frozen=True)
class Whole:
    """An update u * s @ vt, or its leading part.

    u: (..., out, k), s: (..., k) falling, vt: (..., k, in). norm: of the whole, Frobenius, with what lies
    beyond k.
    """

    u: Array
    s: Array
    vt: Array
    norm: float

    @property
    def worth(self) -> Array:
        """(k,) what each further rank is worth; of stacked experts the sum."""
        worth: Array = np.square(self.s, dtype=np.float64).reshape(-1, self.s.shape[-1]).sum(axis=0)
        return worth

    @property
    def rank(self) -> int:
        """Directions that are more than rounding."""
        worth = self.worth
        return int(np.count_nonzero(worth > ROUNDING * worth.max(initial=0.0)))

    def cut(self, rank: int) -> Factors:
        return halved(*balanced(self.u, self.s, self.vt, rank))

    def lost(self, factors: Factors) -> float:
        """||whole - update of `factors`||, rounding included."""
        beyond = max(0.0, self.norm**2 - float(np.square(self.s, dtype=np.float64).sum()))
        b, a = product(factors, -1.0)
        near = norm(
            np.concatenate([self.u.astype(np.float64) * self.s[..., None, :], b], axis=-1),
            np.concatenate([self.vt.astype(np.float64), a], axis=-2),
        )
        return math.hypot(math.sqrt(beyond), near)


def cut(
    wholes: Mapping[str, Whole],
    *,
    rank: int | None = None,
    budget_bytes: int | None = None,
    storage: Storage = "float16",
) -> dict[str, Factors]:
    """float16 factors of every update, as a reader of `storage` gets them back.

    rank: of every module, at most. budget_bytes: of the whole file; the ranks are then shared out by what a
    direction is worth per byte (`allocate`), and a module may be left out. Raises BadPack if the budget is
    too small for a single direction, or if the updates are zero.
    """
    if rank is not None and rank < 1:
        raise BadConfig(f"rank {rank}", hint="a rank is at least 1")
    most = {path: min(rank or whole.rank, whole.rank) for path, whole in wholes.items()}
    if budget_bytes is not None:
        return _within(wholes, budget_bytes, storage, most)
    factors = stored_factors({path: wholes[path].cut(r) for path, r in most.items() if r}, storage)
    if not factors:
        raise BadPack("the update is zero", hint="a pack that does nothing is not made")
    return factors


def _within(
    wholes: Mapping[str, Whole], budget_bytes: int, storage: Storage, most: Mapping[str, int]
) -> dict[str, Factors]:
    offers = {path: _offer(path, whole, storage, most[path]) for path, whole in wholes.items()}
    room = budget_bytes
    while ranks := allocate(offers, room).ranks:
        factors = {path: wholes[path].cut(rank) for path, rank in ranks.items()}
        excess = len(tensor_bytes(factors, storage)) - budget_bytes
        if excess <= 0:
            return stored_factors(factors, storage)
        room -= excess
    least = min((offer.bytes_at(1) for offer in offers.values()), default=0)
    raise BadPack(
        f"a budget of {budget_bytes} bytes holds nothing of this update",
        hint=f"the smallest part of it takes {least} bytes in {storage}; give more",
    )


def _offer(path: str, whole: Whole, storage: Storage, most: int) -> Offer:
    out, width = whole.u.shape[-2], whole.vt.shape[-1]
    experts = whole.u.shape[0] if whole.u.ndim == 3 else 1
    empty, one = (stored_bytes(out, width, rank, storage, experts) for rank in (0, 1))
    header = len(KINDS[storage]) * (len(path) + HEADER_BYTES)
    return Offer(whole.worth[:most].tolist(), one - empty, empty + header)
