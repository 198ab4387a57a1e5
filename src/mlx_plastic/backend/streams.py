"""Queues of operations that a CPU computes side by side."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx

from mlx_plastic.backend.blas import Blas
from mlx_plastic.backend.hardware import device
from mlx_plastic.machine import available_cores

MOST = 4
_kept = threading.local()  # MLX's streams belong to a thread and are never freed


def let_streams_overlap() -> None:
    """Have MLX hand out operations breadth first; call before the first evaluation.

    It hands them out at most about 100 ahead, so that depth first, its default, one stream would be done
    before the next has any.
    """
    if device().kind == "cpu":
        os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")


def make_streams(blas: Blas) -> list[Any]:
    """The calling thread's streams, the default one first; more than one only on a CPU with cores to spare.

    MLX's CPU backend computes the operations of a stream one after the other, and only matrix products on
    several threads; so where BLAS is kept to few threads, more streams use more cores. What is to run side by
    side must be evaluated in one call.
    """
    if not hasattr(_kept, "streams"):
        more = 0
        if device().kind == "cpu":
            more = min(MOST, available_cores() // max(1, blas.threads)) - 1
        first = mx.default_stream(mx.default_device())
        _kept.streams = [first, *(mx.new_stream(mx.cpu) for _ in range(more))]
    found: list[Any] = _kept.streams
    return found


def run_side_by_side(tasks: Iterable[Iterator[list[Any]]], streams: list[Any]) -> None:
    """Run all tasks, as many at a time as there are streams; each yields what is to be computed next.

    It is computed while the tasks look at what they yielded before.
    """
    waiting, free = iter(tasks), streams[::-1]
    running: list[tuple[Any, Iterator[list[Any]]]] = []
    while True:
        running += [(free.pop(), task) for task in itertools.islice(waiting, len(free))]
        if not running:
            return
        wanted: list[Any] = []
        for stream, task in list(running):
            with mx.stream(stream):
                found = next(task, None)
            if found is None:
                running.remove((stream, task))
                free.append(stream)
            else:
                wanted += found
        mx.async_eval(wanted)
