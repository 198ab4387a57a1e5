"""Shards written tensor by tensor.

where each one goes is known before any is computed, so a crash costs one.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.base.checkpoint import INDEX
from mlx_plastic.home import sync, write_json
from mlx_plastic.lowrank.svd import Array

SHARD_BYTES = 4 << 30
NAMES = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.int64: "I64",
    mx.bool_: "BOOL",
}
JOURNAL = "journal.json"


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.size


@dataclass(frozen=True)
class _Place:
    shard: str
    offset: int  # of its first byte in the file


class Shards:
    """A folder of shards being written in the order of `tensors`, which may be gone on with after a crash.

    identity: what these tensors are made from; what lies there of another one is overwritten.
    """

    def __init__(
        self, folder: Path, tensors: Sequence[Tensor], identity: str, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = folder
        self.tensors = list(tensors)
        self.identity = identity
        groups = list(_groups(self.tensors, shard_bytes))
        self.headers: dict[str, bytes] = {}
        self.places: dict[str, _Place] = {}
        for i, group in enumerate(groups):
            one = (
                "model.safetensors"
                if len(groups) == 1
                else f"model-{i + 1:05}-of-{len(groups):05}.safetensors"
            )
            self.headers[one] = _header(group)
            start = len(self.headers[one])
            for tensor in group:
                self.places[tensor.name] = _Place(one, start)
                start += tensor.nbytes
        self.done = self._resumed()

    @property
    def total_bytes(self) -> int:
        return sum(t.nbytes for t in self.tensors)

    @property
    def bytes_left(self) -> int:
        return sum(t.nbytes for t in self.tensors[self.done :])

    def _resumed(self) -> int:
        """How many tensors are on the disk already, whole."""
        try:
            journal = json.loads((self.folder / JOURNAL).read_text("utf-8"))
            if journal["identity"] == self.identity:
                return min(int(journal["done"]), len(self.tensors))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0

    def write(self, named: Sequence[tuple[str, Array]]) -> None:
        """The next tensors, in their order, on the disk when this returns.

        bfloat16 comes as its uint16 bits.
        """
        for tensor, (name, array) in zip(self.tensors[self.done :], named, strict=False):
            if name != tensor.name or array.nbytes != tensor.nbytes:
                raise AssertionError(f"{name} of {array.nbytes} bytes, where {tensor} was to be")
            place = self.places[name]
            path = self.folder / place.shard
            with open(path, "r+b" if path.exists() else "w+b") as file:
                file.write(self.headers[place.shard])
                file.truncate(place.offset)  # what a crash left of this tensor, or of later ones
                file.seek(place.offset)
                file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
                file.flush()
                sync(file.fileno())
        self.done += len(named)
        write_json(self.folder / JOURNAL, {"identity": self.identity, "done": self.done})

    def close(self) -> None:
        """The index that names them all; the journal goes."""
        where = {t.name: self.places[t.name].shard for t in self.tensors}
        about = {"total_size": self.total_bytes}
        write_json(self.folder / INDEX, {"metadata": about, "weight_map": dict(sorted(where.items()))})
        (self.folder / JOURNAL).unlink(missing_ok=True)


def _groups(tensors: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    group: list[Tensor] = []
    for tensor in tensors:
        if group and sum(t.nbytes for t in group) + tensor.nbytes > most:
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


def _header(tensors: Sequence[Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    start = 0
    for t in tensors:
        span = [start, start + t.nbytes]
        entries[t.name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": span}
        start += t.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def bits_of(array: mx.array) -> Array:
    """A numpy array with the same bytes; numpy has no bfloat16, so that comes as uint16."""
    array = mx.contiguous(array)
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


CARRIED = re.compile(
    r"(?i)^(?!config\.json$|model.*\.index\.json$|compress\.json$|fused\.json$).*"
    r"\.(json|jinja|model|tiktoken|txt)$|^(licen[cs]e|notice|copying|use_policy).*"
)


def carry(source: Path, out: Path) -> list[str]:
    """Copy what belongs to a checkpoint beside its weights: tokenizer, templates, generation config, licence.

    Its README comes as README.base.md: it speaks of the base. Returns the names.
    """
    found = []
    for file in sorted(source.iterdir()):
        name = "README.base.md" if file.name.lower() == "readme.md" else file.name
        if file.is_file() and (CARRIED.match(file.name) or name != file.name):
            data = file.read_bytes()
            (out / name).write_bytes(data)
            found.append(name)
    return found


def free_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize
