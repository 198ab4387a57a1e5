from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_plastic.backend import blas, hardware, health, mx, side_by_side, streams
from mlx_plastic.backend.blas import Blas, Unusable, load_fast_blas
from mlx_plastic.backend.hardware import Device
from mlx_plastic.errors import BadConfig
from mlx_plastic.machine import COMPILERS, available_cores, compile_c

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
compiled = pytest.mark.skipif(
    not blas._bundled("numpy") or not any(map(shutil.which, COMPILERS)),
    reason="this numpy carries no OpenBLAS, or there is no C compiler",
)

LOOK = """
import dataclasses, json, sys
{before}
from mlx_plastic.backend import BLAS, mx
from mlx_plastic.backend.hardware import matmul_gflops
import numpy as np  # after another OpenBLAS became global: numpy's must still call its own
a = mx.random.normal((96, 160), key=mx.random.key(0)); b = mx.random.normal((160, 64), key=mx.random.key(1))
s = a @ a.T + 96 * mx.eye(96)
z = a.astype(mx.complex64) * 1j
cpu = mx.cpu
u, d, vt = mx.linalg.svd(a, stream=cpu)
w, v = mx.linalg.eigh(s, stream=cpu)
q, r = mx.linalg.qr(a, stream=cpu)
def off(x, y): return float(mx.abs(x - y).max())
c = mx.linalg.cholesky(s, stream=cpu)
errors = dict(
    svd=off((u[:, :96] * d) @ vt[:96], a), eigh=off((v * w) @ v.T, s), qr=off(q @ r, a),
    cholesky=off(c @ c.T, s), inv=off(mx.linalg.inv(s, stream=cpu) @ s, mx.eye(96)),
    complex=off(z @ b, (a @ b) * 1j), numpy=off(mx.array(np.array(a) @ np.array(b)), a @ b))
print(json.dumps(dict(dataclasses.asdict(BLAS), gflops=matmul_gflops(256), errors=errors,
    a=a.tolist(), b=b.tolist(), product=(a @ b).tolist())))
"""


def look(choice: str, *, before: str = "", **variables: str) -> dict[str, Any]:
    """What a fresh process finds with MLX_PLASTIC_BLAS=choice, and what MLX computes with it."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(before=before)],
        env={**os.environ, "MLX_PLASTIC_BLAS": choice, **variables},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout), stderr=done.stderr)


def check(found: dict[str, Any]) -> None:
    """What MLX computed is right: against numpy in float64, and by putting factors together again."""
    exact = np.array(found["a"], np.float64) @ np.array(found["b"], np.float64)
    np.testing.assert_allclose(found["product"], exact, atol=1e-4)  # float32, 160 terms of size 1
    for name, error in found["errors"].items():
        assert error < 1e-3, name  # float32, entries up to 300


@linux
@compiled
def test_numpys_blas_is_fast_and_right(tmp_path: Path) -> None:
    found = look("numpy", XDG_CACHE_HOME=str(tmp_path))
    assert found["kind"] == "numpy"
    assert "numpy.libs" in found["library"]
    check(found)
    plain = look("none")
    assert plain["kind"] == "reference"
    check(plain)
    # measured 90 against 2 to 8 GFLOP/s; the control shows that it is this BLAS that makes it fast
    assert found["gflops"] > 3 * plain["gflops"]


FEW = """
import ctypes, json, mmap, sys
from mlx_plastic.backend import BLAS
import numpy as np

ROW_MAJOR, AS_IS, TRANSPOSED = 101, 111, 112
most = int(sys.argv[1])  # rows up to which we compute them ourselves
library = ctypes.CDLL(sys.argv[2] if len(sys.argv) > 2 else None)
if len(sys.argv) > 2:
    assert library.bind_blas(BLAS.library.encode()) == 0
draw = np.random.default_rng(0)

