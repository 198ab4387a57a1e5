"""Shards written tensor by tensor: where each goes is known before any is computed, so a crash costs one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlx_plastic.base.checkpoint import INDEX
from mlx_plastic.base.sharding import SHARD_BYTES, Tensor, header, sharded
from mlx_plastic.home import sync, write_json
from mlx_plastic.lowrank.svd import Array

JOURNAL = "journal.json"


@dataclass(frozen=True)
class _Place:
    shard: str
    offset: int  # of its first byte in the file
    nbytes: int


class Shards:
    """A folder of shards being written in the order of `tensors`, which may be gone on with after a crash.

    identity: what these tensors are made from; what lies there of another one is overwritten.
    """

    def __init__(
        self, folder: Path, tensors: Sequence[Tensor], identity: str, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder = folder
        self.tensors = list(tensors)
        self.headers: dict[str, bytes] = {}
        self.places: dict[str, _Place] = {}
        for shard, group in sharded(self.tensors, shard_bytes):
            self.headers[shard] = header(group)
            start = len(self.headers[shard])
            for tensor in group:
                self.places[tensor.name] = _Place(shard, start, tensor.nbytes)
                start += tensor.nbytes
        layout = b"".join(self.headers.values())  # another version may write other tensors
        self.identity = hashlib.sha256(identity.encode("utf-8") + layout).hexdigest()
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
                _put(file, place, array)
        self.done += len(named)
        write_json(self.folder / JOURNAL, {"identity": self.identity, "done": self.done})

    def replace(self, name: str, array: Array) -> None:
        """Put other values in the place of a tensor that was written; on the disk when this returns."""
        place = self.places[name]
        if array.nbytes != place.nbytes:
            raise AssertionError(f"{name} of {array.nbytes} bytes, where {place.nbytes} stand")
        with open(self.folder / place.shard, "r+b") as file:
            _put(file, place, array)

    def close(self) -> None:
        """The index that names them all; the journal goes."""
        where = {t.name: self.places[t.name].shard for t in self.tensors}
        about = {"total_size": self.total_bytes}
        write_json(self.folder / INDEX, {"metadata": about, "weight_map": dict(sorted(where.items()))})
        (self.folder / JOURNAL).unlink(missing_ok=True)


def _put(file: BinaryIO, place: _Place, array: Array) -> None:
    file.seek(place.offset)
    file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    file.flush()
    sync(file.fileno())


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
            shutil.copyfile(file, out / name)
            found.append(name)
    return found
