from __future__ import annotations

import numpy as np
import pytest

from mlx_plastic.lowrank.svd import (
    balanced,
    product_svd,
    relative_residual,
    singular_values,
    tail_residual,
    truncated_svd,
)

SHAPES = [(40, 24), (24, 40), (30, 30), (3, 40, 24), (3, 24, 40)]  # the last two are stacks of experts


def falling(shape: tuple[int, ...], seed: int = 0, decay: float = 0.8, keep: int | None = None) -> np.ndarray:
    """A float32 matrix (or a stack) with singular values decay**i, of which the first `keep` are not zero."""
    random = np.random.default_rng(seed)
    *stack, out, width = shape
    k = min(out, width)
    u = np.linalg.qr(random.standard_normal((*stack, out, k)))[0]
    v = np.linalg.qr(random.standard_normal((*stack, width, k)))[0]
    s = decay ** np.arange(k)
    s[keep if keep is not None else k :] = 0
    return ((u * s) @ np.swapaxes(v, -1, -2)).astype(np.float32)


def assert_orthonormal(u: np.ndarray, vt: np.ndarray) -> None:
    eye = np.broadcast_to(np.eye(u.shape[-1]), (*u.shape[:-2], u.shape[-1], u.shape[-1]))
    np.testing.assert_allclose(np.swapaxes(u, -1, -2) @ u, eye, atol=1e-5)  # float32, 40 terms
    np.testing.assert_allclose(vt @ np.swapaxes(vt, -1, -2), eye, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 5, 60])  # 60: more than a side has
def test_the_svd_of_a_product_is_that_of_the_matrix_it_makes(shape: tuple[int, ...], rank: int) -> None:
    random = np.random.default_rng(rank)
    *stack, out, width = shape
    b = random.standard_normal((*stack, out, rank)).astype(np.float32)
    a = random.standard_normal((*stack, rank, width)).astype(np.float32)
    u, s, vt = product_svd(b, a)
    wanted = np.linalg.svd(b.astype(np.float64) @ a, compute_uv=False)[..., : s.shape[-1]]
    assert s.shape[-1] == min(rank, out, width) and s.dtype == np.float32
    np.testing.assert_allclose(s, wanted, rtol=1e-4, atol=1e-5 * wanted.max())
    np.testing.assert_allclose((u * s[..., None, :]) @ vt, b @ a, atol=1e-4 * wanted.max())
    assert_orthonormal(u, vt)


def test_a_product_of_less_rank_than_its_factors_has_zeros_at_the_end() -> None:
    b = falling((40, 8), keep=3)
    u, s, vt = product_svd(b, falling((8, 24), seed=1))
    assert s[2] > 1e-3 and s[3] < 1e-6
    assert_orthonormal(u, vt)
    assert not product_svd(b * 0, falling((8, 24)))[1].any()


@pytest.mark.parametrize("method", ["gram", "exact", "randomized"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_values_are_those_of_numpy(shape: tuple[int, ...], method: str) -> None:
    w = falling(shape, decay=0.5)
    u, s, vt = truncated_svd(w, 6, method)
    wu, ws, wvt = (x.astype(np.float64) for x in np.linalg.svd(w.astype(np.float64), full_matrices=False))
    np.testing.assert_allclose(s, ws[..., :6], rtol=1e-4)
    best = (wu[..., :6] * ws[..., None, :6]) @ wvt[..., :6, :]
    np.testing.assert_allclose(
        (u * s[..., None, :]) @ vt, best, atol=2e-4
    )  # randomized: two power steps on a falling spectrum
    assert_orthonormal(u, vt)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ill_conditioned_matrix_is_fitted_as_well_as_by_lapack(shape: tuple[int, ...]) -> None:
    w = falling(shape, decay=0.4)  # the last value kept is 1e-6 of the first: lost in a float32 Gram
    best = relative_residual(w, *truncated_svd(w, 15, "exact"))
    u, s, vt = truncated_svd(w, 15, "gram")
    assert relative_residual(w, u, s, vt) < best + 1e-6
    assert_orthonormal(u, vt)
    np.testing.assert_allclose(s, np.linalg.svd(w, compute_uv=False)[..., :15], atol=1e-6)
    assert relative_residual(w, *truncated_svd(w, 4, "gram")) > 0.02  # control: fewer values do not fit


@pytest.mark.parametrize("method", ["gram", "exact", "randomized"])
def test_a_rank_deficient_matrix_and_one_of_zeros_keep_orthonormal_vectors(method: str) -> None:
    for w in (falling((40, 24), keep=3), falling((2, 24, 40), keep=3), np.zeros((12, 9), np.float32)):
        u, s, vt = truncated_svd(w, 7, method)
        assert_orthonormal(u, vt)
        assert np.abs(s[..., 3:]).max() < 1e-6
        assert relative_residual(w, u, s, vt) < 1e-6


def test_float64_stays_float64() -> None:
    w = falling((40, 24), decay=0.4).astype(np.float64)
    u, s, vt = truncated_svd(w, 20)
    assert u.dtype == s.dtype == vt.dtype == np.float64
    np.testing.assert_allclose(s, np.linalg.svd(w, compute_uv=False)[:20], rtol=1e-6, atol=1e-12)


def test_the_same_seed_gives_the_same_bits_and_the_loss_is_told() -> None:
    w = np.random.default_rng(0).standard_normal((60, 50)).astype(np.float32)  # flat: the hard case
    one, again, other = (truncated_svd(w, 5, "randomized", seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x, y) for x, y in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])
    best = relative_residual(w, *truncated_svd(w, 5, "exact"))
    assert best <= relative_residual(w, *one) < best + 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_all_values_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    w = falling(shape)
    s = singular_values(w)
    assert s.dtype == np.float32
    np.testing.assert_allclose(s, np.linalg.svd(w, compute_uv=False), atol=1e-6)
    np.testing.assert_allclose(singular_values(w.astype(np.float16)), s, atol=2e-3)


def test_the_tail_of_a_spectrum_is_what_cutting_there_loses() -> None:
    w = falling((3, 40, 24))
    u, s, vt = truncated_svd(w, 24, "exact")
    for rank in (1, 8, 24):
        cut = relative_residual(w, u[..., :rank], s[..., :rank], vt[..., :rank, :])
        assert tail_residual(s, rank) == pytest.approx(cut, abs=1e-6)
    assert tail_residual(s * 0, 1) == 0.0


def test_balanced_factors_give_the_matrix_back_with_rows_of_one_size() -> None:
    w = falling((3, 40, 24))
    b, a = balanced(*truncated_svd(w, 24, "exact"))
    np.testing.assert_allclose(b @ a, w, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(b, axis=-2), np.linalg.norm(a, axis=-1), rtol=1e-4)
    assert balanced(*truncated_svd(w, 24, "exact"), 5)[0].shape == (3, 40, 5)


def test_what_has_no_svd_is_refused() -> None:
    w = falling((10, 8))
    for rank in (0, 9):
        with pytest.raises(ValueError, match="rank"):
            truncated_svd(w, rank)
    with pytest.raises(ValueError, match="not finite"):
        truncated_svd(w * np.inf, 2)
    with pytest.raises(ValueError, match="method"):
        truncated_svd(w, 2, "magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="are no"):
        product_svd(w, w)
