"""The compiled kernel and its stand-in against mx.quantize of the installed MLX, and against float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mlx_plastic.backend import mx
from mlx_plastic.survey.kernel import Kernel, load_kernel, record
from mlx_plastic.survey.plain import PlainKernel, to_bf16, widened
from mlx_plastic.survey.schemes import AFFINE_BITS, AFFINE_GROUPS, FIXED, Scheme

SCHEMES = [
    *(Scheme(f"q{b}g{g}", "affine", b, g) for b in AFFINE_BITS for g in AFFINE_GROUPS),
    *(Scheme(mode, mode, *of) for mode, of in FIXED.items()),  # type: ignore[arg-type]
]
DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
MATRICES = ("random", "heavy-tailed", "constant", "tiny", "denormal", "one sign", "large", "zeros")


def make(kind: str, dtype: str, shape: tuple[int, int] = (24, 384)) -> np.ndarray:
    """A matrix as the kernel takes it: codes of 2-byte floats, or float32."""
    rng = np.random.default_rng(3)
    w = rng.standard_normal(shape)
    w = {
        "random": w * 0.02,
        "heavy-tailed": rng.standard_t(2, shape) * 0.02,
        "constant": np.full(shape, 0.1),
        "tiny": w * 1e-4,
        "denormal": w * (1e-39 if dtype != "float16" else 1e-7),
        "one sign": np.abs(w) * 0.02 + 0.5,
        "large": w * 1e3,
        "zeros": np.zeros(shape),
    }[kind].astype(np.float32)
    if dtype == "bfloat16":
        return to_bf16(w)
    return w.astype(np.float16).view(np.uint16) if dtype == "float16" else w


def by_mlx(w: np.ndarray, dtype: str, scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(decoded, scales, biases) in float64: the codes of mx.quantize, decoded by the formats' definitions."""
    x = mx.array(widened(w, dtype)).astype(DTYPES[dtype])
    found = mx.quantize(x, group_size=scheme.group_size, bits=scheme.bits, mode=scheme.mode)
    bits = np.unpackbits(np.array(found[0]).view(np.uint8), axis=-1, bitorder="little")
    codes = bits.reshape(-1, scheme.group_size, scheme.bits) @ (1 << np.arange(scheme.bits))
    if scheme.mode == "affine":
        scales, biases = (np.array(part.astype(mx.float32), np.float64).reshape(-1) for part in found[1:])
        return (codes * scales[:, None] + biases[:, None]).reshape(w.shape), scales, biases
    raw = np.array(found[1]).reshape(-1)
    if scheme.mode == "nvfp4":
        scales = np.array(mx.from_fp8(mx.array(raw), mx.float32), np.float64)
    else:
        scales = 2.0 ** (raw.astype(np.float64) - 127)
    if scheme.bits == 8:
        values = np.array(mx.from_fp8(mx.array(codes.astype(np.uint8)), mx.float32), np.float64)
    else:
        values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])[codes & 7] * np.where(codes & 8, -1, 1)
    return (values * scales[:, None]).reshape(w.shape), scales, None


