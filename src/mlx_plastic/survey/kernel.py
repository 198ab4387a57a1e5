"""kernel.c, compiled once for this machine and called with numpy's arrays; no lock of Python is held in it.

Why C: numba reached a half to a quarter of its speed where the two were compared, brings an LLVM of 120 MB,
and compiles at each start; C needs only the compiler that MLX itself wants for fused kernels. Without one
`plain.py` gives the same numbers, 10 to 30 times slower.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from mlx_plastic.machine import CannotCompile, compile_c, load_compiled
from mlx_plastic.survey.plain import MODES, TYPES, PlainKernel
from mlx_plastic.survey.schemes import Scheme

log = logging.getLogger(__name__)

Array = NDArray[Any]

KERNEL_VARIABLE = "MLX_PLASTIC_KERNEL"  # "plain": do without the compiled one
SOURCE = Path(__file__).with_name("kernel.c")
CODES = 65536
# no contraction: a * b + c rounds twice here as it does in MLX
FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
TUNED = ("-march=native", "-mcpu=native", "")  # the first that the compiler takes

_types = {"mode": "i", "bits": "i", "group": "i", "scale_type": "i", "round_exponent": "i", "unused": "i"}
_sums = {"error2": "d", "scale_sum": "d", "bias_sum": "d"}
_most = {"error_max": "f", "scale_max": "f", "bias_max": "f", "unused2": "f"}
_ctypes: dict[str, Any] = {"i": ctypes.c_int32, "d": ctypes.c_double, "f": ctypes.c_float}


class SchemeRecord(ctypes.Structure):
    """`Scheme` of kernel.c: what to do, and what came of it, in sums over values and groups."""

    _fields_ = tuple((name, _ctypes[kind]) for name, kind in {**_types, **_sums, **_most}.items())


def record(scheme: Scheme, scale_type: str, round_exponent: bool) -> SchemeRecord:
    return SchemeRecord(
        *(MODES[scheme.mode], scheme.bits, scheme.group_size, TYPES[scale_type], int(round_exponent))
    )


class Kernel:
    """The functions of kernel.c. dtype: "bfloat16" and "float16" come as their 2-byte codes (uint16)."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._kept = threading.local()  # what is as large at each call is made once for each thread

    def _zeros(self, name: str, shape: tuple[int, ...]) -> Array:
        """uint32 zeros, the same memory at each call."""
        found: Array | None = getattr(self._kept, name, None)
        if found is None:
            found = np.zeros(shape, np.uint32)
            setattr(self._kept, name, found)
        else:
            found.fill(0)
        return found

    def matrix(
        self, w: Array, dtype: str, *, sizes: Sequence[int], records: Sequence[SchemeRecord]
    ) -> tuple[Array | None, Array, list[Array]]:
        """One pass over w (rows, cols), C-contiguous; fills `records`.

        sizes: of groups, multiples of 16 that divide cols, as the groups of the records do. Returns counts of
        codes (65536,) for 2-byte types, sums of |w| by column (cols,), and max / mean by group of each size.
        """
        rows, cols = w.shape
        counts = self._zeros("codes", (2, CODES)) if dtype != "float32" else None
        columns = np.zeros(cols, np.float64)
        outliers = [np.empty(w.size // size, np.float32) for size in sizes]
        places = (ctypes.c_void_p * max(1, len(sizes)))(*(o.ctypes.data for o in outliers))
        group_sizes = np.array(sizes, np.int32)
        filled = (SchemeRecord * max(1, len(records)))(*records)
        self._library.survey_matrix(
            *(_at(w), ctypes.c_int(TYPES[dtype]), ctypes.c_int64(rows), ctypes.c_int64(cols)),
            *(None if counts is None else _at(counts), _at(columns)),
            *(ctypes.c_int(len(sizes)), _at(group_sizes), places, ctypes.c_int(len(records)), filled),
        )
        for mine, theirs in zip(records, filled, strict=False):
            ctypes.memmove(ctypes.byref(mine), ctypes.byref(theirs), ctypes.sizeof(SchemeRecord))
        return None if counts is None else counts[0] + counts[1], columns, outliers

    def codes(self, counts: Array, dtype: str) -> tuple[Array, Array]:
        """Of counts of 2-byte codes (65536,): sums (7,), and how many are at most each magnitude (32768,).

        The sums: how many are finite, how many not; of the finite w, |w|, w^2, (w - mean)^2, (w - mean)^4.
        """
        sums, reached = np.empty(7), np.empty(CODES // 2, np.int64)
        self._library.survey_codes(_at(counts), ctypes.c_int(TYPES[dtype]), _at(sums), _at(reached))
        return sums, reached

    def decode(self, w: Array, dtype: str, one: SchemeRecord) -> Array:
        """What the scheme makes of w, float32, of w's shape; rows are a whole number of groups."""
        out = np.empty(w.shape, np.float32)
        fresh = SchemeRecord.from_buffer_copy(one)  # the sums of `one` stay those of its matrix
        self._library.survey_decode(
            *(_at(w), ctypes.c_int(TYPES[dtype]), ctypes.c_int64(w.size), ctypes.byref(fresh), _at(out))
        )
        return out

    def select(self, values: Array, k: int) -> tuple[float, float]:
        """The values at places k and k + 1 (k again at the end) of float32 values >= 0 put in order."""
        scratch, room, found = self._zeros("select", (CODES,)), np.empty_like(values), np.empty(2, np.float32)
        self._library.survey_select(
            *(_at(values), ctypes.c_int64(values.size), ctypes.c_int64(k)),
            *(_at(scratch), _at(room), _at(found)),
        )
        return float(found[0]), float(found[1])

    def count32(self, w: Array) -> tuple[Array, float, float]:
        """Counts of the upper 16 bits of |w| (32768,), and the sums of w and |w| over what is finite."""
        counts, sums = np.zeros(CODES // 2, np.uint32), np.zeros(2)
        self._library.survey_count32(_at(w), ctypes.c_int64(w.size), _at(counts), _at(sums))
        return counts.astype(np.int64), float(sums[0]), float(sums[1])

    def moments32(self, w: Array, mean: float, bins: Sequence[int]) -> tuple[Array, Array]:
        """Sums of (w - mean)^2, (w - mean)^4 and w^2; counts of the lower 16 bits within each upper half."""
        wanted = np.array(bins, np.uint16)
        counts, sums = np.zeros((max(1, len(bins)), CODES), np.uint32), np.zeros(3)
        self._library.survey_moments32(
            *(_at(w), ctypes.c_int64(w.size), ctypes.c_double(mean), ctypes.c_int(len(bins))),
            *(_at(wanted), _at(counts), _at(sums)),
        )
        return sums, counts


def _at(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def load_kernel() -> Any:
    """The compiled kernel, or its slow stand-in in numpy where there is no compiler; both give the same."""
    if os.environ.get(KERNEL_VARIABLE) == "plain":
        return PlainKernel()
    try:
        return Kernel(_load())
    except (CannotCompile, OSError) as error:
        log.warning("the survey will be 10 to 30 times slower: %s; install gcc or clang", error)
        return PlainKernel()


def _load() -> ctypes.CDLL:
    """Of a source and a processor there is one compiled file in the cache; without a cache a passing one."""
    key = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode() + _processor().encode()).hexdigest()[:16]
    cached = platformdirs.user_cache_path("mlx-plastic") / "survey" / f"kernel-{key}.so"
    return load_compiled(
        *(cached, _compile, lambda file: ctypes.CDLL(str(file))),
        unused=lambda why: log.debug("the cached kernel is not used: %s", why),
    )


def _compile(file: Path) -> None:
    log.warning("the survey's kernel is compiled for this machine, once: a quarter of a minute or more")
    last = CannotCompile("no C compiler")
    for tuned in TUNED:
        try:
            return compile_c(SOURCE, file, flags=[*FLAGS, *filter(None, [tuned])], libraries=["-lm"])
        except CannotCompile as error:
            last = error
    raise last


def _processor() -> str:
    """What a file compiled for this processor depends on: it may not be loaded on another kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.system()} {platform.machine()} {features}"
