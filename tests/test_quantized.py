from __future__ import annotations

import numpy as np
import pytest

from mlx_plastic.lowrank.quantized import LARGEST, dequantize_rows, quantize_rows, stored_width

KINDS = ["normal", "heavy", "tiny", "huge", "sparse", "subnormal"]


def some(kind: str, *shape: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    made = {
        "normal": x,
        "heavy": np.exp(4 * x) * np.sign(random.standard_normal(shape)),
        "tiny": x * 1e-6,
        "huge": x * 40_000,
        "sparse": x * (random.random(shape) < 0.05),
        "subnormal": random.integers(-300, 300, shape) * 2.0**-24,
    }[kind]
    return np.clip(made, -65504, 65504).astype(np.float16)


def back(x: np.ndarray, bits: int, group_size: int) -> np.ndarray:
    q, scales = quantize_rows(x, bits, group_size)  # type: ignore[arg-type]
    return dequantize_rows(q, scales, bits=bits, group_size=group_size)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["normal", "huge"])
def test_eight_bits_are_within_half_a_step_of_the_largest_of_their_group(kind: str) -> None:
    x = some(kind, 4, 256)
    error = np.abs(x.astype(np.float32) - back(x, 8, 64)).reshape(4, -1, 64).max(axis=-1)
    step = np.abs(x.astype(np.float32)).reshape(4, -1, 64).max(axis=-1) / 127
    assert (error <= 0.5 * step * 1.15).all()  # float16 rounds the scale (2^-11 of 127 steps) and the product


def test_four_bits_err_less_than_scales_by_the_largest_value_alone() -> None:
    x = some("normal", 16, 512).astype(np.float32)
    groups = x.reshape(-1, 64)
    scale = np.abs(groups).max(axis=1, keepdims=True) / 7
    plain = (np.rint(groups / scale) * scale).reshape(x.shape)
    ours, theirs = (np.linalg.norm(x - y) / np.linalg.norm(x) for y in (back(x, 4, 64), plain))
    assert ours < 0.97 * theirs
    assert ours < 0.105  # 0.100 for normal values in groups of 64


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_decodes_to_is_a_fixed_point(kind: str, bits: int) -> None:
    for seed, (width, group_size) in enumerate([(130, 64), (64, 64), (7, 2), (33, 16), (5, 1), (40, 5)]):
        x = some(kind, 3, width, seed=seed)
        q, scales = quantize_rows(x, bits, group_size)  # type: ignore[arg-type]
        decoded = dequantize_rows(q, scales, bits=bits, group_size=group_size)  # type: ignore[arg-type]
        again = quantize_rows(decoded, bits, group_size)  # type: ignore[arg-type]
        assert np.array_equal(again[0], q) and np.array_equal(again[1], scales)
        assert decoded.shape == x.shape and decoded.dtype == np.float16 and np.isfinite(decoded).all()


def test_the_parts_are_as_small_as_promised() -> None:
    x = some("normal", 2, 3, 130)
    q, scales = quantize_rows(x, 8)
    assert (q.dtype, q.shape, scales.dtype, scales.shape) == (np.int8, (2, 3, 130), np.float16, (2, 3, 3))
    q, scales = quantize_rows(x[..., :129], 4)
    assert (q.dtype, q.shape, scales.shape) == (np.uint8, (2, 3, 65), (2, 3, 3))
    assert (stored_width(130, 8), stored_width(129, 4), stored_width(130, 4)) == (130, 65, 65)
    assert dequantize_rows(q, scales, bits=4).shape == (2, 3, 129)  # the padding says that the width is odd


def test_zeros_stay_zeros_and_the_largest_value_stays_within_float16() -> None:
    assert not back(np.zeros((2, 70)), 4, 64).any()
    x = np.full((1, 64), 65504.0)
    for bits in LARGEST:
        assert np.isfinite(back(x, bits, 64)).all()


def test_what_cannot_be_stored_is_refused() -> None:
    for bad in (np.full((2, 4), np.nan), np.full((2, 4), 1e6), np.zeros((2, 0))):
        with pytest.raises(ValueError, match="not finite"):
            quantize_rows(bad)
    with pytest.raises(ValueError, match="only 8 or 4 bits"):
        quantize_rows(np.ones((2, 4)), 3)  # type: ignore[arg-type]


def test_wrong_packing_is_refused() -> None:
    q, scales = quantize_rows(some("normal", 2, 64), 4)
    with pytest.raises(ValueError, match="no value"):
        dequantize_rows(np.full_like(q, 0x08), scales, bits=4)
    with pytest.raises(ValueError, match="no value"):
        dequantize_rows(np.full((2, 64), -128, np.int8), scales, bits=8)
    with pytest.raises(ValueError, match="scales"):
        dequantize_rows(q, scales[:, :0], bits=4)
    with pytest.raises(ValueError, match="scales"):
        dequantize_rows(q, scales, bits=4, group_size=32)
