"""How large a pack's file will be, told from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import safetensors.numpy

from mlx_plastic.lowrank.quantized import stored_width
from mlx_plastic.packs.format.pack import GROUP_SIZE, Storage, stored_bytes
from mlx_plastic.packs.format.tensors import BITS, KINDS

Shapes = Mapping[str, tuple[int, ...]]  # of the weights by module path: (out, in), of experts (E, out, in)

DTYPES = {"F16": np.float16, "F32": np.float32, "I8": np.int8, "U8": np.uint8}
HEADER_BYTES = 24  # of a safetensors file without any tensor: its length, braces and padding
OFFSET_DIGITS = 10  # room for files up to 10 GB


def entry_bytes(path: str, shape: Sequence[int], storage: Storage, *, digits: int = OFFSET_DIGITS) -> int:
    """At most how long the entries of one module are in the header of a pack's tensors.

    shape: of its weight, (out, in) or (E, out, in). digits: of the largest offset in the file.
    """
    sides = ",".join("9" * max(len(str(n)) for n in shape) for _ in shape)
    offset = "9" * digits
    entry = f'"{path}.lora.":{{"dtype":"F16","shape":[{sides}],"data_offsets":[{offset},{offset}]}},'
    return sum(len(entry) + len(part) for part in KINDS[storage])


def file_bytes_bound(ranks: Mapping[str, int], shapes: Shapes, storage: Storage = "float16") -> int:
    """At most how many bytes pack.safetensors of these ranks has, header and all."""
    total = HEADER_BYTES
    for path, rank in ranks.items():
        *experts, out, width = shapes[path]
        total += stored_bytes(out, width, rank, storage, math.prod(experts))
        total += entry_bytes(path, shapes[path], storage)
    return total


def file_bytes(
    ranks: Mapping[str, int], shapes: Shapes, storage: Storage = "float16", group_size: int = GROUP_SIZE
) -> int:
    """How many bytes pack.safetensors of these ranks has, exactly: that of a file of zeros."""
    tensors = {}
    for path, rank in ranks.items():
        for part, shape in _part_shapes(shapes[path], rank, storage, group_size).items():
            tensors[f"{path}.lora.{part}"] = np.zeros(shape, DTYPES[KINDS[storage][part]])
    return len(safetensors.numpy.save(tensors))


def _part_shapes(
    weight: Sequence[int], rank: int, storage: Storage, group_size: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's tensors in the file."""
    *stack, out, width = weight
    if storage == "float16":
        return {"A": (*stack, rank, width), "B": (*stack, out, rank), "alpha": ()}
    found: dict[str, tuple[int, ...]] = {"alpha": ()}
    for part, side in (("A", width), ("B", out)):
        found[part] = (*stack, rank, stored_width(side, BITS[storage]))
        found[f"{part}.scales"] = (*stack, rank, -(-side // group_size))
    return found
