"""Rounding: packed as MLX packs, better than MLX's own rounding for the inputs seen, safe on bad matrices."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_plastic.backend import mx
from mlx_plastic.compress.calibrate import shrunk
from mlx_plastic.compress.gptq import error, gptq, metric
from mlx_plastic.compress.schemes import KEPT, Coded, Scheme, decode, nearest, pack, schemes_for
from mlx_plastic.survey.decoding import unpack


def inputs(width: int = 64, rank: int | None = None, seed: int = 0) -> np.ndarray:
    """The covariance of inputs of which some directions are far stronger than others."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((500, rank or width)) @ (
        random.standard_normal((rank or width, width)) * np.geomspace(1, 0.05, rank or width)[:, None]
    )
    return x.T @ x / 500


def weights(rows: int = 48, width: int = 64, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, width)) * 0.05).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_are_packed_as_mlx_packs_them(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 64)).astype(np.uint8)
    scales, biases = mx.ones((3, 2)), mx.zeros((3, 2))
    packed = pack(codes, bits)
    shown = mx.dequantize(mx.array(packed), scales, biases, group_size=32, bits=bits)
    np.testing.assert_array_equal(np.array(shown), codes)
    np.testing.assert_array_equal(unpack(packed, bits), codes)
    theirs = mx.quantize(mx.array(weights()), group_size=32, bits=bits)[0]
    np.testing.assert_array_equal(pack(unpack(np.array(theirs), bits), bits), np.array(theirs))


@pytest.mark.parametrize(
    "scheme", [Scheme(4, 32), Scheme(3, 64), Scheme(4, 32, "mxfp4"), Scheme(4, 16, "nvfp4")]
)
def test_what_is_stored_decodes_to_what_was_told(scheme: Scheme) -> None:
    w = weights()
    made = mx.quantize(mx.array(w).astype(mx.float16), **scheme.as_config())
    decoded = decode(made[0], made[1], made[2] if len(made) > 2 else None, scheme)
    np.testing.assert_array_equal(decoded, nearest(w, scheme, "float16"))
    stored = sum(part.nbytes for part in made)
    assert scheme.nbytes(w.shape) == stored


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scheme", [Scheme(2, 32), Scheme(3, 64), Scheme(4, 32)])
def test_rounding_by_texts_costs_less_than_plain_rounding(scheme: Scheme, dtype: str) -> None:
    w, h = weights(), inputs()
    m = metric(h)
    plain = error(w - nearest(w, scheme, dtype), h).sum()  # type: ignore[arg-type]
    greedy = gptq(w, scheme, m, dtype, rounds=0)  # type: ignore[arg-type]
    refined = gptq(w, scheme, m, dtype)  # type: ignore[arg-type]
    costs = [error(w - coded.decoded(), h).sum() for coded in (greedy, refined)]
    assert costs[1] < costs[0] < 0.6 * plain
    for part in (refined.scales, refined.biases):  # exact in 16 bits, else the stored matrix is another
        kept = np.array(mx.array(part).astype(getattr(mx, dtype)).astype(mx.float32))
        np.testing.assert_array_equal(kept, part)


def test_rows_done_in_batches_are_the_same() -> None:
    m = metric(inputs())
    one, many = (gptq(weights(), Scheme(3, 32), m, "float16", rows=rows) for rows in (4096, 7))
    for name in ("codes", "scales", "biases"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "h",
    [
        inputs(rank=3),  # rank-deficient: fewer directions than columns
        np.zeros((64, 64)),  # an expert that was never asked
        inputs() * 1e12,
        inputs() * 1e-12,
        np.diag(np.geomspace(1, 1e-14, 64)),  # ill-conditioned
    ],
)
def test_inputs_of_little_rank_or_none_do_no_harm(h: np.ndarray) -> None:
    coded = gptq(weights(), Scheme(3, 32), metric(h), "float16")
    assert np.isfinite(coded.decoded()).all()
    assert np.abs(coded.decoded() - weights()).max() < 0.2  # of weights up to 0.2


def test_groups_of_one_value_and_of_zeros_come_out_as_they_are() -> None:
    w = np.zeros((4, 64), np.float32)
    w[1] = 0.5
    coded = gptq(w, Scheme(4, 32), metric(inputs()), "float16")
    np.testing.assert_allclose(coded.decoded(), w, atol=1e-6)


