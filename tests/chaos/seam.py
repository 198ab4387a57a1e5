"""The shim of seam.c: compiled once, put before libc by starting this process again, and armed in a child."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path

from mlx_plastic.machine import CannotCompile, compile_c

MODES = {"count": 1, "kill": 2, "tear": 3, "full": 4, "fail": 5, "clock": 6}
MARK = "MLX_PLASTIC_CHAOS"


def start_again_behind_it() -> None:
    """Returns at once in a process that has the shim; else compiles it and becomes such a process.

    Raises SystemExit where there is no Linux or no C compiler.
    """
    if os.environ.get(MARK):
        os.environ.pop("LD_PRELOAD", None)  # what this process starts by exec shall not count
        return
    if sys.platform != "linux":
        sys.exit("the shim before libc needs Linux")
    folder = Path(tempfile.mkdtemp(prefix="chaos"))
    try:
        compile_c(Path(__file__).with_name("seam.c"), folder / "seam.so", libraries=["-ldl"])
    except CannotCompile as error:
        sys.exit(f"the shim before libc needs a C compiler: {error}")
    os.environ |= {"LD_PRELOAD": str(folder / "seam.so"), MARK: str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    os.execv(sys.executable, sys.orig_argv[:1] + sys.orig_argv[1:])


def _library() -> ctypes.CDLL:
    found = ctypes.CDLL(None)
    found.chaos_arm.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long]
    found.chaos_places.restype = found.chaos_hits.restype = ctypes.c_long
    return found


def arm(mode: str, place: int = 0, seconds: int = 0) -> None:
    """From now on, in this process: at the `place`-th call that changes a file `mode` happens."""
    _library().chaos_arm(MODES[mode], place, seconds)


def disarm() -> None:
    _library().chaos_arm(0, 0, 0)


def places() -> int:
    """Calls that changed a file since `arm`."""
    return int(_library().chaos_places())


def hits() -> int:
    """How often the fault happened since `arm`; a process that was killed cannot be asked."""
    return int(_library().chaos_hits())
