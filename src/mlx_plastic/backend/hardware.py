"""What this machine computes on, how fast, and in how much memory."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mlx.core as mx

Precision = Literal["float32", "bfloat16", "4-bit"]

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    """Where MLX computes by default. kind: "metal", "cuda" or "cpu"."""

    kind: Literal["metal", "cuda", "cpu"]
    name: str


def device() -> Device:
    name = str(mx.device_info(mx.default_device()).get("device_name", "unknown"))
    if mx.default_device() == mx.Device(mx.cpu):
        return Device("cpu", name)
    return Device("cuda" if mx.cuda.is_available() else "metal", name)


def is_slow_low_precision() -> bool:
    """Whether float16, bfloat16 and quantized products are far slower than float32 here, as on every CPU."""
    return device().kind == "cpu"


def peak_memory_mb() -> float:
    """The most memory used since the start or the last reset, in MB (10^6 bytes).

    The larger of what the process held (resident) and of what MLX counted, which on a GPU may live elsewhere.
    """
    return max(_peak_resident_bytes(), mx.get_peak_memory()) / 1e6


def reset_peak_memory() -> None:
    """Count peak memory from here on. The resident part cannot be reset on macOS."""
    mx.reset_peak_memory()
    with contextlib.suppress(OSError):  # macOS, or a container that forbids it
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # 5: the resident high-water mark


def _peak_resident_bytes() -> int:
    if (high_water := _proc_kib("/proc/self/status", "VmHWM")) is not None:
        return high_water
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory_bytes() -> int:
    """Memory that can still be taken without swapping, in bytes; a container's limit counts."""
    free = _proc_kib("/proc/meminfo", "MemAvailable")
    if free is None:  # macOS gives memory back under pressure: what MLX may use of it is the honest bound
        return int(mx.device_info().get("max_recommended_working_set_size", 0)) or 4 * 10**9
    return min(free, _cgroup_room(free))


def free_memory_bytes() -> int:
    """Memory that a model may take where it is computed: of a CUDA device its own, else as above."""
    free = mx.device_info(mx.default_device()).get("free_memory", 0)
    return int(free) or available_memory_bytes()


def _cgroup_room(otherwise: int) -> int:
    try:
        limit = int((CGROUP / "memory.max").read_text("ascii"))
        return max(0, limit - int((CGROUP / "memory.current").read_text("ascii")))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return otherwise


def _proc_kib(file: str, key: str) -> int | None:
    """The value of `key` in a /proc table, in bytes; None if there is no such table."""
    try:
        lines = Path(file).read_text("ascii").splitlines()
    except OSError:
        return None
    values = (line.split() for line in lines if line.startswith(f"{key}:"))
    return next((int(value[1]) * 1024 for value in values), None)


def matmul_gflops(n: int = 512, precision: Precision = "float32", *, budget_s: float = 0.3) -> float:
    """Measured speed of (n, n) @ (n, n) on the default device, in 10^9 operations per second.

    precision: "4-bit" is what quantized checkpoints hold, groups of 64 with bfloat16 scales.
    The best of the runs that fit into budget_s, at least two: others may use the machine as well.
    """
    dtype = mx.float32 if precision == "float32" else mx.bfloat16
    x, w = (mx.random.normal((n, n), key=mx.random.key(i)).astype(dtype) for i in range(2))
    packed = mx.quantize(w) if precision == "4-bit" else ()

    def product() -> mx.array:
        return mx.quantized_matmul(x, *packed) if packed else x @ w.T

    mx.eval(x, w, packed, product())
    best_s, began = float("inf"), time.perf_counter()
    runs = 0
    while runs < 2 or time.perf_counter() - began < budget_s:
        start = time.perf_counter()
        mx.eval(product())
        best_s = min(best_s, time.perf_counter() - start)
        runs += 1
    return 2 * n**3 / best_s / 1e9
