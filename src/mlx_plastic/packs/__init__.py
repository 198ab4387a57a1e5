"""Packs: small reversible deltas on one base.

What only reads and writes files is here. What needs MLX is taken from its module, so that a list of packs
does not load it: `packs.wear.attach` (attach, attached) and `packs.train.train` (train, TrainConfig).
"""

from mlx_plastic.packs.format.pack import (
    DataCard,
    Factors,
    Manifest,
    Pack,
    RunCard,
    Sizes,
    check_lite,
    make_manifest,
    read_manifest,
    read_pack,
    write_pack,
)
from mlx_plastic.packs.store.store import BARE, Change, Entry, Status, Store

__all__ = [
    "BARE",
    "Change",
    "DataCard",
    "Entry",
    "Factors",
    "Manifest",
    "Pack",
    "RunCard",
    "Sizes",
    "Status",
    "Store",
    "check_lite",
    "make_manifest",
    "read_manifest",
    "read_pack",
    "write_pack",
]
