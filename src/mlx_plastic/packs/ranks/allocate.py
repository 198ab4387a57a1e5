"""Which parts of which modules are worth their bytes: a knapsack, solved to within one part of the best."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Offer:
    """What one module can be cut to.

    gains: what each further rank-1 part is worth, falling, never negative. unit_bytes: of one part.
    fixed_bytes: of the module as soon as it has any: its names in the header, its alpha.
    """

    gains: Sequence[float]
    unit_bytes: int
    fixed_bytes: int = 0

    def bytes_at(self, rank: int) -> int:
        return self.fixed_bytes + rank * self.unit_bytes if rank else 0


@dataclass(frozen=True)
class Allocation:
    """ranks: of the modules that keep any part. bound: what no allocation of these bytes can exceed."""

    ranks: dict[str, int]
    gain: float
    bound: float
    bytes: int


class _Step(NamedTuple):
    slope: float  # gain per byte
    path: str
    rank: int  # after the step
    gain: float
    cost: int


def allocate(offers: Mapping[str, Offer], budget_bytes: int) -> Allocation:
    """The ranks of largest total gain within `budget_bytes`: greedy by gain per byte, then filled up.

    A module's fixed bytes make its first part dear, so the greedy order is that of the upper convex hull of
    (bytes, gain) over its ranks. Taken until the first step that does not fit, this is the optimum of the
    relaxed problem but for that step: `bound - gain` is at most what one step is worth. What bytes are left
    then go to the best parts that still fit.
    """
    steps = sorted((s for p, o in offers.items() for s in _hull(p, o)), key=lambda s: (-s.slope, s.path))
    ranks = dict.fromkeys(offers, 0)
    left, gain, bound = budget_bytes, 0.0, None
    for step in steps:
        if step.cost > left:
            bound = gain + step.slope * max(left, 0)
            break
        ranks[step.path], left, gain = step.rank, left - step.cost, gain + step.gain
    bound = gain if bound is None else bound
    left, gain = _fill(offers, ranks, left, gain)
    kept = {path: rank for path, rank in ranks.items() if rank}
    return Allocation(kept, gain, max(bound, gain), budget_bytes - left)


def _hull(path: str, offer: Offer) -> list[_Step]:
    """The steps along the upper convex hull of (bytes, gain), their slopes falling."""
    corners: list[tuple[int, float]] = [(0, 0.0)]  # rank, gain up to it
    total = 0.0
    for rank, gain in enumerate(offer.gains, 1):
        total += gain
        while len(corners) > 1 and _slope(offer, corners[-1], (rank, total)) >= _slope(
            offer, corners[-2], corners[-1]
        ):
            corners.pop()
        corners.append((rank, total))
    return [
        _Step(
            _slope(offer, low, high),
            path,
            high[0],
            high[1] - low[1],
            offer.bytes_at(high[0]) - offer.bytes_at(low[0]),
        )
        for low, high in itertools.pairwise(corners)
        if high[1] > low[1]
    ]


def _slope(offer: Offer, low: tuple[int, float], high: tuple[int, float]) -> float:
    return (high[1] - low[1]) / max(1, offer.bytes_at(high[0]) - offer.bytes_at(low[0]))


def _fill(offers: Mapping[str, Offer], ranks: dict[str, int], left: int, gain: float) -> tuple[int, float]:
    """Spend what is `left` on the best single parts that fit; changes `ranks`."""
    while True:
        found = [
            (offer.gains[rank] / max(1, cost), path, cost)
            for path, offer in offers.items()
            if (rank := ranks[path]) < len(offer.gains)
            and (cost := offer.bytes_at(rank + 1) - offer.bytes_at(rank)) <= left
            and offer.gains[rank] > 0
        ]
        if not found:
            return left, gain
        _, path, cost = max(found)
        gain += offers[path].gains[ranks[path]]
        ranks[path] += 1
        left -= cost
