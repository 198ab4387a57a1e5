"""Packs: small reversible deltas on one base. What needs MLX is imported when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlx_plastic.packs.format import (
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
from mlx_plastic.packs.store import BARE, Change, Entry, Status, Store

if TYPE_CHECKING:
    from mlx_plastic.packs.attach import Attached, Proof, attach, attached, detach, proof
    from mlx_plastic.packs.train import Progress, TrainConfig, Trained, TrainReport, train

_LATE = {
    "attach": ("Attached", "Proof", "attach", "attached", "detach", "proof"),
    "train": ("Progress", "TrainConfig", "TrainReport", "Trained", "train"),
}

__all__ = [
    "BARE",
    "Attached",
    "Change",
    "DataCard",
    "Entry",
    "Factors",
    "Manifest",
    "Pack",
    "Progress",
    "Proof",
    "RunCard",
    "Sizes",
    "Status",
    "Store",
    "TrainConfig",
    "TrainReport",
    "Trained",
    "attach",
    "attached",
    "check_lite",
    "detach",
    "make_manifest",
    "proof",
    "read_manifest",
    "read_pack",
    "train",
    "write_pack",
]


def __getattr__(name: str) -> Any:
    for module, names in _LATE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
