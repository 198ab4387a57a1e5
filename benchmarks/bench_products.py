"""Products with a few rows, as a model that speaks needs them: ours against the OpenBLAS behind it.

    python benchmarks/bench_products.py --json

y = x w^T in float32 with 1 to 64 rows, for the shapes of a small Llama (hidden 512). On Linux without an
OpenBLAS of its own, `backend/blas_shim.c` computes these itself, and hands on what has more rows. Both are
called here as MLX calls them, in turns, on one thread. The weights come from memory, as in a model: each
product takes others, out of more than a processor's cache holds. Told are microseconds of processor time, the
least of `--rounds` passes over them, and how many times as fast ours is: the median of shapes and rows, and
the least.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_plastic.backend import BLAS

ROWS = (1, 2, 4, 8, 16, 32, 64)
SHAPES = {"attention": (512, 512), "up": (1344, 512), "down": (512, 1344), "head": (8192, 512)}  # (out, in)
HELD_BYTES = 96 << 20  # of weights that calls take turns with
ROW_MAJOR, AS_IS, TRANSPOSED = 101, 111, 112


def at(array: np.ndarray) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def product(function: Any, whole: Any, x: np.ndarray, ws: np.ndarray) -> Callable[[], np.ndarray]:
    """Calls `function`, a cblas_sgemm with integers of type `whole`, with each of `ws`; gives the last y."""
    (m, k), n = x.shape, ws.shape[1]
    y = np.zeros((m, n), np.float32)
    sizes = [whole(size) for size in (m, n, k)]
    one, none = ctypes.c_float(1), ctypes.c_float(0)
    wants = [(at(x), whole(k), at(w), whole(k), none, at(y), whole(n)) for w in ws]

    def call() -> np.ndarray:
        for want in wants:
            function(ROW_MAJOR, AS_IS, TRANSPOSED, *sizes, one, *want)
        return y

    return call


def least_us(calls: dict[str, Callable[[], np.ndarray]], each: int, rounds: int) -> dict[str, float]:
    """Of one of the `each` products of a call."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            found[name] = min(found[name], (time.thread_time() - start) / each * 1e6)
    return found


def measure(rounds: int) -> dict[str, Any]:
    if BLAS.kind != "numpy":
        raise SystemExit(f"the BLAS here is {BLAS.kind!r}: nothing of ours stands before it")
    numpys = ctypes.CDLL(BLAS.library)
    numpys.scipy_openblas_set_num_threads64_(1)
    ours, draw = ctypes.CDLL(None).cblas_sgemm, np.random.default_rng(0)
    table: dict[str, dict[int, dict[str, float]]] = {}
    for name, (n, k) in SHAPES.items():
        ws = draw.standard_normal((HELD_BYTES // (4 * n * k), n, k), np.float32)
        for m in ROWS:
            x = draw.standard_normal((m, k)).astype(np.float32)
            calls = {
                "ours": product(ours, ctypes.c_int, x, ws),
                "openblas": product(numpys.scipy_cblas_sgemm64_, ctypes.c_int64, x, ws),
            }
            np.testing.assert_allclose(calls["ours"](), calls["openblas"](), atol=1e-3)  # float32, 1344 terms
            table.setdefault(name, {})[m] = least_us(calls, len(ws), rounds)
    ratios = [one["openblas"] / one["ours"] for rows in table.values() for one in rows.values()]
    return {"us": table, "speedup": statistics.median(ratios), "least_speedup": min(ratios), "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description="Products with a few rows, ours against OpenBLAS.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="of which the least is told")
    args = parser.parse_args()
    found = measure(args.rounds)
    if args.json:
        print(json.dumps(found))
        return
    for name, rows in found["us"].items():
        told = ", ".join(f"{m} rows {one['openblas']:.0f} -> {one['ours']:.0f}" for m, one in rows.items())
        print(f"{name:<10} us: {told}")
    print(f"speedup {found['speedup']:.1f}, at least {found['least_speedup']:.2f}")


if __name__ == "__main__":
    main()
