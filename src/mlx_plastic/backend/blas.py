"""A fast BLAS in front of the slow one that MLX's Linux wheel links.

The wheel carries the reference BLAS, 20 to 60 times slower than OpenBLAS. Its calls are bound when MLX is
imported, to the first library in the process's global scope that has the name: so a fast one is loaded
there before. On macOS MLX uses Accelerate and nothing is to be done.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from mlx_plastic.errors import BadConfig
from mlx_plastic.machine import CannotCompile, available_cores, compile_c, load_compiled

log = logging.getLogger(__name__)

BLAS_VARIABLE = "MLX_PLASTIC_BLAS"
CHOICES = ("auto", "system", "numpy", "none")
SYSTEM_LIBRARIES = ("libopenblasp.so.0", "libopenblas.so.0", "libopenblas.so")  # Fedora's second is serial
SHIM_SOURCE = Path(__file__).with_name("blas_shim.c")
INSTALL = (
    "install a fast BLAS: sudo apt install libopenblas0-pthread (Debian, Ubuntu), "
    "sudo dnf install openblas-threads (Fedora), or any C compiler"
)

Kind = Literal["accelerate", "system", "numpy", "reference"]


@dataclass(frozen=True)
class Blas:
    """What answers MLX's matrix products on the CPU, and how that was found.

    kind: "system" an OpenBLAS of this machine, "numpy" the one inside numpy's wheel, "reference" MLX's own.
    library: the file; empty for MLX's own and Accelerate. threads: 0 when not known.
    notes: what was tried and did not do. hint: what the user can do about it; empty when it is fast.
    """

    kind: Kind
    library: str = ""
    threads: int = 0
    notes: tuple[str, ...] = ()
    hint: str = ""


class Unusable(Exception):
    """This way to a fast BLAS does not work here; the text says why."""


def load_fast_blas(choice: str | None = None) -> Blas:
    """Put a fast BLAS in MLX's way; call before MLX is imported.

    choice: "auto" (system, then numpy's), "system", "numpy" or "none"; None asks MLX_PLASTIC_BLAS.
    Raises BadConfig for another word.
    """
    choice = choice or os.environ.get(BLAS_VARIABLE) or "auto"
    if choice not in CHOICES:
        raise BadConfig(f"{BLAS_VARIABLE} is {choice!r}", hint=f"use one of {', '.join(CHOICES)}")
    if sys.platform == "darwin":
        return Blas("accelerate")
    if choice == "none":
        return Blas("reference", notes=(f"{BLAS_VARIABLE}=none",), hint=f"unset {BLAS_VARIABLE}")
    if "mlx.core" in sys.modules:
        log.warning("matrix products will be slow: mlx was imported before mlx_plastic.backend")
        return Blas("reference", notes=("mlx was imported first",), hint="import mlx_plastic.backend first")
    ways = {"system": _system, "numpy": _numpy}
    notes: list[str] = []
    for name in ways if choice == "auto" else (choice,):
        try:
            found = ways[name](notes)
        except Unusable as error:
            notes.append(f"{name}: {error}")
            continue
        log.debug("BLAS: %s, %d threads", found.library, found.threads)
        return found
    log.warning("matrix products will be slow: %s", INSTALL)
    return Blas("reference", notes=tuple(notes), hint=INSTALL)


def _system(notes: list[str]) -> Blas:
    """An OpenBLAS installed on this machine, in the global scope."""
    _bind_private_copies()
    reasons = []
    for name in SYSTEM_LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            _check_interface(library)
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            reasons.append(f"no {name}")
        except Unusable as error:
            reasons.append(f"{name} {error}")
        else:
            path = _file_of(library, "cblas_sgemm")
            _check_scope(path)
            return Blas("system", path, _limit_threads(library, "openblas_{}_num_threads"), tuple(notes))
    raise Unusable(", ".join(reasons))


def _bind_private_copies() -> None:
    """Bind numpy's and scipy's own OpenBLAS to themselves before another one becomes global.

    They export OpenBLAS's internals under the same names, so that loaded later they would run on the
    internals of the system's, of another version.
    """
    for package in ("numpy", "scipy"):
        for path in _bundled(package):
            try:
                ctypes.CDLL(str(path))
            except OSError as error:
                log.debug("%s: %s", path, error)


def _check_interface(library: ctypes.CDLL) -> None:
    """MLX calls with 32-bit integers: a library built for 64-bit ones would read past them."""
    if not (hasattr(library, "cblas_sgemm") and hasattr(library, "openblas_get_config")):
        raise Unusable("has no CBLAS")
    library.openblas_get_config.restype = ctypes.c_char_p
    if b"USE64BITINT" in library.openblas_get_config():
        raise Unusable("has 64-bit integers")


def _numpy(notes: list[str]) -> Blas:
    """The OpenBLAS inside numpy's wheel, through a shim compiled once."""
    bundled = _bundled("numpy")
    if not bundled:
        raise Unusable("this numpy carries no OpenBLAS of its own")
    path = bundled[0]
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unusable(f"{path.name}: {error}") from error
    shim = _load_shim(path, notes)
    _check_scope(_file_of(shim, "bind_blas"))
    return Blas("numpy", str(path), _limit_threads(library, "scipy_openblas_{}_num_threads64_"), tuple(notes))


def _bundled(package: str) -> list[Path]:
    """The OpenBLAS files that a wheel of `package` put beside it; the package is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    beside = Path(spec.origin).parent.parent / f"{package}.libs"
    return sorted(beside.glob("libscipy_openblas*.so"))


def _load_shim(library: Path, notes: list[str]) -> ctypes.CDLL:
    """The shim bound to numpy's library, and only then in the global scope."""
    try:
        return load_compiled(
            *(_shim_file(), _compile, lambda file: _bind_shim(file, library)),
            unused=lambda why: notes.append(f"numpy: the cached shim is not used: {why}"),
        )
    except OSError as error:
        raise Unusable(f"the shim cannot be loaded: {error}") from error


def _bind_shim(file: Path, library: Path) -> ctypes.CDLL:
    shim = ctypes.CDLL(str(file))
    if missing := shim.bind_blas(os.fsencode(library)):
        raise Unusable(f"{library.name} lacks {missing} of the names needed")
    return ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)


