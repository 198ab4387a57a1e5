"""The machine below MLX: its cores, and C compiled once into a folder that is ours alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

L = TypeVar("L")

COMPILERS = ("cc", "gcc", "clang")


class CannotCompile(Exception):
    """There is no C compiler, or it does not do; the text says why."""


def available_cores() -> int:
    """Cores that this process may keep busy: its affinity mask, and its container's quota, at least 1."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return max(1, min(mask, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return mask


def load_compiled(
    cached: Path, build: Callable[[Path], None], load: Callable[[Path], L], unused: Callable[[str], None]
) -> L:
    """What `load` makes of the library that `build` puts into `cached`, once; else of one that passes.

    unused: is told why the cached one is not taken. Raises what `build` raises, and OSError if no file loads.
    """
    try:
        make_private(cached.parent)
        if not cached.exists():
            build(cached)
        check_private(cached)
        return load(cached)
    except OSError as error:
        unused(str(error))
        if is_owned(cached):
            with contextlib.suppress(OSError):
                cached.unlink()  # torn, or of another machine: the next run compiles it again
    with tempfile.TemporaryDirectory(prefix="mlx-plastic-") as folder:  # a loaded file may be unlinked
        fresh = Path(folder) / cached.name
        build(fresh)
        return load(fresh)


def make_private(folder: Path) -> None:
    """A folder that only we can write: code is loaded from it. Raises OSError if it is not ours alone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    check_private(folder)


def check_private(path: Path) -> None:
    """Raises OSError if somebody else could have changed what is at `path`."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or not is_owned(path) or found.st_mode & 0o022:
        raise OSError(f"{path} can be written by others")


def is_owned(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def compile_c(source: Path, file: Path, *, flags: Sequence[str] = (), libraries: Sequence[str] = ()) -> None:
    """Compile a shared library beside `file`, then rename: two processes may do so at once.

    Raises CannotCompile without a compiler that works, OSError if the folder cannot be written.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CannotCompile("no C compiler")
    handle, beside = tempfile.mkstemp(dir=file.parent, suffix=".part")
    os.close(handle)
    command = [compiler, "-O2", *flags, "-shared", "-fPIC", "-o", beside, str(source), *libraries]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise CannotCompile(f"{compiler} failed: {last}")
        os.chmod(beside, 0o700)
        os.replace(beside, file)
    except subprocess.TimeoutExpired as error:
        raise CannotCompile(f"{compiler} did not end") from error
    finally:
        Path(beside).unlink(missing_ok=True)