@pytest.fixture(params=["compiled", "plain"])
def kernel(request: pytest.FixtureRequest) -> Any:
    if request.param == "plain":
        return PlainKernel()
    found = load_kernel()
    if not isinstance(found, Kernel):
        pytest.skip("no C compiler here")
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MATRICES)
def test_every_scheme_is_what_mx_quantize_makes_of_the_matrix(kernel: Any, kind: str, dtype: str) -> None:
    w = make(kind, dtype)
    exact = widened(w, dtype).astype(np.float64)
    for scheme in SCHEMES:
        decoded, scales, biases = by_mlx(w, dtype, scheme)
        error = np.abs(decoded - exact)
        one = record(scheme, dtype, round_exponent=False)
        kernel.matrix(w, dtype, sizes=[], records=[one])
        if error.max() > 1e30:  # exponents that wrapped: too large to be added up in float32
            assert one.error2 > 1e60
            continue
        close = {"rtol": 1e-5, "atol": 1e-300}  # float32 sums over groups of at most 128
        np.testing.assert_allclose(math.sqrt(one.error2), np.linalg.norm(error), **close, err_msg=scheme.name)
        rounding = 2.0**-22 * np.abs(exact).max() + 1e-44  # of one value decoded in float32
        np.testing.assert_allclose(one.error_max, error.max(), rtol=1e-6, atol=rounding, err_msg=scheme.name)
        np.testing.assert_allclose(one.scale_sum, np.abs(scales).sum(), **close, err_msg=scheme.name)
        np.testing.assert_allclose(one.scale_max, np.abs(scales).max(), **close, err_msg=scheme.name)
        if biases is not None:
            np.testing.assert_allclose(one.bias_sum, np.abs(biases).sum(), **close, err_msg=scheme.name)
            np.testing.assert_allclose(one.bias_max, np.abs(biases).max(), **close, err_msg=scheme.name)
        found = kernel.decode(w, dtype, one)
        np.testing.assert_allclose(
            found, decoded, rtol=1e-6, atol=1e-7 * np.abs(exact).max(), err_msg=scheme.name
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [32, 160, 2080, 4128])
def test_rows_of_any_length_are_quantized_alike(dtype: str, cols: int) -> None:
    """Segments that are full, cut short, or made of several rows: the compiled kernel against numpy."""
    found = load_kernel()
    if not isinstance(found, Kernel):
        pytest.skip("no C compiler here")
    w = make("heavy-tailed", dtype, (37, cols))
    for scheme in (scheme for scheme in SCHEMES if cols % scheme.group_size == 0):
        mine, plain = (record(scheme, dtype, round_exponent=False) for _ in range(2))
        found.matrix(w, dtype, sizes=[], records=[mine])
        PlainKernel().matrix(w, dtype, sizes=[], records=[plain])
        for name in ("error2", "error_max", "scale_sum", "scale_max", "bias_sum", "bias_max"):
            assert getattr(mine, name) == pytest.approx(getattr(plain, name), rel=1e-5), (scheme.name, name)
        assert np.array_equal(found.decode(w, dtype, mine), PlainKernel().decode(w, dtype, plain))


def test_another_scheme_or_another_scale_would_be_noticed(kernel: Any) -> None:
    """The control of the test above: neighbouring choices differ by far more than its tolerance."""
    w = make("random", "bfloat16")
    errors = []
    choices = (
        (4, 64, "bfloat16"),
        (4, 64, "float32"),
        (4, 32, "bfloat16"),
        (5, 64, "bfloat16"),
    )
    for bits, group, kept in choices:
        one = record(Scheme("x", "affine", bits, group), kept, round_exponent=False)
        kernel.matrix(w, "bfloat16", sizes=[], records=[one])
        errors.append(math.sqrt(one.error2))
    assert min(abs(a / b - 1) for i, a in enumerate(errors) for b in errors[:i]) > 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cols", [384, 2080, 4096, 37, 1])
def test_counts_columns_and_group_outliers_are_those_of_numpy(kernel: Any, dtype: str, cols: int) -> None:
    w = make("heavy-tailed", dtype, (130, cols))
    sizes = [g for g in (16, 32, 64, 128) if cols % g == 0]
    counts, columns, outliers = kernel.matrix(w, dtype, sizes=sizes, records=[])
    exact = np.abs(widened(w, dtype).astype(np.float64))
    if dtype != "float32":
        assert np.array_equal(counts, np.bincount(w.reshape(-1), minlength=65536))
    np.testing.assert_allclose(columns, exact.sum(0), rtol=2e-6)
    for size, found in zip(sizes, outliers, strict=True):
        groups = exact.reshape(-1, size)
        np.testing.assert_allclose(found, groups.max(1) / groups.mean(1), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 70001])
def test_selecting_is_sorting(kernel: Any, n: int) -> None:
    values = np.abs(np.random.default_rng(n).standard_t(2, n)).astype(np.float32)
    values[:: 7 if n > 7 else n + 1] = 1.5  # many of one value
    ordered = np.sort(values)
    for k in sorted({0, n // 2, int(0.95 * (n - 1)), n - 1}):
        assert kernel.select(values, k) == (ordered[k], ordered[min(k + 1, n - 1)])
