"""The choice of schemes: best within the budget, and how far off it can be at most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlx_plastic.compress.solve import Point, hull, solve


def problem(matrices: int, seed: int, *, step: int = 1) -> list[list[Point]]:
    """Matrices of many sizes; each bit more costs a fourth, smaller groups a little less."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(matrices):
        size = int(random.choice([2**16, 2**18, 2**20, 2**22]))
        weight = 10 ** random.uniform(-3, 0)
        points = [
            (
                size * bits // 8 + 4 * size // group,
                weight * 4.0**-bits * group**0.5 * random.uniform(0.9, 1.1),
            )
            for bits in (2, 3, 4, 5, 6, 8)
            for group in (32, 64, 128)
        ]
        found.append([*points, (2 * size, 0.0)][::step])
    return found


def share(options: list[list[Point]], of: float) -> int:
    return int(of * sum(max(nbytes for nbytes, _ in some) for some in options))


def best_by_hand(options: list[list[Point]], budget: int) -> float:
    costs = [
        sum(options[i][k][1] for i, k in enumerate(choice))
        for choice in itertools.product(*[range(len(some)) for some in options])
        if sum(options[i][k][0] for i, k in enumerate(choice)) <= budget
    ]
    return min(costs)


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_for_few_matrices_is_the_best_there_is(seed: int) -> None:
    options = problem(3, seed, step=3)
    budget = share(options, float(np.random.default_rng(seed).uniform(0.2, 0.9)))
    found = solve(options, budget)
    best = best_by_hand(options, budget)
    assert found.exact and found.cost == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert found.bound <= best + 1e-12 and found.nbytes <= budget
    greedy = solve(options, budget, exact=False)
    assert greedy.bound <= best + 1e-12 <= greedy.cost + 2e-12


def test_for_a_thousand_matrices_the_gap_is_under_a_thousandth() -> None:
    options = problem(1000, 1)
    budget = share(options, 0.22)
    found = solve(options, budget)
    assert found.nbytes <= budget and found.cost - found.bound < 1e-3 * found.cost
    random = np.random.default_rng(0)
    cheap = [min(range(len(some)), key=lambda k: some[k][0]) for some in options]
    spent = sum(some[k][0] for some, k in zip(options, cheap, strict=True))
    cost = sum(some[k][1] for some, k in zip(options, cheap, strict=True))
    for i in random.permutation(len(options)):  # control: spending at random is far off
        for k in random.permutation(len(options[i])):
            extra = options[i][k][0] - options[i][cheap[i]][0]
            if extra <= budget - spent:
                spent, cost = spent + extra, cost - options[i][cheap[i]][1] + options[i][k][1]
                break
    assert cost > 2 * found.cost


def test_the_hull_leaves_out_what_a_mixture_of_others_beats() -> None:
    assert hull([(1, 10.0), (2, 9.0), (3, 1.0), (4, 1.0), (5, 0.5)]) == [0, 2, 4]
    assert hull([(5, 1.0), (5, 0.5), (1, 2.0)]) == [2, 1]


def test_a_budget_that_holds_everything_costs_nothing_and_one_that_holds_nothing_is_refused() -> None:
    options = problem(5, 0)
    whole = solve(options, share(options, 1.0))
    assert whole.cost == 0.0 == whole.bound
    least = sum(min(nbytes for nbytes, _ in some) for some in options)
    assert solve(options, least).nbytes == least
    with pytest.raises(ValueError, match=str(least)):
        solve(options, least - 1)


def test_options_of_no_cost_and_of_one_kind_do_no_harm() -> None:
    assert solve([[(10, 0.0)], [(20, 0.0), (10, 0.0)]], 30).cost == 0.0
    assert solve([[(10, 5.0)]] * 3, 30).choice == (0, 0, 0)
    assert solve([], 0).choice == ()
