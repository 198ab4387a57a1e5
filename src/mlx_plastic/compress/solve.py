"""One option for each matrix, of least cost within a budget of bytes: a multiple-choice knapsack.

Greedy along each matrix's convex hull of (bytes, cost) solves the linear relaxation (Sinha & Zoltners 1979):
all matrices but one get a whole option, and what the last one would be charged is the bound that no choice
can beat. The rest of the budget is then filled; under `EXACT` matrices the choice is made optimal by dynamic
programming over what the bound does not rule out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

EXACT = 200  # matrices
STATES = 200_000  # of the dynamic program; beyond, the greedy choice stands

Point = tuple[int, float]  # bytes, cost


@dataclass(frozen=True)
class Solution:
    """choice: the index of each matrix's option. bound: no choice within the budget costs less.

    exact: whether the choice is known to be the best; else (cost - bound) / cost tells how far off it may be.
    """

    choice: tuple[int, ...]
    nbytes: int
    cost: float
    bound: float
    exact: bool


def solve(options: Sequence[Sequence[Point]], budget: int, *, exact: bool | None = None) -> Solution:
    """options: of each matrix its (bytes, cost), cost never negative. exact: by default under EXACT matrices.

    Raises ValueError if not even the smallest options fit.
    """
    least = sum(min(nbytes for nbytes, _ in some) for some in options)
    if least > budget:
        raise ValueError(f"the smallest choice takes {least} bytes, more than {budget}")
    hulls = [hull(some) for some in options]
    choice, slope, bound = _relaxed(options, hulls, budget)
    _fill(options, choice, budget)
    cost = _cost(options, choice)
    want = len(options) < EXACT if exact is None else exact
    best = _optimal(options, budget, slope, cost) if want else None
    if best is not None:
        choice = best
        cost = _cost(options, choice)
    nbytes = sum(some[c][0] for some, c in zip(options, choice, strict=True))
    return Solution(tuple(choice), nbytes, cost, min(bound, cost), best is not None)


def hull(some: Sequence[Point]) -> list[int]:
    """The options on the lower convex hull, from the smallest on: each costs less than the one before."""
    found: list[int] = []
    for i in sorted(range(len(some)), key=lambda i: (some[i][0], some[i][1])):
        if found and some[i][1] >= some[found[-1]][1]:
            continue
        while len(found) > 1 and _slope(some[found[-2]], some[found[-1]]) <= _slope(some[found[-1]], some[i]):
            found.pop()
        found.append(i)
    return found


def _slope(a: Point, b: Point) -> float:
    """What a byte gains between two options."""
    return (a[1] - b[1]) / (b[0] - a[0]) if b[0] > a[0] else float("inf")


def _relaxed(
    options: Sequence[Sequence[Point]], hulls: Sequence[Sequence[int]], budget: int
) -> tuple[list[int], float, float]:
    """Greedy: the whole steps that fit, the gain of a byte where it stopped, and the bound."""
    level = [0] * len(options)
    left = budget - sum(some[h[0]][0] for some, h in zip(options, hulls, strict=True))
    cost = sum(some[h[0]][1] for some, h in zip(options, hulls, strict=True))
    steps = [(-_gain(options, hulls, i, 0), i) for i in range(len(options)) if len(hulls[i]) > 1]
    heapq.heapify(steps)
    slope, bound = 0.0, None
    while steps:
        gain, i = heapq.heappop(steps)
        now, after = (options[i][hulls[i][level[i] + k]] for k in (0, 1))
        if after[0] - now[0] > left:
            if bound is None:
                slope, bound = -gain, cost + gain * left
            continue  # smaller steps of others may fit still
        level[i] += 1
        left -= after[0] - now[0]
        cost -= now[1] - after[1]
        if level[i] + 1 < len(hulls[i]):
            heapq.heappush(steps, (-_gain(options, hulls, i, level[i]), i))
    choice = [h[at] for h, at in zip(hulls, level, strict=True)]
    return choice, slope, cost if bound is None else bound


def _gain(options: Sequence[Sequence[Point]], hulls: Sequence[Sequence[int]], i: int, at: int) -> float:
    return _slope(options[i][hulls[i][at]], options[i][hulls[i][at + 1]])


def _fill(options: Sequence[Sequence[Point]], choice: list[int], budget: int) -> None:
    """Spend what is left: the single change of most gain that fits, again and again."""
    left = budget - sum(some[c][0] for some, c in zip(options, choice, strict=True))
    while True:
        best, where = 0.0, None
        for i, some in enumerate(options):
            now = some[choice[i]]
            for k, (nbytes, cost) in enumerate(some):
                if nbytes - now[0] <= left and now[1] - cost > best:
                    best, where = now[1] - cost, (i, k)
        if where is None:
            return
        i, k = where
        left -= options[i][k][0] - options[i][choice[i]][0]
        choice[i] = k


def _cost(options: Sequence[Sequence[Point]], choice: Sequence[int]) -> float:
    return sum(some[c][1] for some, c in zip(options, choice, strict=True))


def _optimal(options: Sequence[Sequence[Point]], budget: int, slope: float, known: float) -> list[int] | None:
    """The best choice, by states (bytes, cost) that no other state beats and the bound does not rule out.

    slope: what a byte is worth; with it every choice costs at least sum(min(cost + slope bytes)) - slope
    budget (Lagrange). None if there would be too many states.
    """
    reduced = [[cost + slope * nbytes for nbytes, cost in some] for some in options]
    lows = [min(some) for some in reduced]
    floor = sum(lows) - slope * budget
    room = known - floor + 1e-9 * abs(known) + 1e-15
    kept = [
        [k for k in range(len(some)) if some[k] - low <= room]
        for some, low in zip(reduced, lows, strict=True)
    ]
    order = sorted(range(len(options)), key=lambda i: -len(kept[i]))
    smallest = [min(options[i][k][0] for k in kept[i]) for i in order]
    after = [sum(smallest[at + 1 :]) for at in range(len(order))]
    states: list[tuple[int, float, float, tuple[int, ...]]] = [(0, 0.0, 0.0, ())]  # bytes, cost, over, choice
    for at, i in enumerate(order):
        grown = [
            (nbytes + options[i][k][0], cost + options[i][k][1], over + reduced[i][k] - lows[i], (*taken, k))
            for nbytes, cost, over, taken in states
            for k in kept[i]
            if over + reduced[i][k] - lows[i] <= room and nbytes + options[i][k][0] + after[at] <= budget
        ]
        states = _undominated(grown)
        if len(states) > STATES:
            return None
    if not states:
        return None
    taken = min(states, key=lambda state: state[1])[3]
    choice = [0] * len(options)
    for i, k in zip(order, taken, strict=True):
        choice[i] = k
    return choice


def _undominated(
    states: list[tuple[int, float, float, tuple[int, ...]]],
) -> list[tuple[int, float, float, tuple[int, ...]]]:
    found: list[tuple[int, float, float, tuple[int, ...]]] = []
    least = float("inf")
    for state in sorted(states, key=lambda s: (s[0], s[1])):
        if state[1] < least:
            found.append(state)
            least = state[1]
    return found
