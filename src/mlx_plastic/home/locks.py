"""Locks between the processes of one home; they go with the process that holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from mlx_plastic.errors import Busy
from mlx_plastic.home.place import Home

SEEN_S = 0.2  # longer than `is_locked` holds a lock: who waits so long is not refused for being looked at


@contextlib.contextmanager
def locked(home: Home, what: str, *, hint: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the home's lock `what`; it goes with the process, so a crash leaves none behind.

    Raises Busy if another process holds it for longer than `wait_s` seconds.
    """
    path = home.lock_file(what)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise Busy(f"another process holds the lock {what!r} of {home.root}", hint=hint) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(home: Home, what: str) -> bool:
    """Whether anybody holds the home's lock `what` now.

    It is taken for a moment to find out, so a lock that is looked at is to be taken with `wait_s` SEEN_S.
    """
    path = home.lock_file(what)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
