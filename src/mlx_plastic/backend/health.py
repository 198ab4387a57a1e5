"""A look at the machine: what computes here, how fast, what is slow and how to mend it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_plastic.backend.blas import Blas
from mlx_plastic.backend.hardware import Device, available_memory_bytes, device, matmul_gflops

PACKAGES = ("mlx-plastic", "mlx", "mlx-lm", "numpy", "transformers")
EXPECTED_GFLOPS = 20.0  # float32 on one core with any OpenBLAS; the reference BLAS gives 2 to 8
LOW_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """Something slow or missing, and the line that mends it."""

    problem: str
    fix: str


@dataclass(frozen=True)
class Machine:
    """Everything measured; speeds in 10^9 operations per second."""

    device: Device
    blas: Blas
    matmul_gflops: float
    matmul_gflops_bfloat16: float
    matmul_gflops_4bit: float
    available_memory_bytes: int
    compiler: str  # what mx.compile needs on a CPU; empty if there is none
    nvidia: bool
    python: str
    platform: str
    versions: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """Flat, for scripts: `device` and `blas` are words, the rest of them stands in keys of its own."""
        flat = {
            "device": self.device.kind,
            "device_name": self.device.name,
            "blas": self.blas.kind,
            "blas_library": self.blas.library,
            "blas_threads": self.blas.threads,
            "blas_notes": list(self.blas.notes),
        }
        rest = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in flat}
        findings = [dataclasses.asdict(finding) for finding in diagnose(self)]
        return flat | rest | {"findings": findings}


def measure_machine(blas: Blas) -> Machine:
    """Measure for a few seconds what this machine can do. blas: what was found when MLX was loaded."""
    return Machine(
        device=device(),
        blas=blas,
        matmul_gflops=matmul_gflops(512),
        matmul_gflops_bfloat16=matmul_gflops(256, "bfloat16"),
        matmul_gflops_4bit=matmul_gflops(256, "4-bit"),  # small: 0.2 GFLOP/s has been seen
        available_memory_bytes=available_memory_bytes(),
        compiler=shutil.which("g++") or "",
        nvidia=Path("/proc/driver/nvidia/version").exists(),
        python=platform.python_version(),
        platform=platform.platform(),
        versions={name: _version(name) for name in PACKAGES},
    )


def diagnose(machine: Machine) -> list[Finding]:
    """What is slow or missing on that machine, the worst first."""
    return list(_findings(machine))


def _findings(machine: Machine) -> Iterator[Finding]:
    cpu = machine.device.kind == "cpu"
    if cpu and machine.nvidia:
        yield Finding("an NVIDIA GPU is not used", "pip install 'mlx-plastic[cuda]'")
    if cpu and machine.blas.hint:
        yield Finding("matrix products run on the reference BLAS", machine.blas.hint)
    elif cpu and machine.matmul_gflops < EXPECTED_GFLOPS:
        yield Finding(
            f"float32 products run at {machine.matmul_gflops:.1f} GFLOP/s, with a fast BLAS",
            "end other jobs on this machine, or choose another BLAS: MLX_PLASTIC_BLAS=numpy or system",
        )
    slowest = min(machine.matmul_gflops_bfloat16, machine.matmul_gflops_4bit)
    if cpu and machine.matmul_gflops > 4 * slowest:
        times = machine.matmul_gflops / slowest
        billions = machine.available_memory_bytes / 4 / 1e9
        yield Finding(
            f"bfloat16 or 4-bit products are up to {times:.0f} times slower than float32",
            f"choose a base of at most {billions:.1f} billion parameters: it is loaded as float32",
        )
    if cpu and machine.platform.startswith("Linux") and not machine.compiler:
        yield Finding(
            "no C++ compiler: kernels cannot be fused",
            "sudo apt install g++ (Debian, Ubuntu) or dnf install gcc-c++",
        )
    if machine.available_memory_bytes < LOW_MEMORY_BYTES:
        yield Finding(
            f"only {machine.available_memory_bytes / 1e9:.1f} GB of memory are free",
            "end other programs first",
        )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
