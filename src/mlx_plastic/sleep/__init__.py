"""Days into weights: lessons from what was said, the night that learns them, the verdict."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_plastic.sleep.night import Night, Settings, Stop, read_settings, sleep

__all__ = ["Night", "Settings", "Stop", "read_settings", "sleep"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # late: a night needs MLX, its prompts do not
        return getattr(importlib.import_module("mlx_plastic.sleep.night"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
