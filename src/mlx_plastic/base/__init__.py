"""The immutable base: find it, name it by its bytes, load it, ask it. Nothing here can write to it.

The names below are imported when they are first asked for: who only reads headers needs no MLX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_plastic.base.checkpoint import NANO, fingerprint, read_header, resolve, shards
    from mlx_plastic.base.config import BaseConfig
    from mlx_plastic.base.model import Base, load_base
    from mlx_plastic.base.roles import role_of, targets

__all__ = [
    "NANO",
    "Base",
    "BaseConfig",
    "fingerprint",
    "load_base",
    "read_header",
    "resolve",
    "role_of",
    "shards",
    "targets",
]

HOMES = {
    "BaseConfig": "config",
    **dict.fromkeys(("Base", "load_base"), "model"),
    **dict.fromkeys(("role_of", "targets"), "roles"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{HOMES.get(name, 'checkpoint')}")
    found = globals()[name] = getattr(module, name)
    return found