def test_only_schemes_that_fit_are_offered_and_whole_is_always_one() -> None:
    assert schemes_for(172) == [KEPT]
    assert {s.group_size for s in schemes_for(96) if s.bits < 16} == {32}
    sizes = [s.nbytes((8, 128)) for s in schemes_for(128, floating=True)]
    assert sizes == sorted(sizes) and len(sizes) == 22
    assert min(s.bits for s in schemes_for(128, floor=4)) == 4
    with pytest.raises(ValueError, match="mxfp4"):
        gptq(weights(), Scheme(4, 32, "mxfp4"), metric(inputs()), "float16")


def test_a_covariance_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        metric(np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="no covariance"):
        metric(np.diag([1.0, -50.0]))


def test_a_coded_matrix_is_its_codes_times_scales() -> None:
    coded = Coded(np.array([[0, 1, 2, 3]]), np.array([[2.0, 1.0]]), np.array([[-1.0, 0.5]]), 2)
    np.testing.assert_array_equal(coded.decoded(), [[-1.0, 1.0, 2.5, 3.5]])


def test_a_covariance_from_few_tokens_is_drawn_to_its_diagonal_so_far_as_it_is_chance() -> None:
    random = np.random.default_rng(0)
    mix = random.standard_normal((64, 64)) * np.geomspace(1, 0.1, 64)[:, None]
    true = mix.T @ mix
    for tokens in (20, 100, 10_000):
        x = random.standard_normal((tokens, 64)) @ mix
        h = x.T @ x / tokens
        off = [np.linalg.norm(found - true) / np.linalg.norm(true) for found in (h, shrunk(h, tokens))]
        assert off[1] <= off[0] * 1.001
        assert off[1] < 0.8 * off[0] or tokens > 50  # control: with many tokens there is little to draw
    np.testing.assert_array_equal(np.diag(shrunk(h, 1)), np.diag(h))
    assert not shrunk(np.zeros((3, 3)), 0).any()


@pytest.mark.parametrize("width", [1, 3, 255, 256, 257, 600])
def test_the_factor_of_a_covariance_is_upper_triangular_and_its_product_the_damped_one(width: int) -> None:
    x = np.random.default_rng(0).standard_normal((2 * width + 2, width))
    h = x.T @ x / len(x)
    m = metric(h, damping=0.01)
    damped = h + 0.01 * np.trace(h) / width * np.eye(width)
    np.testing.assert_allclose(m.h, damped, rtol=1e-5, atol=1e-6)  # kept in float32
    np.testing.assert_allclose(m.right @ m.right.T, damped, rtol=1e-4, atol=1e-5)
    assert not np.tril(m.right, -1).any() and (np.diag(m.right) > 0).all()


def test_a_covariance_is_changed_in_its_place_only_if_it_is_given_away() -> None:
    h = inputs().astype(np.float32)
    kept = h.copy()
    assert metric(h).h is not h
    np.testing.assert_array_equal(h, kept)
    assert metric(h, own=True).h is h


def test_groups_see_the_errors_of_all_columns_before_them_as_gptq_by_the_inverse_does() -> None:
    """Column by column by the Cholesky factor of the inverse, as in the paper."""
    w, m = weights(), metric(inputs())
    found = gptq(w, Scheme(3, 32), m, "float16", rounds=0)
    upper = np.linalg.cholesky(np.linalg.inv(m.h.astype(np.float64))).T
    left, codes = w.astype(np.float64), np.zeros(w.shape)
    for j in range(w.shape[1]):
        s, b = found.scales[:, j // 32], found.biases[:, j // 32]
        codes[:, j] = np.clip(np.rint((left[:, j] - b) / s), 0, 7)
        e = (left[:, j] - (s * codes[:, j] + b)) / upper[j, j]
        left[:, j:] -= e[:, None] * upper[j, j:]
    assert np.mean(codes == found.codes) > 0.995  # a few lie on the edge between two
    plain = np.clip(np.rint((w - np.repeat(found.biases, 32, 1)) / np.repeat(found.scales, 32, 1)), 0, 7)
    assert np.mean(plain == found.codes) < 0.9  # control
