"""The survey in figures: its speed by core, against plain MLX, its memory, two processes, and its exactness.

    python benchmarks/bench_survey.py --json

On a synthetic checkpoint of 8 layers with 16 experts (384 matrices of 512 x 1024, 403 MB of bfloat16) and
on matrices of 4096 x 1024 (8.4 MB), from the page cache, with three schemes and without spectra unless
said otherwise. Speeds are by CPU second, so that other jobs on the machine do not count; the ratio of two
processes to one and the seconds are by the clock, the best of all laps.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.survey import engines
from mlx_plastic.survey.collect import collect, plan_collect
from mlx_plastic.survey.config import Stats
from mlx_plastic.survey.folder import init_run
from mlx_plastic.survey.kernel import load_kernel
from mlx_plastic.survey.measure import measure
from mlx_plastic.survey.plain import to_bf16, widened
from mlx_plastic.survey.quantsim import prepare
from mlx_plastic.survey.schemes import AFFINE_BITS, AFFINE_GROUPS, DEFAULT_SCHEMES, FIXED, Scheme
from mlx_plastic.survey.units import do_unit

if __name__ != "__mp_main__":  # workers, which read this file too, need no MLX and look for no BLAS
    from mlx_plastic.backend import mx

LAYERS, EXPERTS, SHAPE, LARGE = 8, 16, (512, 1024), (4096, 1024)
SCALES = (1e3, 1.0, 0.02, 0.005, 1e-3, 1e-4)
FAST = Stats(spectra=False)


def write_checkpoint(folder: Path, layers: int, experts: int, shape: tuple[int, int]) -> Path:
    """Random experts in the hub's layout, two layers a shard."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for shard in range(0, layers, 2):
        tensors = {}
        for i in range(shard, min(shard + 2, layers)):
            for e in range(experts):
                for proj in ("gate_proj", "up_proj", "down_proj"):
                    side = shape if proj != "down_proj" else shape[::-1]
                    w = rng.standard_normal(side, np.float32) * np.float32(0.02)
                    tensors[f"model.layers.{i}.mlp.experts.{e}.{proj}.weight"] = mx.array(w).astype(
                        mx.bfloat16
                    )
        mx.save_safetensors(str(folder / f"model-{shard}.safetensors"), tensors)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    return folder


def planned(model: Path, root: Path, stats: Stats = FAST) -> Any:
    given = {"model_path": str(model), "stats": vars(stats), "output": {"format": "csv"}}
    run, _ = init_run(root, given)
    return run, plan_collect(run, fresh=True)


def best(task: Callable[[], Any], times: int, clock: Callable[[], float]) -> float:
    laps = []
    for _ in range(times):
        began = clock()
        task()
        laps.append(clock() - began)
    return min(laps)


def speed(plan: Any, times: int) -> float:
    """GB by CPU second of all units, one after the other in this process; the first lap warms the cache."""
    for unit in plan.units[:1]:
        do_unit(unit)
    return plan.nbytes / 1e9 / best(lambda: [do_unit(unit) for unit in plan.units], times, time.process_time)


