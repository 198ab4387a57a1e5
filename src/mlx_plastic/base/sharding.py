"""How the weights of a checkpoint lie in SafeTensors files, known before any of them is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mlx_plastic.backend import mx
from mlx_plastic.home import write_atomic
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


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint that is to be written."""

    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.size


T = TypeVar("T", bound=Tensor)
X = TypeVar("X")


def sharded(tensors: Sequence[T], most: int) -> list[tuple[str, list[T]]]:
    """The shards by name, each with its tensors in their order: at most `most` bytes, or one tensor."""
    groups = list(grouped(tensors, [t.nbytes for t in tensors], most))
    if len(groups) == 1:
        return [("model.safetensors", groups[0])]
    return [(f"model-{i + 1:05}-of-{len(groups):05}.safetensors", group) for i, group in enumerate(groups)]


def grouped(items: Sequence[X], sizes: Sequence[int], most: int) -> Iterator[list[X]]:
    """The items in their order, in groups of at most `most` bytes, or of one item."""
    group: list[X] = []
    taken = 0
    for item, size in zip(items, sizes, strict=True):
        if group and taken + size > most:
            yield group
            group, taken = [], 0
        group.append(item)
        taken += size
    if group:
        yield group


def header(tensors: Sequence[Tensor]) -> bytes:
    """The beginning of a SafeTensors file that holds these, one behind the other."""
    entries: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    start = 0
    for t in tensors:
        stop = start + t.nbytes
        entries[t.name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


QUANTIZATION = ("quantization", "quantization_config")


def plain_config(folder: Path) -> dict[str, Any]:
    """The config of a checkpoint without what it says of quantization."""
    config = json.loads((folder / "config.json").read_bytes())
    return {key: value for key, value in config.items() if key not in QUANTIZATION}


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json; some hold Infinity, as Mamba's time steps: no JSON, but all its readers take it."""
    write_atomic(folder / "config.json", (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())


def bits_of(array: mx.array) -> Array:
    """A numpy array with the same bytes; numpy has no bfloat16, so that comes as uint16."""
    array = mx.contiguous(array)
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)
