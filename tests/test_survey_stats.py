"""Every figure of a matrix against its definition in float64, on matrices that break such figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.kernel import Kernel, load_kernel
from mlx_plastic.survey.measure import Rows, measure
from mlx_plastic.survey.plain import PlainKernel, widened
from mlx_plastic.survey.quantsim import prepare
from mlx_plastic.survey.schemes import DEFAULT_SCHEMES, Scheme
from mlx_plastic.survey.spectra import largest_singular_value, power_law_alpha
from test_survey_kernel import DTYPES, MATRICES, by_mlx, make

SCHEMES = (*DEFAULT_SCHEMES, Scheme("mxfp8", "mxfp8", 8, 32), Scheme("nvfp4", "nvfp4", 4, 16))
SETTINGS = Stats(group_sizes_lastdim=(2, 32, 64, 100), percentiles_abs=(25.0,))


@pytest.fixture(params=["compiled", "plain"])
def kernel(request: pytest.FixtureRequest) -> Any:
    found = load_kernel() if request.param == "compiled" else PlainKernel()
    if request.param == "compiled" and not isinstance(found, Kernel):
        pytest.skip("no C compiler here")
    return found


def rows_of(w: np.ndarray, dtype: str, kernel: Any, settings: Stats = SETTINGS) -> Rows:
    prepared, warnings = prepare(SCHEMES, kernel)
    assert warnings == []
    return measure(w, dtype, {"derived_tensor": "w"}, scale_type=dtype, prepared=prepared, settings=settings,
                   kernel=kernel)  # fmt: skip


def reference(x: np.ndarray) -> dict[str, Any]:
    """x: (rows, cols), float64, finite."""
    a, n = np.abs(x), x.size
    mean = x.sum() / n
    second, fourth = ((x - mean) ** 2).sum() / n, ((x - mean) ** 4).sum() / n
    p = {q: float(np.percentile(a, q)) for q in (25, 50, 99, 99.9)}
    found = {
        "mean": mean, "std": math.sqrt(second), "mean_abs": a.mean(), "rms": math.sqrt((x * x).mean()),
        "max_abs": a.max(), "p25_abs": p[25], "p50_abs": p[50], "p99_abs": p[99], "p999_abs": p[99.9],
        "kurtosis": fourth / second**2 if second > 0 and second**2 > 0 else None,
        "outlier_max_over_mean": a.max() / a.mean() if a.any() else None,
        "outlier_p99_over_median": p[99] / p[50] if p[50] else None,
        "outlier_p999_over_median": p[99.9] / p[50] if p[50] else None,
        "nonfinite": 0,
    }  # fmt: skip
    for g in (2, 32, 64):
        groups = a.reshape(-1, g)
        mean_g = groups.mean(1)
        ratios = np.where(mean_g > 0, groups.max(1) / np.where(mean_g > 0, mean_g, 1), 0)
        found[f"g{g}_p95_outlier"], found[f"g{g}_max_outlier"] = np.percentile(ratios, 95), ratios.max()
    channels = a.mean(0)
    found["channel_max_over_median"] = channels.max() / np.median(channels) if a.any() else None
    if a.any():
        s = np.linalg.svd(x / a.max(), compute_uv=False)
        q = s / s.sum()
        energy = np.cumsum(s**2) / (s**2).sum()
        found["stable_rank"] = (s**2).sum() / s[0] ** 2
        found["effective_rank"] = math.exp(-(q[q > 0] * np.log(q[q > 0])).sum())
        found["energy_rank_90"] = int(np.searchsorted(energy, 0.9 * (1 - 1e-12))) + 1
        found["spectral_norm"] = s[0] * a.max()
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MATRICES)
def test_every_figure_is_that_of_float64(kernel: Any, kind: str, dtype: str) -> None:
    w = make(kind, dtype)
    x = widened(w, dtype).astype(np.float64)
    found = rows_of(w, dtype, kernel).matrix
    spread = np.abs(x).max() * 1e-9  # what is zero by cancelling: the mean, the std of a constant
    for name, exact in reference(x).items():
        loose = name in ("effective_rank", "stable_rank") and kind in ("constant", "one sign")
        tolerance = (
            2e-5 if "rank" not in name or not loose else 2e-3
        )  # noise of a Gram matrix under one value
        if exact is None or (name == "kurtosis" and kind == "constant"):
            continue
        assert found[name] == pytest.approx(exact, rel=tolerance, abs=spread), name
    assert found["g100_p95_outlier"] is None  # 100 does not divide 384


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["random", "heavy-tailed", "tiny", "one sign", "large", "zeros"])
def test_every_figure_of_quantization_is_that_of_float64(kernel: Any, kind: str, dtype: str) -> None:
    w = make(kind, dtype)
    x = widened(w, dtype).astype(np.float64)
    rows = {row["scheme"]: row for row in rows_of(w, dtype, kernel).quant}
    for scheme in SCHEMES:
        row, (decoded, scales, biases) = rows[scheme.name], by_mlx(w, dtype, scheme)
        error = decoded - x
        relative = np.linalg.norm(error) / np.linalg.norm(x) if x.any() else 0.0
        close = {"rel": 2e-5, "abs": 1e-12}
        assert row["error"] is None
        assert row["w_rel_fro"] == pytest.approx(relative, **close)
        assert row["w_rel_max"] == pytest.approx(np.abs(error).max() / max(np.abs(x).max(), 1e-300), rel=1e-3)
        assert row["scale_mean"] == pytest.approx(np.abs(scales).mean(), **close)
        assert row["scale_max"] == pytest.approx(np.abs(scales).max(), **close)
        assert (row["bias_mean"] is None) == (biases is None)
        if biases is not None:
            assert row["bias_mean"] == pytest.approx(np.abs(biases).mean(), **close)
            assert row["bias_max"] == pytest.approx(np.abs(biases).max(), **close)
        if relative:
            assert row["sqnr_db"] == pytest.approx(-20 * math.log10(relative), abs=1e-3)
            assert row["w_rel_spectral"] == pytest.approx(
                np.linalg.norm(error, 2) / np.linalg.norm(x, 2), rel=1e-3
            )
        if kind == "random":  # 24 rows: all of them are compared
            unit = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in (x, decoded)]
            moved = unit[1] @ unit[1].T - unit[0] @ unit[0].T
            off = moved[~np.eye(24, dtype=bool)]
            assert row["w_gram_cos_drift"] == pytest.approx(math.sqrt((off**2).mean()), rel=1e-3)


@pytest.mark.parametrize("scale", [1e3, 1.0, 1e-2, 5e-3, 1e-3, 1e-4])
@pytest.mark.parametrize("bits", [4, 8])
def test_relative_error_is_right_at_every_scale_of_weights(scale: float, bits: int) -> None:
    """float16 arithmetic gives a half of the 8-bit error at 0.02 and nothing at 0.005."""
    w = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    prepared, _ = prepare([Scheme("s", "affine", bits, 64)], load_kernel())
    common = {"scale_type": "float32", "prepared": prepared, "settings": Stats(spectra=False)}
    found = [
        measure(w * np.float32(size), "float32", {}, kernel=load_kernel(), **common).quant[0]["w_rel_fro"]
        for size in (1.0, scale)
    ]
    assert found[1] == pytest.approx(found[0], rel=0.01)
    assert found[0] == pytest.approx(
        {4: 0.0912, 8: 0.00536}[bits], rel=0.03
    )  # of normal weights, groups of 64


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_counted_and_left_out(kernel: Any, dtype: str) -> None:
    w = make("random", dtype)
    bad = w.copy()
    codes = {"bfloat16": (0x7FC0, 0x7F80, 0xFF80), "float16": (0x7E00, 0x7C00, 0xFC00),
             "float32": (np.nan, np.inf, -np.inf)}[dtype]  # fmt: skip
    bad[3, 5], bad[4, 6], bad[20, 300] = codes
    found = rows_of(bad, dtype, kernel)
    x = widened(bad, dtype).astype(np.float64)
    x = x[np.isfinite(x)]
    exact = reference(np.resize(x, (x.size, 1)).repeat(64, 1))  # of the finite values, each of them 64 times
    assert found.matrix["nonfinite"] == 3
    for name in ("mean", "std", "mean_abs", "rms", "max_abs", "kurtosis"):
        assert found.matrix[name] == pytest.approx(exact[name], rel=1e-9)
    assert found.matrix["p99_abs"] == pytest.approx(np.percentile(np.abs(x), 99))
    for name in ("g32_max_outlier", "stable_rank", "channel_max_over_median"):
        assert found.matrix[name] is None
    assert {row["error"] for row in found.quant} == {"3 values are not finite"}
    assert found.spectrum is None


def test_nothing_finite_gives_empty_figures_and_no_crash(kernel: Any) -> None:
    found = rows_of(np.full((4, 64), np.nan, np.float32), "float32", kernel).matrix
    assert found["nonfinite"] == 256
    assert found["mean"] is None and found["p50_abs"] is None


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (1, 1), (3, 100)])
def test_sides_of_length_one_and_groups_that_do_not_divide(kernel: Any, shape: tuple[int, int]) -> None:
    w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = rows_of(w, "float32", kernel)
    assert found.matrix["rms"] == pytest.approx(math.sqrt((w.astype(np.float64) ** 2).mean()), rel=1e-9)
    for row in found.quant:
        fits = shape[1] % row["group_size"] == 0
        assert (row["error"] is None) == fits
        assert (row["w_rel_fro"] is not None) == fits


def test_denormal_weights_either_have_their_error_or_say_why(kernel: Any) -> None:
    rows = rows_of(make("denormal", "float32"), "float32", kernel).quant
    told = {row["scheme"]: row["error"] or row["w_rel_fro"] for row in rows}
    assert told["affine_q4_g64"] == pytest.approx(1.0)  # MLX's smallest scale is 1e-7: all becomes zero
    assert "overflows" in told["mxfp4_g32"]


def test_the_exponent_of_a_power_law_is_found() -> None:
    rng = np.random.default_rng(0)
    pareto = (1 - rng.random(3000)) ** (-1 / 1.5)  # p(x) ~ x^-2.5
    assert power_law_alpha(pareto) == pytest.approx(2.5, rel=0.1)
    assert power_law_alpha(np.arange(1.0, 7.0)) is None


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-41, 1e20])
def test_the_largest_singular_value_is_that_of_numpy(scale: float) -> None:
    e = (np.random.default_rng(1).standard_normal((90, 140)) * scale).astype(np.float32)
    exact = np.linalg.norm(e.astype(np.float64) / scale, 2) * scale
    assert largest_singular_value(e.copy()) == pytest.approx(exact, rel=1e-3)
    assert largest_singular_value(np.zeros((3, 4), np.float32)) == 0
