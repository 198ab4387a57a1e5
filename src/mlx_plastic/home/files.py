"""How files get on the disk whole."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any


def sync(descriptor: int) -> None:
    """Force a file's bytes to the disk itself; macOS needs more than fsync for that."""
    if sys.platform == "darwin":  # fsync there stops at the drive's cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write beside, fsync, rename: a crash or a full disk leaves the old file or the new one.

    mode: of the file, from its first moment; None: as the process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    first = 0o666 if mode is None else mode  # who opens it before it is changed may read on
    try:
        with open(beside, "wb", opener=lambda name, flags: os.open(name, flags, first)) as file:
            if mode is not None:  # which the process's own mask may have narrowed
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            sync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, mode: int | None = None) -> None:
    """`value` as readable JSON, atomically. NaN and infinities are refused: JSON has none."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode("utf-8"), mode=mode)


def append_line(path: Path, value: Any) -> None:
    """One JSON object more at the end of a JSONL file, whole and synced, or not at all.

    What a crash left of an earlier line stays a bad line of its own. Raises OSError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        end = os.fstat(descriptor).st_size
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):
            os.ftruncate(descriptor, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(descriptor)
    finally:
        os.close(descriptor)
