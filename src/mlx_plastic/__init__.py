"""mlx-plastic: a base that never changes, and learning that lives in small reversible packs.

The names below are the ones to build on (docs/python.md); they are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_plastic.base import Base, load_base
    from mlx_plastic.errors import PlasticError
    from mlx_plastic.home import Home, find_home
    from mlx_plastic.memory import Memory
    from mlx_plastic.packs import Pack, Store, read_pack
    from mlx_plastic.packs.wear.attach import attached
    from mlx_plastic.samples import Message
    from mlx_plastic.serve import Engine

__version__ = "0.1.0"

HOMES = {
    "base": ("Base", "load_base"),
    "errors": ("PlasticError",),
    "home": ("Home", "find_home"),
    "memory": ("Memory",),
    "packs": ("Pack", "Store", "read_pack"),
    "packs.wear.attach": ("attached",),
    "samples": ("Message",),
    "serve": ("Engine",),
}

__all__ = [
    "Base",
    "Engine",
    "Home",
    "Memory",
    "Message",
    "Pack",
    "PlasticError",
    "Store",
    "attached",
    "find_home",
    "load_base",
    "read_pack",
]


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
