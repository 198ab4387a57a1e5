"""Ranks of matrices: each measure against what it must be, and Pop's identity against exact ranks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mlx_plastic.lowrank.pop import (
    CLAIM,
    GUIDE,
    Polynomial,
    horner,
    pop_identity,
    theorem_diagnostic,
    theorem_guided_rank,
)
from mlx_plastic.lowrank.rank import (
    activation_rank,
    choose_rank,
    effective_rank,
    energy_rank,
    jacobian_rank,
    largest_rank,
    stable_rank,
)

STRATEGIES = ("stable", "energy", "effective", "theorem", "activation")


def with_spectrum(s: list[float], out: int, width: int, seed: int = 0) -> np.ndarray:
    """A matrix (out, in) with these singular values."""
    random = np.random.default_rng(seed)
    u = np.linalg.qr(random.standard_normal((out, len(s))))[0]
    v = np.linalg.qr(random.standard_normal((width, len(s))))[0]
    return u * np.array(s) @ v.T


def with_eigenvalues(values: list[float], seed: int = 0) -> np.ndarray:
    """A square matrix with these eigenvalues and skew eigenvectors."""
    random = np.random.default_rng(seed)
    p = random.standard_normal((len(values), len(values))) + 3 * np.eye(len(values))
    return p @ np.diag(values) @ np.linalg.inv(p)


def test_measures_of_equal_directions_are_their_number() -> None:
    for w in (with_spectrum([2.0] * 5, 12, 7), with_spectrum([2.0] * 5, 7, 12)):
        assert stable_rank(w) == pytest.approx(5, rel=1e-6)
        assert effective_rank(w) == pytest.approx(5, rel=1e-4)
        assert energy_rank(w, 0.99) == 5
        assert energy_rank(w, 0.6) == 3
    lone = with_spectrum([10.0, 0.1, 0.1], 12, 7)
    assert stable_rank(lone) < 1.001 and effective_rank(lone) < 1.2 and energy_rank(lone) == 1  # control


def test_measures_follow_their_formulas() -> None:
    s = np.array([4.0, 1.0, 2.0])  # in any order
    assert stable_rank(s) == pytest.approx(21 / 16)
    p = s / 7
    assert effective_rank(s) == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert [energy_rank(s, share) for share in (0.5, 16 / 21, 0.8, 20 / 21, 1.0)] == [1, 1, 2, 2, 3]


def test_measures_do_not_depend_on_the_size_of_a_matrix() -> None:
    w = np.random.default_rng(0).standard_normal((9, 14))
    for measure in (stable_rank, effective_rank, energy_rank, theorem_guided_rank):
        assert measure(w * 1e6) == pytest.approx(measure(w), rel=1e-6)
        assert measure(w.T) == pytest.approx(measure(w), rel=1e-6)


def test_a_matrix_of_zeros_has_no_direction() -> None:
    for measure in (stable_rank, effective_rank, energy_rank):
        with pytest.raises(ValueError, match="no direction"):
            measure(np.zeros((3, 4)))


def test_the_activation_rank_is_the_width_of_what_comes_in() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((500, 3)) @ random.standard_normal((3, 20))
    assert activation_rank(x.T @ x / 500, 0.999) == 3
    wide = random.standard_normal((500, 20))
    assert activation_rank(wide.T @ wide / 500, 0.999) > 15  # control
    with pytest.raises(ValueError, match="symmetric"):
        activation_rank(random.standard_normal((4, 4)))


def test_the_jacobian_rank_sees_a_bottleneck() -> None:
    random = np.random.default_rng(0)
    down, up = random.standard_normal((4, 30)), random.standard_normal((25, 4))
    slope = 1 - np.tanh(0.1 * down @ random.standard_normal(30)) ** 2  # of up @ tanh(down @ x)
    assert jacobian_rank(lambda v: up @ (slope * (down @ v)), 30) == 4
    assert jacobian_rank(lambda v: v, 30, probes=6) == 6  # "at least": no more was probed
    assert jacobian_rank(lambda v: 0 * v, 30) == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", [(16, 16), (24, 10), (10, 24), (1, 5)])
@pytest.mark.parametrize("target", [1e-6, 0.3, 1.0, 50.0])
def test_a_chosen_rank_is_possible_and_comes_with_what_it_loses(
    strategy: str, shape: tuple[int, int], target: float
) -> None:
    random = np.random.default_rng(1)
    w = random.standard_normal(shape)
    x = random.standard_normal((60, shape[1]))
    rank, residual = choose_rank(w, target, strategy, covariance=x.T @ x)  # type: ignore[arg-type]
    assert 1 <= rank <= min(shape)
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    best = u[:, :rank] * s[:rank] @ vt[:rank]
    assert residual == pytest.approx(np.linalg.norm(w - best) / np.linalg.norm(w), abs=1e-6)
    if rank > 1:
        assert rank * sum(shape) <= target * shape[0] * shape[1] + 1e-9


def test_a_strategy_asks_for_no_more_than_the_matrix_has() -> None:
    w = with_spectrum([1.0, 1.0, 1.0], 40, 40)
    assert {choose_rank(w, 1.0, s).rank for s in ("stable", "energy", "effective", "theorem")} == {3}
    assert choose_rank(w, 1.0, "energy").residual == pytest.approx(0, abs=1e-6)
    assert choose_rank(w, 0.1, "energy").rank == largest_rank(40, 40, 0.1) == 2
    assert choose_rank(np.zeros((4, 6)), 1.0, "energy") == (1, 0.0)


def test_what_cannot_be_chosen_is_said() -> None:
    w = np.ones((3, 3))
    for wrong, text in (
        (lambda: choose_rank(w, 0.0, "energy"), "not above 0"),
        (lambda: choose_rank(w, 1.0, "luck"), "no strategy 'luck'"),  # type: ignore[arg-type]
        (lambda: choose_rank(w, 1.0, "activation"), "covariance"),
        (lambda: choose_rank(w * np.nan, 1.0, "energy"), "not finite"),
        (lambda: choose_rank(np.ones(3), 1.0, "energy"), "not a matrix"),
    ):
        with pytest.raises(ValueError, match=text):
            wrong()


def test_horner_is_the_polynomial() -> None:
    m = np.random.default_rng(0).standard_normal((6, 6))
    found = horner((2, -3, 0, Fraction(1, 2)), m)
    np.testing.assert_allclose(found, 2 * m @ m @ m - 3 * m @ m + 0.5 * np.eye(6), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(horner((3,), m), 3 * np.eye(6))


# pairs of which neither divides the other: a common factor, none, a double root, and complex roots
PAIRS: list[tuple[Polynomial, Polynomial]] = [
    ((1, -3, 2), (1, -5, 6)),
    ((1, -1), (1, -2)),
    ((1, -2, 1, 0), (1, -3, 2)),
    ((1, 0, 1, 0), (1, -1, 0)),
    GUIDE,
]


@pytest.mark.parametrize("pair", PAIRS)
def test_pops_identity_holds_for_exact_ranks(pair: tuple[Polynomial, Polynomial]) -> None:
    f, g = pair
    m = with_eigenvalues([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 5.0])
    check = pop_identity(m, f, g, tolerance=1e-9)
    assert check.holds and check.defect == 0
    values = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 5.0])
    for p, rank in ((f, check.rank_f), (g, check.rank_g)):
        assert rank == np.count_nonzero(np.abs(np.polyval([float(c) for c in p], values)) > 1e-9)
    assert "heuristic" in check.claim and check.claim == CLAIM


def test_pops_identity_holds_where_a_matrix_has_no_eigenbasis() -> None:
    jordan = np.eye(4) + np.eye(4, k=1)  # one block of eigenvalue 1: (x - 1) has rank 3, (x - 1)^2 rank 2
    check = pop_identity(jordan, (1, -2, 1, 0), (1, -3, 2), tolerance=1e-12)
    assert (check.rank_f, check.rank_g, check.rank_gcd, check.rank_lcm) == (2, 3, 3, 2)


def test_a_spectrum_without_a_gap_at_the_tolerance_shows_as_a_defect() -> None:
    clear = with_spectrum([1.0, 0.9, 0.8, 1e-9], 12, 12)
    assert theorem_diagnostic(clear).holds
    blurred = np.diag(np.geomspace(1, 1e-3, 60))
    assert theorem_diagnostic(blurred).defect != 0


def test_a_pair_that_would_hold_by_definition_is_refused() -> None:
    m = np.eye(3)
    for f, g in (((1, -1), (1, -3, 2)), ((1, 0), (2, 0)), ((1,), (1, 5))):
        with pytest.raises(ValueError, match="divides the other"):
            pop_identity(m, f, g)
    with pytest.raises(ValueError, match="not a square matrix"):
        pop_identity(np.ones((2, 3)), *GUIDE)
    with pytest.raises(ValueError, match="zero polynomial"):
        pop_identity(m, (0, 0), (1, 5))


def test_the_theorem_finds_the_rank_where_there_is_one() -> None:
    for shape in ((20, 20), (20, 33), (33, 20)):
        assert theorem_guided_rank(with_spectrum([3.0, 2.9, 2.5, 2.0], *shape)) == 4
        assert theorem_guided_rank(with_spectrum([3.0, 0.01, 0.01, 0.01], *shape)) == 1
    assert theorem_guided_rank(np.zeros((4, 4))) == 1