def _shim_file() -> Path:
    """Where the compiled shim of this source, machine and C library is kept."""
    kind = f"{os.uname().machine} {os.confstr('CS_GNU_LIBC_VERSION')}"
    key = hashlib.sha256(SHIM_SOURCE.read_bytes() + kind.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("mlx-plastic") / "blas" / f"shim-{key}.so"


def _compile(file: Path) -> None:
    """The shim into `file`. Raises Unusable without a compiler that works, OSError if it cannot be made."""
    try:
        compile_c(SHIM_SOURCE, file, libraries=["-ldl"])
    except CannotCompile as error:
        raise Unusable(str(error)) from error


def _check_scope(expected: str) -> None:
    """MLX will bind to the first cblas_sgemm of the global scope: it must be ours."""
    first = _file_of(ctypes.CDLL(None), "cblas_sgemm")
    if first != expected:
        raise Unusable(f"{first or 'nothing'} answers first, not {expected}")


class _SymbolInfo(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _file_of(library: ctypes.CDLL, symbol: str) -> str:
    """The file in which `library`'s scope finds `symbol` first; empty if it does not."""
    if not hasattr(library, symbol):
        return ""
    info = _SymbolInfo()
    found = ctypes.CDLL(None).dladdr(getattr(library, symbol), ctypes.byref(info))
    return os.fsdecode(info.file) if found and info.file else ""


def _limit_threads(library: ctypes.CDLL, names: str) -> int:
    """OpenBLAS's number of threads, brought down to one less than the cores we may use, at least 1.

    Its threads spin while they wait for each other, so one that finds no core stops all: measured with
    another job on two cores, n = 256, 96 GFLOP/s on one thread and 3 on two; idle, training gained 22 %
    from the second. One core is left to Python and the rest of the machine. A number that the user set in
    the environment stays.
    """
    threads = int(getattr(library, names.format("get"))())
    if not any(os.environ.get(f"{name}_NUM_THREADS") for name in ("OPENBLAS", "GOTO", "OMP")):
        threads = max(1, min(threads, available_cores() - 1))
        getattr(library, names.format("set"))(threads)
    return threads
