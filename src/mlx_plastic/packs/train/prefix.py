"""What the frozen part of a model makes of each sample, kept from one epoch to the next.

Kept are exact copies, so training with the cache and without it takes the same steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.backend import mx

log = logging.getLogger(__name__)

Array = NDArray[Any]
SUFFIX = ".npy"


class Activations:
    """Hidden states by what they were computed from: up to `most_bytes` in memory, then on disk.

    identity: names the frozen part (base fingerprint, what it wears, which block); part of every key.
    folder: where they outlive the process, up to `most_disk_bytes`; None: nowhere. What was put in first
    stays: in epochs that visit every sample once, throwing out the oldest would never hit.
    """

    def __init__(
        self,
        identity: str,
        *,
        most_bytes: int,
        folder: Path | None = None,
        most_disk_bytes: int = 0,
    ) -> None:
        self.identity = identity
        self.most_bytes = most_bytes
        self.folder = folder
        self.most_disk_bytes = most_disk_bytes
        self.bytes = 0
        self.disk_bytes = _size(folder) if folder else 0
        self.hits = self.misses = 0
        self._kept: dict[str, Array] = {}

    def key(self, *parts: Any) -> str:
        return hashlib.sha256(repr((self.identity, *parts)).encode("utf-8")).hexdigest()

    def get(self, key: str) -> Array | None:
        """The states under that key; None if they have to be computed."""
        found = self._kept.get(key)
        if found is None:
            found = self._read(key)
        self.hits += found is not None
        self.misses += found is None
        return found

    def put(self, key: str, states: Array) -> None:
        """Keep the states, where there is room."""
        if self.bytes + states.nbytes <= self.most_bytes:
            self._kept[key] = states
            self.bytes += states.nbytes
        elif self.folder and self.disk_bytes + states.nbytes <= self.most_disk_bytes:
            self._write(key, states)

    def _read(self, key: str) -> Array | None:
        if self.folder is None:
            return None
        try:
            found: Array = np.load(self.folder / f"{key}{SUFFIX}", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            log.debug("an entry of the cache is unreadable (%s): computed again", type(error).__name__)
            return None
        return found

    def _write(self, key: str, states: Array) -> None:
        assert self.folder is not None
        beside = self.folder / f".{key}.{os.getpid()}.part"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(beside, "wb") as file:
                np.save(file, states, allow_pickle=False)
            os.replace(beside, self.folder / f"{key}{SUFFIX}")
            self.disk_bytes += states.nbytes
        except OSError as error:  # a cache that cannot be written costs time, nothing else
            log.debug("cannot keep activations: %s", error.strerror)
            self.most_disk_bytes = 0
            with contextlib.suppress(OSError):
                beside.unlink()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"*{SUFFIX}")) if folder.is_dir() else 0


def to_numpy(states: mx.array) -> Array:
    """The very bits of `states`; numpy has no bfloat16, so that comes as uint16."""
    return np.array(states.view(mx.uint16) if states.dtype == mx.bfloat16 else states)


def from_numpy(states: Array, dtype: mx.Dtype) -> mx.array:
    """What `to_numpy` was given."""
    found = mx.array(states)
    return found.view(mx.bfloat16) if dtype == mx.bfloat16 else found