def plain_mlx(w: mx.array, schemes: Any) -> dict[str, float]:
    """The same rows as a person would get them with MLX: operation by operation on the CPU."""
    x = w.astype(mx.float32)
    a, out = mx.abs(x), {}
    ordered = mx.sort(a.reshape(-1))
    out |= {"mean": x.mean(), "std": mx.sqrt(mx.var(x)), "mean_abs": a.mean(), "rms": mx.sqrt((x * x).mean())}
    out |= {"max": a.max(), "kurtosis": ((x - x.mean()) ** 4).mean() / mx.var(x) ** 2}
    out |= {f"p{p}": ordered[round(p / 100 * (a.size - 1))] for p in (50, 99, 99.9)}
    for size in FAST.group_sizes_lastdim:
        groups = a.reshape(-1, size)
        ratios = mx.sort(groups.max(1) / groups.mean(1))
        out |= {f"g{size}": ratios[round(0.95 * (ratios.size - 1))], f"g{size}_max": ratios[-1]}
    channels = mx.sort(a.mean(0))
    out["channels"] = channels[-1] / channels[channels.size // 2]
    for s in schemes:
        settings = {"group_size": s.group_size, "bits": s.bits, "mode": s.mode}
        parts = mx.quantize(w, **settings)
        wide = [part.astype(mx.float32) if part.dtype == mx.bfloat16 else part for part in parts]
        decoded = mx.dequantize(*wide, **settings, dtype=mx.float32)
        e = decoded - x
        out |= {f"{s.name}_fro": mx.sqrt((e * e).sum()), f"{s.name}_max": mx.abs(e).max()}
        rows = slice(None, None, max(1, x.shape[0] // 32))
        for name, m in (("before", x[rows]), ("after", decoded[rows])):
            unit = m / mx.linalg.norm(m, axis=1, keepdims=True)
            out[f"{s.name}_{name}"] = (unit @ unit.T).sum()
        out |= {f"{s.name}_scale{i}": mx.abs(part).max() for i, part in enumerate(wide[1:])}
    mx.eval(out)
    return out


def against_plain(times: int) -> float:
    """CPU seconds of plain MLX over ours, for one matrix of 4096 x 1024; MLX on the CPU."""
    rng = np.random.default_rng(0)
    w = (rng.standard_normal(LARGE) * 0.02).astype(np.float32)
    codes, kernel = to_bf16(w), load_kernel()
    prepared, _ = prepare(DEFAULT_SCHEMES, kernel)
    array = mx.array(w).astype(mx.bfloat16)

    def ours() -> None:
        for _ in range(5):
            measure(
                codes, "bfloat16", {}, scale_type="bfloat16", prepared=prepared, settings=FAST, kernel=kernel
            )

    ours()
    plain_mlx(array, DEFAULT_SCHEMES)
    mine = best(ours, times, time.process_time) / 5
    return best(lambda: plain_mlx(array, DEFAULT_SCHEMES), times, time.process_time) / mine


PEAK = """
import resource, sys
from pathlib import Path
from mlx_plastic.survey import engines
from mlx_plastic.survey.collect import collect, plan_collect
from mlx_plastic.survey.folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
collect(run, plan_collect(run, fresh=True), workers=1)
status = Path('/proc/self/status')
kib = [x.split()[1] for x in status.read_text().splitlines() if 'VmHWM' in x] if status.exists() else []
print(int(kib[0]) * 1024 if kib else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(run: Any) -> float:
    """Of a process that collects the run by itself, MLX loaded: the most it held."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(run.path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 1e6


def two_processes(plan: Any, times: int) -> Iterator[tuple[str, Any]]:
    """One worker process against two, with their start, over four times the checkpoint; laps of both in turn.

    Beside the wall time: CPU seconds of two over those of one, 1 where they do not slow each other down, and
    as the control what arithmetic that touches no memory gains on this machine by a second process.
    """
    units = [replace(unit, name=f"{i}-{unit.name}") for i in range(4) for unit in plan.units]
    wall, cpu, control = ({1: math.inf, 2: math.inf} for _ in range(3))
    for _ in range(times):
        for count in (1, 2):
            began, before = time.perf_counter(), children_seconds()
            assert len(list(engines.worker_processes(units, count))) == len(units)
            wall[count] = min(wall[count], time.perf_counter() - began)
            cpu[count] = min(cpu[count], children_seconds() - before)
            control[count] = min(control[count], arithmetic(count))
    yield "two_process_ratio", round(wall[1] / wall[2], 2)
    yield "two_process_ratio_arithmetic", round(control[1] / control[2], 2)
    yield "two_process_cpu_ratio", round(cpu[2] / cpu[1], 2)


def children_seconds() -> float:
    """CPU seconds of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def arithmetic(count: int) -> float:
    """Wall seconds of 32 times some 0.1 s of arithmetic in so many processes, with their start."""
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with engines.one_thread_each(), ProcessPoolExecutor(count, mp_context=context) as pool:
        list(pool.map(sines, [2000] * 32))
    return time.perf_counter() - began


def sines(laps: int) -> float:
    x = np.linspace(0, 1, 4096)
    return sum(float(np.sin(x)[0]) for _ in range(laps))


def matrices() -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    normal = rng.standard_normal((192, 512))
    yield "random", normal * 0.02
    yield "heavy-tailed", rng.standard_t(2, (192, 512)) * 0.02
    yield "constant", np.full((192, 512), 0.1)
    yield "tiny", normal * 1e-4
    yield "denormal", normal * 1e-39
    bad = normal * 0.02
    bad[3, 5], bad[4, 6] = np.nan, np.inf
    yield "NaN and Inf", bad


def metric_error() -> tuple[float, str]:
    """The largest relative difference of any figure to float64, over kinds of matrices and dtypes."""
    kernel, worst = load_kernel(), (0.0, "")
    for kind, w in matrices():
        for dtype in ("bfloat16", "float16", "float32"):
            w32 = (w * (1e33 if kind == "denormal" and dtype == "float16" else 1)).astype(np.float32)
            codes = to_bf16(w32) if dtype == "bfloat16" else w32
            codes = w32.astype(np.float16).view(np.uint16) if dtype == "float16" else codes
            found = measure(
                codes, dtype, {}, scale_type=dtype, prepared=[], settings=Stats(), kernel=kernel
            ).matrix
            exact = in_float64(widened(codes, dtype).astype(np.float64))
            for name, value in exact.items():
                scale = (
                    abs(value) if name != "mean" else exact["mean_abs"]
                )  # the mean of normal weights is noise
                error = abs(found[name] - value) / scale if scale else abs(found[name])
                worst = max(worst, (error, f"{name} of {kind}, {dtype}"))
    return worst


def in_float64(x: np.ndarray) -> dict[str, float]:
    whole = bool(np.isfinite(x).all())
    flat = x[np.isfinite(x)]
    a = np.abs(flat)
    found = {
        "mean": flat.mean(),
        "mean_abs": a.mean(),
        "rms": math.sqrt((flat**2).mean()),
        "max_abs": a.max(),
    }
    found |= {f"{n}_abs": np.percentile(a, p) for n, p in (("p50", 50), ("p99", 99), ("p999", 99.9))}
    if flat.std() > 1e-12 * a.max():
        d = (flat - flat.mean()) / flat.std()
        found |= {"std": flat.std(), "kurtosis": (d**4).mean()}
    if whole:
        for size in (32, 64):
            groups = np.abs(x).reshape(-1, size)
            ratios = groups.max(1) / groups.mean(1)
            found |= {f"g{size}_p95_outlier": np.percentile(ratios, 95), f"g{size}_max_outlier": ratios.max()}
        s = np.linalg.svd(x / a.max(), compute_uv=False)
        found |= {"spectral_norm": s[0] * a.max(), "stable_rank": (s**2).sum() / s[0] ** 2}
        if s[1] > 1e-6 * s[0]:
            p = s / s.sum()
            found["effective_rank"] = math.exp(-(p[p > 0] * np.log(p[p > 0])).sum())
    return {name: float(value) for name, value in found.items()}


def quant_error() -> tuple[float, str]:
    """The largest relative difference of w_rel_fro to float64 over what mx.quantize keeps, at every scale."""
    schemes = [Scheme(f"q{b}g{g}", "affine", b, g) for b in AFFINE_BITS for g in AFFINE_GROUPS]
    schemes += [Scheme(mode, mode, *of) for mode, of in FIXED.items()]  # type: ignore[arg-type]
    kernel, worst = load_kernel(), (0.0, "")
    prepared, _ = prepare(schemes, kernel)
    normal = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    for scale in SCALES:
        codes = to_bf16(normal * np.float32(scale))
        x = widened(codes, "bfloat16")
        rows = measure(
            codes, "bfloat16", {}, scale_type="bfloat16", prepared=prepared, settings=FAST, kernel=kernel
        )
        for scheme, row in zip(schemes, rows.quant, strict=True):
            settings = {"group_size": scheme.group_size, "bits": scheme.bits, "mode": scheme.mode}
            parts = mx.quantize(mx.array(x).astype(mx.bfloat16), **settings)
            wide = [p.astype(mx.float32) if p.dtype == mx.bfloat16 else p for p in parts]
            decoded = np.array(mx.dequantize(*wide, **settings, dtype=mx.float32)).astype(np.float64)
            exact = np.linalg.norm(decoded - x) / np.linalg.norm(x.astype(np.float64))
            worst = max(worst, (abs(row["w_rel_fro"] / exact - 1), f"{scheme.name} at {scale:g}"))
    return worst


def exactness() -> Iterator[tuple[str, Any]]:
    metric, metric_at = metric_error()
    quant, quant_at = quant_error()
    yield from {"max_metric_rel_error": metric, "max_metric_at": metric_at}.items()
    yield from {"max_quant_rel_error": quant, "max_quant_at": quant_at}.items()


def speeds(root: Path, times: int) -> Iterator[tuple[str, Any]]:
    large = write_checkpoint(root / "large", 2, 2, LARGE)
    yield "gb_per_s_per_core", round(speed(planned(large, root / "l")[1], times), 3)
    yield "ratio_plain_mlx", round(against_plain(times), 1)
    few = planned(large, root / "s", Stats())[1].units[0]
    seconds = best(lambda: do_unit(few), 1, time.process_time)
    yield "gb_per_s_per_core_with_spectra", round(few.nbytes / 1e9 / seconds, 4)


def whole(root: Path, times: int, *, small: bool) -> Iterator[tuple[str, Any]]:
    """Of the checkpoint of 8 layers; the seconds and the ratio are by the clock."""
    model = write_checkpoint(root / "model", 2 if small else LAYERS, 4 if small else EXPERTS, SHAPE)
    run, plan = planned(model, root / "m")
    yield "checkpoint_mb", round(plan.nbytes / 1e6, 1)
    yield "gb_per_s_per_core_1mb_matrices", round(speed(plan, times), 3)
    yield "peak_mb", round(peak_mb(run), 1)
    yield from two_processes(plan, times)
    yield "seconds_three_schemes", round(best(lambda: collect(run, plan), times, time.perf_counter), 2)


def memory(root: Path) -> Iterator[tuple[str, Any]]:
    """Of one matrix of 134 MB: the bound is 300 MB and twice that."""
    folder = root / "big"
    folder.mkdir()
    w = np.random.default_rng(0).standard_normal((4096, 16384), np.float32) * np.float32(0.02)
    only = {"model.layers.0.mlp.up_proj.weight": mx.array(w).astype(mx.bfloat16)}
    mx.save_safetensors(str(folder / "model.safetensors"), only)
    for name, stats in (("peak_mb_134mb_matrix", FAST), ("peak_mb_134mb_matrix_with_spectra", Stats())):
        yield name, round(peak_mb(planned(folder, root / name, stats)[0]), 1)


PARTS = ("exactness", "speeds", "whole", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, default=3, help="laps of each, of which the best counts")
    parser.add_argument("--small", action="store_true", help="a sixteenth of the checkpoint")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts alone")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parts = {
            "exactness": exactness(),
            "speeds": speeds(root, args.times),
            "whole": whole(root, args.times, small=args.small),
            "memory": memory(root),
        }
        for name in args.only or PARTS:
            for figure, value in parts[name]:
                figures[figure] = value
                if not args.json:
                    print(f"{figure:36} {value}", flush=True)
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