def at(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

def times(x, w, y, alpha=1.0, beta=0.0):
    m, n, k = len(x), len(w), x.shape[1]
    steps = [array.strides[0] // 4 for array in (x, w, y)]
    library.cblas_sgemm(ROW_MAJOR, AS_IS, TRANSPOSED, m, n, k, ctypes.c_float(alpha), at(x), steps[0], at(w),
                        steps[1], ctypes.c_float(beta), at(y), steps[2])
    return y

def normal(rows, columns):  # a part of something larger, as MLX hands over slices
    return draw.standard_normal((rows, columns + 5)).astype(np.float32)[:, :columns]

def at_the_edge(array):  # of memory: behind its last number nothing may be read
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    room = mmap.mmap(-1, size + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + size), mmap.PAGESIZE, 0) == 0
    found = np.frombuffer(room, np.float32, array.size, size - array.nbytes).reshape(array.shape)
    found[:] = array
    return found

worst, alone_differs, spread = 0.0, [], []
for n, k in ((1, 1), (7, 5), (64, 31), (170, 512), (96, 1344), (1000, 8)):
    x, w = normal(most + 4, k), at_the_edge(normal(n, k))
    for m in (*range(1, 21), *(rows for rows in (31, most, most + 1) if 20 < rows < most + 2)):
        y = times(x[:m], w, at_the_edge(np.full((m, n), np.nan, np.float32)))
        exact = x[:m].astype(np.float64) @ w.T.astype(np.float64)
        worst = max(worst, float(abs(y - exact).max()) / k**0.5)
        z = normal(m, n)
        scaled = times(x[:m], w, z.copy(), alpha=0.5, beta=2.0)
        worst = max(worst, float(abs(scaled - (2.0 * z + 0.5 * exact)).max()) / k**0.5)
        if m <= most:
            rows = [times(x[i : i + 1], w, np.zeros((1, n), np.float32))[0] for i in range(m)]
            alone_differs += [(m, n, k)] * (not np.array_equal(rows, y))
    for value in (np.nan, np.inf):  # reaches the numbers that it is a part of, and no others
        ill, weak = x[:7].copy(), w.copy()
        ill[2, k // 2], weak[n // 2, k - 1] = value, value
        found = times(ill, weak, np.zeros((7, n), np.float32))
        struck = np.zeros((7, n), bool)
        struck[2], struck[:, n // 2] = True, True
        spread += [(n, k, value)] * (not np.array_equal(~np.isfinite(found), struck))
print(json.dumps(dict(kind=BLAS.kind, worst=worst, alone_differs=alone_differs, spread=spread)))
"""


def few_rows(*arguments: object, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", FEW, *map(str, arguments)],
        env={**os.environ, "MLX_PLASTIC_BLAS": "numpy", **variables},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "numpy"
    return dict(found)


def check_few(found: dict[str, Any]) -> None:
    assert found["worst"] < 1e-5  # float32, by the root of the terms; NaN where something was not written
    assert found["alone_differs"] == []  # bit for bit
    assert found["spread"] == []


@linux
@compiled
@pytest.mark.parametrize(("threads", "most"), [(1, 64), (2, 16)])
def test_a_few_rows_are_multiplied_right_and_none_depends_on_its_company(threads: int, most: int) -> None:
    check_few(few_rows(most, OPENBLAS_NUM_THREADS=str(threads)))


@linux
@compiled
def test_a_few_rows_are_multiplied_right_on_processors_without_wide_registers(tmp_path: Path) -> None:
    compile_c(blas.SHIM_SOURCE, tmp_path / "plain.so", flags=["-DPLAIN"], libraries=["-ldl"])
    check_few(few_rows(16, tmp_path / "plain.so"))


@linux
@compiled
def test_the_check_of_few_rows_sees_a_fault(tmp_path: Path) -> None:
    """The control: a source whose sums leave out a lane."""
    source = tmp_path / "wrong.c"
    right = blas.SHIM_SOURCE.read_text("utf-8")
    source.write_text(right.replace("all[i] + all[i + TOGETHER]", "all[i]"), "utf-8")
    compile_c(source, tmp_path / "wrong.so", libraries=["-ldl"])
    assert few_rows(16, tmp_path / "wrong.so")["worst"] > 0.1


@linux
def test_a_system_blas_is_fast_and_right_where_there_is_one() -> None:
    found = look("system")
    check(found)
    if found["kind"] == "reference":
        assert "no libopenblas.so.0" in found["notes"][0]
        assert "libopenblas0-pthread" in found["hint"]
        assert "libopenblas0-pthread" in found["stderr"]  # said once, on the way
    else:
        assert found["kind"] == "system"
        assert found["gflops"] > 3 * look("none")["gflops"]


@linux
def test_whatever_is_found_in_order_mlx_computes_right() -> None:
    found = look("auto")
    check(found)
    if found["kind"] == "numpy":
        assert "system" in found["notes"][0]


@linux
def test_mlx_imported_first_is_said(tmp_path: Path) -> None:
    found = look("auto", before="import mlx.core")
    assert (found["kind"], found["notes"]) == ("reference", ["mlx was imported first"])
    assert "imported before" in found["stderr"]


@linux
@compiled
def test_the_shim_is_compiled_once_into_a_folder_of_ours(tmp_path: Path) -> None:
    look("numpy", XDG_CACHE_HOME=str(tmp_path))
    folder = tmp_path / "mlx-plastic" / "blas"
    assert folder.stat().st_mode & 0o777 == 0o700
    (shim,) = folder.iterdir()
    made = shim.stat().st_mtime_ns
    again = look("numpy", XDG_CACHE_HOME=str(tmp_path), PATH="/nowhere")  # nor is a compiler needed again
    assert again["kind"] == "numpy"
    assert shim.stat().st_mtime_ns == made


@linux
@compiled
@pytest.mark.parametrize("harm", ["truncated", "writable by others", "folder writable by others", "a link"])
def test_a_shim_that_may_have_been_tampered_with_is_not_loaded(tmp_path: Path, harm: str) -> None:
    look("numpy", XDG_CACHE_HOME=str(tmp_path))
    (shim,) = (tmp_path / "mlx-plastic" / "blas").iterdir()
    if harm == "truncated":
        shim.write_bytes(shim.read_bytes()[:500])
    elif harm == "writable by others":
        shim.chmod(0o777)
    elif harm == "folder writable by others":
        shim.parent.chmod(0o777)
    else:
        moved = shim.rename(tmp_path / "elsewhere.so")
        shim.symlink_to(moved)
    found = look("numpy", XDG_CACHE_HOME=str(tmp_path))
    assert "the cached shim is not used" in found["notes"][0]
    assert found["kind"] == "numpy"  # compiled afresh, beside the cache
    check(found)


@linux
@compiled
def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "mlx-plastic").write_text("a file where the folder would be")
    assert look("numpy", XDG_CACHE_HOME=str(tmp_path))["kind"] == "numpy"


@linux
def test_without_a_compiler_the_hint_names_one(tmp_path: Path) -> None:
    found = look("numpy", XDG_CACHE_HOME=str(tmp_path), PATH="/nowhere")
    assert found["kind"] == "reference"
    assert "C compiler" in found["hint"] + found["notes"][0]
    check(found)


@linux
@compiled
def test_a_compiler_that_fails_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'no headers here' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unusable, match="cc failed: no headers here"):
        blas._compile(tmp_path / "shim.so")
    assert list(tmp_path.iterdir()) == [broken]


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(BadConfig, match="MLX_PLASTIC_BLAS is 'fast'") as caught:
        load_fast_blas("fast")
    assert "auto, system, numpy, none" in caught.value.hint


@linux
def test_a_number_of_threads_in_the_environment_stays() -> None:
    found = look("auto", OPENBLAS_NUM_THREADS="1")
    if found["kind"] != "reference":
        assert found["threads"] == 1
        free = {name: "" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GOTO_NUM_THREADS")}
        assert look("auto", **free)["threads"] == max(1, available_cores() - 1)


def test_cores_are_counted_within_our_share() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_peak_memory_sees_what_was_held_and_can_start_again() -> None:
    hardware.reset_peak_memory()
    before = hardware.peak_memory_mb()
    held = np.ones(30_000_000)  # 240 MB
    assert hardware.peak_memory_mb() > before + 200
    del held
    if sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK):
        hardware.reset_peak_memory()
        assert hardware.peak_memory_mb() < before + 200


def test_available_memory_is_within_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = hardware.available_memory_bytes()
    assert 10**7 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "linux":
        (tmp_path / "memory.max").write_text("50000000\n")
        (tmp_path / "memory.current").write_text("20000000\n")
        monkeypatch.setattr(hardware, "CGROUP", tmp_path)
        assert hardware.available_memory_bytes() == 30_000_000  # a container's limit counts


def test_low_precision_is_slow_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cpu", "metal", "cuda"):
        monkeypatch.setattr(hardware, "device", lambda kind=kind: Device(kind, "some"))
        assert hardware.is_slow_low_precision() == (kind == "cpu")


def machine(**changes: Any) -> health.Machine:
    good: dict[str, Any] = {
        "device": Device("cpu", "some"),
        "blas": Blas("system", "/lib/libopenblas.so.0", 3),
        "matmul_gflops": 100.0,
        "matmul_gflops_bfloat16": 50.0,
        "matmul_gflops_4bit": 50.0,
        "available_memory_bytes": 8 * 10**9,
        "compiler": "/usr/bin/g++",
        "nvidia": False,
        "python": "3.11.7",
        "platform": "Linux-6",
        "versions": {},
    }
    return health.Machine(**(good | changes))


@pytest.mark.parametrize(
    ("changes", "problem", "fix"),
    [
        ({"blas": Blas("reference", hint=blas.INSTALL)}, "reference BLAS", "libopenblas0-pthread"),
        ({"matmul_gflops": 5.0}, "5.0 GFLOP/s, with a fast BLAS", "end other jobs"),
        ({"matmul_gflops_4bit": 0.5}, "200 times slower", "at most 2.0 billion parameters"),
        ({"compiler": ""}, "no C++ compiler", "apt install g++"),
        ({"nvidia": True}, "NVIDIA GPU is not used", "mlx-plastic[cuda]"),
        ({"available_memory_bytes": 10**9}, "only 1.0 GB", "end other programs"),
    ],
)
def test_what_is_slow_is_found_with_the_line_that_mends_it(
    changes: dict[str, Any], problem: str, fix: str
) -> None:
    found = health.diagnose(machine(**changes))
    assert any(problem in f.problem and fix in f.fix for f in found)
    assert health.diagnose(machine()) == []  # control: a good machine has nothing to mend


def test_a_gpu_is_not_blamed_for_its_cpu() -> None:
    gpu = machine(device=Device("metal", "M4"), blas=Blas("reference", hint="x"), matmul_gflops_4bit=0.1)
    assert health.diagnose(gpu) == []


def test_tasks_side_by_side_all_end_with_what_they_compute_alone() -> None:
    found: dict[int, list[float]] = {}
    most = 0

    def task(number: int) -> Iterator[list[mx.array]]:
        nonlocal most
        found[number] = []
        x = mx.array(float(number))
        for _ in range(number):  # the first has nothing to compute
            x = x * 2
            yield [x]
            most = max(most, sum(len(v) < n for n, v in found.items()))
            found[number].append(float(x.item()))

    side_by_side(task(n) for n in range(6))
    assert found == {n: [n * 2.0 ** (i + 1) for i in range(n)] for n in range(6)}
    assert most <= len(streams())  # no more at a time than there are streams


def test_streams_are_handed_out_breadth_first_on_a_cpu_unless_the_person_says_otherwise() -> None:
    show = "import os, mlx_plastic.backend as b; print(b.device().kind, os.environ.get('MLX_BFS_MAX_WIDTH'))"
    for given, wanted in ((None, "1000"), ("7", "7")):
        env = {k: v for k, v in os.environ.items() if k != "MLX_BFS_MAX_WIDTH"}
        env |= {"MLX_BFS_MAX_WIDTH": given} if given else {}
        done = subprocess.run(
            [sys.executable, "-c", show], capture_output=True, text=True, env=env, check=True
        )
        kind, width = done.stdout.split()
        assert width == (wanted if kind == "cpu" else str(given))
