"""How large a pack's file will be, told from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_plastic.packs.format import Storage
from mlx_plastic.packs.tensors import KINDS

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
