"""How much faster rank-r factors come than from mx.linalg.svd, and how near they are to the best fit.

    python benchmarks/bench_svd.py --json

One matrix, several spectra: flat (random, the hardest for a randomized method), falling as weights do, and
ill-conditioned (its smallest values are 1e-6 of the largest). speedup: median time of mx.linalg.svd over
ours, alternating. rel_error: how much further from the matrix our fit lies than the exact one, over its norm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlx_plastic.backend import BLAS, mx
from mlx_plastic.lowrank.svd import Array, relative_residual, truncated_svd

TARGET_SPEEDUP, TARGET_ERROR = 5.0, 1e-5


def matrix(kind: str, out: int, width: int) -> Array:
    random = np.random.default_rng(0)
    w = random.standard_normal((out, width)).astype(np.float32)
    if kind == "flat":
        return w
    k = min(out, width)
    u, v = (np.linalg.qr(random.standard_normal((side, k)))[0] for side in (out, width))
    s = 1 / (1 + np.arange(k)) ** 0.7 if kind == "falling" else np.geomspace(1, 1e-6, k)
    return ((u * s) @ v.T).astype(np.float32)


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def by_mlx(w: Array) -> None:
    mx.eval(*mx.linalg.svd(mx.array(w), stream=mx.cpu))


def bench(kind: str, rank: int, method: Any, options: argparse.Namespace) -> dict[str, Any]:
    w = matrix(kind, options.out, options.width)
    theirs, ours = [], []
    for _ in range(options.repeats):
        theirs.append(seconds(lambda: by_mlx(w)))
        ours.append(seconds(lambda: truncated_svd(w, rank, method)))
    best = relative_residual(w, *truncated_svd(w, rank, "exact"))
    error = relative_residual(w, *truncated_svd(w, rank, method)) - best
    return {
        "spectrum": kind,
        "rank": rank,
        "method": method,
        "speedup": round(statistics.median(theirs) / statistics.median(ours), 2),
        "rel_error": max(0.0, error),
        "mlx_s": round(statistics.median(theirs), 4),
        "ours_s": round(statistics.median(ours), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=int, default=4096)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--spectra", nargs="+", default=["flat", "falling", "ill"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [
        bench(kind, rank, method, options)
        for kind in options.spectra
        for rank in options.ranks
        for method in ("gram", "randomized")
    ]
    default = [row for row in rows if row["method"] == "gram"]
    found = {
        "shape": [options.out, options.width],
        "speedup": min(row["speedup"] for row in default),
        "rel_error": max(row["rel_error"] for row in default),
        "target": {"speedup": TARGET_SPEEDUP, "rel_error": TARGET_ERROR},
        "holds": all(r["speedup"] >= TARGET_SPEEDUP and r["rel_error"] <= TARGET_ERROR for r in default),
        "rows": rows,
        "blas": BLAS.kind,
    }
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for row in rows:
        print(
            f"{row['spectrum']:8} rank {row['rank']:3} {row['method']:10} {row['speedup']:6.1f} x faster, "
            f"{row['rel_error']:.1e} further than the best fit ({row['mlx_s']} s -> {row['ours_s']} s)"
        )
    print(f"gram, the default: at least {found['speedup']} x, error at most {found['rel_error']:.1e}")


if __name__ == "__main__":
    main()
