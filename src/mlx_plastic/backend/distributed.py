"""Several processes that train one pack together, as `mlx.launch` starts them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

log = logging.getLogger(__name__)

SILENCE_S = 600.0  # without a word from the others they are taken for lost


@dataclass(frozen=True)
class World:
    """This process among the others; alone it is 0 of 1."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def summed(self, *arrays: mx.array) -> tuple[mx.array, ...]:
        """Each array, summed over all processes, the same bits in each."""
        if self.size == 1:
            return arrays
        return tuple(mx.distributed.all_sum(x, group=self.group, stream=mx.cpu) for x in arrays)

    def told(self, data: bytes | None) -> bytes | None:
        """What the first process has in `data`, in every process."""
        if self.size == 1:
            return data
        mine = data if self.first else None
        (length,) = self.summed(mx.array([-1 if mine is None else len(mine)], mx.int32) * int(self.first))
        count = int(length.item())  # type: ignore[arg-type]  # never complex here
        if count < 0:
            return None
        sent = np.frombuffer(mine, np.uint8) if mine else np.zeros(count, np.uint8)
        (found,) = self.summed(mx.array(sent.astype(np.int32)))
        return np.array(found).astype(np.uint8).tobytes()

    @contextmanager
    def watched(self) -> Iterator[Watchdog]:
        """A watchdog to be fed after each step: this process ends if the others fall silent.

        A collective that waits for a lost process waits for ever, and cannot be interrupted.
        """
        dog = Watchdog(SILENCE_S if self.size > 1 else 0.0)
        try:
            yield dog
        finally:
            dog.stop()


class Watchdog:
    """Ends the process with exit code 1 when it was not fed for `silence_s` seconds; 0: never."""

    def __init__(self, silence_s: float) -> None:
        self.silence_s = silence_s
        self._timer: threading.Timer | None = None
        self.feed()

    def feed(self) -> None:
        self.stop()
        if self.silence_s:
            self._timer = threading.Timer(self.silence_s, self._bite)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _bite(self) -> None:
        log.critical(
            "no word from the other processes for %.0f s: this one ends; start all again with --resume",
            self.silence_s,
        )
        os._exit(1)


def world() -> World:
    """The processes that mlx.launch started this one with; alone without it."""
    group = mx.distributed.init()
    return World(group.rank(), group.size(), group)
