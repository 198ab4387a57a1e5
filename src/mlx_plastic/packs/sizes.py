"""How large a pack's file will be, told from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlx_plastic.packs.format import Storage, stored_bytes
from mlx_plastic.packs.tensors import KINDS

Shapes = Mapping[str, tuple[int, ...]]  # of the weights by module path: (out, in), of experts (E, out, in)

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
